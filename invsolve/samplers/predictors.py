"""Predictors: one step back in time, from t to s < t, given the posterior's score S at (x_t, t).

Written with D = (x_t + sigma_t^2 S) / alpha_t, the mean E[x_0 | x_t, y], and xh = x / alpha, lambda = sigma /
alpha; so each formula serves every SDE.

    Euler-Maruyama      x_s  = x_t - (f x_t - g^2 S)(t - s) + g sqrt(t - s) z
    reverse diffusion   x_s  = (2 - a) x_t + b^2 S + b z,  where x_t = a x_s + b z forward
    ancestral           xh_s = q xh_t + (1 - q) D + lambda_s sqrt(1 - q) z,  q = (lambda_s / lambda_t)^2
    Heun                dxh/dlambda = (xh - D) / lambda, trapezoidal; churn adds noise first
    DPM-Solver++        exponential integrator in log(lambda) that extrapolates D over the last steps

Song et al. 2021 (arXiv:2011.13456), equations 6, 46, and 4 with 47; Karras et al. 2022 (arXiv:2206.00364);
Lu et al. 2022 (arXiv:2211.01095). The first three are of order one, the others of order two or more.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.posterior import Posterior
from invsolve.rng import Noise
from invsolve.sde import SDE

__all__ = [
    "Ancestral",
    "DPMpp",
    "EulerMaruyama",
    "Heun",
    "Memory",
    "NoPredictor",
    "Predictor",
    "ReverseDiffusion",
]

_SHORT, _EVEN = 0.45, 0.02  # longest step in log(lambda) of order three, and by how much steps may differ


@dataclass(frozen=True)
class Memory:
    """What a multistep method keeps of a step: D there, the step's length in log(lambda), and the step
    before."""

    mean: Tensor
    length: float
    last: "Memory | None" = None


class Predictor(ABC):
    """One step from t to s < t; times are float64 scalars."""

    refuses_uniform = False  # whether a grid uniform in t, where it is not geometric, is wrong for it

    @abstractmethod
    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return x_s and what the next step should remember."""

    def kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
        """Mean and standard deviation of x_s, a Gaussian given x_t, where E[x_0 | x_t] is taken for mean."""
        raise Refused(
            f"{self!r} draws x_s from no Gaussian, and SMC weighs by its density: "
            "take predictor dpmpp, ancestral, reverse-diffusion or euler-maruyama."
        )

    def ahead(self, memory: Memory) -> Tensor:
        """Value of D to take over the whole step, from D now and before; D itself for one-step methods."""
        return memory.mean


