"""NCSN++ and DDPM++ of Song et al. 2021 (arXiv:2011.13456, appendix H), with the names of EDM's rewriting.

    DDPM++     step embedded by sinusoids; encoder and decoder plain; resampling by 2 x 2 means
    NCSN++     ln(sigma) embedded by fixed random frequencies; resampling by the filter (1, 3, 3, 1)/8;
               the encoder is fed a pyramid of the input, either through learned convolutions ("residual")
               or added after a 1 x 1 convolution ("skip"); the decoder may sum outputs of all levels ("skip")

Sums are divided by sqrt(2) (skip_scale), so that the variance stays. EDM (Karras et al. 2022,
arXiv:2206.00364) trains the same two networks and DhariwalUNet. Group norms have at least 4 channels a
group and at most 32 groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.priors.checkpoints.layers import attend, sinusoids

__all__ = ["Block", "Conv", "Norm", "SongLayout", "SongUNet"]


@dataclass(frozen=True)
class SongLayout:
    """Everything that is needed to build the network."""

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    augment_dim: int = 0
    model_channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: Sequence[int] = (16,)
    embedding_type: str = "positional"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"
    decoder_type: str = "standard"
    resample_filter: Sequence[int] = (1, 1)


class Norm(nn.GroupNorm):
    """Group norm of at most 32 groups of at least 4 channels."""

    def __init__(self, channels: int, eps: float) -> None:
        """The number of groups follows from the channels."""
        super().__init__(min(32, channels // 4), channels, eps=eps)


class Conv(nn.Module):
    """Convolution with an odd kernel, after (or fused: around) halving or doubling by a fixed filter."""

    resample_filter: Tensor

    def __init__(
        self,
        ins: int,
        outs: int,
        kernel: int,
        resample: str = "",
        taps: Sequence[int] = (1, 1),
        *,
        fused: bool = False,
    ) -> None:
        """kernel 0 resamples only; resample is up, down or nothing."""
        super().__init__()
        self.ins, self.kernel, self.resample, self.fused = ins, kernel, resample, fused
        self.weight = nn.Parameter(torch.empty(outs, ins, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(outs)) if kernel else None
        if resample:
            f = torch.tensor(taps, dtype=torch.float32)
            self.register_buffer("resample_filter", torch.outer(f, f)[None, None] / f.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), with H and W halved or doubled if asked for."""
        near, pad = self.kernel // 2, 0
        if self.fused:  # only halving: one padding for both filters
            pad = near + (self.resample_filter.shape[-1] - 1) // 2
            return self._resampled(F.conv2d(x, self._weight, self.bias, padding=pad), 0)
        if self.resample:
            x = self._resampled(x, (self.resample_filter.shape[-1] - 1) // 2)
        return F.conv2d(x, self._weight, self.bias, padding=near) if self.kernel else x

    @property
    def _weight(self) -> Tensor:
        assert self.weight is not None  # asked for only where there is a kernel
        return self.weight

    def _resampled(self, x: Tensor, pad: int) -> Tensor:
        """Filter each channel by itself, at every second pixel or between all."""
        each = self.resample_filter.expand(x.shape[1], 1, -1, -1)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * each, groups=x.shape[1], stride=2, padding=pad)
        return F.conv2d(x, each, groups=x.shape[1], stride=2, padding=pad)


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common."""

    features: int
    eps: float
    scale: float
    adaptive: bool
    project: bool  # a change of resolution is followed by a 1 x 1 convolution on the skip too
    taps: Sequence[int] = (1, 1)
    head_channels: int | None = None  # None: one head


class Block(nn.Module):
    """Residual block that may change the resolution, then perhaps attention."""

    def __init__(
        self, ins: int, outs: int, style: BlockStyle, resample: str = "", *, attention: bool = False
    ) -> None:
        """resample is up, down or nothing."""
        super().__init__()
        self.ins, self.scale, self.adaptive = ins, style.scale, style.adaptive
        self.norm0 = Norm(ins, style.eps)
        self.conv0 = Conv(ins, outs, 3, resample, style.taps)
        self.affine = nn.Linear(style.features, outs * (2 if style.adaptive else 1))
        self.norm1 = Norm(outs, style.eps)
        self.conv1 = Conv(outs, outs, 3)
        kernel = 1 if style.project or ins != outs else 0
        changes = ins != outs or resample
        self.skip = Conv(ins, outs, kernel, resample, style.taps) if changes else None
        self.heads = outs // style.head_channels if style.head_channels else 1
        self.attention = attention
        if attention:
            self.norm2 = Norm(outs, style.eps)
            self.qkv, self.proj = Conv(outs, 3 * outs, 1), Conv(outs, outs, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """x (B, C, H, W), embedding (B, features)."""
        h = self.conv0(F.silu(self.norm0(x)))
        shift = self.affine(e)[:, :, None, None]
        if self.adaptive:
            scale, shift = shift.chunk(2, 1)
            h = self.norm1(h) * (scale + 1) + shift
        else:
            h = self.norm1(h + shift)
        h = self.conv1(F.silu(h))
        h = (h + (self.skip(x) if self.skip else x)) * self.scale
        return self._attended(h) if self.attention else h

    def _attended(self, x: Tensor) -> Tensor:
        """Self-attention; channels are (head, width, q k v)."""
        rows, width = len(x) * self.heads, x.shape[1] // self.heads
        q, k, v = self.qkv(self.norm2(x)).reshape(rows, width, 3, -1).unbind(2)
        out: Tensor = (self.proj(attend(q, k, v).reshape(x.shape)) + x) * self.scale
        return out


class Frequencies(nn.Module):
    """Fixed random frequencies of an embedding."""

    freqs: Tensor

    def __init__(self, count: int) -> None:
        """The frequencies come from the file."""
        super().__init__()
        self.register_buffer("freqs", torch.zeros(count))

    def forward(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of 2 pi f label, each (B, count)."""
        phase = label.float()[:, None] * (2 * np.pi * self.freqs)
        return phase.cos(), phase.sin()


