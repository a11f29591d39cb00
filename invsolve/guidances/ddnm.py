"""DDNM and DDNM+: the range of A from the measurement, its null space from the prior."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.guidance import Guidance, linear_of
from invsolve.guidances.spectral import ROUNDING, Spectral, has_spectrum, spectral
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import robust_cg
from invsolve.prior import Denoised

__all__ = ["DDNM", "DDNMPlus"]


@dataclass(frozen=True)
class DDNM(Guidance):
    """Take the range of A from the measurement and its null space from the prior (DDNM, Wang et al. 2022).
    Needs the pseudo-inverse: by SVD, else 50 steps of conjugate gradients with A^T; no derivative of the
    prior.

    D' = A^+ y + (1 - A^+ A) D, so A D' = y and every sample fits y, noise included: it is a method for
    measurements without noise, where it is exact for a prior whose null space does not depend on its range,
    such as covariance v I. What noise there is comes out divided by the singular values; where that would be
    more than an image's whole range the operator is refused. Wang et al. 2022 (arXiv:2212.00490), equation 13
    and algorithm 1, whose transition is predictor ancestral; their time travel is left out.
    """

    needs_graph = False

    cutoff: Annotated[float, "share of the largest singular value below which nothing is measured"] = 1e-3

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        if not ROUNDING <= self.cutoff < 1:
            raise InputError(f"cutoff must be in [{ROUNDING:g}, 1), but it is {self.cutoff}.")

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of the shift A^+ (y - A D) of the mean."""
        linear = linear_of(likelihood, "DDNM")
        if not has_spectrum(linear):
            return at.shift_to_score(_least_squares(linear, linear.residual(at.mean), at.mean))
        found = Spectral(linear)
        values = found.values(at.mean).abs()
        floor = self.cutoff * float(values.max())
        self._refuse_noise(linear, float(values[values > floor].min()), max(1.0, at.prior.extent))
        return at.shift_to_score(
            found.shift(at.mean, at.level, lambda s, _: torch.where(s.abs() > floor, 1 / s, 0.0))
        )

    def _refuse_noise(self, linear: LinearLikelihood, least: float, extent: float) -> None:
        worst = linear.finest / least
        if worst > extent:
            raise Refused(
                f"DDNM inverts the operator, and singular values down to {least:.2g} turn noise of "
                f"{linear.finest:.2g} into {worst:.2g}. Take guidance ddnm-plus or diffpir, or a cutoff that "
                "leaves such components to the prior."
            )


def _least_squares(linear: LinearLikelihood, r: Tensor, like: Tensor) -> Tensor:
    """Smallest least-squares solution of A x = r, row by row; few steps leave small singular values out."""

    def normal(x: Tensor) -> tuple[Tensor, Tensor]:
        return linear.At(linear.A(x), like), x

    return robust_cg(normal, linear.At(r, like), steps=50, tolerance=1e-4)


@dataclass(frozen=True)
class DDNMPlus(Guidance):
    """Take over as much of each singular component as its noise allows (DDNM+, Wang et al. 2022). Needs the
    SVD and one sigma_y: one A, one U^T and one V a call, no derivative of the prior.

    Component i of the misfit is taken with weight min(1, lambda s_i / sigma_y), whole while the noise of y in
    it, sigma_y / s_i, is below that of x_t; with sigma_y = 0 it is DDNM. Wang et al. 2022 (arXiv:2212.00490),
    section 3.3, equations 17 to 19. Their transition also draws less noise along measured components, to make
    room for that of y; here each predictor draws its own, and the level is the one x_t has, not the next.
    The weight falls like lambda where Bayes' falls like lambda^2, so samples follow the noise of y.
    """

    needs_graph = False

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of the shift V min(1, lambda s / sigma_y) / s U^T (y - A D)."""
        found = spectral(likelihood, "DDNMPlus")
        sigma_y = found.sigma_y("DDNMPlus")

        def gain(s: Tensor, level: Tensor) -> Tensor:
            return s.sign() * torch.minimum(1 / s.abs(), level / sigma_y)

        return at.shift_to_score(found.shift(at.mean, at.level, gain))