@dataclass(frozen=True)
class NoPredictor(Predictor):
    """Keep xh = x / alpha: sampling by the corrector alone."""

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return x scaled to the data's size at s."""
        return x * float(posterior.sde.alpha(s) / posterior.sde.alpha(t)), None


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    """Euler-Maruyama on the reverse SDE. Order 1."""

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return x_t - (f x_t - g^2 S)(t - s) + g sqrt(t - s) z."""
        f, g, dt = float(posterior.sde.f(t)), float(posterior.sde.g(t)), float(t - s)
        drift = f * x - g**2 * posterior.score(x, t)
        return x - drift * dt + g * math.sqrt(dt) * noise(), None

    def kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
        """The step above, with the score that belongs to the mean."""
        f, g, dt = float(sde.f(t)), float(sde.g(t)), float(t - s)
        return x - (f * x - g**2 * _score(sde, x, t, mean)) * dt, g * math.sqrt(dt)


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """Reverse the forward chain's own discretisation. Order 1."""

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return (2 - a) x_t + b^2 S + b z."""
        a, b = (float(v) for v in posterior.sde.transition(s, t))
        return (2 - a) * x + b**2 * posterior.score(x, t) + b * noise(), None

    def kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
        """The step above, with the score that belongs to the mean."""
        a, b = (float(v) for v in sde.transition(s, t))
        return (2 - a) * x + b**2 * _score(sde, x, t, mean), b


@dataclass(frozen=True)
class Ancestral(Predictor):
    """Draw from q(x_s | x_t, x_0 = D), the chain's own posterior. Order 1."""

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return alpha_s (q xh_t + (1 - q) D) + sigma_s sqrt(1 - q) z."""
        mean, std = self.kernel(posterior.sde, x, t, s, posterior.mean(x, t))
        return mean + std * noise(), None

    def kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
        """alpha_s (q xh_t + (1 - q) D) and sigma_s sqrt(1 - q)."""
        return _bridge(sde, x, t, s, mean)


@dataclass(frozen=True)
class Heun(Predictor):
    """Heun's method on the probability-flow ODE; churn > 0 adds noise first, as an SDE does. Order 2.

    Two network calls a step. Karras et al. 2022 (arXiv:2206.00364), algorithms 1 and 2.
    """

    churn: Annotated[float, "share by which the noise level is raised before each step, in [0, 0.41]"] = 0.0

    def __post_init__(self) -> None:
        """Refuse a churn beyond sqrt(2) - 1."""
        if not 0 <= self.churn <= math.sqrt(2) - 1:
            raise InputError(f"churn must be in [0, {math.sqrt(2) - 1:.3f}], but it is {self.churn}.")

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Raise the noise from t, then take Euler's step and the trapezoid in lambda."""
        sde = posterior.sde
        if self.churn:
            x, t = self._raise(posterior, x, t, noise)
        high, low = float(sde.ratio(t)), float(sde.ratio(s))
        alpha_s = float(sde.alpha(s))
        xh = x / float(sde.alpha(t))
        slope = (xh - posterior.mean(x, t)) / high  # Euler step
        trial = xh + (low - high) * slope
        second = (trial - posterior.mean(alpha_s * trial, s)) / low  # second-order correction
        return alpha_s * (xh + (low - high) * (slope + second) / 2), None

    def _raise(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Noise x_t forward to the time of a higher lambda, at most the start of the run."""
        sde, top = posterior.sde, posterior.span()[0]
        later = sde.time(min(float(sde.ratio(t)) * (1 + self.churn), max(top, float(sde.ratio(t)))))
        a, b = (float(v) for v in sde.transition(t, later))
        return a * x + b * noise(), later


@dataclass(frozen=True)
class DPMpp(Predictor):
    """Integrate in log(lambda) with D extrapolated from the last steps: DPM-Solver++(2M) and (3M).

    One network call a step. With h the step's length in log(lambda) and e = 1 + eta: x decays by exp(-e h)
    towards D, D's first difference D1 is added with weight (1 - exp(-e h)) / 2 (2M) or, with the second
    difference D2, as phi_2 D1 - phi_3 D2 (3M). kind sde (eta = 1) adds the noise of the reverse SDE at each
    step, ode (eta = 0) none. Lu et al. 2022 (arXiv:2211.01095), section 4.2; the SDE and 3M forms as in
    k-diffusion, save for the weight of D1 in the SDE form of 2M.

    Along the reverse SDE D is a martingale: nothing is to be extrapolated, and D1, which is noise of the last
    step, is there to make up for Cov[x_0 | x_t], which a step from D alone leaves out. Any weight h + O(h^2)
    is of order two. On Gaussians (1 - exp(-2 h)) / 2 makes up for too much, and 2M here has (1 - exp(-8 h /
    3)) 3/8. How far 40 steps then leave the sd of samples from the right one, at worst over Gaussians of sd
    0.01 to 3, and for a network on photographs (`benchmarks/steps.py`):

        grid         order   VE        VP        photographs
        geometric    2       -0.4 %    -0.5 %    -11 to -3 %
        geometric    3        1.0 %     1.4 %     -1 to  1 %
        karras       2        1.1 %    -2.4 %    -11 to -1 %
        karras       3        8.2 %    14   %      2 to  6 %

    A network's covariance changes faster with the noise than a Gaussian's. So 3M is taken by default in short
    steps of one length (at most 0.45), 2M in longer ones and where lengths change.
    """

    kind: Annotated[Literal["sde", "ode"], "whether each step adds noise (sde) or none (ode)"] = "sde"
    order: Annotated[
        int | None, "2 or 3; by default 3 in short steps of one length, 2 elsewhere and in smc"
    ] = None
    refuses_uniform = True

    def __post_init__(self) -> None:
        """Refuse orders that are not there."""
        if self.order not in (None, 2, 3) or self.kind not in ("sde", "ode"):
            raise InputError(
                f"dpmpp has order 2, 3 or none, kind sde or ode, but they are {self.order} and {self.kind!r}."
            )

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return alpha_s (e^-(e h) xh + (1 - e^-(e h)) D + differences) + sigma_s sqrt(1 - e^(-2 eta h))
        z."""
        sde, eta = posterior.sde, 1.0 if self.kind == "sde" else 0.0
        h = float((sde.ratio(t) / sde.ratio(s)).log())
        memory = Memory(posterior.mean(x, t), h, memory)
        alpha_s, alpha_t = float(sde.alpha(s)), float(sde.alpha(t))
        keep = math.exp(-(1 + eta) * h)
        ahead = self._ahead(memory, (1 + eta) * h, _order(memory))
        x = alpha_s * (keep / alpha_t * x + (1 - keep) * memory.mean + ahead)
        if eta:
            x = x + float(sde.sigma(s)) * math.sqrt(-math.expm1(-2 * h)) * noise()
        last = memory.last
        return x, Memory(memory.mean, h, None if last is None else Memory(last.mean, last.length))

    def kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
        """With D looked ahead for mean, the step of kind sde is ancestral sampling's."""
        return _bridge(sde, x, t, s, mean) if self.kind == "sde" else super().kernel(sde, x, t, s, mean)

    def ahead(self, memory: Memory) -> Tensor:
        """D and its differences, so that (1 - e^-2h) times it is what the step adds; by default of order 2:
        the weights of particles make up for the rest."""
        eh = 2 * memory.length
        return memory.mean - self._ahead(memory, eh, 2) / math.expm1(-eh)

    def _ahead(self, now: Memory, eh: float, order: int) -> Tensor | float:
        """What the change of D over the step adds: nothing at first, then D1's term, then D2's too. The order
        stands in where the user gave none."""
        last = now.last
        if last is None:
            return 0.0
        r0 = last.length / now.length
        d0 = (now.mean - last.mean) / r0
        if (self.order or order) == 2 or last.last is None:
            rate = 4 / 3 if self.kind == "sde" else 1.0  # times 2 h, or h
            return -math.expm1(-rate * eh) / (2 * rate) * d0
        r1 = last.last.length / now.length
        d1 = (last.mean - last.last.mean) / r1
        phi_2 = math.expm1(-eh) / eh + 1
        phi_3 = phi_2 / eh - 0.5
        second = (d0 - d1) / (r0 + r1)
        return phi_2 * (d0 + r0 * second) - phi_3 * second


def _order(now: Memory) -> int:
    """Three in short steps of one length, two in others."""
    even = now.last is not None and abs(now.last.length / now.length - 1) < _EVEN
    return 3 if even and now.length <= _SHORT else 2


def _bridge(sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
    """Mean and standard deviation of q(x_s | x_t, x_0 = mean)."""
    q = float((sde.ratio(s) / sde.ratio(t)) ** 2)
    alpha_t, alpha_s = float(sde.alpha(t)), float(sde.alpha(s))
    return alpha_s * (q / alpha_t * x + (1 - q) * mean), float(sde.sigma(s)) * math.sqrt(1 - q)


def _score(sde: SDE, x: Tensor, t: Tensor, mean: Tensor) -> Tensor:
    """Score that belongs to E[x_0 | x_t] = mean, by Tweedie's formula."""
    return (float(sde.alpha(t)) * mean - x) / float(sde.sigma(t)) ** 2
