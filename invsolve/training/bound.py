"""How far a learned diffusion can be from the data: the bound of maximum likelihood training.

Let p_theta be what the reverse SDE with the score s draws when it starts from pi. Then (Song, Durkan, Murray
and Ermon 2021, arXiv:2101.09258, theorem 1)

    KL(p || p_theta)  <=  1/2 int g(t)^2 E_{p_t} |grad log p_t - s|^2 dt  +  KL(p_1 || pi)

The first term is denoising score matching with lambda = g^2, up to a constant (objectives.Likelihood). It
is an equality where s is the score of some diffused q and pi = q_1: then p_theta = q, and the bound is
KL(p || q). The exact score leaves KL(p_1 || pi), the price of a start that is not p_1. Here p is a prior with
a density in closed form, which makes both terms Monte-Carlo means; time runs from `end` to 1, and the noise
at `end` counts as part of the data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.exact import GaussianPrior, MixturePrior
from invsolve.linalg import dot, expand
from invsolve.sde import SDE
from invsolve.training.objectives import Likelihood, Score, score_of

__all__ = ["Estimate", "kl_bound", "log_density"]

Closed = GaussianPrior | MixturePrior


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo mean and its standard error, nats."""

    value: float
    error: float

    @classmethod
    def of(cls, rows: Tensor) -> "Estimate":
        """Mean of independent rows (n,)."""
        return cls(float(rows.mean()), float(rows.std() / len(rows) ** 0.5))


def kl_bound(
    prior: Closed,
    score: Score,
    sde: SDE,
    log_start: Callable[[Tensor], Tensor],
    *,
    n: int,
    seed: int,
    end: float = 1e-5,
) -> Estimate:
    """Evaluate the bound with n draws for each term; log_start is log pi, (B, *event) -> (B,)."""
    rng = torch.Generator().manual_seed(seed)
    x0 = prior.sample(2 * n, seed)
    t, weight = Likelihood(end).draw(n, sde, rng)
    x = _noised(x0[:n], t, sde, rng)
    off = expand(sde.sigma(t), x) * (score_of(prior, sde)(x, t) - score(x, t))
    misfit = weight.to(x) * dot(off, off) / 2
    one = torch.ones(n, dtype=torch.float64)
    x = _noised(x0[n:], one, sde, rng)
    return Estimate.of(misfit + log_density(prior, sde, x, one) - log_start(x))


def log_density(prior: Closed, sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """log p_t(x) of the diffused prior, nats: (B, *event), (B,) -> (B,)."""
    alpha = sde.alpha(t)
    scaled = prior.log_prob(x / expand(alpha, x), sde.ratio(t))
    return scaled - x[0].numel() * alpha.log().to(scaled)


def _noised(x0: Tensor, t: Tensor, sde: SDE, rng: torch.Generator) -> Tensor:
    z = torch.randn(x0.shape, generator=rng, dtype=x0.dtype)
    return expand(sde.alpha(t), x0) * x0 + expand(sde.sigma(t), x0) * z
