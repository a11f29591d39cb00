"""Ensemble Kalman guidance: a black box A, of which nothing but A(x) can be computed, linear or not.

After Zheng et al. 2024 (arXiv:2409.20175), who guide a set of particles by covariances between them and
their predicted measurements, in place of derivatives of A. Here these are covariances given x_t, so that the
step has a size of its own and the particles keep their spread. At each level, for particles j = 1 .. P and
y = A(x) + e, e ~ N(0, V),

    draw       x^j ~ p(x_0 | x_t^j)       by a few reverse diffusion steps; D^j = E[x_0 | x_t^j]
    compare    dx^j = x^j - D^j,  da^j = A(x^j) - A(D^j)              spread given x_t, of x_0 and of A(x_0)
    update     x^j <- x^j + C_xa (C_aa + V)^-1 (y - e^j - A(x^j))     C_xa, C_aa: covariances of dx, da over j
    renoise    x_s^j = alpha_s x^j + sigma_s z

The update is the ensemble Kalman filter's with perturbed measurements (Burgers et al. 1998). As P grows it is
exact where the prior is Gaussian and A linear; elsewhere A is taken for its own regression on the ensemble,
the same for all particles. C_xa has rank P - 1 at most: P should exceed the directions that y tells of.

The particles of a set know of each other, so sets have a fixed size: sample k is particle k mod P of set k //
P, whatever n is, and one sample costs as much as P.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.likelihood import LinearLikelihood
from invsolve.posterior import Posterior
from invsolve.rng import Noise
from invsolve.samplers.annealed import Annealed, alone, draws_from, finite, power, reverse
from invsolve.samplers.predictors import DPMpp, Predictor
from invsolve.samplers.walk import Step, at_least_1, located, noise_of, noised, rows_at_once
from invsolve.sde import grid_times

__all__ = ["EnKG"]


@dataclass(frozen=True)
class EnKG(Annealed):
    """Guide a set of particles by how A(x), a black box, varies among them (EnKG, after Zheng et al. 2024).
    Needs Gaussian noise and nothing of A but its values: steps (prior_steps + 2) + 1 calls of the prior a
    particle and 2 (steps + 1) of A, no derivative of the prior.

    Each particle is one sample.
    """

    predictor: Predictor = field(default_factory=DPMpp)
    steps: Annotated[int, "noise levels to go down, >= 1"] = 50
    prior_steps: Annotated[int, "predictor steps of each draw of x_0 given x_t"] = 8
    particles: Annotated[int, "particles of a set, each one sample"] = 256
    grid: Annotated[str, "spacing of the levels: karras, geometric or uniform"] = "karras"
    batch: Annotated[int | None, "particles computed at once; by default what keeps memory flat"] = None

    def __post_init__(self) -> None:
        """Refuse sets that have no covariance."""
        self._check()
        at_least_1(prior_steps=self.prior_steps)
        if self.particles < 3:
            raise InputError(f"particles must be at least 3, but it is {self.particles}.")

    def __call__(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Tensor:
        """Draw samples first .. first + n - 1, (n, *event), from as many whole sets as they belong to."""
        at_least_1(n=n)
        for step in self.walk(posterior, n, seed, first):
            last = step
        return last.x

    def times(self, posterior: Posterior) -> Tensor:
        """Times of the walk, steps + 1 of them; Refused where the noise is not Gaussian."""
        draws_from(self.predictor, posterior, "enkg")
        likelihood = posterior.likelihood
        gaussian = isinstance(likelihood, LinearLikelihood) and likelihood.noise_is_gaussian
        if likelihood is not None and not gaussian:
            raise Refused(
                f"enkg needs a measurement with Gaussian noise, not {type(likelihood).__name__}: "
                "take sampler daps or pnp-dm."
            )
        return super().times(posterior)

    @torch.no_grad()
    def walk(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Iterator[Step]:
        """Yield the draws of x_0 after each update, of the samples asked for."""
        times, P = self.times(posterior), self.particles
        sets = range(first // P, (first + n - 1) // P + 1)
        walks = [self._set(posterior, times, seed, k) for k in sets]
        start = first - sets.start * P
        for i, each in enumerate(zip(*walks, strict=True)):
            yield Step(i + 1, float(times[i]), torch.cat(each)[start : start + n])

    def _set(self, posterior: Posterior, times: Tensor, seed: int, k: int) -> Iterator[Tensor]:
        """Walk particle set k."""
        sde, noise = posterior.sde, noise_of(posterior, self.particles, seed).child("particle set", k)
        x = noised(sde, posterior.prior.centre, times[0], noise("start"))
        for i, t in enumerate(times):
            own = noise.child(i)
            with located(f"level {i + 1} of {len(times)}"):
                x0 = self._update(posterior, x, t, own)
            yield x0
            if i < self.steps:
                x = noised(sde, x0, times[i + 1], own("renoise"))

    def _update(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Draw x_0 given x_t, and move the draws by the ensemble's Kalman gain."""
        level, likelihood = float(posterior.sde.ratio(t)), posterior.likelihood
        mean, drawn = self._drawn(posterior, x, t, noise.child("draw"))
        gamma = power(posterior, level)
        if likelihood is None or gamma == 0:
            return drawn
        assert isinstance(likelihood, LinearLikelihood)  # times has refused the others
        a, b = self._predicted(likelihood, drawn), self._predicted(likelihood, mean)
        scale = (gamma / likelihood.noise_variance(a)).sqrt().to(a)
        e = replace(noise, shape=tuple(likelihood.y.shape))("measurement").to(a)
        off = (scale * (likelihood.y.to(a) - a) - e).flatten(1).double()
        shift = _kalman((drawn - mean).flatten(1), (scale * (a - b)).flatten(1).double(), off)
        return finite(drawn + shift.reshape(drawn.shape), "the ensemble's update", level)

    def _drawn(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Mean of x_0 | x_t and a draw of it, in micro-batches; at the lowest level both are the mean."""
        sde, prior, low = posterior.sde, alone(posterior), posterior.span()[1]
        level, means, draws = float(sde.ratio(t)), [], []
        for start in range(0, len(x), self._size(x)):
            rows = x[start : start + self._size(x)]
            own = replace(noise, first=noise.first + start, n=len(rows))
            means.append(prior.at(rows, t).mean)
            if level > low * (1 + 1e-9):
                times = grid_times("karras", sde, level, low, self.prior_steps)
                draws.append(reverse(prior, rows, times, self.predictor, own))
        mean = torch.cat(means)
        return mean, torch.cat(draws) if draws else mean

    def _predicted(self, likelihood: LinearLikelihood, x: Tensor) -> Tensor:
        return torch.cat([likelihood.A(rows) for rows in torch.split(x, self._size(x))])

    def _size(self, x: Tensor) -> int:
        return self.batch or rows_at_once(tuple(x.shape[1:]))


def _kalman(dx: Tensor, da: Tensor, off: Tensor) -> Tensor:
    """Return C_xa (C_aa + I)^-1 off for each row: dx (P, d), da and off (P, m), whitened by the noise.

    With X, W the centred dx, da over sqrt(P - 1): X^T W (W^T W + I)^-1 off, solved among the m measured
    entries; or X^T (W W^T + I)^-1 W off, among the particles where they are fewer.
    """
    P, m = da.shape
    X, W = ((v - v.mean(0)) / (P - 1) ** 0.5 for v in (dx, da))
    one = torch.eye(min(P, m), dtype=W.dtype, device=W.device)
    if m < P:
        among = W @ torch.linalg.solve(W.T @ W + one, off.T)
    else:
        among = torch.linalg.solve(W @ W.T + one, W @ off.T)
    shift: Tensor = among.T.to(dx) @ X
    return shift
