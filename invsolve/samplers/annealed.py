"""What the samplers share that walk estimates of x_0 down the noise levels, where PC walks x_t.

They take the likelihood itself, at clean images, so no guidance is used: one that replaces pixels is refused.
A posterior's gamma is kept all the same, as the power of the likelihood, p(x_0) p(y | x_0)^gamma.
"""

import torch
from torch import Tensor

from invsolve.errors import Divergence, Refused, UnknownName
from invsolve.gamma import gamma_at
from invsolve.posterior import Posterior
from invsolve.rng import Noise
from invsolve.samplers.predictors import Memory, Predictor
from invsolve.samplers.walk import Walker, at_least_1
from invsolve.sde import GRIDS, grid_times

__all__ = ["Annealed", "alone", "draws_from", "finite", "power", "reverse"]


class Annealed(Walker):
    """A sampler whose steps are estimates of x_0, at noise levels that fall."""

    steps: int
    grid: str
    uses_guidance = False
    point_estimate = False  # whether samples are restarts of one estimate, with no spread of a posterior

    def times(self, posterior: Posterior) -> Tensor:
        """Times of the walk, steps + 1 of them, float64, falling; Refused where the problem does not suit."""
        if posterior.likelihood is not None and posterior.guidance.projects:
            raise Refused(
                f"{type(posterior.guidance).__name__} replaces part of x_t, but {type(self).__name__} "
                "takes the likelihood itself and uses no guidance: leave the guidance at its default."
            )
        return grid_times(self.grid, posterior.sde, *posterior.span(), self.steps)

    def notes(self) -> list[str]:
        """Sentences that a run should print beside its figures."""
        return []

    def _check(self) -> None:
        at_least_1(steps=self.steps, batch=self.batch)
        if self.grid not in GRIDS:
            raise UnknownName("grid", self.grid, GRIDS)


def alone(posterior: Posterior) -> Posterior:
    """The prior of a posterior, without the likelihood; its calls are counted with the posterior's."""
    prior = Posterior(posterior.prior, sde=posterior.sde, shape=posterior.shape)
    prior.calls = posterior.calls
    return prior


def power(posterior: Posterior, level: float) -> float:
    """Power gamma of the likelihood at a noise level; 0 without a likelihood."""
    if posterior.likelihood is None:
        return 0.0
    return float(gamma_at(posterior.schedule, torch.tensor(level, dtype=torch.float64)))


def finite(x: Tensor, what: str, level: float) -> Tensor:
    """Return x; Divergence names what became NaN or infinite, and the noise level."""
    if not x.isfinite().all():
        raise Divergence(f"{what} became NaN or infinite at noise level {level:.4g}.")
    return x


def reverse(prior: Posterior, x: Tensor, times: Tensor, predictor: Predictor, noise: Noise) -> Tensor:
    """Walk x at times[0] down to E[x_0 | x] at times[-1]: a draw of x_0 | x if the predictor adds noise.

    prior has no likelihood. One network call a step and one at the end.
    """
    memory: Memory | None = None
    for i in range(len(times) - 1):
        x, memory = predictor.step(prior, x, times[i], times[i + 1], noise.child(i), memory)
    return prior.mean(x, times[-1])


def draws_from(predictor: Predictor, posterior: Posterior, sampler: str) -> None:
    """Refuse a predictor that is deterministic given x_t, from which nothing can be drawn."""
    t, x = posterior.sde.time(1.0), torch.zeros(1, *posterior.shape)
    try:
        predictor.kernel(posterior.sde, x, t, posterior.sde.time(0.5), x)
    except Refused:
        raise Refused(
            f"{sampler} draws x_0 given x_t, and {predictor!r} adds no noise on the way: "
            "take predictor dpmpp, ancestral, reverse-diffusion or euler-maruyama."
        ) from None
