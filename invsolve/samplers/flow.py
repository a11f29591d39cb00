"""The probability-flow ODE, whose solutions have the law of x_t at every t, and the codes it gives signals.

Song et al. 2021 (arXiv:2011.13456), equation 13. In xh = x_t / alpha and lambda = sigma / alpha it is one
equation for every SDE (Karras et al. 2022, arXiv:2206.00364, equation 1):

    dxh / dlog(lambda) = xh - D(xh, lambda),       D = E[x_0 | x_t], or E[x_0 | x_t, y]

It is integrated in the variable that stands still where the data are white, of mean c and variance v:

    z = (xh - c) / r,     r^2 = lambda^2 + v,      dz / dlog(lambda) = z v / r^2 - (D - c) / r

so z is of size one all the way, and its steps are as long as the data are like white noise. c is the prior's
centre; v is the square of its extent, or 0.25 where that is not known: images in [0, 1] spread no further.

At the top of the flow z is as good as N(0, I): the code of the signal that flowed there. The code follows
from the data's law alone, not from the network that learned it, and the flow back decodes it (appendix D.5).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.linalg import expand
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.samplers.dopri import DormandPrince
from invsolve.samplers.walk import rows_at_once
from invsolve.sde import SDE, VE

__all__ = ["Flow", "Tolerance", "decode", "encode", "flow_of", "lowest"]

_UNKNOWN = 0.25  # variance of data whose extent is not known, squared pixel units
_CLEAN = 1e-5  # noise level at which a signal counts as clean, for priors that know every level


@dataclass(frozen=True)
class Tolerance:
    """Error allowed to a step, root mean square over the pixels: rtol r + atol."""

    rtol: float
    atol: float  # in pixel units

    def __post_init__(self) -> None:
        """Refuse tolerances that no step can meet."""
        if not (self.rtol >= 0 and self.atol >= 0 and 0 < self.rtol + self.atol < 1):
            raise InputError(
                f"rtol and atol must be at least 0, and their sum in (0, 1), but are {self.rtol} and "
                f"{self.atol}."
            )

    @property
    def solver(self) -> DormandPrince:
        """Integrator whose first step is likely to be within the tolerance."""
        return DormandPrince(first=(self.rtol + self.atol) ** 0.2)


@dataclass(frozen=True)
class Flow:
    """The flow of a posterior, or of a prior, as an equation for rows z (B, d) of float64."""

    posterior: Posterior

    @property
    def variance(self) -> float:
        """v, squared pixel units."""
        return self.posterior.prior.extent**2 or _UNKNOWN

    def radius(self, level: Tensor | float) -> Tensor:
        """r at a noise level, pixel units, float64."""
        return (torch.as_tensor(level, dtype=torch.float64) ** 2 + self.variance).sqrt()

    def code(self, xh: Tensor, level: float) -> Tensor:
        """z (B, d) of xh (B, *event)."""
        return (xh - self.posterior.prior.centre).double().flatten(1) / float(self.radius(level))

    def signal(self, z: Tensor, level: Tensor | float) -> Tensor:
        """xh (B, *event) of z (B, d), in the prior's dtype."""
        prior = self.posterior.prior
        off = (expand(self.radius(level), z) * z).reshape(-1, *self.posterior.shape)
        return (prior.centre + off).to(prior.dtype)

    def mean(self, z: Tensor, level: Tensor | float) -> Tensor:
        """D at z (B, d), (B, *event): one network call a row."""
        sde, xh = self.posterior.sde, self.signal(z, level)
        t = sde.time(level)
        return self.posterior.mean(expand(sde.alpha(t), xh) * xh, t)

    def slope(self, u: Tensor, z: Tensor, mean: Tensor) -> Tensor:
        """dz / dlog(lambda) at log(lambda) = u (B,), given D there."""
        radius = self.radius(u.exp())
        off = (mean - self.posterior.prior.centre).flatten(1).to(z)
        return expand(self.variance / radius**2, z) * z - off / expand(radius, z)

    def follow(
        self, z: Tensor, start: float, stop: float, tolerance: Tolerance, solver: DormandPrince
    ) -> Tensor:
        """Carry z (B, d) from one noise level to another."""
        for _, state in self.walk(z, start, stop, tolerance, solver):
            z = state
        return z

    def walk(
        self, z: Tensor, start: float, stop: float, tolerance: Tolerance, solver: DormandPrince
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the noise level that each row has reached, (B,) float64, and its z, step by step."""

        def slope(u: Tensor, z: Tensor, rows: Tensor) -> Tensor:
            return self.slope(u, z, self.mean(z, u.exp()))

        def error(u: Tensor, e: Tensor) -> Tensor:
            return e.square().mean(1).sqrt().cpu() / self.allowed(u, tolerance)

        side = math.copysign(1.0, stop - start)
        for left, state in solver.walk(slope, z, math.log(start), math.log(stop), error):
            yield (math.log(stop) - side * left).exp(), state

    def allowed(self, u: Tensor, tolerance: Tolerance) -> Tensor:
        """Error of z that is allowed at u (B,), in units of r."""
        return tolerance.rtol + tolerance.atol / self.radius(u.exp())


def flow_of(prior: Prior, x: Tensor) -> Flow:
    """Flow of a prior alone, for signals like x (B, *event); VE stands for every SDE, and reaches any
    level."""
    if x.ndim < 2 or not torch.isfinite(x).all():
        raise InputError(
            f"x must be finite, of shape (B, *event), but its shape is {tuple(x.shape)} and "
            f"{int((~torch.isfinite(x)).sum())} of its values are NaN or infinite."
        )
    return Flow(Posterior(prior, sde=VE(), shape=tuple(x.shape[1:])))


def lowest(prior: Prior, end: float | None, top: float) -> float:
    """Noise level at which a signal counts as clean: end, or the prior's lowest, at least 1e-5."""
    low = max(_CLEAN, prior.sigma_min) if end is None else end
    if not prior.sigma_min <= low < top or low <= 0:
        raise InputError(
            f"end must be a noise level > 0 in [{prior.sigma_min:g}, {top:.4g}), which the prior and the SDE "
            f"know, but it is {low:g}."
        )
    return low


@torch.no_grad()
def encode(
    prior: Prior,
    x: Tensor,
    *,
    sde: SDE | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    end: float | None = None,
) -> Tensor:
    """Flow signals x (B, *event) to their codes, (B, *event), as good as N(0, I) where x is from the prior.

    sde (default VE) sets the top of the flow; end is the noise level of x, in pixel units, by default the
    prior's lowest. A row's code depends on nothing but the row. Song et al. 2021, appendix D.5.
    """
    return _carried(prior, x, sde, Tolerance(rtol, atol), end, back=False)


@torch.no_grad()
def decode(
    prior: Prior,
    z: Tensor,
    *,
    sde: SDE | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    end: float | None = None,
) -> Tensor:
    """Flow codes z (B, *event) back to signals (B, *event): the inverse of encode of the same settings.

    Codes of N(0, I) decode to draws of the prior, at noise level end.
    """
    return _carried(prior, z, sde, Tolerance(rtol, atol), end, back=True)


def _carried(
    prior: Prior, given: Tensor, sde: SDE | None, tolerance: Tolerance, end: float | None, *, back: bool
) -> Tensor:
    flow = flow_of(prior, given)
    top = Posterior(prior, sde=sde, shape=flow.posterior.shape).span()[0]
    low, done = lowest(prior, end, top), []
    with prior.full_precision():
        for rows in torch.split(given.to(prior.device), rows_at_once(flow.posterior.shape)):
            z = rows.double().flatten(1) if back else flow.code(rows, low)
            z = flow.follow(z, *((top, low) if back else (low, top)), tolerance, tolerance.solver)
            done.append(flow.signal(z, low) if back else z.reshape(rows.shape).to(prior.dtype))
    return torch.cat(done)
