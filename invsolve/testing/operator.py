"""Is it a linear operator with its transpose, for images of several shapes?

Samplers and guidances lean on <A x, v> = <x, A' v>, on A(a x + b z) = a A x + b A z, and on rows that never
meet. A wrong transpose still gives pictures, only of another posterior: so it is measured here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import CheckFailed, InputError
from invsolve.linalg import dot
from invsolve.testing.common import Check, apart, demand, draw, same_each_time, untouched

__all__ = ["CHECKS", "SHAPES", "OperatorCase", "cases", "check_operator"]

Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((3, 32, 32), (3, 24, 40), (1, 33, 35))

# of |Ax| |v|: about 100 roundings in float32; in float64 the operator may still have tables in float32
_ADJOINT = {torch.float32: 1e-5, torch.float64: 1e-6}
_ROUNDING = 1e-5  # of the norm in float32: about 100 roundings


@dataclass(frozen=True)
class OperatorCase:
    """A factory with its options, and the shape of image to build it for."""

    factory: Callable[..., Any]  # Any: whether it gives an operator is the question
    shape: Shape
    options: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def operator(self) -> Any:  # noqa: ANN401 - an operator, if the checks pass
        """Build the operator."""
        return self.factory(self.shape, **self.options)

    @cached_property
    def x(self) -> Tensor:
        """Two random images."""
        return draw(self.shape, 2, "x")

    @cached_property
    def v(self) -> Tensor:
        """Two measurements, half A x and half noise: so <A x, v> is large, and a wrong scale of A' shows."""
        ax: Tensor = self.operator.A(self.x)
        noise = draw(tuple(ax.shape[1:]), 2, "v")
        v: Tensor = ax / ax.norm() + noise / noise.norm()
        return v


def is_built_with_what_it_needs(case: OperatorCase) -> str:
    """Check the factory's result: A, A_adjoint, A_dagger and shape."""
    with untouched("the factory"):
        operator = case.operator
    hint = {"A_adjoint": " A run transposes such a linear A by autograd; here it has to be there."}
    for name in ("A", "A_adjoint", "A_dagger"):
        there = callable(getattr(operator, name, None))
        demand(there, f"the operator has no method {name}.{hint.get(name, '')}")
    demand(
        hasattr(operator, "shape"), "the operator has no attribute shape: set it to (C, H, W) of the image."
    )
    shape = tuple(operator.shape)
    demand(shape == case.shape, f"the operator's shape is {shape}, but it was built for {case.shape}.")
    return "has A, A_adjoint, A_dagger and shape"


def keeps_shapes(case: OperatorCase) -> str:
    """Check that A gives (B, *m) and A_adjoint and A_dagger (B, C, H, W)."""
    y = case.operator.A(case.x)
    single = case.operator.A(case.x[:1])
    demand(len(y) == 2, f"A of 2 images has shape {tuple(y.shape)}; its first axis must be the 2 images.")
    demand(
        single.shape[1:] == y.shape[1:],
        f"A of 1 image has shape {tuple(single.shape)}, but of 2 images {tuple(y.shape)}.",
    )
    for name in ("A_adjoint", "A_dagger"):
        got = tuple(getattr(case.operator, name)(y).shape)
        demand(got == (2, *case.shape), f"{name} gives shape {got}, but the images are {(2, *case.shape)}.")
    return f"{case.shape} -> {tuple(y.shape[1:])}"


def keeps_dtype_and_device(case: OperatorCase) -> str:
    """Check that float32 images stay float32, where they are."""
    y = case.operator.A(case.x)
    for name, given, got in (
        ("A", case.x, y),
        ("A_adjoint", y, case.operator.A_adjoint(y)),
        ("A_dagger", y, case.operator.A_dagger(y)),
    ):
        demand(got.dtype == given.dtype, f"{name} turns {given.dtype} into {got.dtype}.")
        demand(got.device == given.device, f"{name} moves from {given.device} to {got.device}.")
    return f"{y.dtype} on {y.device}"


def is_finite(case: OperatorCase) -> str:
    """Check that nothing is NaN or infinite, and that something is measured."""
    y = case.operator.A(case.x)
    for name, got in (
        ("A", y),
        ("A_adjoint", case.operator.A_adjoint(y)),
        ("A_dagger", case.operator.A_dagger(y)),
    ):
        wrong = int((~torch.isfinite(got)).sum())
        demand(wrong == 0, f"{name} gives {wrong} values that are NaN or infinite.")
    demand((y != 0).any(), "A of a random image is zero everywhere: nothing is measured.")
    return f"{float((y != 0).float().mean()):.0%} of the measurement is not zero"


