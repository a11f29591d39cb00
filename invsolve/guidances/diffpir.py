"""DiffPIR: the proximal point of the measurement in place of the mean."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from invsolve.errors import InputError
from invsolve.guidance import Guidance, linear_of
from invsolve.likelihood import Likelihood
from invsolve.prior import Denoised
from invsolve.twist import white

__all__ = ["DiffPIR"]


@dataclass(frozen=True)
class DiffPIR(Guidance):
    """Move the mean to its proximal point, as if x_0 | x_t were N(D, lambda^2 / weight I) (DiffPIR, Zhu et
    al. 2023). Needs A^T (solved by SVD where there is one): one solve a call, no derivative of the prior.

    The proximal point argmin |y - A x|^2 / (2 V) + weight |x - D|^2 / (2 lambda^2) is the mean of that
    Gaussian given y, so rho_t of the paper is V weight / lambda^2 and the shift is PiGDM's with r^2 =
    lambda^2 / weight, not passed through the Jacobian. Exact for a flat prior at weight 1; for a prior of
    covariance v I it would take weight 1 + lambda^2 / v. Zhu et al. 2023 (arXiv:2305.08995), algorithm 1; the
    published sampler is predictor renoise, whose share is zeta of the paper.
    """

    needs_graph = False

    weight: Annotated[
        float, "weight of the mean against the measurement: lambda of the paper, 1 to 10 there"
    ] = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that is not positive."""
        if not self.weight > 0:
            raise InputError(f"weight must be > 0, but it is {self.weight}.")

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of the shift P(D, lambda^2 / weight) - D of the mean."""
        linear = linear_of(likelihood, "DiffPIR")
        return at.shift_to_score(linear.condition(at.mean, self._r2(at)) - at.mean)

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log N(y; A D, r^2 A A^T + V)."""
        return white(linear_of(likelihood, "DiffPIR"), at.mean, self._r2(at))

    def _r2(self, at: Denoised) -> Tensor:
        return at.level**2 / self.weight
