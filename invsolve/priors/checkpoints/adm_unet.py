"""The U-Net of guided-diffusion (ADM), Dhariwal and Nichol 2021 (arXiv:2105.05233), appendix and table 4.

    level l = 0 .. L-1 of width multiplier m_l: R residual blocks, attention at some levels, then halving
    middle: residual, attention, residual;   decoder: R + 1 blocks a level, each fed one encoder output

The step enters every residual block through two linear layers on sinusoids: as a shift, or as scale and
shift after the norm. Halving and doubling is by strided convolution, by residual block, or by plain pooling.
Parameters carry the names of the original files, so that its weights load as they are. Group norms have 32
groups, whatever the width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.priors.checkpoints.layers import attend, sinusoids

__all__ = ["ADMLayout", "ADMUNet"]


@dataclass(frozen=True)
class ADMLayout:
    """Everything that is needed to build the network; resample is conv, block or pool."""

    in_channels: int
    out_channels: int
    channels: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    scale_shift: bool
    resample: str
    classes: int = 0
    heads: int = 1
    head_channels: int | None = None
    new_order: bool = False


def norm(channels: int) -> nn.GroupNorm:
    """Group norm of 32 groups."""
    return nn.GroupNorm(32, channels)


class Half(nn.Module):
    """Halve the resolution: average of 2 x 2, or a strided convolution."""

    def __init__(self, channels: int, *, conv: bool) -> None:
        """Keep the number of channels."""
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        out: Tensor = self.op(x)
        return out


class Double(nn.Module):
    """Double the resolution: nearest neighbours, then perhaps a convolution."""

    def __init__(self, channels: int, *, conv: bool) -> None:
        """Keep the number of channels."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Residual(nn.Module):
    """Norm, convolution, the step's shift (and scale), norm, convolution; on the way perhaps resampled."""

    def __init__(self, ins: int, outs: int, layout: ADMLayout, resample: nn.Module | None = None) -> None:
        """Channels in and out; resample has no weights and applies to both branches."""
        super().__init__()
        self.in_layers = nn.Sequential(norm(ins), nn.SiLU(), nn.Conv2d(ins, outs, 3, padding=1))
        self.resample = resample or nn.Identity()
        features = 2 * outs if layout.scale_shift else outs
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * layout.channels, features))
        last = nn.Conv2d(outs, outs, 3, padding=1)
        self.out_layers = nn.Sequential(norm(outs), nn.SiLU(), nn.Identity(), last)  # third: dropout
        self.skip_connection = nn.Identity() if ins == outs else nn.Conv2d(ins, outs, 1)
        self.scale_shift = layout.scale_shift

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, C, H, W), embedding (B, 4 channels)."""
        h = self.in_layers[2](self.resample(self.in_layers[:2](x)))
        e = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + e)
        out: Tensor = self.skip_connection(self.resample(x)) + h
        return out


class Attention(nn.Module):
    """Self-attention over pixels; the two orders in which q, k, v and heads share the channels."""

    def __init__(self, channels: int, layout: ADMLayout) -> None:
        """Heads by their number or by their width, the width wins."""
        super().__init__()
        self.heads = channels // layout.head_channels if layout.head_channels else layout.heads
        self.new_order = layout.new_order
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the same."""
        b, c, width = len(x), x.shape[1], x.shape[1] // self.heads
        flat = x.reshape(b, c, -1)
        mixed = self.qkv(self.norm(flat))
        if self.new_order:  # channels are (q k v, head, width)
            parts = mixed.reshape(b, 3, self.heads, width, -1).transpose(1, 2)
        else:  # channels are (head, q k v, width)
            parts = mixed.reshape(b, self.heads, 3, width, -1)
        q, k, v = parts.reshape(b * self.heads, 3, width, -1).unbind(1)
        out: Tensor = flat + self.proj_out(attend(q, k, v).reshape(b, c, -1))
        return out.reshape(x.shape)


class Step(nn.ModuleList):
    """Layers in turn, each given the embedding too."""

    def __init__(self, *layers: nn.Module) -> None:
        """Layers from first to last."""
        super().__init__(layers)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply them."""
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, embedding)
        return x


class ADMUNet(nn.Module):
    """F(x, step): noise, and where it was learned a variance behind it."""

    def __init__(self, layout: ADMLayout) -> None:
        """Build encoder, middle and decoder; the weights come from a file."""
        super().__init__()
        self.layout = layout
        c = layout.channels
        self.time_embed = nn.Sequential(nn.Linear(c, 4 * c), nn.SiLU(), nn.Linear(4 * c, 4 * c))
        if layout.classes:
            self.label_emb = nn.Embedding(layout.classes, 4 * c)
        first = nn.Conv2d(layout.in_channels, layout.widths[0], 3, padding=1)
        self.input_blocks = nn.ModuleList([Step(first)])
        skips = self._encode(layout)
        last = layout.widths[-1]
        self.middle_block = Step(
            Residual(last, last, layout), Attention(last, layout), Residual(last, last, layout)
        )
        self.output_blocks = nn.ModuleList()
        self._decode(layout, skips)
        ends = nn.Conv2d(layout.widths[0], layout.out_channels, 3, padding=1)
        self.out = nn.Sequential(norm(layout.widths[0]), nn.SiLU(), ends)

    def _encode(self, layout: ADMLayout) -> list[int]:
        """Append the encoder's blocks; returns the width of every output."""
        skips = [layout.widths[0]]
        for level, width in enumerate(layout.widths):
            for _ in range(layout.blocks):
                attention = [Attention(width, layout)] if layout.attention[level] else []
                self.input_blocks.append(Step(Residual(skips[-1], width, layout), *attention))
                skips.append(width)
            if level + 1 < len(layout.widths):
                self.input_blocks.append(Step(_resampled(Half, width, layout)))
                skips.append(width)
        return skips

    def _decode(self, layout: ADMLayout, skips: list[int]) -> None:
        """Append the decoder's blocks; each takes one encoder output as well."""
        before = skips[-1]
        for level in reversed(range(len(layout.widths))):
            width = layout.widths[level]
            for i in range(layout.blocks + 1):
                layers: list[nn.Module] = [Residual(before + skips.pop(), width, layout)]
                layers += [Attention(width, layout)] if layout.attention[level] else []
                if level and i == layout.blocks:
                    layers.append(_resampled(Double, width, layout))
                self.output_blocks.append(Step(*layers))
                before = width

    def forward(self, x: Tensor, step: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), step (B,) real, label (B,) class indices for a class-conditional network."""
        e = self.time_embed(torch.cat(sinusoids(step, self.layout.channels), 1).to(x.dtype))
        if label is not None:
            e = e + self.label_emb(label)
        skips = []
        for block in self.input_blocks:
            x = block(x, e)
            skips.append(x)
        x = self.middle_block(x, e)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], 1), e)
        out: Tensor = self.out(x)
        return out


def _resampled(kind: type[Half] | type[Double], width: int, layout: ADMLayout) -> nn.Module:
    """A change of resolution in the way of this layout."""
    if layout.resample == "block":
        return Residual(width, width, layout, resample=kind(width, conv=False))
    return kind(width, conv=layout.resample == "conv")
