"""Decoupled annealing: draw x_0 given x_t and y, noise it afresh to the next level, and so on down.

Zhang et al. 2024 (arXiv:2407.01521), algorithm 1. With lambda = sigma/alpha at each level,

    estimate     x_0 | x_t      ~  N(c, r^2 I)
    condition    x_0 | x_t, y   ~  N(c, r^2 I) p(y | x_0)               samplers/conditional.py
    renoise      x_s = alpha_s x_0 + sigma_s z

As published, c is the end of the probability-flow ODE and r = lambda. That counts the spread of x_0 | x_t
twice, for the ODE's ends have all of the prior's own; on Gaussians the unmeasured directions become up to
twice too wide in variance, and the remedy was a likelihood sharper than the noise. Here, unless asked, c is
the mean E[x_0 | x_t] and r^2 its mean variance tr Cov[x_0 | x_t] / d, read off one derivative of the denoiser
along a random sign vector (Hutchinson): right for white Gaussian priors, and near it for others.

What r^2 I loses is how pixels depend on each other given x_t. Small steps down the levels bring that back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.linalg import dot, expand
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.rng import Noise
from invsolve.samplers.annealed import Annealed, alone, finite, power, reverse
from invsolve.samplers.conditional import Inner, draw_given_y
from invsolve.samplers.predictors import DPMpp
from invsolve.samplers.walk import Step, at_least_1, located, noise_of, noised
from invsolve.sde import grid_times

__all__ = ["DAPS"]


@dataclass(frozen=True)
class DAPS(Annealed):
    """Draw x_0 given x_t and y, then noise it to the next level (DAPS, Zhang et al. 2024). Needs A^T, or A
    made of torch operations: steps + 1 calls a sample, and as many vector-Jacobian products with width
    matched.

    ode_steps more calls a level with centre ode. Any likelihood with a gradient; exact draws where its
    operator is linear.

    The paper's settings are centre ode, width sigma, steps 200 and, at sigma_y 0.05 on [-1, 1], temper 0.2.
    """

    steps: Annotated[int, "noise levels to go down, >= 1"] = 100
    grid: Annotated[str, "spacing of the levels: karras, geometric or uniform"] = "karras"
    temper: Annotated[float, "factor on the noise of the likelihood; below 1 samples are too alike"] = 1.0
    centre: Annotated[Literal["mean", "ode"], "c: the denoiser's mean, or the end of the ODE"] = "mean"
    width: Annotated[Literal["matched", "sigma"], "r: from the denoiser's derivative, or lambda"] = "matched"
    ode_steps: Annotated[int, "steps of the ODE from each level, with centre ode"] = 5
    inner: Annotated[
        Literal["auto", "exact", "langevin"], "draws given y; auto is exact where the operator is linear"
    ] = "auto"
    inner_steps: Annotated[int, "Langevin steps at each level"] = 100
    inner_step: Annotated[float, "length of a Langevin step, as a share of the stable one, in (0, 1)"] = 0.1
    batch: Annotated[int | None, "samples computed at once; by default what keeps memory flat"] = None

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        self._check()
        at_least_1(ode_steps=self.ode_steps)
        if not self.temper > 0:
            raise InputError(f"temper must be > 0, but it is {self.temper}.")
        if self.centre not in ("mean", "ode") or self.width not in ("matched", "sigma"):
            given = f"{self.centre!r} and {self.width!r}"
            raise InputError(f"centre is mean or ode and width matched or sigma, but they are {given}.")
        Inner(self.inner, self.inner_steps, self.inner_step)  # checks its own settings

    def notes(self) -> list[str]:
        """Say so where the likelihood is tempered."""
        sharper = f"the likelihood is tempered: its noise is taken {self.temper:g} times as large as it is"
        return [sharper] if self.temper != 1 else []

    @property
    def _inner(self) -> Inner:
        return Inner(self.inner, self.inner_steps, self.inner_step)

    @torch.no_grad()
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield the draw of x_0 at each noise level; the last are the samples."""
        times, noise, sde = self.times(posterior), noise_of(posterior, n, seed, first), posterior.sde
        x = noised(sde, posterior.prior.centre, times[0], noise("start"))
        for i, t in enumerate(times):
            own = noise.child(i)
            with located(f"level {i + 1} of {len(times)}"):
                x0 = self._draw(posterior, x, t, own)
            yield Step(i + 1, float(t), x0)
            if i < self.steps:
                x = noised(sde, x0, times[i + 1], own("renoise"))

    def _draw(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Draw x_0 given x_t and y."""
        level = float(posterior.sde.ratio(t))
        c, r2 = self._estimate(posterior, x, t, noise)
        x0 = c + expand(r2.sqrt(), x) * noise("estimate")
        gamma = power(posterior, level) / self.temper**2
        x0 = draw_given_y(posterior.likelihood, c, x0, r2, gamma, self._inner, noise.child("given y"))
        return finite(x0, "the draw given y", level)

    def _estimate(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Centre c (B, *event) and r^2 (B,) of x_0 given x_t; at the lowest level the ODE has ended."""
        level, low = float(posterior.sde.ratio(t)), posterior.span()[1]
        prior, r2 = alone(posterior), torch.full((len(x),), level**2, dtype=x.dtype, device=x.device)
        walks = self.centre == "ode" and level > low * (1 + 1e-9)
        if self.width == "matched":
            c, r2 = _matched(posterior, x, t, noise("probe").sign())
        elif not walks:
            c = prior.at(x, t).mean
        if walks:
            times = grid_times("karras", prior.sde, level, low, self.ode_steps)
            c = reverse(prior, x, times, DPMpp("ode"), noise.child("ode"))
        return c, r2


def _matched(posterior: Posterior, x: Tensor, t: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of x_0 | x_t and its mean variance, at least 0: less comes of errors of a learned derivative."""
    prior, level = posterior.prior, posterior.sde.ratio(t)
    graph = prior.differentiated(level.reshape(1))
    at = Denoised(prior, posterior.sde, x, t, graph=graph, calls=posterior.calls)
    finite(at.mean, "the prior's mean", float(level))
    r2 = dot(sign, at.covariance(sign)) / sign[0].numel()
    return at.mean, finite(r2, "the denoiser's derivative", float(level)).clamp_min(0)
