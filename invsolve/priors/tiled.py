"""Large images through a prior that looks only so far: tile by tile, with the same answer.

A fully convolutional denoiser answers at a pixel from the pixels within `halo` of it. So the image is cut
into tiles, and each is denoised inside a window that is wider by the halo on every side:

    |<----------------- window ----------------->|      begins and ends at multiples of `stride`, the
    |<- halo ->|<-------- tile -------->|<- halo ->|     network's coarsest grid, or at the image's border

What the window's own border spoils lies in the halo and is cut off; at the border of the image window and
image end together, so the network pads as it always does. The tiles together are the answer of the whole
image, up to the rounding of sums in another order.

Memory is that of one window, for derivatives too: the forward pass keeps x alone, and the backward pass
denoises each window again, pulls its part of v back and adds it to the gradient:

    v^T dD/dx  =  sum over tiles of  v_tile^T dD_tile/dx_window

That is the exact derivative of the tiled map, for one denoising more for each product, which `Denoised.vjp`
counts. Images of a batch go one at a time.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import Refused
from invsolve.prior import Prior
from invsolve.priors.network import mirror

__all__ = ["Span", "TiledPrior", "overhead", "spans", "why_whole"]


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels: the tile is start .. stop - 1, its window low .. high - 1."""

    start: int
    stop: int
    low: int
    high: int


Place = tuple[slice, ...]  # of one image in a batch: row, channels, rows and columns of pixels


def spans(length: int, size: int, halo: int, stride: int) -> Iterator[Span]:
    """Cut an axis into tiles of `size`, the last one shorter; windows may reach to the next multiple of
    stride beyond its end."""
    for start in range(0, length, size):
        stop = min(start + size, length)
        low = max(start - halo, 0) // stride * stride
        high = math.ceil(min(stop + halo, length) / stride) * stride
        yield Span(start, stop, low, high)


def overhead(prior: Prior, height: int, width: int) -> float:
    """Pixels that the network of a tiled prior sees for each pixel of an image."""
    axes = [list(spans(n, prior.tile or n, prior.halo or 0, prior.stride)) for n in (height, width)]
    rows, columns = (sum(span.high - span.low for span in axis) for axis in axes)
    return rows * columns / (height * width)


def why_whole(prior: Prior) -> str:
    """Say why a prior cannot be tiled; empty where it can."""
    if prior.halo is None:
        return "what it answers at a pixel may depend on the whole image (attention, norms), or is not stated"
    if prior.shape is not None and prior.shape[-2:] != (None, None):
        return f"it makes images of one size only, {prior.shape[-2]} x {prior.shape[-1]} pixels"
    return ""


class TiledPrior(Prior):
    """A prior evaluated in tiles of size x size pixels: images (B, C, H, W) of any height and width.

    The prior states its halo and stride. Made by Prior.tiled; Refused where the prior needs the whole image.
    """

    def __init__(self, whole: Prior, size: int) -> None:
        """Take over what the prior says of itself."""
        super().__init__()
        reason = why_whole(whole)
        if reason:
            raise Refused(f"prior {whole.name} cannot be tiled: {reason}. Take it whole, --tile 0.")
        if size < whole.stride:
            raise Refused(f"tiles of {size} pixels are smaller than {whole.stride}, the network's own grid.")
        self.whole, self.tile = whole, size
        self.name, self.shape, self.halo, self.stride = whole.name, whole.shape, whole.halo, whole.stride
        self.sigma_min, self.sigma_max = whole.sigma_min, whole.sigma_max
        self.surrogate = whole.surrogate
        self.metadata: dict[str, str] = getattr(whole, "metadata", {})
        self.sha256 = str(getattr(whole, "sha256", ""))
        self.centre.copy_(whole.centre)

    @property
    def precision(self) -> float:  # type: ignore[override]  # follows another
        """Relative error of the whole prior's arithmetic."""
        return self.whole.precision

    @property
    def extent(self) -> float:
        """Standard deviation of the data along its widest direction, as the prior states it."""
        return self.whole.extent

    def full_precision(self) -> AbstractContextManager[None]:
        """Leave bfloat16 aside inside this context."""
        return self.whole.full_precision()

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x_0 + sigma n = x] for x (B, C, H, W); its derivative once, not twice."""
        full = mirror(x, self.stride)  # as the network itself would
        answer: Tensor = _Tiles.apply(full, sigma, self, x.shape[-2:])
        return answer

    def tiled(self, size: int) -> "TiledPrior":
        """Give the same prior in tiles of another size."""
        return TiledPrior(self.whole, size)

    def tiles(self, height: int, width: int) -> Iterator[tuple[Span, Span]]:
        """Cut an image: spans of rows and of columns, tile by tile."""
        rows, columns = (spans(n, self.tile, self.halo or 0, self.stride) for n in (height, width))
        return product(rows, columns)

    def places(self, shape: tuple[int, ...]) -> Iterator[tuple[int, Place, Place, Place]]:
        """Each tile of each image of a batch (B, C, H, W): its row, its window and its place in the batch,
        and its place in the window."""
        for b in range(shape[0]):
            for y, x in self.tiles(*shape[-2:]):
                one, every = slice(b, b + 1), slice(None)
                window = (one, every, slice(y.low, y.high), slice(x.low, x.high))
                tile = (one, every, slice(y.start, y.stop), slice(x.start, x.stop))
                inner = (slice(y.start - y.low, y.stop - y.low), slice(x.start - x.low, x.stop - x.low))
                yield b, window, tile, (every, every, *inner)


class _Tiles(torch.autograd.Function):
    """D tile by tile; the graph holds x and nothing of the network."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: Tensor, prior: TiledPrior, size: torch.Size) -> Tensor:  # noqa: ANN401  torch's context has no type
        """Denoise x, (B, C, H, W) up to the next multiples of the stride, into an answer of H x W = size."""
        ctx.save_for_backward(x)
        ctx.sigma, ctx.prior = sigma, prior
        answer = x.new_empty(*x.shape[:2], *size)
        for b, window, tile, inner in prior.places(answer.shape):
            answer[tile] = prior.whole.denoise(x[window], sigma[b : b + 1])[inner]
        return answer

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401  torch's context has no type
        """Pull v (B, C, H, W) back, each window denoised once more."""
        if torch.is_grad_enabled():  # create_graph: what follows would look constant
            raise Refused("a tiled prior has a first derivative only. Take the prior whole for a second one.")
        (x,), prior = ctx.saved_tensors, ctx.prior
        gradient = torch.zeros_like(x)
        for b, window, tile, inner in prior.places(v.shape):
            with torch.enable_grad():
                live = x[window].detach().requires_grad_(True)
                part = prior.whole.denoise(live, ctx.sigma[b : b + 1])[inner]
            gradient[window] += torch.autograd.grad(part, live, v[tile])[0]
        return gradient, None, None, None
