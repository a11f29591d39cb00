"""Correctors: Langevin steps that leave p(x_t | y) where it is and mend what the predictor got wrong.

    x <- x + eps S + sqrt(2 eps) z

Song et al. 2021 (arXiv:2011.13456), appendix G, set eps by a signal-to-noise ratio r: eps = 2 (r |z| / |S|)^2
(algorithm 4; algorithm 5 has a further factor alpha_i, one in the limit of many steps and left out here).
Here each sample has its own step, never the mean over a batch. In few dimensions |S| of one sample is a poor
estimate of its typical size, and a step that depends on the state moves the stationary law; so |S|^2 is
shrunk towards 1/sigma^2 a dimension, its value for pure noise, with the weight of 100 dimensions. Images do
not feel it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.linalg import dot, expand
from invsolve.posterior import Posterior
from invsolve.rng import Noise

__all__ = ["AnnealedLangevin", "Corrector", "Langevin", "NoCorrector"]

_PSEUDO = 100  # dimensions of pure noise that each sample's |S|^2 is averaged with


class Corrector(ABC):
    """A move at fixed time t."""

    @abstractmethod
    def correct(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Return x moved, at the same time t."""


@dataclass(frozen=True)
class NoCorrector(Corrector):
    """Leave x as it is."""

    def correct(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Return x."""
        return x


@dataclass(frozen=True)
class _Langevin(Corrector):
    snr: Annotated[float, "signal-to-noise ratio r of each step"] = 0.16
    n_steps: Annotated[int, "steps at each time"] = 1

    def __post_init__(self) -> None:
        """Refuse steps that go nowhere."""
        if not self.snr > 0 or self.n_steps < 1:
            raise InputError(f"snr must be > 0 and n_steps >= 1, but they are {self.snr} and {self.n_steps}.")

    @abstractmethod
    def step_size(self, score: Tensor, sigma: float) -> Tensor:
        """Step eps of each sample, (B,)."""

    def correct(self, posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Take n_steps of x + eps S + sqrt(2 eps) z."""
        for j in range(self.n_steps):
            score = posterior.score(x, t)
            eps = expand(self.step_size(score, float(posterior.sde.sigma(t))), x)
            x = posterior.project(x + eps * score + (2 * eps).sqrt() * noise(j), t, noise.child(j))
        return x


@dataclass(frozen=True)
class Langevin(_Langevin):
    """Langevin steps sized by Song's signal-to-noise rule, for each sample on its own."""

    def step_size(self, score: Tensor, sigma: float) -> Tensor:
        """2 r^2 (d + 100) / (|S|^2 + 100 / sigma^2): the rule with |S|^2 shrunk towards pure noise."""
        d = score[0].numel()
        return 2 * self.snr**2 * (d + _PSEUDO) / (dot(score, score) + _PSEUDO / sigma**2)


@dataclass(frozen=True)
class AnnealedLangevin(_Langevin):
    """Langevin steps of size 2 (r sigma)^2, as in Song and Ermon 2019 (arXiv:1907.05600), algorithm 1."""

    def step_size(self, score: Tensor, sigma: float) -> Tensor:
        """2 (r sigma)^2 for every sample."""
        return torch.full((len(score),), 2 * (self.snr * sigma) ** 2, dtype=score.dtype, device=score.device)
