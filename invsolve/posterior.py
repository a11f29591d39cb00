"""The line the toolkit is built around:

    grad log p(x_t | y)  =  grad log p(x_t)  +  gamma * grad log p(y | x_t)

A Posterior is what samplers see: .sde, .shape, .score, .mean, .project. It owns the one network call a step,
the count of calls, and the check that nothing became NaN. Samplers run without autograd; what leaves here is
detached.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import Divergence, InputError, Refused
from invsolve.gamma import Gamma, Ramp, check_gamma, gamma_at
from invsolve.guidance import Guidance, Level, MomentMatching
from invsolve.likelihood import Likelihood
from invsolve.linalg import expand
from invsolve.prior import Denoised, Prior
from invsolve.rng import Noise
from invsolve.sde import SDE, VE, Time

__all__ = ["Evaluation", "Posterior", "Twisted"]


@dataclass(frozen=True)
class Evaluation:
    """Score and mean of p(x_0 | x_t, y) from one network call, both (B, *event) and detached."""

    score: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Twisted:
    """What SMC needs of one network call: E[x_0 | x_t], E[x_0 | x_t, y], and gamma log p(y | x_t), (B,)."""

    prior_mean: Tensor
    mean: Tensor
    log_twist: Tensor


class Posterior:
    """p(x_0 | y) at every noise level: a prior, a likelihood (None for the prior alone), an SDE and a
    guidance.

    gamma = 1 is Bayes' rule, as good as the guidance is; any other value, or a Ramp over the noise levels,
    has no posterior of its own.
    shape is that of one sample; by default the prior's, or the operator's where the prior takes any size.
    """

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood | None = None,
        *,
        sde: SDE | None = None,
        guidance: Guidance | None = None,
        gamma: Gamma = 1.0,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Fit the parts together; refuse shapes that do not agree."""
        self.prior, self.likelihood = prior, likelihood
        self.sde = VE() if sde is None else sde
        self.guidance = MomentMatching() if guidance is None else guidance
        self.schedule = check_gamma(gamma)
        self.gamma = gamma.low if isinstance(gamma, Ramp) else gamma  # that of clean images
        self.shape = _event_shape(prior, likelihood, shape)
        self.calls: Counter[str] = Counter()

    def at(self, x: Tensor, t: Time) -> Denoised:
        """Evaluate the prior at (x_t, t): the one network call."""
        graph = self.likelihood is not None and self.guidance.needs_graph_at(self.prior, self.sde.ratio(t))
        at = Denoised(self.prior, self.sde, x, t, graph=graph, calls=self.calls)
        return _finite(at, at.mean, "the prior's mean")

    def score(self, x: Tensor, t: Time) -> Tensor:
        """grad log p(x_t | y): (B, *event), detached."""
        at = self.at(x, t)
        if self.likelihood is None:
            return at.score
        return at.score + expand(self._gamma(at), x) * self._guide(at, self.likelihood)

    def _gamma(self, at: Denoised) -> Tensor:
        return torch.as_tensor(gamma_at(self.schedule, at.level))

    def _guide(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        with torch.no_grad():
            guided = self.guidance(at, likelihood).detach()
        _finite(at, guided, f"the likelihood's term ({type(self.guidance).__name__})")
        return guided

    def evaluate(self, x: Tensor, t: Time) -> Evaluation:
        """Score and E[x_0 | x_t, y] = (x_t + sigma^2 score) / alpha from one network call."""
        score = self.score(x, t)
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        return Evaluation(score, (x + sigma**2 * score) / alpha)

    @torch.no_grad()
    def twisted(self, x: Tensor, t: Time) -> Twisted:
        """Both means and log p(y | x_t), float64, from one network call; Refused where there is none."""
        at = self.at(x, t)
        if self.likelihood is None:
            return Twisted(at.mean, at.mean, torch.zeros(len(x), dtype=torch.float64, device=x.device))
        log_twist, term = self.guidance.twist(at, self.likelihood)
        for value in (log_twist, term):
            _finite(at, value, f"the likelihood's term ({type(self.guidance).__name__})")
        gamma = self._gamma(at)
        shift = expand(gamma * at.sigma**2 / at.alpha, x) * term.detach()
        return Twisted(at.mean, at.mean + shift, gamma.to(x.device) * log_twist.detach().double())

    def mean(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t, y], the prior's moved by gamma sigma^2/alpha times the guidance: (B, *event)."""
        at = self.at(x, t)
        if self.likelihood is None:
            return at.mean
        shift = self._gamma(at) * at.sigma**2 / at.alpha
        return torch.addcmul(at.mean, expand(shift, x), self._guide(at, self.likelihood))

    def project(self, x: Tensor, t: Time, noise: Noise) -> Tensor:
        """Return x with what Replace pins replaced at time t; x itself under every other guidance."""
        if self.likelihood is None or not self.guidance.projects:
            return x
        level = Level(float(self.sde.alpha(t)), float(self.sde.sigma(t)))
        return self.guidance.project(level, x, self.likelihood, noise)

    @property
    def content(self) -> str:
        """Hash of the data: part of the key of every random number."""
        return "" if self.likelihood is None else self.likelihood.content

    def span(self, extents: float = 0.0) -> tuple[float, float]:
        """Noise levels lambda a run goes through: from the SDE's start to min(0.002, sigma_y / 10).

        Both ends stay inside the range the prior was trained on. The start is that many extents of the data
        at least, where they are known and the SDE reaches so far.
        """
        low = 0.002 if self.likelihood is None else min(0.002, self.likelihood.finest / 10)
        high, wanted = float(self.sde.ratio(1.0)), extents * self.prior.extent
        if wanted > high:
            high = float(self.sde.ratio(self.sde.time(wanted)))  # an SDE may end at t = 1
        return min(high, self.prior.sigma_max), max(low, self.prior.sigma_min)


def _finite(at: Denoised, value: Tensor, term: str) -> Denoised:
    if not value.sum().isfinite() and not value.isfinite().all():  # the sum costs a twentieth
        t, level = float(at.t[0]), float(at.level[0])
        raise Divergence(f"{term} became NaN or infinite at t = {t:.4g} (noise level {level:.4g}).")
    return at


def _fits(shape: Sequence[int | None], full: Sequence[int | None]) -> bool:
    """Whether a shape, None being any size, is the full one; a vector stands for any event of as many
    numbers."""
    if len(shape) == 1 and None not in full:
        return shape[0] in (None, math.prod(size for size in full if size is not None))
    return len(shape) == len(full) and all(a in (None, b) for a, b in zip(shape, full, strict=True))


def _event_shape(
    prior: Prior, likelihood: Likelihood | None, given: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Shape of one sample that prior, operator and caller agree on."""
    known = [s for s in (given, prior.shape, getattr(likelihood, "shape", None)) if s is not None]
    full = [tuple(s) for s in known if None not in s]
    if not full:
        raise InputError("the shape of a sample is not known: pass shape=(C, H, W).")
    for other in known:
        if not _fits(other, full[0]):
            raise Refused(f"the prior, the operator and the sample disagree on its shape: {known}.")
    return tuple(int(size) for size in full[0] if size is not None)
