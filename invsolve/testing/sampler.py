"""Does a sampler draw from the posterior, sample by sample?

On a Gaussian problem the posterior is known, so mean and standard deviation are compared within Monte-Carlo
error, with a margin for the bias of a first-order method. And sample k is the same whatever is drawn beside
it: sampler(p, 4, s)[2:] equals sampler(p, 2, s, first=2).

A sampler that says point_estimate = True gives no draws: its points must have no spread to speak of, lest
they be taken for some.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invsolve.exact import exact_posterior
from invsolve.posterior import Posterior
from invsolve.testing.common import Check, apart, demand, same_each_time
from invsolve.testing.guidance import tiny_problem

__all__ = ["CHECKS", "SamplerCase", "check_sampler", "sampler_case"]

_N = 1000
_BIAS = 0.15  # of a posterior sd: first-order methods are off by 7 / steps, and 50 steps are usual
_ROUNDING = 1e-4  # of the norm: what a batch of another size may change in float32


@dataclass(frozen=True)
class SamplerCase:
    """A sampler on the tiny problem."""

    sampler: Callable[..., Any]  # Any: whether it is a sampler is the question

    @cached_property
    def posterior(self) -> Posterior:
        """The tiny problem under VE with the default guidance, which is exact there."""
        return Posterior(*tiny_problem())

    @cached_property
    def samples(self) -> Tensor:
        """A thousand samples."""
        drawn: Tensor = self.sampler(self.posterior, _N, 0)
        return drawn


def gives_n_samples(case: SamplerCase) -> str:
    """Check shape, dtype, and that no sample is NaN."""
    got = case.sampler(case.posterior, 3, 0)
    demand(
        tuple(got.shape) == (3, 4),
        f"3 samples of 4 numbers have shape {tuple(got.shape)}; it must be (3, 4).",
    )
    demand(got.dtype == torch.float32, f"the samples are {got.dtype}, but the prior's are torch.float32.")
    demand(not got.requires_grad, "the samples carry a graph: run under torch.no_grad().")
    demand(torch.isfinite(got).all(), "a sample is NaN or infinite.")
    return f"{tuple(got.shape)} {got.dtype}"


def draws_sample_k_whatever_n(case: SamplerCase) -> str:
    """Check sampler(p, 4, s)[2:] against sampler(p, 2, s, first=2)."""
    error = apart(case.sampler(case.posterior, 2, 7, first=2), case.sampler(case.posterior, 4, 7)[2:])
    demand(error <= _ROUNDING, f"samples 2 and 3 change by {error:.3g} of their norm with n and first.")
    return f"change {error:.1e}"


def depends_on_the_seed(case: SamplerCase) -> str:
    """Check that another seed, and another index, draw another sample."""
    a, b = case.sampler(case.posterior, 2, 0), case.sampler(case.posterior, 2, 1)
    demand(not torch.equal(a, b), "seeds 0 and 1 draw the same samples.")
    demand(not torch.equal(a[0], a[1]), "samples 0 and 1 of one seed are the same.")
    return f"seeds are {apart(a, b):.2f} of the norm apart"


def is_pure(case: SamplerCase) -> str:
    """Check that sampling leaves global state alone and repeats itself."""
    return same_each_time("the sampler", lambda: case.sampler(case.posterior, 2, 3))


def has_the_mean_of_the_posterior(case: SamplerCase) -> str:
    """Check the mean of 1,000 samples, in posterior standard deviations."""
    true = _truth(case)
    error = float(((case.samples.mean(0) - true.mean) / true.covariance.diagonal().sqrt()).abs().max())
    allowed = 5 / math.sqrt(_N) + _BIAS
    demand(error <= allowed, f"the mean is {error:.3g} posterior sd from the truth, allowed {allowed:.2g}.")
    return f"{error:.3f} sd off, allowed {allowed:.2g}"


def has_the_spread_of_the_posterior(case: SamplerCase) -> str:
    """Check the standard deviation of 1,000 samples, relative to the truth."""
    ratio = case.samples.std(0) / _truth(case).covariance.diagonal().sqrt()
    if getattr(case.sampler, "point_estimate", False):
        most = float(ratio.max())
        demand(most <= _BIAS, f"a point estimate, but its points are {most:.3g} posterior sd apart.")
        return f"a point estimate: {most:.3f} posterior sd apart"
    error = float((ratio - 1).abs().max())
    allowed = 5 / math.sqrt(2 * _N) + _BIAS
    demand(
        error <= allowed,
        f"the standard deviation is {error:.3g} of the truth away from it, allowed {allowed:.2g}.",
    )
    return f"{error:.3f} off, allowed {allowed:.2g}"


def _truth(case: SamplerCase) -> Any:  # noqa: ANN401 - a Gaussian or a mixture, both with mean and covariance
    return exact_posterior(*tiny_problem())


CHECKS: tuple[Check[SamplerCase], ...] = (
    gives_n_samples,
    draws_sample_k_whatever_n,
    depends_on_the_seed,
    is_pure,
    has_the_mean_of_the_posterior,
    has_the_spread_of_the_posterior,
)


def sampler_case(sampler: Any) -> SamplerCase:  # noqa: ANN401 - see SamplerCase
    """Make the case of a sampler, an object or its class."""
    return SamplerCase(sampler() if isinstance(sampler, type) else sampler)


def check_sampler(sampler: Any) -> None:  # noqa: ANN401 - see SamplerCase
    """Check a sampler, an object or its class."""
    case = sampler_case(sampler)
    for check in CHECKS:
        check(case)
