"""What every sampler shares that walks from noise to sample: its steps, its noise, its micro-batches.

A walk is a generator of steps, and progress, traces and films live outside it. Samples do not know of each
other, so many of them are walked in micro-batches, and memory stays flat in n.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import Divergence, InputError
from invsolve.posterior import Posterior
from invsolve.rng import Noise
from invsolve.sde import SDE

__all__ = ["Step", "Walker", "at_least_1", "located", "noise_of", "noised", "rows_at_once"]

_ROWS = 2**20  # numbers of x that a micro-batch holds


@dataclass(frozen=True)
class Step:
    """State after step i of the walk, at time t: x (n, *event). The last one is the sample itself, at t =
    0. share of the walk is done, 0 to 1, where that does not follow from i."""

    i: int
    t: float
    x: Tensor
    share: float | None = None


class Walker(ABC):
    """A sampler that walks each sample by itself: sampler(posterior, n, seed, first=0) -> (n, *event)."""

    batch: int | None

    @abstractmethod
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield each state of the walk; the last are the samples."""

    def __call__(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Tensor:
        """Draw samples first .. first + n - 1, (n, *event); each depends on seed and its index alone."""
        at_least_1(n=n)
        size, parts = self.batch or rows_at_once(posterior.shape), []
        for start in range(first, first + n, size):
            for step in self.walk(posterior, min(size, first + n - start), seed, start):
                last = step
            parts.append(last.x)
        return torch.cat(parts)


def rows_at_once(shape: tuple[int, ...]) -> int:
    """Rows of that shape in a micro-batch, which keeps memory flat."""
    return max(1, _ROWS // max(1, math.prod(shape)))


def noise_of(posterior: Posterior, n: int, seed: int, first: int = 0, *, antithetic: bool = False) -> Noise:
    """Noise of samples first .. first + n - 1; antithetic gives samples 2k and 2k + 1 opposite noise."""
    shape, dtype, device = posterior.shape, posterior.prior.dtype, posterior.prior.device
    return Noise(seed, posterior.content, n, shape, first, dtype, device, antithetic=antithetic)


def noised(sde: SDE, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """x_t = alpha x_0 + sigma z for all rows at one time t, ()."""
    return float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * z


@contextmanager
def located(where: str) -> Iterator[None]:
    """Say in a Divergence where on the walk it came."""
    try:
        yield
    except Divergence as error:
        raise Divergence(f"{where}: {error}") from None


def at_least_1(**counts: int | None) -> None:
    """Refuse a count below 1, naming it; None leaves it to the sampler."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, but it is {value}.")
