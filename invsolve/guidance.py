"""Guidance: the term grad log p(y | x_t) that turns a prior's score into a posterior's.

    p(y | x_t) = integral of p(y | x_0) p(x_0 | x_t) dx_0

has no closed form for a network. With p(x_0 | x_t) taken as N(D, C), D = E[x_0 | x_t], and y = A x_0 + e, e ~
N(0, V),

    grad log p(y | x_t) = (dD/dx_t)^T A^T (A C A^T + V)^-1 (y - A D),

and the methods differ in C alone: MomentMatching takes Cov[x_0 | x_t] itself, PiGDM a multiple of the
identity, DPS nothing but a step size. Exact knows the integral for Gaussian and mixture priors. Each is a
pure function of one evaluation of the prior and the likelihood; none of them changes the sampler, save
Replace and ILVR (invsolve.guidances), which project.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.exact import GaussianPrior, MixturePrior, exact_posterior, log_evidence
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import dot, expand, robust_cg
from invsolve.prior import Denoised, Prior
from invsolve.rng import Noise
from invsolve.twist import matched, white

__all__ = ["DPS", "ClassifierGuidance", "Exact", "Guidance", "MomentMatching", "PiGDM"]


class Guidance(ABC):
    """An approximation of grad log p(y | x_t)."""

    needs_graph = True  # whether it takes derivatives of the prior, at any noise level
    projects = False  # whether it also replaces part of x_t

    @abstractmethod
    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return grad log p(y | x_t) at each row: (B, *event)."""

    def needs_graph_at(self, prior: Prior, level: Tensor) -> bool:
        """Whether it takes derivatives of the prior at these noise levels (B,)."""
        return self.needs_graph

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log p(y | x_t) of each row, (B,), nats, where the method has one."""
        raise Refused(
            f"{type(self).__name__} has no log p(y | x_t), by which SMC weighs its particles: "
            "take moment-matching, pigdm or exact."
        )

    def twist(self, at: Denoised, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
        """Return log p(y | x_t) and its gradient, sharing what they have in common."""
        return self.log_twist(at, likelihood), self(at, likelihood)

    def project(self, at_level: "Level", x: Tensor, likelihood: Likelihood, noise: Noise) -> Tensor:
        """Return x with the known part replaced; the identity unless `projects`."""
        return x


@dataclass(frozen=True)
class Level:
    """Where on the way from noise to data a projection happens: alpha and sigma at the time reached."""

    alpha: float
    sigma: float


def measured_of(likelihood: Likelihood, method: str) -> LinearLikelihood:
    if not isinstance(likelihood, LinearLikelihood):
        raise Refused(
            f"{method} needs a likelihood with an operator, but {type(likelihood).__name__} has none: "
            "take ClassifierGuidance."
        )
    return likelihood


def linear_of(likelihood: Likelihood, method: str) -> LinearLikelihood:
    linear = measured_of(likelihood, method)
    if not linear.linear:
        raise linear.forward.refusal(method)
    return linear


@lru_cache(maxsize=4)
def _posterior_of(prior: Prior, likelihood: LinearLikelihood) -> GaussianPrior | MixturePrior:
    return exact_posterior(prior, likelihood)


@lru_cache(maxsize=4)
def _evidence_of(prior: GaussianPrior | MixturePrior, likelihood: LinearLikelihood) -> float:
    return log_evidence(prior, likelihood)


@dataclass(frozen=True)
class Exact(Guidance):
    """Take the true term, known for Gaussian and mixture priors under a linear Gaussian likelihood.
    Needs these and the matrix of A; no derivative of the prior.

    Their posterior is known, so its denoiser minus the prior's is the shift of the mean.
    """

    needs_graph = False

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of p(x_t | y) minus that of p(x_t)."""
        posterior = _posterior_of(at.prior, linear_of(likelihood, "Exact"))
        mean = posterior.denoise(at.x / expand(at.alpha, at.x), at.level.to(at.x.device))
        return at.shift_to_score(mean - at.mean)

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log p(x_t | y) + log p(y) - log p(x_t): Bayes' rule."""
        linear = linear_of(likelihood, "Exact")
        posterior = _posterior_of(at.prior, linear)
        x, level = at.x / expand(at.alpha, at.x), at.level.to(at.x.device)
        assert isinstance(at.prior, GaussianPrior | MixturePrior)  # others have no exact posterior
        return posterior.log_prob(x, level) - at.prior.log_prob(x, level) + _evidence_of(at.prior, linear)


