"""Sampling by the probability-flow ODE: noise in, a sample out, and no noise on the way.

Song et al. 2021 (arXiv:2011.13456), appendix D.4, with the posterior's score in place of the prior's. The
flow is that of samplers/flow.py, the integrator that of samplers/dopri.py: every sample takes steps of its
own, so it is the same whatever is drawn beside it, and one that has arrived calls the network no more. A walk
starts and ends as PC's does, with E[x_0 | x_t, y] at the last noise level.

PC's predictors Heun and DPM-Solver++ of kind ode follow the same flow in a fixed number of steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch

from invsolve.errors import InputError, Refused
from invsolve.posterior import Posterior
from invsolve.samplers.flow import Flow, Tolerance
from invsolve.samplers.walk import Step, Walker, at_least_1, noise_of

__all__ = ["ProbabilityFlow"]

_BEYOND = 5.0  # start at this many standard deviations of the data, lest modes get wrong weights


@dataclass(frozen=True)
class ProbabilityFlow(Walker):
    """Follow the probability-flow ODE, with steps that each sample chooses (Song et al. 2021; Dormand and
    Prince 1980). Needs what the guidance needs, six times a step: about 60 calls of the prior a sample.

    sampler(posterior, n, seed, first=0) -> samples first .. first + n - 1. A step's error, root mean square
    over the pixels, is at most rtol times the standard deviation of data and noise, plus atol.
    """

    rtol: Annotated[float, "error a step may make, relative to the size of data and noise"] = 1e-3
    atol: Annotated[float, "error a step may make beside that, in pixel units"] = 1e-4
    steps: Annotated[int, "steps from noise to sample at least; how many more, the tolerances decide"] = 8
    tries: Annotated[int, "steps tried for a sample at most: beyond them the run stops with an error"] = 1000
    batch: Annotated[int | None, "samples computed at once; by default what keeps memory flat"] = None
    antithetic: Annotated[
        bool, "samples 2k and 2k + 1 start from opposite noise; in invsolve run unless --no-antithetic"
    ] = False

    def __post_init__(self) -> None:
        """Refuse tolerances and counts that make no walk."""
        _ = self.tolerance
        if self.steps < 1 or self.tries < self.steps:
            raise InputError(
                f"steps must be at least 1 and tries no less, but they are {self.steps} and {self.tries}."
            )
        at_least_1(batch=self.batch)

    @property
    def tolerance(self) -> Tolerance:
        """rtol and atol."""
        return Tolerance(self.rtol, self.atol)

    @torch.no_grad()
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield x_t / alpha after each step tried, each row at a noise level of its own; the last are the
        samples. A step's time is that of the row furthest behind, its share the mean of the rows' way in
        log(lambda)."""
        if posterior.likelihood is not None and posterior.guidance.projects:
            raise Refused(
                f"{type(posterior.guidance).__name__} replaces part of x_t at each step, so what it follows "
                "is no ODE: take sampler pc."
            )
        flow, (high, low) = Flow(posterior), posterior.span(_BEYOND)
        noise, way = noise_of(posterior, n, seed, first, antithetic=self.antithetic), math.log(high / low)
        z = flow.code(posterior.prior.centre + high * noise("start"), high)
        solver = replace(self.tolerance.solver, longest=way / self.steps, tries=self.tries)
        states = flow.walk(z, high, low, self.tolerance, solver)
        for i, (levels, reached) in enumerate(states, start=1):
            z, t = reached, float(posterior.sde.time(levels.max()))
            yield Step(i, t, flow.signal(z, levels), 1 - float((levels / low).log().mean()) / way)
        yield Step(i + 1, 0.0, flow.mean(z, low), 1.0)
