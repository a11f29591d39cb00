"""Replace: the known part of x_t is the measurement itself, noised to the level reached."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from invsolve.errors import Refused
from invsolve.guidance import Guidance, Level, linear_of
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import dot
from invsolve.prior import Denoised
from invsolve.rng import Noise

__all__ = ["Replace"]


@dataclass(frozen=True)
class Replace(Guidance):
    """Replace the known part of x_t by the measurement, noised to the level reached (Song et al. 2021). Needs
    A^T and orthogonal rows of one length; no derivative of the prior.

    Song et al. 2021 (arXiv:2011.13456), appendix I.2 and I.3, with the published code's faults mended: the
    known part is noised at the start too, and at the level the update has reached; the noise y already
    carries is counted, and replacing ends where alpha sigma_y > sigma; the last mean carries no noise. It
    needs orthogonal rows, A A^T A = c A (masking, box averages, grey), and knows nothing of how the unknown
    part depends on the known: the posterior is not right, and the distance is in the tables.
    """

    needs_graph = False
    projects = True

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return zero: this method acts by projection alone."""
        return torch.zeros_like(at.x)

    def project(self, at_level: Level, x: Tensor, likelihood: Likelihood, noise: Noise) -> Tensor:
        """Return x + A^T (y_t - A x) / c with y_t = alpha y + noise of the variance still missing."""
        linear = linear_of(likelihood, "Replace")
        c = _row_norm(linear, tuple(x.shape[1:]))
        own = at_level.alpha**2 * linear.noise_variance(linear.y[None]).to(
            x
        )  # noise that alpha y has already
        missing = at_level.sigma**2 * c - own
        if float(missing.min()) < 0:
            return x
        z = linear.A(noise("replace"))  # A z has covariance A A^T: c I on the measured entries, 0 elsewhere
        y_t = at_level.alpha * linear.y.to(x) + (missing / c).sqrt() * z
        return x + linear.At(y_t - linear.A(x), x) / c


@lru_cache(maxsize=4)
def _row_norm(linear: LinearLikelihood, shape: tuple[int, ...]) -> float:
    """The c of A A^T A = c A, by a random probe; Refused where there is no such c."""
    probe = linear.A(Noise(0, "probe", 1, shape)().to(linear.y))
    again = linear.A(linear.At(probe, torch.empty(1, *shape)))
    c = float(dot(again, probe) / dot(probe, probe))
    if float((again - c * probe).norm() / again.norm()) > 1e-3:
        raise Refused(
            "Replace needs an operator with orthogonal rows of one length (masking, box averages, grey); "
            "this one mixes pixels. Take guidance moment-matching."
        )
    return c
