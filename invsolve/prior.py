"""A prior is a denoiser, and one evaluation of it is everything a sampler needs.

    D(x, sigma) = E[x_0 | x_0 + sigma n = x],   n ~ N(0, I)

For x_t = alpha x_0 + sigma z the network is called once, with x_t/alpha and lambda = sigma/alpha. Then

    score        grad log p(x_t) = (alpha E[x_0 | x_t] - x_t) / sigma^2            (Tweedie; Efron 2011)
    covariance   Cov[x_0 | x_t]  = (sigma^2 / alpha) dE[x_0 | x_t] / dx_t          (its derivative)
    shift        a term g added to the score moves E[x_0 | x_t] by (sigma^2 / alpha) g

The covariance is symmetric for an exact denoiser, so vector-Jacobian products serve
(Rozet et al. 2024, arXiv:2405.13712).
"""

import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from invsolve.linalg import dot, expand
from invsolve.sde import SDE, Time

__all__ = ["Denoised", "EnergyPrior", "Prior", "Surrogate"]

Shape = tuple[int | None, ...]


class Surrogate(Protocol):
    """A covariance that stands in for sigma^2/alpha times the Jacobian at noise levels lambda beyond `above`.

    It has a size, an amplitude (B,): up to the level `fitted` that of the Jacobian's trace, beyond it 1.
    """

    above: float
    fitted: float

    def probe(self, shape: tuple[int, ...]) -> Tensor:
        """Return a signal z (*event) by which z^T J z estimates the trace of J."""

    def amplitude(self, variance: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:
        """Amplitude at which an entry of x_0 | x_t, of H x W pixels, has this variance (B,) in the mean."""

    def covariance(self, v: Tensor, level: Tensor, amplitude: Tensor) -> Tensor:
        """Apply Cov[x_0 | x_t] to v (B, *event) at noise levels lambda (B,)."""

    def divide(self, v: Tensor, level: Tensor, amplitude: Tensor, power: Tensor, variance: Tensor) -> Tensor:
        """Apply (K C K^T + variance)^-1, K a convolution of spectrum power = |k^|^2 (H, W // 2 + 1), of whose
        pixels v has every n-th, n = H / height of v."""


class Prior(nn.Module, ABC):
    """A distribution of signals, known through its denoiser.

    Works in physical units: images in [0, 1]. A network trained in other units is adapted inside its own
    Prior, range and noise level together. Nothing is ever clipped.
    """

    name = "prior"
    shape: Shape | None = None  # of one sample; None for any size
    centre: Tensor  # mean of the data: where a run starts from, and nothing else
    sigma_min = 0.0  # the noise levels it was trained on, in physical units
    sigma_max = float("inf")
    precision = 1e-5  # relative error of its arithmetic: rows may differ by it beside others
    closed_form = False  # whether its derivative is a true covariance: symmetric, and not negative
    surrogate: Surrogate | None = None  # where the derivative of the denoiser is not to be trusted
    halo: int | None = None  # pixels around one that its answer depends on; None for the whole image
    stride = 1  # grid in pixels that a part of an image has to keep to
    tile = 0  # side in pixels of the tiles it goes by, denoised again for each vjp; 0 for the whole image

    def __init__(self) -> None:
        """Start with a data mean of zero, which only the start of a run looks at."""
        super().__init__()
        self.register_buffer("centre", torch.zeros(()), persistent=False)

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_0 + sigma n = x]: x (B, *event), sigma (B,), result (B, *event)."""

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Gradient of the log density of x_0 + sigma n at x: (B, *event)."""
        return (self.denoise(x, sigma) - x) / expand(sigma**2, x)

    @property
    def extent(self) -> float:
        """Standard deviation of the data along its widest direction, where that is known; else 0.

        A walk that starts at less than a few times this noise level starts with the modes badly weighted.
        """
        return 0.0

    def tiled(self, size: int) -> "Prior":
        """Give the same prior, evaluated in tiles of size x size pixels: large images in the memory of one.

        Refused where an answer at a pixel depends on the whole image.
        """
        from invsolve.priors.tiled import TiledPrior

        return TiledPrior(self, size)

    def beyond(self, level: Tensor) -> Tensor:
        """Rows whose noise level is beyond the trust in the denoiser's derivative: boolean (B,)."""
        return level > (float("inf") if self.surrogate is None else self.surrogate.above)

    def differentiated(self, level: Tensor) -> bool:
        """Whether its covariance at these noise levels (B,) takes derivatives of the denoiser."""
        surrogate = self.surrogate
        if surrogate is None or not bool(self.beyond(level * (1 - 1e-12)).all()):  # or right at the edge
            return True
        return bool((level * (1 - 1e-12) <= surrogate.fitted).any())

    def full_precision(self) -> AbstractContextManager[None]:
        """Compute in the prior's own dtype inside this context, also where it would round more to be fast."""
        return nullcontext()

    @property
    def dtype(self) -> torch.dtype:
        """Of the samples: that of the first floating parameter or buffer after the centre, else float32."""
        return self._reference.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._reference.device

    @property
    def _reference(self) -> Tensor:
        return next(self.parameters(), self.get_buffer("centre"))


