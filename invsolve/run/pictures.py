"""The pictures of a run's samples: each for itself, all on one sheet, their mean and their spread."""

import math
from pathlib import Path

import torch
from torch import Tensor

from invsolve.files import writable
from invsolve.images import save_png
from invsolve.result import Result

__all__ = ["are_images", "save_moments", "save_samples", "save_sheet", "sheet"]


def are_images(samples: Tensor) -> bool:
    """Whether samples (n, *event) are pictures, grey or in colour."""
    return samples.ndim == 4 and samples.shape[1] in (1, 3)


def save_samples(directory: Path, samples: Tensor) -> None:
    """Write samples/000.png and so on."""
    writable(directory / "samples")
    for k, sample in enumerate(samples):
        save_png(directory / "samples" / f"{k:03d}.png", sample)


def save_moments(directory: Path, result: Result) -> None:
    """Write mean.png and std.png; one sample has no std."""
    save_png(directory / "mean.png", result.mean)
    if len(result.samples) > 1:
        save_png(directory / "std.png", result.std)


def save_sheet(directory: Path, samples: Tensor) -> None:
    """Write sheet.png."""
    save_png(directory / "sheet.png", sheet(samples))


def sheet(samples: Tensor) -> Tensor:
    """All samples (n, C, H, W) as one picture, row by row, in a grid about square."""
    n, channels, height, width = samples.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    grid = torch.ones(rows * columns, channels, height, width)
    grid[:n] = samples
    return (
        grid.reshape(rows, columns, channels, height, width)
        .permute(2, 0, 3, 1, 4)
        .reshape(channels, rows * height, columns * width)
    )
