"""Join the pictures of a run into one strip: measurement, mean, one sample, standard deviation times 5.

python benchmarks/picture.py astronaut-inpaint examples/inpaint.png
"""

import sys
from pathlib import Path

import numpy as np

from invsolve.images import load_image, save_png


def strip(folder: Path) -> np.ndarray:
    """Pictures side by side with 8 white pixels between, (3, H, W) in [0, 1]."""
    names = ("measurement.png", "mean.png", "samples/000.png", "std.png")
    pictures = [load_image(folder / name).pixels for name in names]
    pictures[3] = np.clip(5 * pictures[3], 0, 1)
    gap = np.ones((3, pictures[0].shape[1], 8), dtype=np.float32)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=2)


if __name__ == "__main__":
    save_png(Path(sys.argv[2]), strip(Path(sys.argv[1])))
