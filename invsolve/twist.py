"""Twists: log p(y | x_t) as a number, where guidance takes its gradient.

With p(x_0 | x_t) taken as N(D, C) and y = A x_0 + e, e ~ N(0, V),

    log p(y | x_t) = log N(y; A D, A C A^T + V).

Twisted sequential Monte Carlo (Wu et al. 2023, arXiv:2306.17775) steers its particles by the gradient and
weighs them by the value, so any positive function is allowed; the better it is, the fewer particles do. The
determinant needs the matrix A C A^T itself, one column a measured entry, and from the same columns come the
solve and its image C A^T u: nothing is computed twice.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from invsolve.errors import Refused
from invsolve.likelihood import LinearLikelihood, measured_entries
from invsolve.linalg import expand
from invsolve.prior import Denoised

__all__ = ["diagonal", "matched", "white"]

MOST = 256  # measured entries whose matrix is formed: more would cost as many derivatives at every step
_LOG_2PI = math.log(2 * math.pi)


@lru_cache(maxsize=4)
def _known(linear: LinearLikelihood, shape: tuple[int, ...]) -> Tensor:
    """Measured entries of y, flattened: boolean (m,)."""
    return measured_entries(linear.operator, shape, linear.y).flatten()


def matched(at: Denoised, linear: LinearLikelihood) -> tuple[Tensor, Tensor]:
    """Log of N(y; A D, A C A^T + V) with C = Cov[x_0 | x_t], (B,), and the shift C A^T K^-1 (y - A D).

    Costs one vector-Jacobian product a measured entry. A learned Jacobian is neither symmetric nor positive:
    A C A^T is made symmetric and its negative eigenvalues zero.
    """
    known = _known(linear, tuple(at.x.shape[1:]))
    _refuse_many(int(known.sum()), "moment-matching")
    predicted = linear.A(at.mean)
    variance = linear.noise_variance(predicted).expand_as(predicted).flatten(1)[:, known].double()
    columns = [at.covariance(linear.At(e.expand_as(predicted), at.mean)) for e in _units(known, predicted)]
    gram = torch.stack([linear.A(c).flatten(1)[:, known] for c in columns], 2).double()
    off = (linear.y.to(predicted) - predicted).flatten(1)[:, known].double()
    scale = variance.rsqrt()
    values, basis = torch.linalg.eigh(scale[:, :, None] * (gram + gram.mT) / 2 * scale[:, None])
    spread = 1 + values.clamp_min(0)  # of y, in units of its noise
    turned = torch.einsum("bij,bi->bj", basis, scale * off)
    log_twist = -0.5 * (turned**2 / spread + spread.log() + variance.log() + _LOG_2PI).sum(1)
    u = scale * torch.einsum("bij,bj->bi", basis, turned / spread)
    shift = sum(expand(u[:, i], c) * c for i, c in enumerate(columns))
    return log_twist, torch.as_tensor(shift)


def _units(known: Tensor, predicted: Tensor) -> Tensor:
    """Unit vectors of the measured entries, each (1, *m)."""
    where = known.nonzero()[:, 0]
    units = torch.zeros(len(where), len(known), dtype=predicted.dtype, device=predicted.device)
    units[torch.arange(len(where)), where] = 1
    return units.reshape(-1, 1, *predicted.shape[1:])


def white(linear: LinearLikelihood, mean: Tensor, r2: Tensor) -> Tensor:
    """Log of N(y; A D, r^2 A A^T + V), (B,), for D (B, *event) and r2 (B,); V must not depend on x."""
    predicted = linear.A(mean)
    off = linear.y.to(predicted) - predicted
    u = linear.solve(r2, off, predicted)
    spectrum, log_noise = _spectrum(linear, tuple(mean.shape[1:]))
    growth = torch.log1p(r2.double()[:, None] * spectrum.cpu()).sum(1).to(predicted.device)
    return -0.5 * ((off * u).flatten(1).double().sum(1) + growth) - log_noise


def diagonal(linear: LinearLikelihood, shape: tuple[int, ...], off: Tensor, variance: Tensor) -> Tensor:
    """Log of N(off; 0, diag(variance)) over the measured entries, (B,); off is (B, *m), and variance fits."""
    known = _known(linear, shape)
    variance = variance.expand_as(off).flatten(1)[:, known].double()
    off = off.flatten(1)[:, known].double()
    return -0.5 * (off**2 / variance + variance.log() + _LOG_2PI).sum(1)


@lru_cache(maxsize=4)
def _spectrum(linear: LinearLikelihood, shape: tuple[int, ...]) -> tuple[Tensor, float]:
    """Eigenvalues of V^-1/2 A A^T V^-1/2, and half the log determinant of 2 pi V where y is measured."""
    if not linear.noise_is_gaussian:
        raise Refused(
            f"{type(linear).__name__} noise depends on x: pigdm cannot weigh particles under it. "
            "Take moment-matching."
        )
    known = _known(linear, shape)
    variance = linear.noise_variance(linear.y[None]).expand_as(linear.y[None]).flatten()[known].double()
    log_noise = 0.5 * float((variance.log() + _LOG_2PI).sum())
    mask = getattr(linear.operator, "mask", None)
    if hasattr(linear.operator, "U_adjoint") and bool((variance == variance[0]).all()):
        return torch.as_tensor(mask).double().flatten().abs() ** 2 / variance[0], log_noise
    _refuse_many(int(known.sum()), "pigdm without singular values")
    table = linear.matrix(shape).double()[known] * variance.rsqrt()[:, None]
    return torch.linalg.eigvalsh(table @ table.mT).clamp_min(0), log_noise


def _refuse_many(m: int, method: str) -> None:
    if m > MOST:
        raise Refused(
            f"SMC with {method} forms an m x m matrix at every step, and here m = {m} entries are measured; "
            f"at most {MOST} can be. Take guidance pigdm on an operator with singular values, or sampler pc."
        )
