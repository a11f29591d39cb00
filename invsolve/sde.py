"""Forward noising and the grids that sampling walks back on.

    x_t = alpha(t) x_0 + sigma(t) z,   z ~ N(0, I),   t in [0, 1]

is the marginal of the linear SDE dx = f(t) x dt + g(t) dw when

    f = d log(alpha) / dt,      g^2 = d(sigma^2) / dt - 2 f sigma^2 = 2 alpha^2 lambda dlambda/dt.

alpha falls and sigma rises with t; only their ratio lambda = sigma/alpha matters to a denoiser, and every
grid is laid out in lambda or in t through the inverse `time(lambda)`. Song et al. 2021 (arXiv:2011.13456): VE
is equation 9, VP equation 11, sub-VP equation 12; kernels in equation 29. Times, alpha and sigma are float64
always: float32 loses the last steps of a grid.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError, UnknownName

__all__ = ["GRIDS", "SDE", "VE", "VP", "SubVP", "geometric", "grid_times", "karras", "uniform"]

Time = float | Tensor


def _time(t: Time) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64).cpu()


def _slope(fn: Callable[[Tensor], Tensor], t: Time) -> Tensor:
    """Derivative of fn at each t."""
    with torch.enable_grad():
        at = _time(t).detach().requires_grad_(True)
        value = fn(at) + 0 * at  # a constant fn still needs a graph
        return torch.autograd.grad(value.sum(), at)[0]


class SDE(ABC):
    """A linear SDE given by its marginals alpha(t) and sigma(t); everything else follows from them."""

    uniform_is_geometric = False  # whether times uniform in t are uniform in log(lambda)

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """Scale of the data at time t, float64, the shape of t."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Standard deviation of the noise at time t, float64, the shape of t."""

    def ratio(self, t: Time) -> Tensor:
        """Noise level a denoiser sees: lambda = sigma / alpha."""
        return self.sigma(t) / self.alpha(t)

    def f(self, t: Time) -> Tensor:
        """Drift coefficient d log(alpha) / dt."""
        return _slope(lambda s: self.alpha(s).log(), t)

    def g(self, t: Time) -> Tensor:
        """Diffusion coefficient, sqrt(2 alpha^2 lambda dlambda/dt)."""
        return (2 * self.alpha(t) ** 2 * self.ratio(t) * _slope(self.ratio, t)).sqrt()

    def time(self, ratio: Time) -> Tensor:
        """Inverse of `ratio` on [0, 1] by bisection; a subclass with a closed form overrides it."""
        goal = _time(ratio)
        low, high = torch.zeros_like(goal), torch.ones_like(goal)
        for _ in range(60):  # halves [0, 1] down to float64 resolution
            middle = (low + high) / 2
            below = self.ratio(middle) < goal
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """Forward kernel from s to t > s: x_t = a x_s + b z; returns a and b."""
        a = self.alpha(t) / self.alpha(s)
        return a, (self.sigma(t) ** 2 - (a * self.sigma(s)) ** 2).clamp_min(0).sqrt()


def _check_rising(low: float, high: float, names: str) -> None:
    if not (0 < low < high < math.inf):
        raise InputError(f"{names} must satisfy 0 < first < second, but they are {low} and {high}.")


