"""Second moments of photographs, as invsolve/priors/stationary.py uses them.

python benchmarks/spectrum.py FOLDER [FOLDER ...]

Prints the covariance of the colours and the power spectrum by frequency, with frequency^2.5 times the power
beside it: constant where the spectrum falls as f^-2.5. Crops of 256 pixels, three from each of 80 pictures,
seeded.
"""

import random
import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from invsolve.images import load_image

SIDE, EDGES = 256, (0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5)


def crops(folders: list[Path]) -> Tensor:
    """Seeded crops (240, 3, 256, 256); names that begin with a capital are graphics in CID22 and left out."""
    files = sorted(f for folder in folders for f in folder.glob("*.jpg") if not f.name[0].isupper())
    rng, found = random.Random(0), []
    for file in rng.sample(files, min(80, len(files))):
        image = torch.as_tensor(load_image(file).pixels)
        for _ in range(3):
            i, j = (rng.randrange(size - SIDE + 1) for size in image.shape[1:])
            found.append(image[:, i : i + SIDE, j : j + SIDE])
    return torch.stack(found).double()


def main() -> None:
    """Measure and print."""
    x = crops([Path(word) for word in sys.argv[1:]])
    x = x - x.mean((0, 2, 3), keepdim=True)
    colours = torch.einsum("bchw,bdhw->cd", x, x) / x[:, 0].numel()
    white = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(torch.linalg.cholesky(colours)), x)
    window = torch.hann_window(SIDE, periodic=False, dtype=torch.float64)
    window = window[:, None] * window[None]
    spectrum = torch.fft.fft2(white * window / window.square().mean().sqrt()).abs().square() / SIDE**2
    frequency = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    radius = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt()
    print(f"covariance of the colours\n{colours}")
    for low, high in pairwise(EDGES):
        ring = (radius >= low) & (radius < high)
        power, at = float(spectrum.mean((0, 1))[ring].mean()), float(radius[ring].mean())
        print(f"f {at:.4f}  P {power:.4f}  P f^2.5 {power * at**2.5:.5f}")


if __name__ == "__main__":
    main()
