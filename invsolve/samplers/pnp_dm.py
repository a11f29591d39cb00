"""Split Gibbs sampling: the likelihood and the prior take turns, tied by a spring of length rho.

Wu et al. 2024 (arXiv:2405.18782), algorithm 1 (PnP-DM). The posterior is widened to a pair,

    p(x, z | y)  ~  p(y | z) p(x) exp(-|x - z|^2 / 2 rho^2),

whose two conditionals can be drawn, whatever the prior:

    likelihood step   z | x, y  ~  N(x, rho^2 I) p(y | z)                samplers/conditional.py
    prior step        x | z     ~  p(x_0 | x_0 + rho n = z)              reverse diffusion from level rho

At fixed rho the law of x is p(x) int p(y | z) N(z; x, rho^2 I) dz: for y = A x + e the posterior with rho^2 A
A^T added to the variance of the noise. So rho ends below the noise, and the chain is annealed down to it,
because it moves by about rho at a step. The prior step needs draws of x_0 | x_t and no derivative of the
network; a deterministic predictor does not give them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.posterior import Posterior
from invsolve.rng import Noise
from invsolve.samplers.annealed import Annealed, alone, draws_from, finite, power, reverse
from invsolve.samplers.conditional import Inner, draw_given_y
from invsolve.samplers.predictors import DPMpp, Predictor
from invsolve.samplers.walk import Step, at_least_1, located, noise_of
from invsolve.sde import grid_times

__all__ = ["PnPDM"]


@dataclass(frozen=True)
class PnPDM(Annealed):
    """Draw given y near x, then given the prior near that, and tie the two closer (split Gibbs, PnP-DM; Wu et
    al. 2024). Needs A^T, or A made of torch operations: steps (prior_steps + 1) calls a sample, no derivative
    of the prior.

    Any likelihood with a gradient; exact draws where its operator is linear.
    """

    predictor: Predictor = field(default_factory=DPMpp)
    steps: Annotated[int, "pairs of a likelihood and a prior step, >= 1"] = 100
    prior_steps: Annotated[int, "predictor steps of each prior step"] = 8
    rho: Annotated[float, "length of the spring at the end, as a share of the noise sigma_y"] = 0.3
    grid: Annotated[str, "spacing of rho: karras, geometric or uniform"] = "karras"
    inner: Annotated[
        Literal["auto", "exact", "langevin"], "draws given y; auto is exact where the operator is linear"
    ] = "auto"
    inner_steps: Annotated[int, "Langevin steps of each likelihood step"] = 100
    inner_step: Annotated[float, "length of a Langevin step, as a share of the stable one, in (0, 1)"] = 0.1
    batch: Annotated[int | None, "samples computed at once; by default what keeps memory flat"] = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        self._check()
        at_least_1(prior_steps=self.prior_steps)
        if not self.rho > 0:
            raise InputError(f"rho must be > 0, but it is {self.rho}.")
        Inner(self.inner, self.inner_steps, self.inner_step)  # checks its own settings

    def times(self, posterior: Posterior) -> Tensor:
        """Times whose noise levels are the rho of the steps, falling."""
        super().times(posterior)
        draws_from(self.predictor, posterior, "pnp-dm")
        high, low = posterior.span()
        finest = 10 * low if posterior.likelihood is None else posterior.likelihood.finest
        end = self.rho * min(finest, high)
        if not low < end < high:
            raise Refused(
                f"rho ends at {end:.3g}, {self.rho:g} of the noise; it must lie between the run's levels "
                f"{low:.3g} and {high:.3g}: change rho."
            )
        return grid_times(self.grid, posterior.sde, high, end, max(1, self.steps - 1))[-self.steps :]

    @torch.no_grad()
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield x after each prior step; the last are the samples."""
        times, noise = self.times(posterior), noise_of(posterior, n, seed, first)
        x = posterior.prior.centre.expand(n, *posterior.shape).to(posterior.prior.dtype)
        for i, t in enumerate(times):
            own = noise.child(i)
            with located(f"step {i + 1} of {self.steps}"):
                x = self._pair(posterior, x, t, own)
            yield Step(i + 1, float(t), x)

    def _pair(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """One likelihood step and one prior step at rho = lambda(t)."""
        sde, rho = posterior.sde, float(posterior.sde.ratio(t))
        inner, gamma = Inner(self.inner, self.inner_steps, self.inner_step), power(posterior, rho)
        r2 = torch.full((len(x),), rho**2, dtype=x.dtype, device=x.device)
        z = x + rho * noise("spring")
        z = draw_given_y(posterior.likelihood, x, z, r2, gamma, inner, noise.child("likelihood"))
        times = grid_times("karras", sde, rho, posterior.span()[1], self.prior_steps)
        x_t = float(sde.alpha(t)) * finite(z, "the likelihood step", rho)
        return reverse(alone(posterior), x_t, times, self.predictor, noise.child("prior"))
