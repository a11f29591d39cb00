"""The network of DDPM (Ho et al. 2020, arXiv:2006.11239, appendix B), with its layers numbered by score_sde.

    level l = 0 .. L-1: R residual blocks, attention at some levels, then a strided convolution
    middle: residual, attention, residual
    decoder: R + 1 blocks a level, each fed one encoder output, attention once, then doubling and convolution

Unlike its successor DDPM++ (song_unet) sums are left as they are, the resolution changes by convolution, and
group norms have 32 groups whatever the width. Layers without parameters have no number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.errors import InputError
from invsolve.priors.checkpoints.fit import Weights
from invsolve.priors.checkpoints.layers import attend, sinusoids
from invsolve.priors.checkpoints.score_sde_names import RESAMPLING, kind_of, layers_of

__all__ = ["DDPMLayout", "DDPMUNet", "is_ddpm", "read_ddpm_layout"]


@dataclass(frozen=True)
class DDPMLayout:
    """Everything that is needed to build the network; attention: levels that have it."""

    img_resolution: int
    in_channels: int
    model_channels: int
    widths: tuple[int, ...]
    num_blocks: int
    attention: tuple[int, ...]
    embedding_type: str = "positional"


def is_ddpm(path: Path, state: Weights) -> bool:
    """Whether the numbered layers change the resolution as DDPM does."""
    return RESAMPLING in map(kind_of, layers_of(path, state))


def read_ddpm_layout(path: Path, state: Weights, image_size: int) -> DDPMLayout:
    """Read widths, blocks and attention off the first block of each level of the encoder."""
    layers = layers_of(path, state)
    kinds = [kind_of(layer) for layer in layers]
    resampling = [i for i, kind in enumerate(kinds) if kind == RESAMPLING]
    starts = [3, *(i + 1 for i in resampling[: len(resampling) // 2])]  # half of them are of the decoder
    factor = 2 ** (len(starts) - 1)
    if image_size % factor:
        raise InputError(f"image_size is {image_size}, but {path} needs a multiple of {factor}.")
    try:
        entry = layers[2]["weight"].shape
        if entry[1] > 4:
            raise InputError(f"{path} takes {entry[1]} channels, but images have 1 to 4.")
        return DDPMLayout(
            img_resolution=image_size,
            in_channels=entry[1],
            model_channels=entry[0],
            widths=tuple(layers[i]["Conv_1.weight"].shape[0] for i in starts),
            num_blocks=resampling[0] - 3 - kinds[3 : resampling[0]].count("attention"),
            attention=tuple(level for level, i in enumerate(starts) if kinds[i + 1] == "attention"),
        )
    except (KeyError, IndexError):
        raise InputError(
            f"{path} does not start like DDPM: its first layers are {', '.join(kinds[:5])}."
        ) from None


class PerPixel(nn.Module):
    """The same linear map at each pixel, W (ins, outs)."""

    def __init__(self, ins: int, outs: int) -> None:
        """Channels in and out."""
        super().__init__()
        self.W, self.b = nn.Parameter(torch.empty(ins, outs)), nn.Parameter(torch.empty(outs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, ins, H, W) to (B, outs, H, W)."""
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


