"""Draws of x_0 from N(c, r^2 I) conditioned on y: the likelihood's half of the split samplers.

Where y = A x_0 + e is linear with Gaussian noise of variance V, a draw x' of N(c, r^2 I) becomes one of the
conditioned law by perturbing the measurement and solving (Papandreou and Yuille 2010),

    x = x' + r^2 A^T (r^2 A A^T + V)^-1 (y - e - A x'),    e ~ N(0, V),

exactly, at the cost of one solve. x' may be a draw of any other law of about that covariance: where y says
nothing it is kept as it is. Where noise is not Gaussian but A is linear, V is taken at c.

Any other likelihood is sampled by Langevin steps on U(x) = |x - c|^2 / 2 r^2 - log p(y | x),

    x <- x - eps grad U + sqrt(2 eps) z,    eps = step / (1 / r^2 + L),

L the largest curvature of -log p(y | x) at x, by one power iteration a step on differences of its gradient.
They start from x', which is right already wherever y says nothing; the most curved direction comes out 1 /
(1 - step/2) times too wide in variance. gamma, the power of the likelihood, multiplies log p(y | x).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import dot, expand
from invsolve.rng import Noise
from invsolve.samplers.walk import at_least_1

__all__ = ["Inner", "draw_given_y", "gradient"]

Kind = Literal["auto", "exact", "langevin"]


@dataclass(frozen=True)
class Inner:
    """How to draw: exact, langevin, or auto, which is exact where the operator is linear."""

    kind: Kind = "auto"
    steps: int = 100
    step: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no way to draw."""
        if self.kind not in ("auto", "exact", "langevin"):
            raise InputError(f"inner must be auto, exact or langevin, but it is {self.kind!r}.")
        at_least_1(inner_steps=self.steps)
        if not 0 < self.step < 1:
            raise InputError(f"inner_step must be in (0, 1), but it is {self.step}.")

    def exact(self, likelihood: Likelihood) -> bool:
        """Whether the draw is by solving; Refused where it was asked for and cannot be."""
        linear = isinstance(likelihood, LinearLikelihood) and likelihood.linear
        if self.kind == "exact" and not linear:
            raise Refused(
                "inner exact solves with an operator and its transpose, which this likelihood does not have: "
                "take inner langevin."
            )
        return linear and self.kind != "langevin"


def draw_given_y(
    likelihood: Likelihood | None,
    c: Tensor,
    x: Tensor,
    r2: Tensor,
    gamma: float,
    inner: Inner,
    noise: Noise,
) -> Tensor:
    """Draw from N(c, r^2 I) p(y | x)^gamma, starting from a draw x of the first factor: (B, *event).

    r2 is (B,); without a likelihood, or with gamma = 0, x is the draw.
    """
    if likelihood is None or gamma == 0:
        return x
    if inner.exact(likelihood):
        assert isinstance(likelihood, LinearLikelihood)  # others have no exact draw
        return _solved(likelihood, c, x, r2, gamma, noise)
    return _langevin(likelihood, c, x, r2, gamma, inner, noise)


def _solved(linear: LinearLikelihood, c: Tensor, x: Tensor, r2: Tensor, gamma: float, noise: Noise) -> Tensor:
    """Perturb and solve; the solve is for V / gamma, written so that gamma may be small."""
    predicted = linear.A(x)
    at = predicted if linear.noise_is_gaussian else linear.A(c)
    z = replace(noise, shape=tuple(linear.y.shape))("measurement").to(x)
    e = (linear.noise_variance(at).to(x) / gamma).sqrt() * z
    u = linear.solve(gamma * r2, linear.y.to(x) - e - predicted, at)
    return x + expand(gamma * r2, x) * linear.At(u, x)


def _langevin(
    likelihood: Likelihood, c: Tensor, x: Tensor, r2: Tensor, gamma: float, inner: Inner, noise: Noise
) -> Tensor:
    u, eps = noise("probe"), inner.step * r2
    for i in range(inner.steps):
        up = gradient(likelihood, x)
        curvature, u = _curvature(likelihood, x, up, u, (2 * eps).sqrt())
        eps = inner.step / (1 / r2 + gamma * curvature)
        down = expand(1 / r2, x) * (x - c) - gamma * up
        x = x - expand(eps, x) * down + expand((2 * eps).sqrt(), x) * noise(i)
    return x


def _curvature(
    likelihood: Likelihood, x: Tensor, up: Tensor, u: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    """Curvature of -log p(y | x) along u, (B,), and the next u: a power iteration on differences of up.

    u has one unit a number; length (B,) is how far a step goes in each.
    """
    change = up - gradient(likelihood, x + expand(length, x) * u)
    norm = dot(change, change).sqrt()
    size = float(x[0].numel()) ** 0.5
    turned = change * expand(size / norm.clamp_min(torch.finfo(norm.dtype).tiny), x)
    return norm / (length * dot(u, u).sqrt()), turned


def gradient(likelihood: Likelihood, x: Tensor) -> Tensor:
    """Gradient of log p(y | x) at clean images: (B, *event); by the transpose where A is linear.

    Refused where A is a black box that cannot be differentiated.
    """
    if isinstance(likelihood, LinearLikelihood) and likelihood.linear:
        predicted = likelihood.A(x)
        return likelihood.At((likelihood.y.to(x) - predicted) / likelihood.noise_variance(predicted).to(x), x)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = likelihood.log_prob(x)
        if not value.requires_grad:
            raise Refused(
                "log p(y | x) has no gradient: A needs an A_adjoint, or to be made of torch operations. "
                "For a black box take sampler enkg."
            )
        if isinstance(likelihood, LinearLikelihood):
            likelihood.calls["At"] += len(x)
        return torch.autograd.grad(value.sum(), x)[0].detach()
