"""A matrix as operator: y = A vec(x), for vectors (B, d), series or images.

    A = U diag(mask) V^T

U is a full orthogonal matrix (m, m); mask has m entries, zeros where A has no more singular values; V is (d,
m), its columns orthonormal where mask is not zero and zero beyond rank min(m, d).
"""

import math
from functools import cached_property
from typing import TYPE_CHECKING

from invsolve.errors import InputError
from invsolve.operators.interface import Array, Shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Matrix", "matrix"]


def matrix(A: Array, shape: Shape | None = None) -> "Matrix":
    """Turn A (m, d) into an operator on events of that shape, by default vectors (d,)."""
    import torch

    table = torch.as_tensor(A)
    if table.ndim != 2 or not table.is_floating_point():
        raise InputError(
            f"A must be a real matrix (m, d), but it has shape {tuple(table.shape)}, {table.dtype}."
        )
    if not bool(torch.isfinite(table).all()):
        raise InputError(f"A has {int((~torch.isfinite(table)).sum())} entries that are NaN or infinite.")
    shape = (table.shape[1],) if shape is None else tuple(shape)
    if math.prod(shape) != table.shape[1]:
        raise InputError(
            f"A has {table.shape[1]} columns, but events of shape {shape} have {math.prod(shape)} values."
        )
    return Matrix(table, shape)


class Matrix:
    """y = A vec(x); computes in the type of A, on the device and in the type of its input."""

    name = "matrix"

    def __init__(self, table: "Tensor", shape: Shape) -> None:
        """Keep A (m, d) and the event shape, of d values."""
        self.table, self.shape = table, shape

    def A(self, x: "Tensor") -> "Tensor":
        """Measure: (B, *event) -> (B, m)."""
        return _apply(self.table, x)

    def A_adjoint(self, y: "Tensor") -> "Tensor":
        """Apply the transpose: (B, m) -> (B, *shape)."""
        return _apply(self.table.mT, y).reshape(-1, *self.shape)

    def A_dagger(self, y: "Tensor") -> "Tensor":
        """Least squares of least norm: (B, m) -> (B, *shape)."""
        inverse = self.mask.where(self.mask > self._cutoff, math.inf).reciprocal()
        return self.V(self.U_adjoint(y) * inverse.to(y))

    def U(self, z: "Tensor") -> "Tensor":
        """Left singular vectors times z: (B, m) -> (B, m)."""
        return _apply(self._svd[0], z)

    def U_adjoint(self, y: "Tensor") -> "Tensor":
        """Coordinates of y: (B, m) -> (B, m)."""
        return _apply(self._svd[0].mT, y)

    def V(self, z: "Tensor") -> "Tensor":
        """Right singular vectors times z: (B, m) -> (B, *shape)."""
        return _apply(self._svd[2], z).reshape(-1, *self.shape)

    def V_adjoint(self, x: "Tensor") -> "Tensor":
        """Coordinates of x: (B, *event) -> (B, m)."""
        return _apply(self._svd[2].mT, x)

    @property
    def mask(self) -> "Tensor":
        """Singular values, (m,), padded by zeros."""
        return self._svd[1]

    @property
    def _cutoff(self) -> "Tensor":
        """Singular values below are rounding: the rule of numpy.linalg.matrix_rank."""
        import torch

        return self.mask.max() * max(self.table.shape) * torch.finfo(self.table.dtype).eps

    @cached_property
    def _svd(self) -> tuple["Tensor", "Tensor", "Tensor"]:
        """U (m, m), mask (m,) and V (d, m)."""
        import torch

        m, d = self.table.shape
        u, s, vt = torch.linalg.svd(self.table, full_matrices=True)
        mask, v = u.new_zeros(m), u.new_zeros(d, m)
        rank = min(m, d)
        mask[:rank], v[:, :rank] = s, vt[:rank].mT
        return u, mask, v


def _apply(table: "Tensor", x: "Tensor") -> "Tensor":
    """Multiply each row of x, flattened, by the table, in the table's type."""
    return (x.flatten(1).to(table.dtype) @ table.mT.to(x.device)).to(x.dtype)