class SongUNet(nn.Module):
    """F(x, label) with label the step (positional) or ln(sigma) (fourier)."""

    def __init__(self, layout: SongLayout) -> None:
        """Build mapping, encoder and decoder; the weights come from a file."""
        super().__init__()
        self.layout = a = layout
        noise, features = a.model_channels * a.channel_mult_noise, a.model_channels * a.channel_mult_emb
        self.map_noise = Frequencies(noise // 2) if a.embedding_type == "fourier" else nn.Identity()
        self.map_label = nn.Linear(a.label_dim, noise) if a.label_dim else None
        self.map_augment = nn.Linear(a.augment_dim, noise, bias=False) if a.augment_dim else None
        self.map_layer0 = nn.Linear(noise, features)
        self.map_layer1 = nn.Linear(features, features)
        self.style = BlockStyle(features, 1e-6, 0.5**0.5, False, True, a.resample_filter)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self._decode(self._encode())

    def _encode(self) -> list[int]:
        """Fill the encoder; returns the width of every output that the decoder takes."""
        a, style = self.layout, self.style
        width, aux, skips = a.model_channels, a.in_channels, [a.model_channels]
        for level, mult in enumerate(a.channel_mult):
            side = a.img_resolution >> level
            at = f"{side}x{side}_"
            if level == 0:
                self.enc[f"{at}conv"] = Conv(a.in_channels, width, 3)
            else:
                self.enc[f"{at}down"] = Block(width, width, style, "down")
                skips.append(width)
                if a.encoder_type == "skip":
                    self.enc[f"{at}aux_down"] = Conv(aux, aux, 0, "down", style.taps)
                    self.enc[f"{at}aux_skip"] = Conv(aux, width, 1)
                elif a.encoder_type == "residual":
                    self.enc[f"{at}aux_residual"] = Conv(aux, width, 3, "down", style.taps, fused=True)
                    aux = width
            for i in range(a.num_blocks):
                wider, attention = a.model_channels * mult, side in a.attn_resolutions
                self.enc[f"{at}block{i}"] = Block(width, wider, style, attention=attention)
                width = wider
                skips.append(width)
        return skips

    def _decode(self, skips: list[int]) -> None:
        """Fill the decoder."""
        a, style, width = self.layout, self.style, skips[-1]
        last = len(a.channel_mult) - 1
        for level in range(last, -1, -1):
            side = a.img_resolution >> level
            at = f"{side}x{side}_"
            if level == last:
                self.dec[f"{at}in0"] = Block(width, width, style, attention=True)
                self.dec[f"{at}in1"] = Block(width, width, style)
            else:
                self.dec[f"{at}up"] = Block(width, width, style, "up")
            for i in range(a.num_blocks + 1):
                wider = a.model_channels * a.channel_mult[level]
                attention = i == a.num_blocks and side in a.attn_resolutions
                block = Block(width + skips.pop(), wider, style, attention=attention)
                self.dec[f"{at}block{i}"] = block
                width = wider
            if a.decoder_type == "skip" and level < last:
                self.dec[f"{at}aux_up"] = Conv(a.out_channels, a.out_channels, 0, "up", style.taps)
            if a.decoder_type == "skip" or level == 0:
                self.dec[f"{at}aux_norm"] = Norm(width, 1e-6)
                self.dec[f"{at}aux_conv"] = Conv(width, a.out_channels, 3)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), label (B,), classes (B, label_dim) one-hot."""
        c = self.layout.model_channels * self.layout.channel_mult_noise
        fourier = isinstance(self.map_noise, Frequencies)
        cosines, sines = self.map_noise(label) if fourier else sinusoids(label, c, endpoint=True)
        e = torch.cat([sines, cosines], 1).to(x.dtype)
        if self.map_label is not None and classes is not None:
            e = e + self.map_label(classes * self.layout.label_dim**0.5)
        e = F.silu(self.map_layer1(F.silu(self.map_layer0(e))))
        x, skips = self._down(x, e)
        return self._up(x, skips, e)

    def _down(self, x: Tensor, e: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips: list[Tensor] = []
        aux = x
        for name, block in self.enc.items():
            if name.endswith("aux_down"):
                aux = block(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + block(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = (x + block(aux)) * 0.5**0.5
            else:
                x = block(x, e) if isinstance(block, Block) else block(x)
                skips.append(x)
        return x, skips

    def _up(self, x: Tensor, skips: list[Tensor], e: Tensor) -> Tensor:
        total: Tensor | None = None
        h = x
        for name, block in self.dec.items():
            if name.endswith("aux_up"):
                total = block(total)
            elif name.endswith("aux_norm"):
                h = block(x)
            elif name.endswith("aux_conv"):
                h = block(F.silu(h))
                total = h if total is None else total + h
            else:
                x = block(torch.cat([x, skips.pop()], 1) if "block" in name else x, e)
        assert total is not None  # the finest level always has aux_conv
        return total
