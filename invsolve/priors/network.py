"""The network behind the learned priors: a small fully convolutional denoiser of images of any size.

    D(x, sigma) = c_skip x + c_out F(c_in x, sigma)            images scaled to [-1, 1], noise of that scale

    c_skip = sd^2/(sigma^2 + sd^2)   c_out = sigma sd/sqrt(sigma^2 + sd^2)   c_in = 1/sqrt(sigma^2 + sd^2)

This is the preconditioning of Karras et al. 2022 (arXiv:2206.00364), table 1: F sees unit variance and has
to answer with unit variance at every noise level; sd is the standard deviation of the data. The score is (D
- x) / sigma^2 (Tweedie).

F is a U-Net. A thin stem at full resolution keeps single pixels apart (a trunk that starts by pixel-
unshuffle weaves a texture into flat areas); the trunk halves the resolution once per width. There is no
attention and no norm that pools over space, so the answer at a pixel depends on its neighbourhood alone and
the image may have any size: inside, it is mirrored up to a multiple of the coarsest grid and cut back. A
constant-one input channel lets the zero padding of the convolutions mark the border.

How far a pixel's neighbourhood goes follows from the architecture (`Architecture.halo`): each 3 x 3
convolution adds a pixel of its own resolution, each change of resolution doubles what is below.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.linalg import expand

__all__ = ["Architecture", "DenoisingUNet", "Sized", "build", "check_sizes"]

EMBEDDING = 128
MOST_LEVELS, MOST_BLOCKS = 12, 64


class Sized(Protocol):
    """What the architectures of denoiser and classifier have in common."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution."""

    @property
    def blocks(self) -> int:
        """Residual blocks a stage."""

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data."""

    @property
    def least(self) -> int:
        """A number of weights that the network has at least."""


def check_sizes(architecture: Sized, sizes: tuple[int, ...]) -> None:
    """Refuse sizes that build nothing, or that nobody means: a file may claim any."""
    levels, sd = len(architecture.widths), architecture.sigma_data
    if not all(type(size) is int and size >= 1 for size in sizes) or not 0 < sd < math.inf:
        raise ValueError(
            f"{architecture} builds no network: sizes must be whole numbers of at least 1 (classes 2) and "
            "sigma_data positive and finite."
        )
    if not 1 <= levels <= MOST_LEVELS or architecture.blocks > MOST_BLOCKS:
        raise ValueError(
            f"an architecture of {levels} widths and {architecture.blocks} blocks builds no network: 1 to "
            f"{MOST_LEVELS} widths and at most {MOST_BLOCKS} blocks are possible."
        )


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the network before its weights are loaded."""

    in_channels: int = 3
    stem: int = 16
    widths: tuple[int, ...] = (48, 80, 112, 144)
    blocks: int = 2
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Accept a list of widths (TOML, JSON) and refuse sizes that build nothing."""
        object.__setattr__(self, "widths", tuple(self.widths))
        check_sizes(self, (self.in_channels, self.stem, self.blocks, *self.widths))

    @property
    def least(self) -> int:
        """Weights of the entry, and of the two convolutions in each block of the way down."""
        blocks = self.stem**2 + self.blocks * sum(width**2 for width in self.widths)
        return 9 * self.in_channels * self.stem + 18 * blocks

    @property
    def stride(self) -> int:
        """Side in pixels of a cell of the coarsest grid: 2 to the number of widths."""
        return int(2 ** len(self.widths))

    @property
    def halo(self) -> int:
        """Pixels on each side of one that its answer depends on.

        With r_l the reach at resolution l, in its own pixels, from L, the coarsest, up to 0, the stem:

            r_L = 2 blocks              two convolutions a block
            r_l = 2 r_(l+1) + 2 + 4 blocks          bilinear doubling 2; a stage before and one after
            r_0 = 2 r_1 + 3 + 4                     1 more for the 4 x 4 convolution; one block a stage
            halo = r_0 + 2                          entry and head
        """
        reach = 2 * self.blocks
        for _ in self.widths[1:]:
            reach = 2 * reach + 2 + 4 * self.blocks
        return 2 * reach + 9


def mirror(x: Tensor, multiple: int) -> Tensor:
    """Extend bottom and right by reflection to a multiple; also images thinner than the extension."""
    for axis in (-2, -1):
        size = x.shape[axis]
        if size % multiple:
            length = math.ceil(size / multiple) * multiple
            period = max(2 * size - 2, 1)
            place = torch.arange(length, device=x.device) % period
            x = x.index_select(axis, torch.minimum(place, period - place).clamp(max=size - 1))
    return x


def rms_norm(x: Tensor) -> Tensor:
    """Divide each pixel by the root mean square of its channels."""
    return F.rms_norm(x.movedim(1, -1), (x.shape[1],), eps=1e-4).movedim(-1, 1)


class NoiseEmbedding(nn.Module):
    """sigma (B,) to features (B, EMBEDDING): Fourier features of ln(sigma)/4 through a small MLP."""

    frequencies: Tensor

    def __init__(self) -> None:
        """Fix the frequencies; the MLP learns."""
        super().__init__()
        frequencies = 2 * math.pi * 2 ** torch.linspace(-3, 3, EMBEDDING // 4)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(EMBEDDING // 2, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU()
        )

    def forward(self, sigma: Tensor) -> Tensor:
        """Logarithm in the dtype of sigma (float64), features in that of the weights."""
        phase = (sigma.log() / 4).to(self.frequencies).outer(self.frequencies)
        features: Tensor = self.mlp(torch.cat([phase.cos(), phase.sin()], 1))
        return features


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(norm(x) (1 + a(sigma)) + b(sigma)))); starts as the identity."""

    def __init__(self, channels: int) -> None:
        """Zero the last convolution and the modulation, so that training starts from a plain path."""
        super().__init__()
        self.modulation = nn.Linear(EMBEDDING, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for zero in [*self.modulation.parameters(), *self.second.parameters()]:
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Images (B, C, H, W) and noise features (B, EMBEDDING)."""
        a, b = self.modulation(features).to(x.dtype)[:, :, None, None].chunk(2, 1)
        h = self.first(rms_norm(x) * (1 + a) + b)
        h = F.silu(h)
        residual: Tensor = self.second(h)
        return x + residual


class Stage(nn.Module):
    """A run of residual blocks at one resolution."""

    def __init__(self, channels: int, blocks: int) -> None:
        """Blocks of equal width."""
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Apply the blocks in turn."""
        for block in self.blocks:
            x = block(x, features)
        return x


class Up(nn.Module):
    """Coarse to fine: 1 x 1 convolution, bilinear doubling, then merged with the skip."""

    def __init__(self, coarse: int, fine: int) -> None:
        """Widths of the two resolutions."""
        super().__init__()
        self.narrow = nn.Conv2d(coarse, fine, 1)
        self.merge = nn.Conv2d(2 * fine, fine, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Coarse (B, c, h, w) and skip (B, f, 2h, 2w) to (B, f, 2h, 2w)."""
        x = F.interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
        merged: Tensor = self.merge(torch.cat([x, skip], 1))
        return merged


class DenoisingUNet(nn.Module):
    """D(x, sigma) = E[x_0 | x_0 + sigma n = x] for images in [-1, 1]; differentiable, never clipped."""

    def __init__(self, architecture: Architecture) -> None:
        """Random weights; D starts as c_skip x because the head starts at zero."""
        super().__init__()
        a = self.architecture = architecture
        widths = (a.stem, *a.widths)
        self.embedding = NoiseEmbedding()
        self.entry = nn.Conv2d(a.in_channels + 1, a.stem, 3, padding=1)
        first = nn.Conv2d(a.stem, widths[1], 4, stride=2, padding=1)
        later = [nn.Conv2d(m, n, 2, stride=2) for m, n in pairwise(widths[1:])]
        self.down = nn.ModuleList([first, *later])
        depths = [1] + [a.blocks] * len(a.widths)
        self.encoder = nn.ModuleList(Stage(w, n) for w, n in zip(widths, depths, strict=True))
        self.decoder = nn.ModuleList(Stage(w, n) for w, n in zip(widths[:-1], depths[:-1], strict=True))
        self.up = nn.ModuleList(Up(n, m) for m, n in pairwise(widths))
        self.head = nn.Conv2d(a.stem, a.in_channels, 3, padding=1)
        for zero in self.head.parameters():
            nn.init.zeros_(zero)
        self.to(memory_format=torch.channels_last)

    @property
    def halo(self) -> int:
        """Pixels on each side of one that its answer depends on."""
        return self.architecture.halo

    @property
    def stride(self) -> int:
        """Grid that a part of an image has to keep to, in pixels."""
        return self.architecture.stride

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Images (B, C, H, W) of any size and noise levels (B,) to the denoised images."""
        sd, s = self.architecture.sigma_data, sigma.double()
        total = s**2 + sd**2
        raw = self.raw(x * expand(total.rsqrt(), x), s)
        return expand(sd**2 / total, x) * x + expand(s * sd * total.rsqrt(), x) * raw.to(x.dtype)

    def raw(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F: the U-Net on an input of unit variance."""
        height, width = x.shape[-2:]
        x = mirror(x, self.stride)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1).contiguous(memory_format=torch.channels_last)
        features = self.embedding(sigma)
        x = self.encoder[0](self.entry(x), features)
        skips = []
        for down, stage in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = stage(down(x), features)
        for up, stage, skip in zip(reversed(self.up), reversed(self.decoder), reversed(skips), strict=True):
            x = stage(up(x, skip), features)
        answer: Tensor = self.head(F.silu(rms_norm(x)))
        return answer[..., :height, :width]


def build(architecture: Architecture, seed: int = 0) -> DenoisingUNet:
    """Make a network whose first weights are a function of the seed; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's layers know no other generator when they are made
        return DenoisingUNet(architecture)
