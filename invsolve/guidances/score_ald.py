"""Score-ALD: the residual of x_t itself, annealed with the noise level."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from torch import Tensor

from invsolve.errors import InputError
from invsolve.guidance import Guidance, linear_of
from invsolve.guidances.spectral import Spectral, has_spectrum
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import expand
from invsolve.prior import Denoised
from invsolve.rng import Noise
from invsolve.twist import diagonal

__all__ = ["ScoreALD"]


@dataclass(frozen=True)
class ScoreALD(Guidance):
    """Follow the residual of x_t itself, tempered with the noise level (score-ALD, Jalal et al. 2021). Needs
    A^T alone: one A and one A^T a call, no derivative of the prior.

    The term is A^T (y - A x) / (V + gamma_t^2) / alpha with x = x_t / alpha and gamma_t = spread |A| lambda,
    the gradient of log N(y; A x, V + gamma_t^2 I). Exact at spread 1 for a flat prior and rows that are
    orthogonal and of one length. Under any other prior the residual of x_t, unlike that of E[x_0 | x_t], is
    mostly noise at high levels: the mean stays behind, and the walk is stiff, so that with fewer than 20
    steps samples can grow without bound. Jalal et al. 2021 (arXiv:2108.01368), section 3, have |A| = 1 and
    tune gamma_t; their code scales the term to the norm of the score instead. The published sampler is
    predictor none with corrector annealed-langevin.
    """

    needs_graph = False

    spread: Annotated[float, "gamma_t over |A| lambda: the larger, the later y is trusted"] = 1.0

    def __post_init__(self) -> None:
        """Refuse a spread that is not positive."""
        if not self.spread > 0:
            raise InputError(f"spread must be > 0, but it is {self.spread}.")

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return A^T (y - A x) / (V + gamma_t^2) / alpha."""
        linear = linear_of(likelihood, "ScoreALD")
        off, variance = self._misfit(at, likelihood)
        return linear.At(off / variance, at.x) / expand(at.alpha, at.x)

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log N(y; A x, V + gamma_t^2 I)."""
        linear = linear_of(likelihood, "ScoreALD")
        return diagonal(linear, tuple(at.x.shape[1:]), *self._misfit(at, likelihood))

    def _misfit(self, at: Denoised, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
        """y - A x and its variance entry by entry."""
        linear = linear_of(likelihood, "ScoreALD")
        predicted = linear.A(at.x / expand(at.alpha, at.x))
        norm = _norm(linear, tuple(at.x.shape[1:]))
        annealed = expand((self.spread * norm * at.level) ** 2, predicted)
        return linear.y.to(predicted) - predicted, linear.noise_variance(predicted) + annealed


@lru_cache(maxsize=4)
def _norm(linear: LinearLikelihood, shape: tuple[int, ...]) -> float:
    """Largest singular value |A|, by SVD or 30 steps of power iteration from a fixed start."""
    if has_spectrum(linear):
        return float(Spectral(linear).values(linear.y).abs().max())
    x = Noise(0, "norm", 1, shape)().to(linear.y)
    for _ in range(30):
        x = linear.At(linear.A(x / x.norm()), x)
    return float(x.norm().sqrt())
