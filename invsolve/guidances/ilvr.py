"""ILVR: what A sees of x_t, replaced by what it saw of the truth."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.guidance import Guidance, Level
from invsolve.guidances.spectral import ROUNDING, spectral
from invsolve.likelihood import Likelihood
from invsolve.prior import Denoised
from invsolve.rng import Noise

__all__ = ["ILVR"]


@dataclass(frozen=True)
class ILVR(Guidance):
    """Replace what A sees of x_t by the measurement, noised to the level reached (ILVR, Choi et al. 2021).
    Needs the SVD and one sigma_y: two U^T or V^T and one V a step, no derivative of the prior.

    x' = x + A^+ (y_t - A x): the published step with phi = A^+ A for its low-pass filter (bicubic superres
    and blur are such filters). It is Replace for rows of any length, and agrees with it where Replace works.
    The paper knows no measurement noise; here y_t gets only the noise that alpha y does not have already, and
    a component is left alone once that of y is the larger, alpha sigma_y / s_i > sigma. Choi et al. 2021
    (arXiv:2108.02938), algorithm 1. The unknown part does not learn of the known but through the network, so
    the posterior is right for no prior but white ones.
    """

    needs_graph = False
    projects = True

    until: Annotated[float, "noise level lambda at which replacing ends, in pixel units"] = 0.0

    def __post_init__(self) -> None:
        """Refuse a level below zero."""
        if not self.until >= 0:
            raise InputError(f"until must be >= 0, but it is {self.until}.")

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return zero: this method acts by projection alone."""
        spectral(likelihood, "ILVR")
        return torch.zeros_like(at.x)

    def project(self, at_level: Level, x: Tensor, likelihood: Likelihood, noise: Noise) -> Tensor:
        """Return x with its measured components drawn anew around alpha y."""
        found = spectral(likelihood, "ILVR")
        alpha, sigma = at_level.alpha, at_level.sigma
        inside = found.measurement(found.linear.y.to(x)[None])
        s = found.values(inside)
        missing = (sigma * s) ** 2 - (alpha * found.sigma_y("ILVR")) ** 2
        seen = (s.abs() > ROUNDING * s.abs().max()) & (missing >= 0)
        if sigma / alpha < self.until or not seen.any():
            return x
        y_t = alpha * inside + missing.clamp_min(0).sqrt() * found.event(noise("replace"))
        wanted = torch.where(seen, y_t / torch.where(seen, s, 1.0) - found.event(x), 0.0)
        return x + found.back(wanted, x)
