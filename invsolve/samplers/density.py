"""Log density of signals under a prior, by the probability-flow ODE: exact, or with random probes.

Along the flow of samplers/flow.py the density changes by the divergence of its velocity (Song et al. 2021,
arXiv:2011.13456, appendix D.2, equation 39): with J = dD/dxh and z at noise level lambda

    log p(x) = log N(z_top; 0, I) - d log r_end - int (tr J - d v / r^2) dlog(lambda),   from end to top

in nats, for x in pixel units. J - v/r^2 vanishes for white data, so what is integrated is what the data
differ from them. tr J is the sum of d vector-Jacobian products, or the mean of e' J e over probes e of random
signs, which stay what they are along the flow (Skilling 1989, Hutchinson 1990); the spread over the probes
gives the standard error.

What the number means. p is the law of x_0 + end n, n ~ N(0, I): end is a noise level, the prior's lowest
where nothing is said. At the top N(c, r^2 I) stands for the law of xh, whose covariance is Cov[x_0] +
lambda^2 I: the error is of order Cov[x_0] / lambda^2 in each direction, and none in the density of what
decode makes of N(0, I). Where the prior's extent is known the flow goes on to 1,000 of them, whatever the
SDE, and the error is about 1e-6 nats a direction; elsewhere the SDE's top, or the network's, is the top.

Bits per dimension are those of 8-bit images made continuous, u = (k + U) / 256 with U uniform in [0, 1). The
probability of k is at least exp E log p(u) / 256^d (Theis et al. 2016, arXiv:1511.01844, section 3.1), so

    bits/dim = -log p(u) / (d ln 2) + 8

is, on average, no less than what a code for the images would need.
"""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.linalg import dot
from invsolve.posterior import Posterior
from invsolve.prior import Denoised, Prior
from invsolve.rng import Noise
from invsolve.samplers.flow import Flow, Tolerance, flow_of, lowest
from invsolve.samplers.walk import rows_at_once
from invsolve.sde import SDE

__all__ = ["LogProb", "bits_per_dim", "dequantise", "estimate_log_prob", "log_prob"]

_BEYOND = 1000.0  # extents of the data at which the law of xh counts as N(c, r^2 I)
_MOST_EXACT = 4096  # dimensions up to which the trace is taken exactly on demand


@dataclass(frozen=True)
class LogProb:
    """Log densities of B signals and what they cost.

    nats (B,) and standard_error (B,) are float64; the error is that of the probes, 0 for an exact trace and
    infinite for a single probe. calls counts rows: forward and vjp apart.
    """

    nats: Tensor
    standard_error: Tensor
    dimensions: int
    calls: Counter[str]

    def bits_per_dim(self, levels: int = 256) -> Tensor:
        """Bits per dimension (B,) of the dequantised images that nats belong to."""
        return bits_per_dim(self.nats, self.dimensions, levels)


def log_prob(
    prior: Prior,
    x: Tensor,
    *,
    sde: SDE | None = None,
    exact_trace: bool = False,
    probes: int = 8,
    seed: int = 0,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    end: float | None = None,
) -> Tensor:
    """Log density of x (B, *event) under the prior, nats, float64 (B,); see estimate_log_prob."""
    return estimate_log_prob(
        prior,
        x,
        sde=sde,
        exact_trace=exact_trace,
        probes=probes,
        seed=seed,
        rtol=rtol,
        atol=atol,
        end=end,
    ).nats


@torch.no_grad()
def estimate_log_prob(
    prior: Prior,
    x: Tensor,
    *,
    sde: SDE | None = None,
    exact_trace: bool = False,
    probes: int = 8,
    seed: int = 0,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    end: float | None = None,
) -> LogProb:
    """Log density of x (B, *event) under the prior at noise level end, with its standard error and cost.

    sde (default VE) sets the top of the flow. exact_trace costs d vector-Jacobian products an evaluation,
    else `probes`, which follow from seed and the row alone: a row's figure is the same beside other rows. A
    step's error is at most rtol relative to the size of data and noise, plus atol in pixel units.
    """
    flow, tolerance, found = flow_of(prior, x), Tolerance(rtol, atol), []
    d = x[0].numel()
    _check_trace(probes, d if exact_trace else 1)
    top = Posterior(prior, sde=sde, shape=flow.posterior.shape).span()[0]
    top = min(max(top, _BEYOND * prior.extent), prior.sigma_max)
    low = lowest(prior, end, top)
    with prior.full_precision():
        for rows in torch.split(x.to(prior.device), rows_at_once(flow.posterior.shape)):
            trace: _Trace = _Exact() if exact_trace else _Probes(_signs(rows, probes, seed, prior.dtype))
            found.append(_follow(flow, rows, trace, (low, top), tolerance))
    nats = torch.cat(found)
    error = torch.zeros_like(nats[:, 0]) if exact_trace else _standard_error(nats)
    return LogProb(nats.mean(1), error, d, flow.posterior.calls)


