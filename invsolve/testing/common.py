"""What the checks of every kind share: how one fails, what must stay untouched, how far numbers are apart.

A check is a function of a case: it returns a short sentence with what it measured, or raises CheckFailed with
a sentence of its own. It takes its random numbers from invsolve.rng, never from a global generator.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import CheckFailed, InvsolveError
from invsolve.isolation import reason
from invsolve.rng import Noise

__all__ = ["Check", "Outcome", "apart", "demand", "draw", "hold", "outcomes", "same_each_time", "untouched"]

Case = TypeVar("Case", contravariant=True)


class Check(Protocol[Case]):
    """A named check of a case."""

    __name__: str

    def __call__(self, case: Case, /) -> str:
        """Return what was measured, or raise CheckFailed."""


class Outcome(NamedTuple):
    """One line of a pass table."""

    check: str
    passed: bool
    said: str


def demand(condition: bool | Tensor, sentence: str) -> None:
    """Raise CheckFailed with the sentence unless the condition holds."""
    if not bool(condition):
        raise CheckFailed(sentence)


def hold(checks: Iterable[Check[Case]], case: Case) -> None:
    """Run the checks on a case; the first that fails raises."""
    for check in checks:
        check(case)


def outcomes(checks: Iterable[Check[Case]], case: Case) -> Iterator[Outcome]:
    """Run the checks on a case and report each, whatever it raises."""
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            yield Outcome(name, True, check(case))
        except InvsolveError as error:
            yield Outcome(name, False, str(error))
        except Exception as error:  # a part under test may raise anything: that is a failed check too
            yield Outcome(name, False, reason(error))


def draw(shape: tuple[int, ...], n: int, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers (n, *shape) that depend on the key alone."""
    return Noise(0, "invsolve.testing", n, shape, dtype=dtype)(key)


def apart(a: Tensor, b: Tensor) -> float:
    """Largest distance of two tensors relative to the norm of the second: |a - b| / |b|."""
    size = float(b.detach().norm())
    return float((a.detach() - b.detach()).norm()) / (size or 1.0)


@contextmanager
def untouched(what: str) -> Iterator[None]:
    """Hold the global generators and settings of torch, numpy and random to what they were."""
    before = _global_state()
    yield
    for name, value in _global_state().items():
        demand(value == before[name], f"{what} changes the global {name}; it must leave it as it is.")


def _global_state() -> dict[str, object]:
    return {
        "random state of torch": torch.get_rng_state().numpy().tobytes(),
        "random state of numpy": str(np.random.get_state()),
        "random state of random": random.getstate(),
        "default dtype of torch": torch.get_default_dtype(),
        "grad mode of torch": torch.is_grad_enabled(),
    }


def same_each_time(what: str, call: Callable[..., Any], *given: Tensor) -> str:  # Any: Tensor, or wrong
    """Check that a call leaves its arguments and all global state alone, and repeats itself exactly."""
    copies = [x.clone() for x in given]
    with untouched(what):
        first = call(*given)
        second = call(*given)
    for x, copy in zip(given, copies, strict=True):
        demand(
            torch.equal(x, copy), f"{what} changes its argument in place by {apart(x, copy):.3g} of its norm."
        )
    demand(
        torch.equal(first, second),
        f"{what} gives two answers to one question, {apart(first, second):.3g} of the norm apart.",
    )
    return "argument and global state unchanged, twice the same"
