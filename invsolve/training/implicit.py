"""Score matching without a kernel: exact, by the trace of the Jacobian, and sliced, by random directions.

Integration by parts turns the Fisher divergence 1/2 E |s - grad log p|^2, which needs the unknown score, into

    J = E [ tr(grad s) + 1/2 |s|^2 ]  =  1/2 E |s - grad log p|^2 - 1/2 E |grad log p|^2

(Hyvarinen 2005, JMLR 6, theorem 1); it is minimised. The trace costs one backward pass a dimension. Sliced
score matching (Song, Garg, Shi and Ermon 2019, arXiv:1905.07088) takes random directions v, E v v^T = I, in
its place: one backward pass whatever the dimension, and

    J_v  = E [ v^T grad(v^T s) + 1/2 (v^T s)^2 ]
    J_vr = E [ v^T grad(v^T s) + 1/2 |s|^2 ]           less variance: the second mean over v is known

Both have the mean J for every s, so the same minimum. Lecture notes are seen to print the second term of J_v
as v^T s v, which is no number: it is the square of the projection v^T s.

x is data, clean or noisy: for noise level t match x_t with s(., t). An energy model has s = -grad f, and Z is
never needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.linalg import dot

__all__ = ["exact_score_matching", "rademacher", "sliced_score_matching", "sliced_score_matching_vr"]

Field = Callable[[Tensor], Tensor]  # s(x): (B, *event) -> (B, *event), each row a function of its own row


def exact_score_matching(score: Field, x: Tensor) -> Tensor:
    """tr(grad s) + 1/2 |s|^2 of each row, (B,), differentiable in the weights; for a few dozen dimensions."""
    x, s = _with_graph(score, x)
    trace = torch.zeros_like(s.flatten(1)[:, 0])
    for i, entry in enumerate(s.flatten(1).unbind(1)):
        trace = trace + torch.autograd.grad(entry.sum(), x, create_graph=True)[0].flatten(1)[:, i]
    return trace + dot(s, s) / 2


def sliced_score_matching(score: Field, x: Tensor, v: Tensor) -> Tensor:
    """v^T grad(v^T s) + 1/2 (v^T s)^2 of each row, (B,); v of the shape of x."""
    s, along = _sliced(score, x, v)
    return along + dot(v, s) ** 2 / 2


def sliced_score_matching_vr(score: Field, x: Tensor, v: Tensor) -> Tensor:
    """v^T grad(v^T s) + 1/2 |s|^2 of each row, (B,); v of the shape of x, of covariance I."""
    s, along = _sliced(score, x, v)
    return along + dot(s, s) / 2


def rademacher(like: Tensor, rng: torch.Generator) -> Tensor:
    """Directions of independent signs: covariance I, and no variance from the diagonal of the Jacobian."""
    return torch.randint(2, like.shape, generator=rng).to(like) * 2 - 1


def _sliced(score: Field, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The score, and v^T grad(v^T s) of each row."""
    x, s = _with_graph(score, x)
    gradient = torch.autograd.grad(dot(v, s).sum(), x, create_graph=True)[0]
    return s, dot(v, gradient)


def _with_graph(score: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_(True)
    return x, score(x) + 0 * x  # a constant score still needs a graph