@dataclass(frozen=True)
class VE(SDE):
    """Variance exploding: alpha = 1, sigma geometric in t (Song et al. 2021, equation 9).

    t may fall below 0, where sigma keeps falling geometrically: a grid may so end below sigma_min.
    """

    uniform_is_geometric = True

    sigma_min: Annotated[float, "noise level at t = 0, in pixel units"] = 0.01
    sigma_max: Annotated[float, "noise level at t = 1, in pixel units"] = 50.0

    def __post_init__(self) -> None:
        """Refuse noise levels that do not rise."""
        _check_rising(self.sigma_min, self.sigma_max, "sigma_min and sigma_max")

    @property
    def _log_span(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Time) -> Tensor:
        """One at every t."""
        return torch.ones_like(_time(t))

    def sigma(self, t: Time) -> Tensor:
        """sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * torch.exp(_time(t) * self._log_span)

    def f(self, t: Time) -> Tensor:
        """Zero: the data keeps its scale."""
        return torch.zeros_like(_time(t))

    def g(self, t: Time) -> Tensor:
        """sigma(t) sqrt(2 log(sigma_max / sigma_min))."""
        return self.sigma(t) * math.sqrt(2 * self._log_span)

    def time(self, ratio: Time) -> Tensor:
        """log(ratio / sigma_min) / log(sigma_max / sigma_min)."""
        return (_time(ratio) / self.sigma_min).log() / self._log_span


@dataclass(frozen=True)
class _Beta(SDE):
    """What VP and sub-VP share: f = -beta/2 with beta(t) linear, so log(alpha) is quadratic in t.

    Published processes are of images in [-1, 1], twice as wide as ours in [0, 1]: there noise of unit 1 is
    noise of unit 0.5 here.
    """

    beta_min: Annotated[float, "beta at t = 0, per unit of time"] = 0.1
    beta_max: Annotated[float, "beta at t = 1, per unit of time"] = 20.0
    unit: Annotated[float, "noise at t = 1, in pixel units; 0.5 is unit noise of images in [-1, 1]"] = 1.0

    def __post_init__(self) -> None:
        """Refuse a beta that does not rise, and a unit that is not positive."""
        _check_rising(self.beta_min, self.beta_max, "beta_min and beta_max")
        if not 0 < self.unit < math.inf:
            raise InputError(f"unit must be a number > 0, but it is {self.unit}.")

    def beta(self, t: Time) -> Tensor:
        """Rate beta_min + t (beta_max - beta_min)."""
        return self.beta_min + _time(t) * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Time) -> Tensor:
        """Minus half the integral of beta from 0 to t (equation 29)."""
        t = _time(t)
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def alpha(self, t: Time) -> Tensor:
        """Scale exp(-1/2 int_0^t beta)."""
        return self.log_alpha(t).exp()

    def f(self, t: Time) -> Tensor:
        """Drift -beta(t) / 2."""
        return -self.beta(t) / 2

    def _time_of(self, decay: Tensor) -> Tensor:
        """The t at which -log(alpha) = decay; the form without cancellation at small decay."""
        root = (self.beta_min**2 + 4 * (self.beta_max - self.beta_min) * decay).sqrt()
        return 4 * decay / (root + self.beta_min)


class VP(_Beta):
    """Variance preserving: sigma^2 = 1 - alpha^2 (Song et al. 2021, equation 11)."""

    def sigma(self, t: Time) -> Tensor:
        """Noise sqrt(1 - alpha^2), by expm1 so that small t keeps its digits."""
        return self.unit * (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def g(self, t: Time) -> Tensor:
        """Diffusion sqrt(beta(t))."""
        return self.unit * self.beta(t).sqrt()

    def time(self, ratio: Time) -> Tensor:
        """Closed form from -log(alpha) = log(1 + ratio^2) / 2."""
        return self._time_of(torch.log1p((_time(ratio) / self.unit) ** 2) / 2)


class SubVP(_Beta):
    """Sub-VP: sigma = 1 - alpha^2, below VP's at every t (Song et al. 2021, equation 12)."""

    def sigma(self, t: Time) -> Tensor:
        """Noise 1 - alpha^2, by expm1 so that small t keeps its digits."""
        return -self.unit * torch.expm1(2 * self.log_alpha(t))

    def g(self, t: Time) -> Tensor:
        """Diffusion sqrt(beta(t) (1 - alpha^4))."""
        return self.unit * (-self.beta(t) * torch.expm1(4 * self.log_alpha(t))).sqrt()

    def time(self, ratio: Time) -> Tensor:
        """Closed form: sigma/alpha = 2 sinh(-log(alpha))."""
        return self._time_of(torch.asinh(_time(ratio) / self.unit / 2))


def karras(sde: SDE, high: float, low: float, steps: int, rho: float = 7.0) -> Tensor:
    """Times whose lambda^(1/rho) is uniform from high to low (Karras et al. 2022, arXiv:2206.00364)."""
    roots = torch.linspace(high ** (1 / rho), low ** (1 / rho), steps + 1, dtype=torch.float64)
    return sde.time(roots**rho)


def geometric(sde: SDE, high: float, low: float, steps: int) -> Tensor:
    """Times whose log(lambda) is uniform from high to low."""
    return sde.time(torch.linspace(math.log(high), math.log(low), steps + 1, dtype=torch.float64).exp())


def uniform(sde: SDE, high: float, low: float, steps: int) -> Tensor:
    """Times uniform in t, as in Song et al. 2021."""
    first, last = sde.time(high), sde.time(low)
    return first + (last - first) * torch.linspace(0, 1, steps + 1, dtype=torch.float64)


GRIDS: dict[str, Callable[[SDE, float, float, int], Tensor]] = {
    "karras": karras,
    "geometric": geometric,
    "uniform": uniform,
}


def grid_times(name: str, sde: SDE, high: float, low: float, steps: int) -> Tensor:
    """Times of the named grid, steps + 1 of them, falling from time(high) to time(low)."""
    if name not in GRIDS:
        raise UnknownName("grid", name, GRIDS)
    if steps < 1:
        raise InputError(f"steps must be at least 1, but it is {steps}.")
    if not 0 < low < high:
        raise InputError(f"the grid must fall from {high} to {low} > 0: raise the start or lower the end.")
    return GRIDS[name](sde, high, low, steps)