def norm(channels: int) -> nn.GroupNorm:
    """Group norm of 32 groups."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class Residual(nn.Module):
    """Norm, convolution, the step's shift, norm, convolution."""

    def __init__(self, ins: int, outs: int, features: int) -> None:
        """Channels in and out, and features of the embedding."""
        super().__init__()
        self.GroupNorm_0, self.Conv_0 = norm(ins), nn.Conv2d(ins, outs, 3, padding=1)
        self.Dense_0 = nn.Linear(features, outs)
        self.GroupNorm_1, self.Conv_1 = norm(outs), nn.Conv2d(outs, outs, 3, padding=1)
        self.NIN_0 = PerPixel(ins, outs) if ins != outs else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """x (B, C, H, W), embedding (B, features)."""
        h = self.Conv_0(F.silu(self.GroupNorm_0(x))) + self.Dense_0(e)[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        out: Tensor = (self.NIN_0(x) if self.NIN_0 else x) + h
        return out


class Attention(nn.Module):
    """Self-attention over pixels, of one head."""

    def __init__(self, channels: int) -> None:
        """q, k, v and the answer are NIN_0 to NIN_3."""
        super().__init__()
        self.GroupNorm_0 = norm(channels)
        self.NIN_0, self.NIN_1 = PerPixel(channels, channels), PerPixel(channels, channels)
        self.NIN_2, self.NIN_3 = PerPixel(channels, channels), PerPixel(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        h = self.GroupNorm_0(x)
        q, k, v = (project(h).flatten(2) for project in (self.NIN_0, self.NIN_1, self.NIN_2))
        out: Tensor = x + self.NIN_3(attend(q, k, v).reshape(x.shape))
        return out


class Half(nn.Module):
    """Halve the resolution; zeros are added at the right and the bottom only."""

    def __init__(self, channels: int) -> None:
        """Keep the number of channels."""
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        out: Tensor = self.Conv_0(F.pad(x, (0, 1, 0, 1)))
        return out


class Double(nn.Module):
    """Double the resolution by nearest neighbours, then a convolution."""

    def __init__(self, channels: int) -> None:
        """Keep the number of channels."""
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.Conv_0(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class DDPMUNet(nn.Module):
    """F(x, step): the noise, before it is divided by sigma."""

    def __init__(self, layout: DDPMLayout) -> None:
        """Build the layers in the order of the file; the weights come from it."""
        super().__init__()
        self.layout = layout
        self.all_modules = nn.ModuleList(self._layers(layout))

    @staticmethod
    def _layers(a: DDPMLayout) -> Iterator[nn.Module]:
        """Embedding, encoder, middle, decoder."""
        c, features, last = a.model_channels, 4 * a.model_channels, len(a.widths) - 1
        yield from (nn.Linear(c, features), nn.Linear(features, features))
        yield nn.Conv2d(a.in_channels, c, 3, padding=1)
        skips = [c]
        for level, width in enumerate(a.widths):
            for _ in range(a.num_blocks):
                yield Residual(skips[-1], width, features)
                if level in a.attention:
                    yield Attention(width)
                skips.append(width)
            if level < last:
                yield Half(width)
                skips.append(width)
        c = skips[-1]
        yield from (Residual(c, c, features), Attention(c), Residual(c, c, features))
        for level in range(last, -1, -1):
            for _ in range(a.num_blocks + 1):
                yield Residual(c + skips.pop(), a.widths[level], features)
                c = a.widths[level]
            if level in a.attention:
                yield Attention(c)
            if level:
                yield Double(c)
        yield from (norm(c), nn.Conv2d(c, a.in_channels, 3, padding=1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """x (B, C, H, W), label (B,)."""
        layers, a = iter(self.all_modules), self.layout
        cosines, sines = sinusoids(label, a.model_channels, endpoint=True)
        e = next(layers)(torch.cat([sines, cosines], 1))
        e = F.silu(next(layers)(F.silu(e)))
        x = next(layers)(x)
        skips = [x]
        for level in range(len(a.widths)):
            for _ in range(a.num_blocks):
                x = next(layers)(x, e)
                x = next(layers)(x) if level in a.attention else x
                skips.append(x)
            if level + 1 < len(a.widths):
                x = next(layers)(x)
                skips.append(x)
        x = next(layers)(x, e)
        x = next(layers)(x)
        x = next(layers)(x, e)
        for level in reversed(range(len(a.widths))):
            for _ in range(a.num_blocks + 1):
                x = next(layers)(torch.cat([x, skips.pop()], 1), e)
            x = next(layers)(x) if level in a.attention else x
            x = next(layers)(x) if level else x
        x = F.silu(next(layers)(x))
        out: Tensor = next(layers)(x)
        return out
