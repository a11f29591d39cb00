"""What a forward map y = A(x) offers, found out by trying it on random images, and its derivatives.

    linear            A(u + v) = A(u) + A(v): what conditioning a Gaussian on y needs
    differentiable    autograd goes through A, and the gradient is not zero everywhere

    pull   v -> v^T dA/dx       push   v -> (dA/dx) v

An operator with A_adjoint says itself how it is transposed. One without it is transposed by autograd, where
that goes through: for a linear map pull is the adjoint, whatever x is.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from invsolve.rng import Noise, seed_of

__all__ = ["Operator", "is_differentiable", "is_linear", "measured_entries", "pull", "push"]

Forward = Callable[[Tensor], Tensor]

_CLOSE = 1e-3  # relative: far above the rounding of float32, far below any nonlinearity worth the name


class Operator(Protocol):
    """The forward map: a deepinv LinearPhysics, or anything with these methods over batches."""

    def A(self, x: Tensor) -> Tensor:
        """Measure images (B, *event) -> (B, *m)."""

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Apply the transpose (B, *m) -> (B, *event)."""


def measured_entries(operator: Operator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Boolean mask (*m) of the entries of y that depend on x: those where A of a random image is not zero."""
    probe = Noise(seed_of("measured entries"), "", 1, shape)().to(like)
    return operator.A(probe)[0] != 0


def is_linear(forward: Forward, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether A(u + v) = A(u) + A(v) for random u and v of that shape, in the dtype and place of like."""
    u, v = (Noise(seed, "linear", 1, shape)().to(like) for seed in (1, 2))
    both = forward(u + v)
    return bool((both - forward(u) - forward(v)).norm() <= _CLOSE * both.norm())


def is_differentiable(forward: Forward, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether autograd goes through the map and finds a gradient that is not zero."""
    x = Noise(0, "differentiable", 1, shape)().to(like).requires_grad_(True)
    try:
        with torch.enable_grad():
            y = forward(x)
            slopes = torch.autograd.grad(y.square().sum(), x, allow_unused=True) if y.requires_grad else ()
    except (RuntimeError, TypeError):  # how torch says that a graph ends in numpy or in foreign code
        return False
    return any(slope is not None and bool((slope != 0).any()) for slope in slopes)


def pull(forward: Forward, x: Tensor, v: Tensor) -> Tensor:
    """Product of v (B, *m) with the derivative of the map at x (B, *event): v^T dA/dx, (B, *event)."""
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        return torch.autograd.grad(forward(at), at, v)[0]


def push(forward: Forward, x: Tensor, v: Tensor) -> Tensor:
    """Derivative of the map at x along v, both (B, *event): (dA/dx) v, (B, *m).

    The product v^T dA/dx is linear in v, and its own derivative is the one wanted: two backward passes.
    """
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        y = forward(at)
        w = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, at, w, create_graph=True)[0]
        return torch.autograd.grad(pulled, w, v)[0]