def _nearly_inverse(at: Denoised, linear: LinearLikelihood, variance: Tensor) -> Callable[[Tensor], Tensor]:
    """A guess of (A C A^T + V)^-1: of use for a blur under a surrogate, also of fewer pixels, and exact where
    its borders are circular."""
    power, surrogate = getattr(linear.operator, "power", None), at.prior.surrogate
    if power is None or surrogate is None or variance.numel() > 1 or not at.beyond.all():
        return lambda r: r
    return lambda r: surrogate.divide(r, at.level, at.amplitude, power, variance)


_FORGIVEN = 60.0  # tolerances a unit of noise level: at the default a relative residual of 0.6 lambda


@dataclass(frozen=True)
class MomentMatching(Guidance):
    """Match mean and covariance of x_0 | x_t: C = Cov[x_0 | x_t], applied inside conjugate gradients (Rozet
    et al. 2024). Needs A^T and derivatives of the prior: up to cg_steps vector-Jacobian products a call, one
    where a surrogate stands in for the Jacobian.

    Exact for Gaussian priors. Rozet et al. 2024 (arXiv:2405.13712), Boys et al. 2023 (arXiv:2310.06721). The
    solve is robust to a learned Jacobian, which is neither symmetric nor positive: linalg.robust_cg.

    Where a surrogate stands in for the Jacobian the solve stops at a residual in proportion to the noise
    level lambda: a mean wrong by delta changes the law of x_t by about |delta|^2 / lambda^2 nats an e-fold of
    lambda, so that much noise forgives that much error. Samples of inpainted photos are 1 % narrower for it;
    an operator that tells its spectrum (operators.interface) is solved at once, and nothing is forgiven.

    The residual of conjugate gradients rises before it falls where A C A^T is ill conditioned, as under a
    blur: a patience of 2 stops there with the mean wrong by 0.2 posterior standard deviations, one of 4 with
    0.02, and more brings nothing. The derivative of a prior in closed form is a true covariance: there the
    solve goes on to a tenth of the tolerance, with no patience to lose, lest small singular values of A under
    small noise be left to the prior.
    """

    cg_steps: Annotated[
        int | None, "conjugate-gradient steps at most, one product each; by default 20, 100 in closed form"
    ] = None
    tolerance: Annotated[float, "relative residual at which a sample's solve stops"] = 0.01
    patience: Annotated[int, "steps without a smaller residual after which a sample's solve stops"] = 4

    def __post_init__(self) -> None:
        """Refuse a solve that cannot start."""
        if (self.cg_steps is not None and self.cg_steps < 1) or not 0 <= self.tolerance < 1:
            raise InputError(
                f"cg_steps must be >= 1, but it is {self.cg_steps}; "
                f"or tolerance must be in [0, 1), but it is {self.tolerance}."
            )

    def needs_graph_at(self, prior: Prior, level: Tensor) -> bool:
        """Unless the prior's surrogate stands in for its derivative, as large as ever, at each level."""
        return prior.differentiated(level)

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of the shift C A^T (A C A^T + V)^-1 (y - A D) of the mean."""
        linear = linear_of(likelihood, "MomentMatching")
        predicted = linear.A(at.mean)
        variance = linear.noise_variance(predicted)

        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            shift = at.covariance(linear.At(p, at.mean))  # C A^T p
            return torch.addcmul(linear.A(shift), variance, p), shift

        r = linear.y.to(predicted) - predicted
        beyond, known = at.beyond.to(r.device), at.prior.closed_form
        steps = self.cg_steps or (100 if known else 20)
        patience = torch.where(beyond, steps, steps if known else self.patience)  # of a true covariance: all
        loose = (_FORGIVEN * at.level).clamp_min(1).to(r)
        tolerance = self.tolerance * torch.where(beyond, loose, 0.1 if known else 1.0)
        divide = _nearly_inverse(at, linear, variance)
        return at.shift_to_score(robust_cg(apply, r, steps, tolerance, patience, divide))

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log N(y; A D, A C A^T + V)."""
        return self.twist(at, likelihood)[0]

    def twist(self, at: Denoised, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
        """Return it and its term from A C A^T, one vector-Jacobian product a measured entry."""
        log_twist, shift = matched(at, linear_of(likelihood, "MomentMatching"))
        return log_twist, at.shift_to_score(shift)


@dataclass(frozen=True)
class PiGDM(Guidance):
    """Take x_0 | x_t for white: C = r^2 I, r^2 = s^2 v / (s^2 + v), s = sigma/alpha, v the data's variance
    (Song et al. 2023). Needs A^T, solved by SVD where there is one: one vector-Jacobian product a call.

    Exact for a prior of covariance v I. Song et al. 2023, "Pseudoinverse-guided diffusion models", which has
    v = 1 on [-1, 1]: 0.25 in the units of images in [0, 1].
    """

    data_variance: Annotated[float, "variance of the data, in squared pixel units"] = 0.25

    def __post_init__(self) -> None:
        """Refuse a variance that is not positive."""
        if not self.data_variance > 0:
            raise InputError(f"data_variance must be > 0, but it is {self.data_variance}.")

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return J^T A^T (r^2 A A^T + V)^-1 (y - A D)."""
        linear = linear_of(likelihood, "PiGDM")
        predicted = linear.A(at.mean)
        u = linear.solve(self._r2(at), linear.y.to(predicted) - predicted, predicted)
        return at.vjp(linear.At(u, at.mean))

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log N(y; A D, r^2 A A^T + V)."""
        return white(linear_of(likelihood, "PiGDM"), at.mean, self._r2(at))

    def _r2(self, at: Denoised) -> Tensor:
        return at.level**2 * self.data_variance / (at.level**2 + self.data_variance)


@dataclass(frozen=True)
class DPS(Guidance):
    """Step down the misfit |y - A D| of each sample, with a step size in place of C (Chung et al. 2023).
    Needs A^T: one vector-Jacobian product a call.

    A may be nonlinear. Chung et al. 2023 (arXiv:2209.14687) subtract zeta grad |y - A D| after each of 1,000
    steps uniform in t. Spread over the unit of time and divided by g(t)^2 that is a score, so every SDE, grid
    and predictor can take it; on a coarse grid it would overshoot, so it never goes beyond the least |y - A
    E[x_0 | x_t, y]| along its own direction. zeta is a step size, not a likelihood: it has to be tuned for
    each operator and noise.
    """

    zeta: Annotated[float, "step size of each of the reference steps, in pixel units"] = 0.5
    reference_steps: Annotated[int, "steps of the published schedule that zeta belongs to"] = 1000

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return -c grad |y - A D| with c = steps zeta / g^2, at most the minimiser's; one norm a row."""
        measured = measured_of(likelihood, "DPS")
        r = measured.residual(at.mean)
        norm = dot(r, r).clamp_min(torch.finfo(r.dtype).tiny).sqrt()
        down = at.vjp(measured.At(r, at.mean)) / expand(norm, at.x)  # -grad |y - A D|
        moved = measured.along(expand(at.sigma**2 / at.alpha, down) * down, at.mean)
        furthest = dot(r, moved) / dot(moved, moved).clamp_min(torch.finfo(r.dtype).tiny)
        rate = self.reference_steps * self.zeta / at.sde.g(at.t) ** 2
        return expand(torch.minimum(rate.to(furthest), furthest.clamp_min(0)), at.x) * down


@dataclass(frozen=True)
class ClassifierGuidance(Guidance):
    """Follow the gradient of the likelihood's own log p(y | x_t): for classifiers and other likelihoods (Song
    et al. 2021). Needs a likelihood with a derivative: one vector-Jacobian product a call.

    Song et al. 2021 (arXiv:2011.13456), appendix I.1. For a likelihood of x_0 it is taken at E[x_0 | x_t].
    """

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return grad log_prob_at in x_t."""
        return at.gradient(likelihood.log_prob_at)

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log_prob_at, the likelihood's own."""
        return likelihood.log_prob_at(at)
