"""What a forward map y = A(x) offers, found out by trying it on random images, and its derivatives.

    linear            A(u + v) = A(u) + A(v): what conditioning a Gaussian on y needs
    differentiable    autograd goes through A, and the gradient is not zero everywhere

    pull   v -> v^T dA/dx       push   v -> (dA/dx) v

An operator with A_adjoint says itself how it is transposed. One without it is transposed by autograd, where
that goes through: for a linear map pull is the adjoint, whatever x is.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from invsolve.errors import Refused
from invsolve.rng import Noise, seed_of

__all__ = [
    "BlackBox",
    "Forward",
    "Operator",
    "is_differentiable",
    "is_linear",
    "measured_entries",
    "pull",
    "push",
]

Map = Callable[[Tensor], Tensor]

_CLOSE = 1e-3  # relative: far above the rounding of float32, far below any nonlinearity worth the name


class Operator(Protocol):
    """The forward map: a deepinv LinearPhysics, or anything with these methods over batches."""

    def A(self, x: Tensor) -> Tensor:
        """Measure images (B, *event) -> (B, *m)."""

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Apply the transpose (B, *m) -> (B, *event)."""


class BlackBox(Protocol):
    """A forward map without a transpose: any function of x, linear or not."""

    def A(self, x: Tensor) -> Tensor:
        """Measure images (B, *event) -> (B, *m)."""


def measured_entries(operator: BlackBox, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Boolean mask (*m) of the entries of y that depend on x: those where A of a random image is not zero."""
    probe = Noise(seed_of("measured entries"), "", 1, shape)().to(like)
    return operator.A(probe)[0] != 0


def is_linear(forward: Map, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether A(u + v) = A(u) + A(v) for random u and v of that shape, in the dtype and place of like."""
    u, v = (Noise(seed, "linear", 1, shape)().to(like) for seed in (1, 2))
    both = forward(u + v)
    return bool((both - forward(u) - forward(v)).norm() <= _CLOSE * both.norm())


def is_differentiable(forward: Map, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether autograd goes through the map and finds a gradient that is not zero."""
    x = Noise(0, "differentiable", 1, shape)().to(like).requires_grad_(True)
    try:
        with torch.enable_grad():
            y = forward(x)
            slopes = torch.autograd.grad(y.square().sum(), x, allow_unused=True) if y.requires_grad else ()
    except (RuntimeError, TypeError):  # how torch says that a graph ends in numpy or in foreign code
        return False
    return any(slope is not None and bool((slope != 0).any()) for slope in slopes)


def pull(forward: Map, x: Tensor, v: Tensor) -> Tensor:
    """Product of v (B, *m) with the derivative of the map at x (B, *event): v^T dA/dx, (B, *event)."""
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        return torch.autograd.grad(forward(at), at, v)[0]


def push(forward: Map, x: Tensor, v: Tensor) -> Tensor:
    """Derivative of the map at x along v, both (B, *event): (dA/dx) v, (B, *m).

    The product v^T dA/dx is linear in v, and its own derivative is the one wanted: two backward passes.
    """
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        y = forward(at)
        w = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, at, w, create_graph=True)[0]
        return torch.autograd.grad(pulled, w, v)[0]


class Forward:
    """An operator as a likelihood uses it: in its own dtype, with a transpose from itself or by autograd."""

    def __init__(self, operator: Operator | BlackBox, shape: tuple[int, ...] | None, like: Tensor) -> None:
        """Keep the operator; shape is that of one image, where it is known, and like has the dtype of y."""
        self.operator, self.shape, self._like = operator, shape, like

    @cached_property
    def _dtype(self) -> torch.dtype | None:
        """What the operator computes in: many have float32 tables and reject float64."""
        tables: Any = getattr(self.operator, "buffers", list)  # Any: not every operator is a module
        return next((b.dtype for b in tables() if b.is_floating_point()), None)

    def cast(self, fn: Map, v: Tensor) -> Tensor:
        """Apply one of the operator's functions in its own dtype; the result has that of v."""
        result = fn(v if self._dtype is None else v.to(self._dtype))
        return result.to(v.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Measure x: (B, *event) -> (B, *m), in the dtype of x."""
        return self.cast(self.operator.A, x)

    def back(self, v: Tensor, like: Tensor | None = None) -> Tensor:
        """Apply the transpose, or that of the derivative at like (B, *event), to v (B, *m)."""
        if self.transposes:
            operator: Any = self.operator  # Any: not every operator has an adjoint; this one has
            event = self.cast(operator.A_adjoint, v)
            return event if like is None else event.reshape(like.shape)
        if not self.differentiable or self.shape is None:
            raise self.refusal("the transpose")
        return pull(self, v.new_zeros(len(v), *self.shape) if like is None else like.to(v), v)

    def along(self, v: Tensor, x: Tensor) -> Tensor:
        """Change of A by a small step v at x, both (B, *event), to first order: A v where A is linear."""
        return self(v) if self.linear else push(self, x, v)

    def refusal(self, wanted: str) -> Refused:
        """Say why what was wanted cannot be had of this map, and what takes it."""
        name = getattr(self.operator, "name", type(self.operator).__name__)
        if self.differentiable:
            return Refused(f"{name} is not linear, as {wanted} needs it: take guidance dps.")
        return Refused(
            f"{name} is a black box, without an A_adjoint: take sampler enkg, which only evaluates A."
        )

    @property
    def linear(self) -> bool:
        """Whether the map is linear and its transpose to be had, from itself or by autograd."""
        return self.transposes or (self.differentiable and self._adds)

    @cached_property
    def transposes(self) -> bool:
        """Whether the map is linear and brings its own transpose."""
        return hasattr(self.operator, "A_adjoint") and self._adds

    @cached_property
    def differentiable(self) -> bool:
        """Whether autograd goes through the map, which has to tell the shape of its images."""
        return self.shape is not None and is_differentiable(self, self.shape, self._like)

    @cached_property
    def _adds(self) -> bool:  # one that does not tell the shape of its images is taken at its word
        return self.shape is None or is_linear(self, self.shape, self._like)