class EnergyPrior(Prior):
    """A density exp(-f) / Z known up to Z: score = -grad f.

    energy(x, sigma) -> (B,) is the energy of the density *after* noise of level sigma, as a noise-conditional
    model learns it; then denoise = x - sigma^2 grad f is exact. An energy(x) of the clean density alone is
    its limit at small sigma: right for Langevin sampling at one low noise level, and only there.
    """

    name = "energy"

    def __init__(self, energy: Callable[..., Tensor], shape: Shape | None = None) -> None:
        """Keep the energy; whether it takes sigma is read from its signature."""
        super().__init__()
        self.shape = shape
        self._energy = energy
        self._noisy = len(inspect.signature(energy).parameters) > 1

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return x - sigma^2 grad f(x, sigma)."""
        return x + expand(sigma**2, x) * self.score(x, sigma)

    def score(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Minus the gradient of the energy; no Z is needed."""
        wants_graph = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            x = x if wants_graph else x.detach().requires_grad_(True)
            energy = self._energy(x, sigma) if self._noisy else self._energy(x)
            return -torch.autograd.grad(energy.sum(), x, create_graph=wants_graph)[0]


class Denoised:
    """One evaluation of the prior at (x_t, t): the only place where the network is called.

    x, mean (B, *event) and score carry no graph; derivatives come through vjp, covariance and gradient alone,
    when it was made with graph=True. calls counts rows: forward and vjp apart; a tiled prior denoises
    again for each vjp, which is a forward more.
    """

    def __init__(
        self,
        prior: Prior,
        sde: SDE,
        x: Tensor,
        t: Time,
        *,
        graph: bool = False,
        calls: Counter[str] | None = None,
    ) -> None:
        """Call the denoiser once at x_t / alpha with noise level sigma / alpha."""
        self.prior, self.sde, self.calls = prior, sde, Counter() if calls is None else calls
        self.t = torch.as_tensor(t, dtype=torch.float64).cpu().expand(len(x))
        self.alpha, self.sigma = sde.alpha(self.t), sde.sigma(self.t)
        self.level = self.sigma / self.alpha  # the noise level lambda the denoiser sees, float64 (B,)
        self.x = x.detach()
        with torch.set_grad_enabled(graph):
            self._x = self.x.clone().requires_grad_(graph)
            self._mean = prior.denoise(self._x / expand(self.alpha, x), self.level.to(x.device))
        self.mean = self._mean.detach()
        self.calls["forward"] += len(x)

    @property
    def score(self) -> Tensor:
        """grad log p(x_t) by Tweedie's formula: (B, *event)."""
        return (expand(self.alpha, self.x) * self.mean - self.x) / expand(self.sigma**2, self.x)

    def vjp(self, v: Tensor) -> Tensor:
        """Product of v with the Jacobian of E[x_0 | x_t] in x_t: v^T dE/dx_t, (B, *event)."""
        self.calls["vjp"] += len(v)
        self.calls["forward"] += len(v) * bool(self.prior.tile)
        return torch.autograd.grad(self._mean, self._x, v, retain_graph=True)[0]

    def covariance(self, v: Tensor) -> Tensor:
        """Apply Cov[x_0 | x_t] to v: sigma^2/alpha times the Jacobian, or the prior's surrogate beyond its
        level."""
        surrogate, beyond = self.prior.surrogate, self.beyond
        if surrogate is None or not beyond.any():
            return self._own(v)
        instead = surrogate.covariance(v, self.level, self.amplitude)
        return instead if beyond.all() else torch.where(expand(beyond, v).bool(), instead, self._own(v))

    def _own(self, v: Tensor) -> Tensor:
        return expand(self.sigma**2 / self.alpha, v) * self.vjp(v)

    @cached_property
    def amplitude(self) -> Tensor:
        """Size of the surrogate for each row, by the trace of its own covariance: (B,), one product."""
        surrogate = self.prior.surrogate
        assert surrogate is not None, "asked of a prior that has a surrogate"
        if bool((self.level > surrogate.fitted).all()):
            return torch.ones_like(self.level)
        probe = surrogate.probe(tuple(self.x.shape[1:])).to(self.x).expand_as(self.x)
        variance = dot(probe, self._own(probe)).cpu() / probe[0].numel()
        return surrogate.amplitude(variance, self.level, (self.x.shape[-2], self.x.shape[-1]))

    @cached_property
    def beyond(self) -> Tensor:
        """Rows whose noise level is beyond the trust in the denoiser's derivative: boolean (B,)."""
        return self.prior.beyond(self.level)

    def shift_to_score(self, delta: Tensor) -> Tensor:
        """Term of the score that moves E[x_0 | x_t] by delta: (alpha / sigma^2) delta."""
        return expand(self.alpha / self.sigma**2, delta) * delta

    def gradient(self, log_prob: Callable[["Denoised"], Tensor]) -> Tensor:
        """Gradient in x_t of log_prob(at) -> (B,), where at.x and at.mean carry the graph.

        What does not look at the mean costs no product with its Jacobian.
        """
        live, x = object.__new__(Denoised), self.x.clone().requires_grad_(True)
        live.__dict__.update(self.__dict__, x=x, mean=self._mean)
        with torch.enable_grad():
            value = log_prob(live).sum()
            of_x, of_mean = torch.autograd.grad(value, (x, self._mean), retain_graph=True, allow_unused=True)
        total = torch.zeros_like(self.x) if of_x is None else of_x
        return total if of_mean is None else total + self.vjp(of_mean)
