"""Denoising score matching: one squared error, and the laws of t that name the published objectives.

With x_t = alpha x_0 + sigma z the score of the kernel is grad log p(x_t | x_0) = -z / sigma, and the network
that minimises E |s(x_t, t) + z / sigma|^2 over x_0 and z is s = grad log p_t (Vincent 2011). What is left to
choose is the weight lambda(t) and the law of t (Song et al. 2021, arXiv:2011.13456, equation 7):

    L = 1/2 E_t [ lambda(t) E |s + z/sigma|^2 ]  =  1/2 E_t [ w(t) E |sigma s + z|^2 ],   w = lambda / sigma^2

    Song         t uniform, lambda = sigma^2: lambda ~ 1 / E |grad log p(x_t | x_0)|^2, and that is sigma^2/d
    Likelihood   lambda = g^2 over t in [end, 1]: then L bounds the likelihood (invsolve.training.bound).
                 With t uniform its variance is huge; but g^2/sigma^2 = 2 d ln(level)/dt, level =
                 sigma/alpha, for every linear SDE, so t with ln(level) uniform takes all of it into the law
                 of t, and w = 2 ln(level(1) / level(end)) (Song, Durkan, Murray and Ermon 2021,
                 arXiv:2101.09258, section 5.1)
    EDM          ln(level) normal, w = (level^2 + sd^2) / sd^2, which weighs |D - x_0|^2 by
                 (level^2 + sd^2)/(level sd)^2 (Karras et al. 2022, arXiv:2206.00364, table 1)
    Ladder       level one of sigma_1 > ... > sigma_L, a geometric sequence, lambda = sigma^2: NCSN (Song and
                 Ermon 2019, arXiv:1907.05600, equation 6)

|sigma s + z| = |D - x_0| / level: each of them trains a denoiser as well. All work on events of any shape.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.linalg import expand
from invsolve.prior import Prior
from invsolve.sde import SDE

__all__ = [
    "EDM",
    "Ladder",
    "Likelihood",
    "Objective",
    "Score",
    "Song",
    "UniformLikelihood",
    "denoising_score_matching",
    "score_of",
]

Score = Callable[[Tensor, Tensor], Tensor]  # s(x_t, t): (B, *event), (B,) float64 -> (B, *event)


class Objective(ABC):
    """A law of t and the weight w(t) that goes with it."""

    @abstractmethod
    def draw(self, n: int, sde: SDE, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n times and give their weights w, both (n,) float64."""


@dataclass(frozen=True)
class Song(Objective):
    """t uniform on [end, start], lambda = sigma^2: every noise level counts alike."""

    end: float = 1e-5
    start: float = 1.0

    def draw(self, n: int, sde: SDE, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Weight 1."""
        return _uniform(n, self.end, self.start, rng), torch.ones(n, dtype=torch.float64)


@dataclass(frozen=True)
class Likelihood(Objective):
    """lambda = g^2 on [end, start] with t drawn by importance: ln(sigma/alpha) uniform."""

    end: float = 1e-5
    start: float = 1.0

    def draw(self, n: int, sde: SDE, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Weight 2 ln(level(start) / level(end)), the integral of g^2/sigma^2."""
        low, high = (float(sde.ratio(t).log()) for t in (self.end, self.start))
        t = sde.time(_uniform(n, low, high, rng).exp())
        return t, torch.full((n,), 2 * (high - low), dtype=torch.float64)


@dataclass(frozen=True)
class UniformLikelihood(Objective):
    """lambda = g^2 with t uniform on [end, start]: the same mean as Likelihood, far noisier."""

    end: float = 1e-5
    start: float = 1.0

    def draw(self, n: int, sde: SDE, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Weight (start - end) g^2 / sigma^2."""
        t = _uniform(n, self.end, self.start, rng)
        return t, (self.start - self.end) * (sde.g(t) / sde.sigma(t)) ** 2


@dataclass(frozen=True)
class EDM(Objective):
    """ln(level) ~ N(mean, std^2); sigma_data is the data's standard deviation."""

    mean: float = -1.2
    std: float = 1.2
    sigma_data: float = 0.5

    def draw(self, n: int, sde: SDE, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Weight (level^2 + sd^2) / sd^2; levels beyond the SDE's own are drawn at its ends."""
        z = torch.randn(n, generator=rng, dtype=torch.float64)
        low, high = float(sde.ratio(0.0)), float(sde.ratio(1.0))
        level = (self.mean + self.std * z).exp().clamp(low, high)
        return sde.time(level), (level**2 + self.sigma_data**2) / self.sigma_data**2


@dataclass(frozen=True)
class Ladder(Objective):
    """One of a few noise levels, highest first, a geometric sequence from high to low."""

    high: float = 1.0
    low: float = 0.01
    count: int = 10

    def __post_init__(self) -> None:
        """Refuse a ladder that does not descend."""
        if not 0 < self.low < self.high or self.count < 2:
            raise InputError(
                f"a ladder of {self.count} levels, {self.high} to {self.low}; expected two or more, falling."
            )

    @property
    def levels(self) -> Tensor:
        """sigma_1 > ... > sigma_L with one ratio between neighbours, (L,) float64."""
        high, low = math.log(self.high), math.log(self.low)
        return torch.linspace(high, low, self.count, dtype=torch.float64).exp()

    def draw(self, n: int, sde: SDE, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each level as often as any other; weight 1."""
        chosen = self.levels[torch.randint(self.count, (n,), generator=rng)]
        return sde.time(chosen), torch.ones(n, dtype=torch.float64)


def denoising_score_matching(
    score: Score, x0: Tensor, sde: SDE, objective: Objective, rng: torch.Generator
) -> Tensor:
    """Monte-Carlo estimate of L from data x0 (B, *event), one t and z a row: ()."""
    t, weight = objective.draw(len(x0), sde, rng)
    z = torch.randn(x0.shape, generator=rng, dtype=x0.dtype).to(x0.device)
    x = expand(sde.alpha(t), x0) * x0 + expand(sde.sigma(t), x0) * z
    error = expand(sde.sigma(t), x0) * score(x, t) + z
    return 0.5 * (weight.to(x0) * error.square().flatten(1).sum(1)).mean()


def score_of(prior: Prior, sde: SDE) -> Score:
    """Score of x_t under a prior, which speaks of x_t / alpha: S(x_t / alpha, level) / alpha."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha = expand(sde.alpha(t), x)
        return prior.score(x / alpha, sde.ratio(t)) / alpha

    return score


def _uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng, dtype=torch.float64)
