"""A quick look at an operator of others before a run trusts it: wrong in any of this, every sample is wrong.

    A(x) has a row for each image, is real, leaves x alone, is the same twice, and is not 0 everywhere
    <A x, v> = <x, A' v> where there is an A'

Three or four applications of A; `invsolve check` looks closer.
"""

from typing import Any

import torch
from torch import Tensor

from invsolve.errors import PluginError
from invsolve.rng import Noise

__all__ = ["check_foreign"]

_CLOSE = 1e-3  # relative: far above the rounding of float32


def check_foreign(operator: Any, shape: tuple[int, ...], name: str) -> None:  # noqa: ANN401  a physics
    """Refuse an operator for images of that shape that breaks a promise; PluginError says which."""
    x = Noise(1, "foreign", 2, shape)()
    said = _fault(operator, x) or (_adjoint_fault(operator, x) if hasattr(operator, "A_adjoint") else "")
    if said:
        raise PluginError(f"operator {name!r} {said}; see `invsolve check`.")


def _fault(operator: Any, x: Tensor) -> str:  # noqa: ANN401  a physics
    """Say what is wrong with A; empty where nothing is."""
    before = x.clone()
    y = operator.A(x)
    if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != len(x):
        given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        return f"must measure a batch image by image, (2, ...) for {tuple(x.shape)}, but A gives {given}"
    if not y.is_floating_point():
        return f"gives {y.dtype}; expected real floating-point numbers, such as two channels for complex ones"
    if not torch.equal(x, before):
        return "changes the image that A is given: A must work on a copy"
    if bool((operator.A(x) - y).norm() > _CLOSE * y.norm()):  # NaN is refused where y is
        return "gives something else each time: A must be a function of the image, and noise is added later"
    return "" if bool((y != 0).any()) else "measures nothing: A is 0 everywhere"


def _adjoint_fault(operator: Any, x: Tensor) -> str:  # noqa: ANN401  a physics
    """Hold <A x, v> against <x, A' v> once."""
    x, other = x[:1], x[1:]
    y = operator.A(x) + operator.A(other)  # half of it A x, so that a wrong scale or sign of A' shows
    left, right = float((operator.A(x) * y).sum()), float((x * operator.A_adjoint(y)).sum())
    if abs(left - right) <= _CLOSE * float(operator.A(x).norm() * y.norm()):
        return ""
    return f"has a wrong A_adjoint: <A x, v> is {left:.4g}, <x, A_adjoint v> {right:.4g}"
