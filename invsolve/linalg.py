"""Small linear algebra over batches: one row is one problem, and rows never meet.

A row is a sample; every norm, step size and stopping rule is its own, so that the answer for a sample does
not depend on what is solved beside it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["dot", "expand", "robust_cg"]


def expand(values: Tensor, x: Tensor) -> Tensor:
    """Shape values () or (B,) as (B, 1, ..., 1) beside x (B, *event), in the dtype and on the device of x."""
    return _column(values.to(x), x)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each row: (B, *event) x (B, *event) -> (B,)."""
    return (a * b).flatten(1).sum(1)


def robust_cg(
    apply: Callable[[Tensor], tuple[Tensor, Tensor]],
    b: Tensor,
    steps: int,
    tolerance: float | Tensor,
    patience: int | Tensor = 1000,
    precondition: Callable[[Tensor], Tensor] = lambda r: r,
) -> Tensor:
    """Solve K u = b by conjugate gradients, row by row, and return the image L u.

    apply(p) returns K p and L p, where L is a linear map whose value at u is wanted (L p = p for u itself): L
    u is the same combination of the L p as u is of the p, so it comes free. K should be symmetric positive
    definite, but a learned Jacobian makes it neither, and plain conjugate gradients then explode. So each row
    stops where the curvature <p, K p> is not positive, freezes once |b - K u| <= tolerance |b| or when
    `patience` steps brought no smaller residual, and returns the image of its iterate of smallest residual:
    u = 0 when no residual fell below |b|. A row that meets NaN is NaN. tolerance and patience are numbers, or
    one for each row, (B,). precondition(r) is a symmetric positive guess of K^-1 r.
    """
    image = best_image = torch.zeros((), dtype=b.dtype, device=b.device)
    r, best = b, dot(b, b)
    p = precondition(b)
    rz, goal = best if p is b else dot(b, p), tolerance**2 * best
    active, idle, spoilt = rz > 0, torch.zeros_like(rz), 0 * rz
    for _ in range(steps):
        kp, lp = apply(p)
        curvature = dot(p, kp)
        active = active & (curvature > 0)
        step = torch.where(active, rz / curvature, 0.0)
        image = torch.addcmul(image, expand(step, lp), lp)
        r = torch.addcmul(r, expand(-step, b), kp)
        new = dot(r, r)
        spoilt = spoilt + 0 * (curvature + new)  # NaN from the first that is not finite
        better = active & (new < best)
        best, best_image = torch.where(better, new, best), _pick(better, image, best_image)
        idle = torch.where(better, 0.0, idle + 1)
        active = active & (new > goal) & (idle < patience)
        if not active.any():
            break
        z, before = precondition(r), rz
        rz = new if z is r else dot(r, z)
        p = torch.addcmul(z, expand(torch.where(active, rz / before, 0.0), b), p)
    # NaN goes in, NaN comes out: never a silent zero
    return best_image + expand(spoilt, best_image)


def _pick(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Rows of a where which (B,) is true, of b elsewhere; as a rule all are a's, and nothing is copied."""
    return a if which.all() else torch.where(_column(which, a), a, b)
