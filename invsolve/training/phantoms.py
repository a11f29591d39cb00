"""Phantoms drawn on the fly: random slices of a body, for tomography without a data set.

A phantom is a sum of ellipses in the manner of Shepp and Logan (1974): often a skull, a bright rim around a
grey inside, then 5 to 20 ellipses of any size, from blobs to thin vessels, each lighter or darker than what
lies below it. An ellipse with semi-axes a, b and centre m contributes

    v clip(d / w + 1/2, 0, 1)      d = (1 - |R (p - m) / (a, b)|) min(a, b): about the distance to its edge

with an edge w of one pixel (which smooths the raster) or softer. Half of them carry a smooth Gaussian field
of amplitude f^-p, p from 1 to 2.5 (tissue is not constant), and some images are such a field alone, so that a
prior learned here does not take the whole world for piecewise constant. Each image is a window of a larger
phantom at a random scale: any size will do.

Values lie in [0, 1], background 0. A batch is a function of (seed, step, rank) alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invsolve.errors import InputError
from invsolve.training.config import TrainingConfig

__all__ = ["Phantoms", "phantom"]

Floats = NDArray[np.float64]
HELD_OUT = (2**31, 16)  # seed that no training uses, and how many images are drawn from it


@dataclass(frozen=True)
class Phantoms:
    """An endless source of phantoms."""

    side: int

    @classmethod
    def of(cls, folders: Sequence[Path], config: TrainingConfig) -> "Phantoms":
        """Refuse data, which would go unused, and colours."""
        if folders:
            raise InputError(f'data = "phantoms" draws its images: leave out --data {folders[0]}.')
        if config.architecture.in_channels != 1:
            raise InputError(f"phantoms are grey, but in_channels is {config.architecture.in_channels}.")
        return cls(config.crop)

    def batch(self, config: TrainingConfig, step: int, rng: np.random.Generator) -> Tensor:
        """Draw one batch; every `wide_every`-th holds a quarter as many of twice the side."""
        wide = step % config.wide_every == config.wide_every - 1
        side, count = (2 * config.crop, max(config.batch // 4, 1)) if wide else (config.crop, config.batch)
        return batch(count, side, rng)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """A fixed set from a seed of its own."""
        seed, count = HELD_OUT
        return batch(count, self.side, np.random.default_rng(seed)), torch.full((count,), -1)


def batch(count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Draw phantoms (count, 1, side, side) in [-1, 1]."""
    return torch.from_numpy(np.stack([phantom(side, rng) for _ in range(count)])).float()[:, None] * 2 - 1


def phantom(side: int, rng: np.random.Generator) -> Floats:
    """Draw one image (side, side) in [0, 1]."""
    if rng.random() < 0.12:
        field = smooth_field(side, rng)
        return np.clip(rng.uniform(0.2, 0.8) + rng.uniform(0.05, 0.3) * field, 0, 1)
    x, y, pixel = window(side, rng)
    body = np.zeros((side, side))
    if rng.random() < 0.7:
        body += skull(x, y, pixel, rng)
    body += organs(x, y, pixel, rng)
    if rng.random() < 0.5:
        body += (body > 0.02) * rng.uniform(0, 0.12) * smooth_field(side, rng)
    return np.clip(body, 0, 1)


def window(side: int, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Coordinates x, y of a window on the square [-1, 1]^2 at a random zoom, and the width of a pixel."""
    pixel = 2 / (side * np.exp(rng.uniform(0, np.log(4))))
    corner = rng.uniform(-1, 1 - side * pixel, 2) if side * pixel < 2 else (-1.0, -1.0)
    steps = (np.arange(side) + 0.5) * pixel
    x, y = np.meshgrid(corner[0] + steps, corner[1] + steps)
    return x, y, pixel


def ellipses(x: Floats, y: Floats, shapes: Floats, edge: Floats) -> Floats:
    """Share of each pixel inside each ellipse, (n, H, W); shapes (n, 5): centre, semi-axes, angle."""
    mx, my, a, b, angle = (shapes[:, i, None, None] for i in range(5))
    u = (np.cos(angle) * (x - mx) + np.sin(angle) * (y - my)) / a
    v = (np.cos(angle) * (y - my) - np.sin(angle) * (x - mx)) / b
    distance = (1 - np.hypot(u, v)) * np.minimum(a, b)
    share: Floats = np.clip(distance / edge[:, None, None] + 0.5, 0, 1)
    return share


def skull(x: Floats, y: Floats, pixel: float, rng: np.random.Generator) -> Floats:
    """A bright rim around a grey inside."""
    a, b = rng.uniform(0.65, 0.95, 2)
    centre, angle, rim = rng.uniform(-0.05, 0.05, 2), rng.uniform(0, np.pi), rng.uniform(0.02, 0.09)
    shapes = np.array([[*centre, a, b, angle], [*centre, a - rim, b - rim, angle]])
    outer, inner = ellipses(x, y, shapes, np.full(2, pixel))
    bone, tissue = rng.uniform(0.5, 1.0), rng.uniform(0.1, 0.5)
    mixed: Floats = bone * outer + (tissue - bone) * inner
    return mixed


def organs(x: Floats, y: Floats, pixel: float, rng: np.random.Generator) -> Floats:
    """5 to 20 ellipses, some thin, some with soft edges."""
    n = int(rng.integers(5, 21))
    radius, phi = 0.75 * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    a = np.exp(rng.uniform(np.log(0.03), np.log(0.45), n))
    b = np.maximum(a * np.exp(-rng.exponential(0.5, n)), pixel)
    shapes = np.stack([radius * np.cos(phi), radius * np.sin(phi), a, b, rng.uniform(0, np.pi, n)], 1)
    soft = rng.random(n) < 0.3
    edge = np.where(soft, pixel + rng.uniform(0, 1, n) * np.minimum(a, b), pixel)
    contrast = rng.normal(0.05, 0.2, n)
    total: Floats = np.tensordot(contrast, ellipses(x, y, shapes, edge), 1)
    return total


def smooth_field(side: int, rng: np.random.Generator) -> Floats:
    """A Gaussian field (side, side) of mean 0 and variance 1 whose amplitude falls as f^-p."""
    power = rng.uniform(1.0, 2.5)
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * f**-power, s=(side, side))
    unit: Floats = field / field.std()
    return unit
