"""MALA on the clean posterior: Langevin moves that an acceptance test makes exact for the likelihood.

    x' = x + e P S(x) + sqrt(2 e) P^1/2 z,     S = grad log p(x) + grad log p(y | x)
    log accept = log pi(x') - log pi(x) - d.(S + S') / 2 - e (S'.P S' - S.P S) / 4,     d = x' - x

Roberts and Tweedie 1996, preconditioned. The likelihood enters as it is, not as guidance sees it. The prior
has no density, only a score, at the end of the run's noise level: log p(x') - log p(x) is the integral of the
score along the line from x to x', by Gauss's rule with three nodes, which is exact for a Gaussian. P is the
posterior's covariance under N(x, c^2 I), P = (I / c^2 + A^T V^-1 A)^-1, so that one step suits the measured
directions and the others; c^2 is the prior's variance around x, from the trace of its denoiser's derivative.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from invsolve.errors import Refused
from invsolve.likelihood import LinearLikelihood
from invsolve.linalg import dot, expand
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.rng import Noise

__all__ = ["mala"]

_NODES = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18))  # on [0, 1]
_LEVEL = 0.05  # noise level at which c^2 is read off the derivative of the denoiser, at least


class _Target:
    """The posterior at a small noise level, with the exact likelihood, and the preconditioner P."""

    def __init__(self, posterior: Posterior, linear: LinearLikelihood, t: Tensor, c2: Tensor) -> None:
        self.posterior, self.linear, self.t, self.c2 = posterior, linear, t, c2
        self.alpha = float(posterior.sde.alpha(t))

    def prior_score(self, x: Tensor) -> Tensor:
        """Score of x at the small noise level, in the units of x_0."""
        return self.alpha * self.posterior.at(self.alpha * x, self.t).score

    def score(self, x: Tensor) -> Tensor:
        """S, the prior's and the likelihood's."""
        predicted = self.linear.A(x)
        u = (self.linear.y.to(x) - predicted) / self.linear.noise_variance(predicted).to(x)
        return self.prior_score(x) + self.posterior.gamma * self.linear.At(u, x)

    def gain(self, x: Tensor, d: Tensor) -> Tensor:
        """log pi(x + d) - log pi(x): (B,)."""
        prior = sum(weight * dot(self.prior_score(x + node * d), d) for node, weight in _NODES)
        likelihood = self.linear.log_prob(x + d) - self.linear.log_prob(x)
        return torch.as_tensor(prior) + self.posterior.gamma * likelihood

    def precondition(self, v: Tensor) -> Tensor:
        """P v = c^2 v - c^4 A^T (c^2 A A^T + V)^-1 A v."""
        return expand(self.c2, v) * (v - self._seen(expand(self.c2, v) * v))

    def draw(self, noise: Noise) -> Tensor:
        """P^1/2 z: a draw of N(0, c^2 I), conditioned on a measurement of nothing but noise."""
        x = expand(self.c2.sqrt(), z := noise("signal")) * z
        still = replace(noise, shape=tuple(self.linear.y.shape))("measurement").to(x)
        e = self.linear.noise_variance(self.linear.A(x)).to(x).sqrt() * still
        return x - expand(self.c2, x) * self._seen(x, e)

    def _seen(self, v: Tensor, e: Tensor | float = 0.0) -> Tensor:
        """A^T (c^2 A A^T + V)^-1 (A v - e)."""
        predicted = self.linear.A(v)
        return self.linear.At(self.linear.solve(self.c2, predicted - e, predicted), v)


@torch.no_grad()
def mala(posterior: Posterior, x: Tensor, t: Tensor, moves: int, step: float, noise: Noise) -> Tensor:
    """Move x (B, *event) that many times at the noise level of time t; each row accepts for itself.

    Five network calls a move. Refused where the likelihood is not linear Gaussian.
    """
    linear = posterior.likelihood
    if not isinstance(linear, LinearLikelihood) or not linear.noise_is_gaussian:
        raise Refused(
            f"MALA moves need a linear Gaussian likelihood, not {type(linear).__name__}: set moves 0."
        )
    target = _Target(posterior, linear, t, _local_variance(posterior, x, t, noise))
    score = target.score(x)
    for i in range(moves):
        pushed = target.precondition(score)
        d = step * pushed + math.sqrt(2 * step) * target.draw(noise.child(i))
        new = target.score(x + d)
        bend = dot(new, target.precondition(new)) - dot(score, pushed)
        log_accept = target.gain(x, d) - dot(d, score + new) / 2 - step * bend / 4
        uniform = torch.special.ndtr(replace(noise, shape=(), dtype=torch.float64)(i, "accept"))
        taken = expand((uniform.log().to(log_accept) < log_accept), x).bool()
        x, score = torch.where(taken, x + d, x), torch.where(taken, new, score)
    return x


def _local_variance(posterior: Posterior, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
    """c^2 of each row, (B,): with J the mean eigenvalue of dE[x_0 | x_t]/dx_0 at level l, l^2 J / (1 - J)."""
    sde = posterior.sde
    level = max(_LEVEL, float(sde.ratio(t)))
    there = sde.time(level)
    alpha = float(sde.alpha(there))
    at = Denoised(posterior.prior, sde, alpha * x, there, graph=True, calls=posterior.calls)
    probe = noise("trace").sign()
    mean = alpha * dot(at.vjp(probe), probe) / x[0].numel()
    kept = mean.double().clamp(0.1, 0.9999)  # a probe of a few dimensions is noisy; P need not be right
    return (level**2 * kept / (1 - kept)).to(x)
