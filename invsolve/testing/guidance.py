"""Does a guidance point the right way, row by row, whatever the SDE?

The problem is a Gaussian prior seen through a matrix, where grad log p(y | x_t) is known. Approximations need
not agree with it, but each has to point uphill: their inner product with the true term is positive.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from invsolve.exact import GaussianPrior
from invsolve.guidance import Exact
from invsolve.likelihood import Gaussian
from invsolve.linalg import dot
from invsolve.operators import matrix
from invsolve.posterior import Posterior
from invsolve.sde import SDE, VE, VP
from invsolve.testing.common import Check, apart, demand, draw, same_each_time

__all__ = ["CHECKS", "GuidanceCase", "check_guidance", "guidance_case", "tiny_problem"]

_LEVELS = (0.1, 1.0, 10.0)  # sigma / alpha, around the prior's standard deviation of about 1
_ROUNDING = 1e-4  # of the norm: a few hundred roundings in float32


def tiny_problem() -> tuple[GaussianPrior, Gaussian]:
    """A Gaussian of 4 dimensions and non-zero mean, of which two orthogonal mixtures are measured.

    The operator offers all that a guidance may need: adjoint, pseudo-inverse, singular values.
    """
    mean = torch.tensor([1.0, -0.5, 0.3, 2.0])
    half = torch.eye(4) + 0.3 * draw((4,), 4, "half")
    rows = torch.tensor([[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 0.8, -0.6]])
    operator = matrix(rows)
    y = operator.A(mean[None]) + 0.5 * draw((2,), 1, "y")
    return GaussianPrior(mean, half @ half.T), Gaussian(y, operator, 0.3)


@dataclass(frozen=True)
class GuidanceCase:
    """A guidance on the tiny problem, under VE and VP."""

    guidance: Any  # Any: whether it is a guidance is the question
    sdes: tuple[SDE, ...] = field(default_factory=lambda: (VE(), VP()))

    def problems(self) -> list[tuple[Posterior, Tensor, Tensor]]:
        """Posterior, x_t (16, 4) drawn from the noised prior, and t, for each SDE and noise level."""
        prior, likelihood = tiny_problem()
        found = []
        for sde in self.sdes:
            posterior = Posterior(prior, likelihood, sde=sde, guidance=self.guidance)
            for level in _LEVELS:
                t = sde.time(level)
                noise = float(sde.sigma(t)) * draw((4,), 16, f"z{level}")
                found.append((posterior, float(sde.alpha(t)) * prior.sample(16, 0) + noise, t))
        return found

    def term(self, posterior: Posterior, x: Tensor, t: Tensor) -> Tensor:
        """The guidance's term of the score at x_t."""
        at = posterior.at(x, t)
        with torch.no_grad():
            got: Tensor = self.guidance(at, posterior.likelihood)
        return got


def gives_a_term_of_the_score(case: GuidanceCase) -> str:
    """Check that the term has the shape and dtype of x_t and is finite at every noise level."""
    for posterior, x, t in case.problems():
        got = case.term(posterior, x, t)
        demand(got.shape == x.shape, f"the guidance gives shape {tuple(got.shape)} for x_t {tuple(x.shape)}.")
        demand(got.dtype == x.dtype, f"the guidance turns {x.dtype} into {got.dtype}.")
        level = float(posterior.sde.ratio(t))
        demand(torch.isfinite(got).all(), f"the guidance is NaN or infinite at noise level {level:.3g}.")
    return f"finite at noise levels {_LEVELS}"


def points_towards_the_measurement(case: GuidanceCase) -> str:
    """Check that its inner product with the exact term is positive, unless it works by projection alone."""
    if getattr(case.guidance, "projects", False):
        return "not measured: it projects"
    least = 1.0
    for posterior, x, t in case.problems():
        got, true = case.term(posterior, x, t), GuidanceCase(Exact()).term(posterior, x, t)
        cosine = float(dot(got, true).sum() / (dot(got, got).sum() * dot(true, true).sum()).sqrt())
        where = f"{type(posterior.sde).__name__} at noise level {float(posterior.sde.ratio(t)):.3g}"
        demand(
            cosine > 0,
            f"the guidance points away from the measurement: cosine {cosine:.3g} to grad log p, {where}.",
        )
        least = min(least, cosine)
    return f"cosine to the exact term at least {least:.2f}"


def keeps_rows_apart(case: GuidanceCase) -> str:
    """Check that a row's term does not depend on the rows beside it."""
    worst = 0.0
    for posterior, x, t in case.problems():
        together = case.term(posterior, x, t)
        worst = max(worst, apart(case.term(posterior, x[:1], t), together[:1]))
        demand(
            worst <= _ROUNDING,
            f"the guidance mixes rows: a row changes by {worst:.3g} of its norm beside others.",
        )
    return f"change {worst:.1e}"


def is_pure(case: GuidanceCase) -> str:
    """Check that the guidance changes nothing and repeats itself."""
    posterior, x, t = case.problems()[1]
    return same_each_time("the guidance", lambda given: case.term(posterior, given, t), x)


CHECKS: tuple[Check[GuidanceCase], ...] = (
    gives_a_term_of_the_score,
    points_towards_the_measurement,
    keeps_rows_apart,
    is_pure,
)


def guidance_case(guidance: Any) -> GuidanceCase:  # noqa: ANN401 - see GuidanceCase
    """Make the case of a guidance, an object or its class."""
    return GuidanceCase(guidance() if isinstance(guidance, type) else guidance)


def check_guidance(guidance: Any) -> None:  # noqa: ANN401 - see GuidanceCase
    """Check a guidance, an object or its class."""
    case = guidance_case(guidance)
    for check in CHECKS:
        check(case)
