"""Is it a log density of the measurement, one number a sample, with a gradient in x_0?

The classic fault: y of one image is broadcast over n samples and the sum runs over the batch, so that every
sample feels every other.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import CheckFailed
from invsolve.testing.common import Check, apart, demand, draw, same_each_time

__all__ = ["CHECKS", "Identity", "LikelihoodCase", "check_likelihood", "likelihood_case"]

_SHAPE = (1, 6, 5)
_NUMBERS = {"sigma_y": 0.1, "gain": 30.0}  # what a likelihood of images in [0, 1] may ask for besides y
_ROUNDING = 1e-4  # of the largest: float32 sums over a few thousand terms


@dataclass(frozen=True)
class Identity:
    """The operator that changes nothing: y = x."""

    shape: tuple[int, ...] = _SHAPE

    def A(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Return y."""
        return y

    def A_dagger(self, y: Tensor) -> Tensor:
        """Return y."""
        return y


@dataclass(frozen=True)
class LikelihoodCase:
    """A likelihood, the event shape of x_0, and an x_0 near what was measured where it is known."""

    likelihood: Any  # Any: whether it is a likelihood is the question
    shape: tuple[int, ...]

    @property
    def x0(self) -> Tensor:
        """Three images with values around 0.5, all positive."""
        return (0.5 + 0.1 * draw(self.shape, 3, "x0")).clamp_min(0.05)


def gives_one_number_a_sample(case: LikelihoodCase) -> str:
    """Check that log_prob of (B, *event) has shape (B,) and is finite."""
    got = case.likelihood.log_prob(case.x0)
    demand(got.shape == (3,), f"log_prob of 3 samples has shape {tuple(got.shape)}; it must be (3,).")
    demand(torch.isfinite(got).all(), f"log_prob is NaN or infinite: {got.tolist()}.")
    return f"(3,), about {float(got.mean()):.4g} nats"


def keeps_rows_apart(case: LikelihoodCase) -> str:
    """Check that a sample's log_prob does not depend on the others."""
    x0 = case.x0
    together = case.likelihood.log_prob(x0)
    alone = torch.cat([case.likelihood.log_prob(x0[i : i + 1]) for i in range(3)])
    error = apart(together, alone)
    demand(
        error <= _ROUNDING,
        f"log_prob mixes samples: together and alone they are {error:.3g} of the norm apart.",
    )
    return f"change {error:.1e}"


def has_a_gradient(case: LikelihoodCase) -> str:
    """Check that the gradient in x_0 is finite, not zero, and belongs to log_prob."""
    with torch.enable_grad():
        x0 = case.x0.requires_grad_(True)
        value = case.likelihood.log_prob(x0)
        demand(value.requires_grad, "log_prob has no gradient: it detaches x0, or runs without autograd.")
        (gradient,) = torch.autograd.grad(value.sum(), x0)
    demand(torch.isfinite(gradient).all(), "the gradient of log_prob is NaN or infinite.")
    size = float(gradient.norm())
    demand(size > 0, "the gradient of log_prob is zero: it does not depend on x0.")
    step = 1e-3 * gradient / size
    rise = float((case.likelihood.log_prob(case.x0 + step) - case.likelihood.log_prob(case.x0 - step)).sum())
    error = abs(rise / (2e-3 * size) - 1)
    demand(error <= 0.05, f"the gradient of log_prob is {error:.3g} of itself away from its difference.")
    return f"norm {size:.3g}, error {error:.1e}"


def is_pure(case: LikelihoodCase) -> str:
    """Check that log_prob changes nothing and repeats itself."""
    return same_each_time("log_prob", case.likelihood.log_prob, case.x0)


def says_what_was_measured(case: LikelihoodCase) -> str:
    """Check content, a text that tells measurements apart, and finest, the smallest noise level."""
    content, finest = getattr(case.likelihood, "content", None), getattr(case.likelihood, "finest", None)
    demand(
        isinstance(content, str), f"content must be a text that names the measurement, but it is {content!r}."
    )
    demand(
        isinstance(finest, float) and finest > 0,
        f"finest must be a noise level > 0 in pixel units, but it is {finest!r}.",
    )
    return f"finest {finest:.3g}"


CHECKS: tuple[Check[LikelihoodCase], ...] = (
    gives_one_number_a_sample,
    keeps_rows_apart,
    has_a_gradient,
    is_pure,
    says_what_was_measured,
)


def likelihood_case(
    likelihood: Any,  # noqa: ANN401 - see LikelihoodCase
    shape: tuple[int, ...] | None = None,
) -> LikelihoodCase:
    """Make the case: a built likelihood as it is, a factory with the operator y = x."""
    if hasattr(likelihood, "log_prob") and not isinstance(likelihood, type):
        own = shape or getattr(likelihood, "shape", None) or _SHAPE
        return LikelihoodCase(likelihood, tuple(side or 8 for side in own))
    if all(p.default is not p.empty for p in inspect.signature(likelihood).parameters.values()):
        return likelihood_case(likelihood(), shape)  # of x_0 alone, without measurement
    return LikelihoodCase(_built(likelihood), _SHAPE)


def _built(factory: Callable[..., Any]) -> Any:  # noqa: ANN401 - see LikelihoodCase
    y = (0.5 + 0.1 * draw(_SHAPE, 1, "y")).clamp_min(0.05)
    first, second, *rest = inspect.signature(factory).parameters.values()
    wanted = [p.name for p in rest if p.default is p.empty]
    unknown = sorted(set(wanted) - set(_NUMBERS))
    if unknown:
        raise CheckFailed(f"cannot build it: it needs {', '.join(unknown)}. Check one that you have built.")
    given = {first.name: y, second.name: Identity(), **{name: _NUMBERS[name] for name in wanted}}
    return factory(**given)


def check_likelihood(
    likelihood: Any,  # noqa: ANN401 - see LikelihoodCase
    shape: tuple[int, ...] | None = None,
) -> None:
    """Check a likelihood: its factory (y, operator, ...), or one built, for images of a shape."""
    case = likelihood_case(likelihood, shape)
    for check in CHECKS:
        check(case)
