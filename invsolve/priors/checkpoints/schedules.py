"""Noise levels of networks that were trained at T discrete steps, and the step of any level.

    abar_i = prod_{j <= i} (1 - beta_j)        sigma_i = sqrt(1/abar_i - 1)       i = 0 .. T-1

    linear       beta from 1e-4 to 0.02 in T = 1000 steps              Ho et al. 2020 (arXiv:2006.11239)
    cosine       abar(t) = cos^2(pi/2 (t + 0.008)/1.008), beta at most 0.999
                                                              Nichol and Dhariwal 2021 (arXiv:2102.09672)

Between two levels the step is interpolated, linear in ln(sigma): the sinusoidal embedding takes any real
number. Outside the trained levels it stays at the first or last step.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BETAS", "Steps", "cosine_betas", "levels_of", "linear_betas"]


def linear_betas(first: float = 1e-4, last: float = 0.02, steps: int = 1000) -> Tensor:
    """Betas that rise linearly, float64 (T,)."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def cosine_betas(steps: int = 1000, limit: float = 0.999) -> Tensor:
    """Betas of the squared-cosine schedule, float64 (T,)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    abar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - abar[1:] / abar[:-1]).clamp(max=limit)


BETAS: dict[str, Callable[[], Tensor]] = {"linear": linear_betas, "cosine": cosine_betas}


def levels_of(betas: Tensor) -> Tensor:
    """sigma_i of the betas, rising, float64 (T,)."""
    log_abar = torch.log1p(-betas).cumsum(0)
    return torch.expm1(-log_abar).sqrt()


class Steps:
    """The step, a real number, that belongs to a noise level sigma = nu / s."""

    def __init__(self, levels: Tensor) -> None:
        """Keep ln(sigma_i) of rising, finite levels (T,)."""
        self.levels = levels.double()
        self.logs = self.levels.log()

    def __call__(self, sigma: Tensor) -> Tensor:
        """Interpolate the index in ln(sigma): (B,) to float64 (B,)."""
        logs = self.logs.to(sigma.device)
        wanted = sigma.double().clamp_min(1e-12).log().clamp(logs[0], logs[-1])
        upper = torch.searchsorted(logs, wanted).clamp(1, len(logs) - 1)
        low, high = logs[upper - 1], logs[upper]
        return upper - 1 + (wanted - low) / (high - low)