def _check_trace(probes: int, products: int) -> None:
    if probes < 1:
        raise InputError(f"probes must be at least 1, but it is {probes}.")
    if products > _MOST_EXACT:
        raise InputError(
            f"exact_trace in {products} dimensions takes as many vector-Jacobian products an evaluation; "
            f"the most is {_MOST_EXACT}: take probes."
        )


def bits_per_dim(nats: Tensor, dimensions: int, levels: int = 256) -> Tensor:
    """Bits per dimension of images of so many grey levels, dequantised to (k + U) / levels in [0, 1].

    nats is the log density of the dequantised images: -nats / (d ln 2) + log2(levels).
    """
    return math.log2(levels) - nats / (dimensions * math.log(2))


def dequantise(x: Tensor, seed: int = 0, levels: int = 256) -> Tensor:
    """Return (k + U) / levels for images x (B, *event) of values k / (levels - 1), U uniform in [0, 1).

    U follows from seed and the image alone.
    """
    k = (x.double() * (levels - 1)).round()
    off = (x.double() * (levels - 1) - k).abs().max()
    if not off < 1e-3 or k.min() < 0 or k.max() > levels - 1:
        raise InputError(
            f"x is not made of {levels} grey levels in [0, 1]: a value lies {float(off):.3g} of a level off, "
            "or outside. Bits per dimension are those of images that were quantised."
        )
    uniform = torch.special.ndtr(_row_noise(x, "dequantise", seed, 1, torch.float64))[:, 0]
    noised: Tensor = (k + uniform) / levels
    return noised.to(x.dtype)


class _Trace(Protocol):
    """Estimates of tr dD/dxh at one evaluation, (A, columns), nats an e-fold of the noise level."""

    columns: int

    def __call__(self, at: Denoised, rows: Tensor) -> Tensor:
        """Estimate it for the rows of these numbers."""


class _Exact:
    """The sum of the Jacobian's diagonal."""

    columns = 1

    def __call__(self, at: Denoised, rows: Tensor) -> Tensor:
        """Take one vector-Jacobian product for each dimension."""
        total = torch.zeros(len(at.x), 1, dtype=torch.float64, device=at.x.device)
        for i in range(at.x[0].numel()):
            unit = torch.zeros_like(at.x).flatten(1)
            unit[:, i] = 1
            total[:, 0] += at.vjp(unit.reshape(at.x.shape)).flatten(1)[:, i]
        return total


class _Probes:
    """One estimate e' J e for each probe, signs (B, m, *event)."""

    def __init__(self, signs: Tensor) -> None:
        self.signs, self.columns = signs, signs.shape[1]

    def __call__(self, at: Denoised, rows: Tensor) -> Tensor:
        """Take one vector-Jacobian product for each probe."""
        each = [dot(at.vjp(e).double(), e.double()) for e in self.signs[rows].unbind(1)]
        return torch.stack(each, 1)


def _follow(flow: Flow, x: Tensor, trace: _Trace, span: tuple[float, float], tolerance: Tolerance) -> Tensor:
    """Log density of x (B, *event) by each estimate of the trace: (B, columns)."""
    d, (low, top), posterior = x[0].numel(), span, flow.posterior

    def slope(u: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        xh, t = flow.signal(y[:, :d], u.exp()), posterior.sde.time(u.exp())
        at = Denoised(posterior.prior, posterior.sde, xh, t, graph=True, calls=posterior.calls)
        white = d * flow.variance / flow.radius(u.exp()) ** 2
        rate = trace(at, rows) - white.to(y.device)[:, None]
        return torch.cat([flow.slope(u, y[:, :d], at.mean), rate], 1)

    def error(u: Tensor, e: Tensor) -> Tensor:
        of_z, of_nats = e[:, :d].square().mean(1), e[:, d:].square().mean(1) / d
        return torch.maximum(of_z, of_nats).sqrt().cpu() / flow.allowed(u, tolerance)

    start = torch.cat([flow.code(x, low), torch.zeros(len(x), trace.columns).to(x.device).double()], 1)
    end = tolerance.solver(slope, start, math.log(low), math.log(top), error)
    normal = -(end[:, :d].square().sum(1) + d * math.log(2 * math.pi)) / 2
    return normal[:, None] - d * float(flow.radius(low).log()) - end[:, d:]


def _standard_error(nats: Tensor) -> Tensor:
    """Standard error of the mean over probes (B, m): (B,)."""
    if nats.shape[1] == 1:
        return torch.full_like(nats[:, 0], math.inf)
    error: Tensor = nats.std(1) / nats.shape[1] ** 0.5
    return error


def _signs(x: Tensor, probes: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Random signs (B, probes, *event), which follow from seed and the row of x alone."""
    noise = _row_noise(x, "probes", seed, probes, dtype)
    return torch.where(noise < 0, -1.0, 1.0).to(dtype)


def _row_noise(x: Tensor, key: str, seed: int, n: int, dtype: torch.dtype) -> Tensor:
    """Standard normal noise (B, n, *event), keyed by the bytes of each row."""
    rows = x.detach().to("cpu", torch.float32).contiguous().numpy()
    names = [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]
    shape = (n, *x.shape[1:])
    return torch.cat([Noise(seed, name, 1, shape, dtype=dtype, device=x.device)(key) for name in names])
