"""A trained network as a Prior: the one place where the network's units meet the physical ones.

The network lives on images in [low, high] (usually [-1, 1]), everything else on [0, 1]. With r = high - low

    D_01(x, s) = (D(low + r x, r s) - low) / r

The noise level scales with the range: forgetting it halves or doubles every step of a sampler.

A colour prior also serves grey images (GreyPrior). Copying a noisy grey image to three channels at the same
sigma would be wrong: the network expects independent noise in each, so it takes noise shared by all for
structure. What is exact: three channels g + sqrt(3) s n_c have the mean g + s n, and what is left, the
colour differences, is noise that says nothing about g. So the noisy grey image x goes in as x + sqrt(3) s
(n_c - mean n), with fixed n, at noise level sqrt(3) s, and the channels of the answer are averaged. It is
as good as the colour prior knows grey pictures.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from invsolve.device import bfloat16_pays, mixed_precision
from invsolve.linalg import expand
from invsolve.prior import Prior
from invsolve.priors.stationary import StationaryCovariance
from invsolve.priors.tiled import TiledPrior

__all__ = ["DenoiserPrior", "GreyPrior"]


class DenoiserPrior(Prior):
    """Images through a trained denoiser, mostly of any size; noise levels in physical units.

    surrogate_above: level beyond which the covariance of photographs stands in for the network's derivative.
    side: height and width in pixels of images that come in one size only; None for any.
    A network that looks only so far says so in its `halo` and `stride`, and can be tiled.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        channels: int = 3,
        sigma_min: float = 0.001,
        sigma_max: float = 40.0,
        data_range: tuple[float, float] = (-1.0, 1.0),
        surrogate_above: float | None = None,
        name: str = "denoiser",
        side: int | None = None,
    ) -> None:
        """Freeze the network's weights, so that derivatives go to the image alone."""
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.name, self.shape = name, (channels, side, side)
        self.halo = getattr(network, "halo", None)
        self.stride = 1 if self.halo is None else int(getattr(network, "stride", 1))
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.low, self.span = data_range[0], data_range[1] - data_range[0]
        self.centre.fill_(0.5)
        self.fast = True  # bfloat16 inside the network where it pays; the answer has the dtype of x
        self.surrogate_above = surrogate_above
        if surrogate_above is not None:
            self.surrogate = StationaryCovariance(surrogate_above, channels)
        self.metadata: dict[str, str] = {}
        self.sha256 = ""

    @property
    def precision(self) -> float:  # type: ignore[override]  # follows another
        """Relative error of the arithmetic: that of bfloat16 where it is used."""
        fast = self.fast and self.dtype == torch.float32 and bfloat16_pays(self.device)
        return 2.0**-8 if fast else Prior.precision

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_0 + sigma n = x] for x (B, C, H, W), sigma (B,) in physical units."""
        with mixed_precision(x.device, wanted=self.fast and x.dtype == torch.float32):
            answer: Tensor = self.network(self.low + self.span * x, self.span * sigma.to(x.device))
        return (answer.to(x.dtype) - self.low) / self.span

    def tiled(self, size: int) -> TiledPrior:
        """Give the same prior in tiles of size x size pixels; Refused where the network sees the whole
        image."""
        return TiledPrior(self, size)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Leave bfloat16 aside inside this context."""
        fast, self.fast = self.fast, False
        try:
            yield
        finally:
            self.fast = fast

    def grey(self) -> "GreyPrior":
        """Give the prior of grey images, (B, 1, H, W), that this colour prior implies."""
        return GreyPrior(self)


@lru_cache(maxsize=4)
def colour_noise(channels: int, height: int, width: int) -> Tensor:
    """Fixed standard normal noise without its mean over channels, (1, C, H, W)."""
    rng = torch.Generator().manual_seed(0x67726579)  # a seed nobody else draws measurement noise with
    noise = torch.randn(1, channels, height, width, generator=rng, dtype=torch.float64)
    return noise - noise.mean(1, keepdim=True)


class GreyPrior(Prior):
    """Grey images through a colour prior; the module docstring has the argument."""

    def __init__(self, colour: DenoiserPrior | TiledPrior) -> None:
        """Keep the colour prior; its noise range shrinks by sqrt(channels)."""
        super().__init__()
        self.colour, self.channels = colour, int(colour.shape[0] or 1) if colour.shape else 1
        self.name, self.shape = colour.name, (1, None, None)
        self.sigma_min = colour.sigma_min / self.channels**0.5
        self.sigma_max = colour.sigma_max / self.channels**0.5
        self.halo, self.stride, self.tile = colour.halo, colour.stride, colour.tile
        self.centre.copy_(colour.centre)
        self.metadata, self.sha256 = colour.metadata, colour.sha256
        if colour.surrogate is not None:
            self.surrogate = StationaryCovariance(colour.surrogate.above / self.channels**0.5, 1)

    def tiled(self, size: int) -> "GreyPrior":
        """Tile the colour prior inside: the fixed noise belongs to the whole image."""
        return GreyPrior(self.colour.tiled(size))

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_0 + sigma n = x] for x (B, 1, H, W)."""
        level = sigma * self.channels**0.5
        noise = colour_noise(self.channels, x.shape[-2], x.shape[-1]).to(x)
        return self.colour.denoise(x + expand(level, x) * noise, level).mean(1, keepdim=True)

    @property
    def precision(self) -> float:  # type: ignore[override]  # follows another
        """Relative error of the colour prior's arithmetic."""
        return self.colour.precision

    def full_precision(self) -> AbstractContextManager[None]:
        """Leave the colour prior's bfloat16 aside inside this context."""
        return self.colour.full_precision()
