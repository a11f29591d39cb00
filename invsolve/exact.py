"""Priors whose every noise level is known in closed form, and their exact posteriors.

A Gaussian N(m, C) seen through noise sigma has D(x) = m + C (C + sigma^2 I)^-1 (x - m); a mixture averages
the D of its components by the responsibilities of N(x; m_k, C_k + sigma^2 I). Both are worked out in the
eigenbasis of C, so any sigma costs two products. Under y = A x + e, e ~ N(0, V), each component stays
Gaussian,

    K = C A^T (A C A^T + V)^-1,   m_y = m + K (y - A m),   C_y = C - K A C,   w_y ~ w N(y; A m, A C A^T + V),

so the posterior is again such a prior: the oracle of the tests, the benchmarks and of Exact guidance.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from invsolve.errors import InputError, Refused
from invsolve.prior import Prior
from invsolve.rng import Noise

__all__ = ["GaussianPrior", "LinearGaussian", "MixturePrior", "exact_posterior", "log_evidence"]


class LinearGaussian(Protocol):
    """What exact_posterior asks of a likelihood."""

    y: Tensor
    noise_is_gaussian: bool

    def matrix(self, shape: tuple[int, ...]) -> Tensor:
        """Matrix (m, d) of the operator on events of that shape."""

    def noise_variance(self, predicted: Tensor) -> Tensor:
        """Variance of each measured entry, shaped like predicted (B, *m)."""


class _Gaussians(Prior):
    """K Gaussians over events of one shape, in the eigenbases of their covariances.

    bases (K or 1, d, d) or None when the covariances are diagonal; spectra (K or 1, d).
    """

    means: Tensor
    spectra: Tensor
    bases: Tensor | None
    log_weights: Tensor
    event: tuple[int, ...]
    white: bool
    closed_form = True

    def _store(self, means: Tensor, weights: Tensor, spectra: Tensor, bases: Tensor | None) -> None:
        dtype = means.dtype if means.is_floating_point() else torch.get_default_dtype()
        self.event = tuple(means.shape[1:])
        self.shape = self.event
        self.register_buffer("means", means.flatten(1).to(dtype))
        self.register_buffer("log_weights", (weights / weights.sum()).to(dtype).log())
        self.register_buffer("spectra", spectra.to(dtype))
        self.register_buffer("bases", None if bases is None else bases.to(dtype))
        self.register_buffer("centre", self.mean, persistent=False)
        self.white = bool((spectra == spectra.flatten()[0]).all())  # every covariance the same multiple of I

    @property
    def mean(self) -> Tensor:
        """Mean, (*event)."""
        return (self.log_weights.exp() @ self.means).reshape(self.event)

    @property
    def covariance(self) -> Tensor:
        """Covariance, (d, d)."""
        off = self.means - self.mean.flatten()
        between = torch.einsum("k,ki,kj->ij", self.log_weights.exp(), off, off)
        return between + torch.einsum("k,kij->ij", self.log_weights.exp(), self.covariances)

    @property
    def extent(self) -> float:
        """Root of the covariance's largest eigenvalue, or a little more."""
        off = self.log_weights.exp().sqrt()[:, None] * (self.means - self.mean.flatten())
        return math.hypot(float(torch.linalg.matrix_norm(off, 2)), float(self.spectra.max().sqrt()))

    @property
    def covariances(self) -> Tensor:
        """Covariance of each component, (K, d, d)."""
        diagonal = torch.diag_embed(self.spectra)
        dense = diagonal if self.bases is None else self.bases @ diagonal @ self.bases.mT
        return dense.expand(len(self.means), -1, -1)

    def _rotate(self, v: Tensor) -> Tensor:
        """Coordinates of v (K, B, d) in the eigenbases."""
        return v if self.bases is None else v @ self.bases

    def _back(self, c: Tensor) -> Tensor:
        return c if self.bases is None else c @ self.bases.mT

    def _coordinates(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Eigen-coordinates of x - m_k and variances after noise, (K, B, d) each."""
        off = self._rotate(x.flatten(1).to(self.dtype)[None] - self.means[:, None])
        return off, self.spectra[:, None] + (sigma**2).to(off).reshape(1, -1, 1)

    def _log_joint(self, off: Tensor, variance: Tensor) -> Tensor:
        """log w_k + log N(x; m_k, C_k + sigma^2), (K, B)."""
        quadratic = (off**2 / variance + variance.log()).sum(2) + off.shape[2] * math.log(2 * math.pi)
        return self.log_weights[:, None] - quadratic / 2

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Log density of x_0 + sigma n at x, nats: (B, *event) -> (B,)."""
        levels = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
        return torch.logsumexp(self._log_joint(*self._coordinates(x, levels)), 0)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the components' linear denoisers, averaged by their responsibilities."""
        off, variance = self._coordinates(x, sigma)
        shares = torch.softmax(self._log_joint(off, variance), 0)
        each = self.means[:, None] + self._back(off * self.spectra[:, None] / variance)
        return (shares[..., None] * each).sum(0).reshape(x.shape)

    def sample(self, n: int, seed: int, first: int = 0) -> Tensor:
        """Draw exact samples first .. first + n - 1, (n, *event)."""
        noise = Noise(seed, "exact", n, (self.means.shape[1],), first, self.dtype, self.device)
        uniform = torch.special.ndtr(Noise(seed, "component", n, (), first, torch.float64)())
        edges = self.log_weights.double().exp().cumsum(0)[:-1].cpu()
        k = torch.searchsorted(edges, uniform).to(self.device)
        one = len(self.spectra) == 1
        scaled = noise() * self.spectra[0 if one else k].clamp_min(0).sqrt()
        if self.bases is None or one:
            turned = self._back(scaled[None])[0]
        else:
            turned = (self.bases[k] @ scaled[..., None])[..., 0]
        return (self.means[k] + turned).reshape(n, *self.event)


class GaussianPrior(_Gaussians):
    """N(mean, covariance): mean (*event); covariance a number, (*event) its diagonal, or (d, d) with d =
    numel."""

    name = "gaussian"

    def __init__(self, mean: Tensor, covariance: Tensor | float) -> None:
        """Diagonalise the covariance once, in float64."""
        super().__init__()
        mean = torch.as_tensor(mean)
        c = torch.as_tensor(covariance, dtype=torch.float64, device=mean.device)
        if c.ndim and c.shape == mean.shape and c.shape != (1, 1):
            spectra, bases = c.flatten()[None], None
        else:
            spectra, bases = _eigen(c, mean.numel())
        _check_positive(spectra)
        self._store(mean[None], torch.ones(1, device=mean.device), spectra, bases)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return m + C (C + sigma^2 I)^-1 (x - m)."""
        off, variance = self._coordinates(x, sigma)
        return (self.means[:, None] + self._back(off * self.spectra[:, None] / variance)).reshape(x.shape)


class MixturePrior(_Gaussians):
    """Mixture of K Gaussians: means (K, *event), weights (K,), covariance a number, (d, d) or (K, d, d)."""

    name = "mixture"

    def __init__(self, means: Tensor, weights: Tensor, covariance: Tensor | float) -> None:
        """Diagonalise each covariance once, in float64."""
        super().__init__()
        means = torch.as_tensor(means)
        weights = torch.as_tensor(weights, dtype=torch.float64, device=means.device)
        if weights.shape != means.shape[:1] or (weights < 0).any() or not weights.sum() > 0:
            raise InputError(f"weights {weights.tolist()} must be {len(means)} numbers >= 0, not all zero.")
        c = torch.as_tensor(covariance, dtype=torch.float64, device=means.device)
        spectra, bases = _eigen(c, means[0].numel())
        _check_positive(spectra)
        self._store(means, weights, spectra, bases)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Average the components' linear denoisers; for a shared C by two products with the means alone."""
        if len(self.spectra) > 1:
            return super().denoise(x, sigma)
        centre = self.mean.flatten()
        off = self._rotate((x.flatten(1).to(self.dtype) - centre)[None])[0]
        means = self._rotate((self.means - centre)[None])[0]
        spectrum, squares = self.spectra, means**2
        if self.white:  # one column stands for all: a third of the work in many dimensions
            spectrum, squares = self.spectra[:, :1], squares.sum(1, keepdim=True)
        noise = (sigma**2).to(off)[:, None]
        variance = spectrum + noise
        pull = (off / variance) @ means.mT - (1 / variance) @ squares.mT / 2
        mean = torch.softmax(self.log_weights + pull, 1) @ means
        mixed = spectrum / variance * off + noise / variance * mean
        return (centre + self._back(mixed[None])[0]).reshape(x.shape)


def _eigen(c: Tensor, d: int) -> tuple[Tensor, Tensor | None]:
    """Spectra (K or 1, d) and bases (K or 1, d, d) of a number, a (d, d) or a (K, d, d) covariance."""
    if c.ndim == 0:
        return c.expand(1, d).clone(), None
    if c.ndim not in (2, 3) or c.shape[-2:] != (d, d):
        raise InputError(f"a covariance of shape {tuple(c.shape)} does not fit events of {d} numbers.")
    if not torch.allclose(c, c.mT, rtol=1e-5, atol=1e-6 * float(c.abs().max())):
        raise InputError("the covariance is not symmetric.")
    spectra, bases = torch.linalg.eigh(c if c.ndim == 3 else c[None])
    return spectra, bases


def _check_positive(spectra: Tensor) -> None:
    floor = -1e-5 * float(spectra.abs().max())
    if not torch.isfinite(spectra).all() or float(spectra.min()) < floor:
        raise InputError(f"the covariance has the eigenvalue {float(spectra.min()):.3g}; it must be >= 0.")
    spectra.clamp_(min=0)  # rounding of eigh, bounded just above


def exact_posterior(prior: Prior, likelihood: LinearGaussian) -> GaussianPrior | MixturePrior:
    """Posterior of a Gaussian or mixture prior under y = A x + Gaussian noise, in closed form.

    It is a prior of the same family: .mean, .covariance, .sample(n, seed), .denoise. Raises Refused for other
    priors.
    """
    if not isinstance(prior, GaussianPrior | MixturePrior):
        kind = type(prior).__name__
        raise Refused(f"a prior of class {kind} has no closed-form posterior: only Gaussian and mixture.")
    if not likelihood.noise_is_gaussian:
        raise Refused(f"{type(likelihood).__name__} noise depends on x: the posterior has no closed form.")
    m = prior.means.double()
    C = prior.covariances[: len(prior.spectra)].double()  # one where all components share it
    A, S, off = _predicted(prior, likelihood)
    solved = torch.linalg.solve(S, off[..., None])
    means = m + (C @ A.mT @ solved)[..., 0]
    covariances = C - C @ A.mT @ torch.linalg.solve(S, A @ C)
    covariances = (covariances + covariances.mT) / 2
    means = means.reshape(-1, *prior.event).to(prior.dtype)
    if isinstance(prior, GaussianPrior):
        return GaussianPrior(means[0], covariances[0])
    evidence = -0.5 * ((off * solved[..., 0]).sum(1) + torch.linalg.slogdet(S).logabsdet)
    weights = torch.softmax(prior.log_weights.double() + evidence, 0)
    return MixturePrior(means, weights, covariances[0] if len(covariances) == 1 else covariances)


def log_evidence(prior: GaussianPrior | MixturePrior, likelihood: LinearGaussian) -> float:
    """Log density of the measured entries of y under the prior, nats: what SMC estimates."""
    A, S, off = _predicted(prior, likelihood)
    known = (A != 0).any(1)
    S, off = S[:, known][:, :, known], off[:, known]
    quadratic = (off * torch.linalg.solve(S, off[..., None])[..., 0]).sum(1)
    each = -0.5 * (quadratic + torch.linalg.slogdet(2 * math.pi * S).logabsdet)
    return float(torch.logsumexp(prior.log_weights.double() + each, 0))


def _predicted(
    prior: GaussianPrior | MixturePrior, likelihood: LinearGaussian
) -> tuple[Tensor, Tensor, Tensor]:
    """Operator A (m, d); of each component, covariance of y (K or 1, m, m) and y minus its mean (K, m)."""
    A = likelihood.matrix(prior.event).double()
    y = likelihood.y.double().flatten()
    V = likelihood.noise_variance(likelihood.y[None]).double().expand_as(likelihood.y[None]).flatten()
    C = prior.covariances[: len(prior.spectra)].double()
    return A, A @ C @ A.mT + torch.diag(V), y - prior.means.double() @ A.mT
