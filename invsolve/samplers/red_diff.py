"""RED-diff: regularisation by denoising at every noise level. A point estimate, not draws of the posterior.

Mardani et al. 2023 (arXiv:2305.04391), algorithm 1. The posterior is replaced by a point mu that minimises

    -log p(y | mu)  +  sum over levels of  w < eps(x_t) - eps, mu >,    x_t = alpha mu + sigma eps,

where eps(x_t) = (x_t - alpha D) / sigma is the noise that the denoiser D sees, held fixed in the gradient:

    g = -grad log p(y | mu) + w (mu - E[x_0 | x_t]) / lambda,    lambda = sigma / alpha.

The levels are gone through once, from high to low, with a step of Adam (Kingma and Ba 2015) at each. With w =
1 / lambda the second term is the gradient of -log p smoothed by noise of that level (Tweedie's formula), so
mu follows the peak of the smoothed posterior down to the peak of the posterior itself: no weight is left to
tune. The paper's rule is w = weight lambda / sigma_y^2, in its own units of a likelihood with sigma_y = 1; it
fades at the end, where the measurement is fitted, noise and all.

Two changes in the arithmetic: eps and -eps are taken together, whose noise cancels in g where D is linear;
and Adam's steps are rate lambda / (1 + lambda), shorter with lambda, on whose scale the density changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.posterior import Posterior
from invsolve.samplers.annealed import Annealed, alone, finite, power
from invsolve.samplers.conditional import gradient
from invsolve.samplers.walk import Step, noise_of, noised

__all__ = ["REDDiff"]

_BETAS = (0.9, 0.9)  # of Adam; 0.99 remembers the gradients of levels long left


@dataclass(frozen=True)
class REDDiff(Annealed):
    """Find a point, the posterior's peak: n samples are n restarts, and their spread means nothing (RED-diff,
    Mardani et al. 2023). Needs A^T, or A made of torch operations: 2 steps + 1 calls, no derivative of the
    prior.

    Any likelihood with a gradient.
    """

    steps: Annotated[int, "steps of Adam, each at its own noise level, >= 1"] = 400
    grid: Annotated[str, "spacing of the levels: karras, geometric or uniform"] = "karras"
    rate: Annotated[float, "length of a step of Adam at high noise, in pixel units"] = 0.1
    weight: Annotated[float | None, "weight of the paper's rule, 0.25 there; by default Bayes's own"] = None
    batch: Annotated[int | None, "samples computed at once; by default what keeps memory flat"] = None
    point_estimate = True

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        self._check()
        if not self.rate > 0 or (self.weight is not None and not self.weight > 0):
            raise InputError(f"rate and weight must be > 0, but they are {self.rate} and {self.weight}.")

    def notes(self) -> list[str]:
        """Say what the samples are."""
        return ["red-diff gives a point estimate: the samples are restarts, their spread is no uncertainty"]

    @torch.no_grad()
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield mu after each step; the last are the points."""
        times, noise, sde = self.times(posterior), noise_of(posterior, n, seed, first), posterior.sde
        x = noised(sde, posterior.prior.centre, times[0], noise("start"))
        mu = alone(posterior).at(x, times[0]).mean
        m = v = torch.zeros_like(mu)
        for i, t in enumerate(times[1:], 1):
            level = float(sde.ratio(t))
            g = finite(self._gradient(posterior, mu, t, noise(i)), f"step {i}: the gradient", level)
            m = _BETAS[0] * m + (1 - _BETAS[0]) * g
            v = _BETAS[1] * v + (1 - _BETAS[1]) * g**2
            down = m / (1 - _BETAS[0] ** i) / ((v / (1 - _BETAS[1] ** i)).sqrt() + 1e-8)
            mu = mu - self.rate * level / (1 + level) * down
            yield Step(i, float(t), mu)

    def _gradient(self, posterior: Posterior, mu: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """g in units of the noise that D sees, times 1 / w: of order one at every level."""
        sde, prior, likelihood = posterior.sde, alone(posterior), posterior.likelihood
        level, alpha, sigma = float(sde.ratio(t)), float(sde.alpha(t)), float(sde.sigma(t))
        mean = (prior.at(alpha * mu + sigma * eps, t).mean + prior.at(alpha * mu - sigma * eps, t).mean) / 2
        g = (mu - mean) / level
        gamma = power(posterior, level)
        if likelihood is None or gamma == 0:
            return g
        scale = level if self.weight is None else likelihood.finest**2 / (self.weight * level)
        return g - gamma * scale * gradient(likelihood, mu)
