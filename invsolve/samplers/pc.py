"""Predictor-corrector sampling (Song et al. 2021, arXiv:2011.13456, algorithm 1).

From noise, walk a grid of times down: a predictor step to the next time, then a corrector at that time. The
walk ends at lambda <= min(0.002, sigma_y / 10) and takes the mean E[x_0 | x_t, y] there: the posterior's, not
the prior's. It starts where the SDE ends, or higher where data that are known spread further than that noise.

With antithetic noise (Hammersley and Morton 1956) samples 2k and 2k + 1 see z and -z. Each is the same draw
of the posterior as ever, but the errors of a pair nearly cancel in its mean, because a walk is nearly linear
in its noise: on photographs the mean of eight has a twentieth of the variance that eight independent draws
leave it. Ranks and covariances, which need independent draws, converge as with n/2 of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused, UnknownName
from invsolve.posterior import Posterior
from invsolve.samplers.correctors import Corrector, NoCorrector
from invsolve.samplers.predictors import DPMpp, Memory, NoPredictor, Predictor
from invsolve.samplers.walk import Step, Walker, at_least_1, located, noise_of, noised
from invsolve.sde import GRIDS, grid_times

__all__ = ["PC", "Step"]

_BEYOND = 5.0  # start at this many standard deviations of the data: a flow then lacks 2 % of the widest


@dataclass(frozen=True)
class PC(Walker):
    """Walk the noise levels down by predictor and corrector (Song et al. 2021). Needs what the guidance
    needs, once a step and at the end: by dpmpp, steps + 1 calls of the prior a sample.

    sampler(posterior, n, seed, first=0) -> samples first .. first + n - 1.
    """

    predictor: Predictor = field(default_factory=DPMpp)
    corrector: Corrector | None = None
    steps: Annotated[int, "predictor steps, >= 1"] = 40
    grid: Annotated[str, "spacing of the times: geometric, karras or uniform"] = "geometric"
    batch: Annotated[int | None, "samples computed at once; by default what keeps memory flat"] = None
    antithetic: Annotated[
        bool, "samples 2k and 2k + 1 walk with opposite noise; in invsolve run unless --no-antithetic"
    ] = False

    def __post_init__(self) -> None:
        """Refuse a walk without steps."""
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(f"steps must be a whole number, at least 1, but it is {self.steps}.")
        if self.grid not in GRIDS:
            raise UnknownName("grid", self.grid, GRIDS)
        if not isinstance(self.predictor, Predictor):
            raise InputError(f"predictor is {self.predictor!r}; it must be a Predictor, such as DPMpp().")
        if isinstance(self.predictor, NoPredictor) and isinstance(self.corrector, NoCorrector | None):
            raise Refused(
                "neither a predictor nor a corrector: nothing would move the noise towards the data."
            )
        at_least_1(batch=self.batch)

    def times(self, posterior: Posterior) -> Tensor:
        """Times of the walk, steps + 1 of them, float64, falling."""
        wrong = self.predictor.refuses_uniform and not posterior.sde.uniform_is_geometric
        if self.grid == "uniform" and wrong:
            raise Refused(
                f"{type(self.predictor).__name__} on a grid uniform in t is up to 60 % too wide with "
                f"{type(posterior.sde).__name__}: take grid geometric."
            )
        return grid_times(self.grid, posterior.sde, *posterior.span(_BEYOND), self.steps)

    @torch.no_grad()
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield each state from noise to sample; progress, traces and films live outside."""
        times, corrector = self.times(posterior), self.corrector or NoCorrector()
        noise = noise_of(posterior, n, seed, first, antithetic=self.antithetic)
        x = noised(posterior.sde, posterior.prior.centre, times[0], noise("start"))
        x = posterior.project(x, times[0], noise.child("start"))
        yield Step(0, float(times[0]), x)
        memory: Memory | None = None
        for i in range(self.steps):
            t, s, own = times[i], times[i + 1], noise.child(i)
            with located(f"step {i + 1} of {self.steps}"):
                x, memory = self.predictor.step(posterior, x, t, s, own.child("predictor"), memory)
                x = posterior.project(x, s, own)
                x = corrector.correct(posterior, x, s, own.child("corrector"))
            yield Step(i + 1, float(s), x)
        yield Step(self.steps + 1, 0.0, posterior.mean(x, times[-1]))
