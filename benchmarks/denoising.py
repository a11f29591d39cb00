"""Denoising by a prior beside NL-means that knows sigma, on the centre crops of an image folder.

    python benchmarks/denoising.py FOLDER [--prior photo] [--count 40] [--seed 0] [--grey]
    python benchmarks/denoising.py --prior ellipses

Without a folder the images are phantoms, drawn from seeds that no training uses.

One row a noise level, in the [-1, 1] scale of the network (halve it for images in [0, 1]): mean PSNR in dB
of the noisy crop, the prior and NL-means, each clipped to the image range, and the mean gain of the prior
with its 95 % interval over images.
"""

import argparse
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from skimage.restoration import denoise_nl_means

from invsolve.priors.catalogue import load_prior
from invsolve.training.data import image_files, open_image
from invsolve.training.phantoms import phantom

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIDE = 256


def centre_crops(folder: Path, count: int, seed: int) -> list[torch.Tensor]:
    """Centre crops (1, 3, 256, 256) in [0, 1] of count files drawn by the seed."""
    files = image_files([folder])
    chosen = np.random.default_rng(seed).permutation(len(files))[:count]
    crops = []
    for index in sorted(chosen):
        pixels = np.asarray(open_image(files[index], 3))
        top, left = ((length - SIDE) // 2 for length in pixels.shape[:2])
        crop = np.array(pixels[top : top + SIDE, left : left + SIDE])
        crops.append(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)
    return crops


def phantoms(count: int, seed: int) -> list[torch.Tensor]:
    """Phantoms (1, 1, 256, 256) in [0, 1], of a seed that no training step has."""
    rng = np.random.default_rng([seed, 2**31 + 1])
    return [torch.from_numpy(phantom(SIDE, rng))[None, None].float() for _ in range(count)]


def psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    """PSNR in dB of the clipped image, both in [0, 1]."""
    return -10 * float((image.clamp(0, 1) - truth).square().mean().log10())


def nl_means(noisy: torch.Tensor, s: float) -> torch.Tensor:
    """NL-means of scikit-image with known sigma s in [0, 1] units."""
    pixels = noisy[0].permute(1, 2, 0).numpy()
    answer = denoise_nl_means(
        pixels, sigma=s, h=0.8 * s, patch_size=5, patch_distance=6, fast_mode=True, channel_axis=-1
    )
    # scikit-image drops a single channel
    return torch.from_numpy(answer.reshape(pixels.shape)).permute(2, 0, 1)[None].float()


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval."""
    return float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of pictures; left out for phantoms")
    parser.add_argument("--prior", default="photo", help="name or file")
    parser.add_argument("--count", type=int, default=40, help="images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grey", action="store_true", help="the mean over colours, and the grey prior")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior(options.prior)
    training = f"{prior.metadata['images']} training crops"
    crops = (
        centre_crops(options.folder, options.count, options.seed)
        if options.folder
        else phantoms(options.count, options.seed)
    )
    if options.grey:
        prior, crops = prior.grey(), [crop.mean(1, keepdim=True) for crop in crops]
    print(f"prior {prior.name}, {training}, sha256 {prior.sha256[:12]}")
    source = f"crops of {options.folder.name}" if options.folder else "phantoms"
    print(f"{len(crops)} {source}, seed {options.seed}, commit {commit()}")
    print("| sigma | noisy | prior | NL-means | gain of the prior, 95 % |\n|---|---|---|---|---|")
    started = time.monotonic()
    for sigma in SIGMAS:
        print(row(prior, crops, sigma, options.seed), flush=True)
    print(f"{time.monotonic() - started:.0f} s")


def row(prior: torch.nn.Module, crops: list[torch.Tensor], sigma: float, seed: int) -> str:
    """One line of the table."""
    s, scores = sigma / 2, []
    rng = torch.Generator().manual_seed(seed)
    for truth in crops:
        noisy = truth + s * torch.randn(truth.shape, generator=rng)
        with torch.no_grad():
            answer = prior.denoise(noisy, torch.tensor([s], dtype=torch.float64))
        scores.append([psnr(image, truth) for image in (noisy, answer, nl_means(noisy, s))])
    noisy_mean, ours, theirs = np.mean(scores, axis=0)
    gain, half = interval([a - b for _, a, b in scores])
    return f"| {sigma:g} | {noisy_mean:.2f} | {ours:.2f} | {theirs:.2f} | {gain:+.2f} ± {half:.2f} |"


def commit() -> str:
    """Commit of the checkout, for the record."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "unknown"


if __name__ == "__main__":
    main()