def is_linear(case: OperatorCase) -> str:
    """Check A(a x + b z) = a A x + b A z."""
    a, b = 2.0, -3.0
    x, z = case.x[:1], case.x[1:]
    got = apart(case.operator.A(a * x + b * z), a * case.operator.A(x) + b * case.operator.A(z))
    demand(got <= _ROUNDING, f"A is not linear: A(2x - 3z) is {got:.3g} of its norm from 2Ax - 3Az.")
    return f"error {got:.1e}"


def has_its_adjoint(case: OperatorCase) -> str:
    """Check <A x, v> = <x, A' v>, in float32 and where it works in float64."""
    worst = _adjoint_error(case, torch.float32)
    try:
        tight = _adjoint_error(case, torch.float64)
    except (RuntimeError, TypeError):  # its tables are float32: the float32 test stands alone
        return f"error {worst:.1e}"
    return f"error {worst:.1e}, in float64 {tight:.1e}"


def _adjoint_error(case: OperatorCase, dtype: torch.dtype) -> float:
    x, v = case.x.to(dtype), case.v.to(dtype)
    ax, atv = case.operator.A(x), case.operator.A_adjoint(v)
    if ax.dtype != dtype or atv.dtype != dtype:
        raise TypeError(f"it computes in {ax.dtype}")
    size = (dot(ax, ax) * dot(v, v)).sqrt()
    error = float(((dot(ax, v) - dot(x, atv)).abs() / size).max())
    demand(
        error <= _ADJOINT[dtype],
        f"A_adjoint is not the transpose of A: <Ax, v> and <x, A'v> differ by {error:.3g} of |Ax| |v| "
        f"in {dtype}, allowed {_ADJOINT[dtype]:.0e}.",
    )
    return error


def keeps_rows_apart(case: OperatorCase) -> str:
    """Check that a row's answer does not depend on the row beside it."""
    worst = 0.0
    for name, given in (("A", case.x), ("A_adjoint", case.v)):
        apply = getattr(case.operator, name)
        other = torch.stack([given[0], 5 * given[1] + 1])
        worst = max(
            worst, apart(apply(other)[:1], apply(given)[:1]), apart(apply(given[:1]), apply(given)[:1])
        )
        demand(
            worst <= _ROUNDING,
            f"{name} mixes the rows of a batch: a row changes by {worst:.3g} of its norm beside another.",
        )
    return f"change {worst:.1e}"


def is_pure(case: OperatorCase) -> str:
    """Check that A and A_adjoint change nothing, and that the same options build the same operator."""
    same_each_time("A", case.operator.A, case.x)
    said = same_each_time("A_adjoint", case.operator.A_adjoint, case.v)
    again = case.factory(case.shape, **case.options).A(case.x)
    demand(
        torch.equal(again, case.operator.A(case.x)),
        "the factory builds another operator at each call; a random one takes its seed as an option.",
    )
    return said


def has_a_gradient(case: OperatorCase) -> str:
    """Check that autograd through A gives A_adjoint: guidances such as DPS differentiate A."""
    x = case.x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((case.operator.A(x) * case.v).sum(), x)
    error = apart(gradient, case.operator.A_adjoint(case.v))
    demand(error <= 10 * _ROUNDING, f"autograd through A is {error:.3g} of the norm away from A_adjoint.")
    return f"error {error:.1e}"


CHECKS: tuple[Check[OperatorCase], ...] = (
    is_built_with_what_it_needs,
    keeps_shapes,
    keeps_dtype_and_device,
    is_finite,
    is_pure,
    keeps_rows_apart,
    is_linear,
    has_its_adjoint,
    has_a_gradient,
)


def cases(
    factory: Callable[..., Any],  # Any: see OperatorCase
    shape: Shape | Sequence[Shape] = SHAPES,
    options: Mapping[str, object] | None = None,
) -> list[OperatorCase]:
    """Make a case for each shape; one the factory refuses with InputError is left out, unless all are."""
    sizes = tuple(side for side in shape if isinstance(side, int))
    shapes = [sizes] if sizes else [tuple(s) for s in shape if not isinstance(s, int)]
    found, refusals = [], []
    for each in shapes:
        case = OperatorCase(factory, each, dict(options or {}))
        try:
            case.operator  # noqa: B018 - builds it
        except InputError as error:
            refusals.append(str(error))
        else:
            found.append(case)
    if not found:
        raise CheckFailed(f"the factory refuses every shape of {shapes}: {refusals[0]}")
    return found


def check_operator(
    factory: Callable[..., Any],  # Any: see OperatorCase
    shape: Shape | Sequence[Shape] = SHAPES,
    options: Mapping[str, object] | None = None,
) -> None:
    """Check an operator's factory on images of one or several shapes; CheckFailed says what is wrong."""
    for case in cases(factory, shape, options):
        for check in CHECKS:
            check(case)
