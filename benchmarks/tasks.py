"""The restorations that photos.py measures: how each image is degraded, and the usual answer without a prior.

    task       measurement                             baseline
    inpaint    70 % of the pixels missing at random    linear interpolation on Delaunay triangles
    superres   averages of 4 x 4 blocks                cubic splines through the noisy averages
    deblur     circular gaussian blur, std 2 pixels    Wiener's filter with a Laplacian, the best of five
                                                       balances by PSNR against the truth

The baselines are the stronger of what was tried: on ten crops of 256 pixels with sigma_y = 0.02,
scikit-image's splines are 0.07 dB above Pillow's bicubic, and its Wiener filter 0.18 dB above one with a
constant balance; the choice by the truth favours it further. A baseline is a function of the measurement
(C, h, w), the operator and the truth (C, H, W), which only the Wiener filter looks at beyond its shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import (  # type: ignore[import-untyped]  # scipy ships no types
    LinearNDInterpolator,
    NearestNDInterpolator,
)
from skimage.restoration import wiener
from skimage.transform import resize
from torch import Tensor

from invsolve import metrics, operators
from invsolve.errors import InputError
from invsolve.likelihood import measured_entries
from invsolve.rng import Noise
from invsolve.training.data import open_image

__all__ = [
    "TASKS",
    "Posed",
    "Task",
    "best_wiener",
    "centre_crop",
    "linear_interpolation",
    "measure",
    "pose",
    "spline",
]

Pixels = NDArray[np.float64]
BALANCES = tuple(np.geomspace(0.003, 0.3, 5))


def linear_interpolation(y: Pixels, operator: Any, truth: Pixels) -> Pixels:  # noqa: ANN401  a deepinv physics
    """Interpolate the noisy known pixels on their Delaunay triangles; nearest outside of them."""
    known = operator.mask[0, 0].bool().cpu().numpy()
    places, values = np.argwhere(known), y[:, known].T
    grid = np.indices(known.shape).reshape(2, -1).T
    inside = LinearNDInterpolator(places, values)(grid)
    filled = np.where(np.isnan(inside), NearestNDInterpolator(places, values)(grid), inside)
    return np.asarray(filled.T.reshape(truth.shape))


def spline(y: Pixels, operator: Any, truth: Pixels) -> Pixels:  # noqa: ANN401  a deepinv physics
    """Enlarge by cubic splines."""
    size = truth.shape[1:]
    rules = {"order": 3, "mode": "edge", "clip": False, "anti_aliasing": False}
    return np.stack([resize(c, size, **rules) for c in y])  # type: ignore[no-untyped-call]  # theirs


def best_wiener(y: Pixels, operator: Any, truth: Pixels) -> Pixels:  # noqa: ANN401  a deepinv physics
    """Filter with scikit-image's Wiener filter; of five balances the one nearest to the truth."""
    point = torch.zeros(1, *truth.shape)
    point[..., truth.shape[1] // 2, truth.shape[2] // 2] = 1
    psf = operator.A(point.to(operator.filter.device))[0, 0].cpu().double().numpy()
    tries = [np.stack([_wiener(c, psf, balance) for c in y]) for balance in BALANCES]
    return max(tries, key=lambda image: metrics.psnr(image, truth))


def _wiener(channel: Pixels, psf: Pixels, balance: float) -> Pixels:
    return np.asarray(wiener(channel, psf, balance, clip=False))  # type: ignore[no-untyped-call]  # theirs


@dataclass(frozen=True)
class Task:
    """An operator for images of a shape and the seed of an image, its baseline, and the gain asked for."""

    operator: Callable[[tuple[int, int, int], int], Any]  # Any: a deepinv physics
    baseline: Callable[[Pixels, Any, Pixels], Pixels]
    gain: float


TASKS = {
    "inpaint": Task(
        lambda s, seed: operators.inpaint(s, keep=0.3, mask_seed=seed), linear_interpolation, 1.5
    ),
    "superres": Task(lambda s, _: operators.superres(s, factor=4, filter="box"), spline, 0.5),
    "deblur": Task(
        lambda s, _: operators.deblur(s, kernel="gaussian", std=2.0, border="circular"), best_wiener, 1.0
    ),
}


def centre_crop(file: Path, size: int) -> Tensor:
    """Middle of an image, (3, size, size) in [0, 1]."""
    pixels = np.asarray(open_image(file, 3))
    if min(pixels.shape[:2]) < size:
        raise InputError(f"{file} is {pixels.shape[0]} x {pixels.shape[1]} pixels, too small for {size}.")
    top, left = ((length - size) // 2 for length in pixels.shape[:2])
    return torch.from_numpy(pixels[top : top + size, left : left + size].copy()).movedim(2, 0).float() / 255


def measure(operator: Any, truth: Tensor, sigma_y: float, seed: int) -> Tensor:  # noqa: ANN401  a deepinv physics
    """Return A x + sigma_y n, the noise on the measured entries alone: (*m)."""
    clean: Tensor = operator.A(truth[None])[0]
    noise = Noise(seed, "measurement", 1, tuple(clean.shape), device=clean.device)()[0]
    return clean + sigma_y * noise * measured_entries(operator, tuple(truth.shape), clean)


@dataclass(frozen=True)
class Posed:
    """A photo (C, H, W) in [0, 1], how it was measured, and what the baseline makes of that, (C, H, W)."""

    truth: Tensor
    operator: Any  # a deepinv physics
    y: Tensor
    baseline: Pixels


def pose(name: str, file: Path, size: int, sigma_y: float, seed: int, device: str = "cpu") -> Posed:
    """Degrade the middle of a photo by the task of a name."""
    task, truth = TASKS[name], centre_crop(file, size)
    operator = task.operator((3, size, size), seed).to(device)
    y = measure(operator, truth.to(device), sigma_y, seed)
    baseline = task.baseline(y.cpu().double().numpy(), operator, truth.double().numpy())
    return Posed(truth, operator, y, baseline)
