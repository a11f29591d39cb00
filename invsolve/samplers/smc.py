"""Twisted sequential Monte Carlo: particles that are steered by guidance and weighed for its error.

Wu et al. 2023 (arXiv:2306.17775), algorithm 1 (TDS). A set of P particles walks the grid down together. With
the predictor's Gaussian kernel N(mu(D), std^2) and the twist T_t(x) = p(y | x_t = x) of the guidance,

    propose     x_s ~ N(mu(D_y), std^2)                    the posterior's mean D_y in place of the prior's D
    weigh       w  *=  N(x_s; mu(D), std^2) / N(x_s; mu(D_y), std^2)  *  T_s(x_s) / T_t(x_t)
    resample    when 1 / sum w^2 < P ess, systematically, in an order that puts like beside like

so the product of the weights' means estimates p(y), and the weighted particles the posterior: exactly as P
grows, whatever the guidance, where guidance alone puts modes at wrong weights. A good twist is what keeps P
small. DPM-Solver++'s kernel looks D ahead from the particle's own past, which keeps the chain of order two:
the past belongs to the particle, and is resampled with it.

A set ends as `draws` of its P particles, taken in the same way by weight and shuffled. Sample k belongs to
set k // draws, whatever n is; sets share nothing, so their log-evidences are independent estimates. Draws
that share an ancestor can be moved apart by MALA (samplers/mala.py), which takes the likelihood as it is,
too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from invsolve.errors import Divergence, InputError, UnknownName
from invsolve.linalg import dot
from invsolve.posterior import Posterior, Twisted
from invsolve.rng import Noise
from invsolve.samplers.mala import mala
from invsolve.samplers.ordering import neighbours
from invsolve.samplers.predictors import DPMpp, Memory, Predictor
from invsolve.samplers.walk import Step, at_least_1, located, noise_of, noised, rows_at_once
from invsolve.sde import GRIDS, SDE, grid_times

__all__ = ["Cloud", "TwistedSMC", "Weighed"]

_MALA_STEP = 0.3  # of the posterior's variance: accepted nine times in ten in a few dimensions
_BEYOND = 5.0  # start at this many standard deviations of the data: noise then differs from it by 0.001 nats


@dataclass(frozen=True)
class Cloud:
    """A particle set after step i, at time t: x (P, *event) and what came of evaluating it there.

    log_weights (P,) are normalised, float64; log_evidence estimates log p(y) so far; ess is the effective
    sample size 1 / sum w^2 before resampling. prior and mean are the histories of D and D_y.
    """

    i: int
    t: float
    x: Tensor
    log_weights: Tensor
    log_twist: Tensor
    log_evidence: float
    ess: float
    prior: Memory
    mean: Memory


class Weighed(NamedTuple):
    """Samples (n, *event), and of each set that they come from the effective sample size after every step,
    (sets, steps + 1), and the estimate of log p(y), (sets,), both float64."""

    samples: Tensor
    ess: Tensor
    log_evidence: Tensor


@dataclass(frozen=True)
class TwistedSMC:
    """Weigh particles by what the guidance gets wrong, and resample them (twisted SMC, Wu et al. 2023). Needs
    a guidance with a log p(y | x_t); a sample costs particles / draws walks of steps + 1 calls, 8 by default.

    sampler(posterior, n, seed, first=0) -> samples first .. first + n - 1. With moment-matching a particle
    takes a vector-Jacobian product a measured entry and step.
    """

    predictor: Predictor = field(default_factory=DPMpp)
    steps: Annotated[int, "steps, >= 1"] = 100
    grid: Annotated[str, "spacing of the times: karras, geometric or uniform"] = "karras"
    particles: Annotated[int, "particles of a set"] = 800
    draws: Annotated[int, "samples taken from each set, at most as many as particles"] = 100
    ess: Annotated[float, "share of the particles below which the effective sample size resamples"] = 0.5
    moves: Annotated[int, "MALA moves of each draw at the end, with the exact likelihood"] = 0
    batch: Annotated[int | None, "particles computed at once; by default what keeps memory flat"] = None

    def __post_init__(self) -> None:
        """Refuse sets that cannot be walked."""
        if self.steps < 1 or self.draws < 1 or (self.batch is not None and self.batch < 1):
            given = f"{self.steps}, {self.draws} and {self.batch}"
            raise InputError(f"steps, draws and batch must be at least 1, but they are {given}.")
        if self.moves < 0:
            raise InputError(f"moves must be at least 0, but it is {self.moves}.")
        if self.particles < self.draws:
            raise InputError(f"{self.draws} draws need as many particles, but there are {self.particles}.")
        if not 0 <= self.ess <= 1:
            raise InputError(f"ess must be a share in [0, 1], but it is {self.ess}.")
        if self.grid not in GRIDS:
            raise UnknownName("grid", self.grid, GRIDS)

    def __call__(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Tensor:
        """Draw samples first .. first + n - 1, (n, *event), from as many whole sets as they belong to."""
        return self.weighed(posterior, n, seed, first).samples

    def weighed(self, posterior: Posterior, n: int, seed: int, first: int = 0) -> Weighed:
        """Draw the samples, and say how evenly their sets were weighed and what evidence they found."""
        for _, found in self.weighing(posterior, n, seed, first):
            last = found
        assert last is not None  # weighing says what it promises
        return last

    def weighing(
        self, posterior: Posterior, n: int, seed: int, first: int = 0
    ) -> Iterator[tuple[Step, Weighed | None]]:
        """Yield the particles' E[x_0 | x_t, y] after each step of each set; the last are the samples, and
        with them comes what weighed returns."""
        at_least_1(n=n)
        sets, drawn = range(first // self.draws, (first + n - 1) // self.draws + 1), list[Weighed]()
        for k in sets:
            for step, found in self._draw(posterior, seed, k):
                yield replace(step, share=(k - sets.start + step.i / (self.steps + 2)) / len(sets)), None
                drawn += [found] if found else []
        samples, ess, log_evidence = (torch.cat(of_sets) for of_sets in zip(*drawn, strict=True))
        start = first - sets.start * self.draws
        samples = samples[start : start + n]
        yield Step(self.steps + 2, 0.0, samples, 1.0), Weighed(samples, ess, log_evidence)

    def times(self, posterior: Posterior) -> Tensor:
        """Times of the walk, steps + 1 of them, from a noise level well above the data's extent."""
        return grid_times(self.grid, posterior.sde, *posterior.span(_BEYOND), self.steps)

    @torch.no_grad()
    def clouds(self, posterior: Posterior, seed: int, k: int = 0) -> Iterator[Cloud]:
        """Yield particle set k after each step, from noise to data; ESS and evidence are read off it."""
        times, noise = self.times(posterior), self._noise(posterior, seed, k)
        cloud = self._start(posterior, times[0], noise)
        yield cloud
        for i in range(self.steps):
            cloud = self._resample(cloud, noise.child(i))
            with located(f"step {i + 1} of {self.steps}"):
                cloud = self._step(posterior, cloud, times[i], times[i + 1], noise.child(i))
            yield cloud

    def _draw(self, posterior: Posterior, seed: int, k: int) -> Iterator[tuple[Step, Weighed | None]]:
        """Walk set k and draw its samples: E[x_0 | x_t, y] of particles taken by weight, in random order."""
        ess = []
        for cloud in self.clouds(posterior, seed, k):
            yield Step(cloud.i, cloud.t, cloud.mean.mean), None
            ess.append(cloud.ess)
            last = cloud
        noise = replace(self._noise(posterior, seed, k), n=self.draws)
        chosen = systematic(last.log_weights, self.draws, _uniform(noise, "draws"), last.mean.mean)
        order = replace(noise, shape=(), dtype=torch.float64)("order").argsort()
        drawn = last.mean.mean[chosen[order]]
        if self.moves:
            t = self.times(posterior)[-1]
            drawn = mala(posterior, drawn, t, self.moves, _MALA_STEP, noise.child("mala"))
        told = (torch.tensor(values, dtype=torch.float64) for values in ([ess], [last.log_evidence]))
        yield Step(self.steps + 1, 0.0, drawn), Weighed(drawn, *told)

    def _noise(self, posterior: Posterior, seed: int, k: int) -> Noise:
        return noise_of(posterior, self.particles, seed).child("particle set", k)

    def _start(self, posterior: Posterior, t: Tensor, noise: Noise) -> Cloud:
        x = noised(posterior.sde, posterior.prior.centre, t, noise("start"))
        found = self._evaluate(posterior, x, t)
        weights, evidence, ess = _weigh(found.log_twist - math.log(len(x)))
        prior, mean = Memory(found.prior_mean, 0.0), Memory(found.mean, 0.0)
        return Cloud(0, float(t), x, weights, found.log_twist, evidence, ess, prior, mean)

    def _resample(self, cloud: Cloud, noise: Noise) -> Cloud:
        """Return the cloud with equal weights where its effective sample size is low."""
        if cloud.ess >= self.ess * self.particles:
            return cloud
        chosen = systematic(cloud.log_weights, self.particles, _uniform(noise, "resample"), cloud.mean.mean)
        return replace(
            cloud,
            x=cloud.x[chosen],
            log_twist=cloud.log_twist[chosen],
            log_weights=torch.full_like(cloud.log_weights, -math.log(self.particles)),
            prior=_taken(cloud.prior, chosen),
            mean=_taken(cloud.mean, chosen),
        )

    def _step(self, posterior: Posterior, cloud: Cloud, t: Tensor, s: Tensor, noise: Noise) -> Cloud:
        """Propose x_s around the posterior's mean, and weigh it by the prior's kernel and the twist."""
        sde, z = posterior.sde, noise("particles")
        h = float((sde.ratio(t) / sde.ratio(s)).log())
        prior, mean = replace(cloud.prior, length=h), replace(cloud.mean, length=h)
        steered, std = self._kernel(sde, cloud.x, t, s, mean)
        gap = (steered - self._kernel(sde, cloud.x, t, s, prior)[0]) / std
        x = steered + std * z
        found = self._evaluate(posterior, x, s)
        change = found.log_twist - cloud.log_twist - (dot(gap, z) + dot(gap, gap) / 2).double()
        weights, evidence, ess = _weigh(cloud.log_weights + change)
        return Cloud(
            cloud.i + 1,
            float(s),
            x,
            weights,
            found.log_twist,
            cloud.log_evidence + evidence,
            ess,
            _remember(found.prior_mean, prior),
            _remember(found.mean, mean),
        )

    def _kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, memory: Memory) -> tuple[Tensor, float]:
        return self.predictor.kernel(sde, x, t, s, self.predictor.ahead(memory))

    def _evaluate(self, posterior: Posterior, x: Tensor, t: Tensor) -> Twisted:
        """Evaluate the particles in micro-batches."""
        size = self.batch or rows_at_once(posterior.shape)
        parts = [posterior.twisted(rows, t) for rows in torch.split(x, size)]
        names = ("prior_mean", "mean", "log_twist")
        return Twisted(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def systematic(log_weights: Tensor, n: int, u: float, alike: Tensor) -> Tensor:
    """Choose n rows, row i about n w_i times: the comb (j + u) / n laid on the weights, cumulated in an order
    that puts rows of `alike` (P, *event) beside those that resemble them."""
    order = neighbours(alike)
    comb = (torch.arange(n, dtype=torch.float64, device=log_weights.device) + u) / n
    edges = log_weights[order].double().exp().cumsum(0)
    return order[torch.searchsorted(edges / edges[-1], comb).clamp_max(len(order) - 1)]


def _weigh(log_weights: Tensor) -> tuple[Tensor, float, float]:
    """Return the weights normalised, the log of their sum, and the effective sample size."""
    total = torch.logsumexp(log_weights, 0)
    if not total.isfinite():
        raise Divergence(
            f"the weights of {len(log_weights)} particles sum to exp({float(total)}). More steps, or another "
            "guidance, may keep them apart from that."
        )
    weights = log_weights - total
    return weights, float(total), float((-torch.logsumexp(2 * weights, 0)).exp())


def _uniform(noise: Noise, key: str) -> float:
    one = replace(noise, n=1, shape=(), dtype=torch.float64)
    return float(torch.special.ndtr(one(key))[0])


def _taken(memory: Memory, rows: Tensor) -> Memory:
    last = None if memory.last is None else _taken(memory.last, rows)
    return Memory(memory.mean[rows], memory.length, last)


def _remember(mean: Tensor, before: Memory) -> Memory:
    """Put the mean at the time reached before the steps that led there, two of which are kept."""
    last = before.last
    return Memory(mean, 0.0, replace(before, last=None if last is None else replace(last, last=None)))
