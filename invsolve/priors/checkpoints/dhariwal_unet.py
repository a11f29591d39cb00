"""ADM as EDM rewrote it (Karras et al. 2022, arXiv:2206.00364, appendix F.2; Dhariwal and Nichol 2021).

The blocks of song_unet, with scale and shift after the second norm, sums left as they are, heads of 64
channels, attention in the decoder wherever the encoder has it, and the class added after the embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.priors.checkpoints.layers import sinusoids
from invsolve.priors.checkpoints.song_unet import Block, BlockStyle, Conv, Norm

__all__ = ["DhariwalLayout", "DhariwalUNet"]


@dataclass(frozen=True)
class DhariwalLayout:
    """Everything that is needed to build the network."""

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    augment_dim: int = 0
    model_channels: int = 192
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attn_resolutions: Sequence[int] = (32, 16, 8)


class DhariwalUNet(nn.Module):
    """F(x, label) with label a step or ln(sigma)/4."""

    def __init__(self, layout: DhariwalLayout) -> None:
        """Build mapping, encoder and decoder; the weights come from a file."""
        super().__init__()
        self.layout = a = layout
        c, features = a.model_channels, a.model_channels * a.channel_mult_emb
        self.map_augment = nn.Linear(a.augment_dim, c, bias=False) if a.augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(c, features), nn.Linear(features, features)
        self.map_label = nn.Linear(a.label_dim, features, bias=False) if a.label_dim else None
        self.style = BlockStyle(features, 1e-5, 1.0, True, False, head_channels=64)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        width = self._decode(self._encode())
        self.out_norm = Norm(width, 1e-5)
        self.out_conv = Conv(width, a.out_channels, 3)

    def _encode(self) -> list[int]:
        """Fill the encoder; returns the width of every output."""
        a = self.layout
        width = a.model_channels * a.channel_mult[0]
        skips = [width]
        for level, mult in enumerate(a.channel_mult):
            side = a.img_resolution >> level
            if level == 0:
                self.enc[f"{side}x{side}_conv"] = Conv(a.in_channels, width, 3)
            else:
                self.enc[f"{side}x{side}_down"] = Block(width, width, self.style, "down")
                skips.append(width)
            for i in range(a.num_blocks):
                wider, attention = a.model_channels * mult, side in a.attn_resolutions
                self.enc[f"{side}x{side}_block{i}"] = Block(width, wider, self.style, attention=attention)
                width = wider
                skips.append(width)
        return skips

    def _decode(self, skips: list[int]) -> int:
        """Fill the decoder; returns its last width."""
        a, width = self.layout, skips[-1]
        last = len(a.channel_mult) - 1
        for level in range(last, -1, -1):
            side = a.img_resolution >> level
            if level == last:
                self.dec[f"{side}x{side}_in0"] = Block(width, width, self.style, attention=True)
                self.dec[f"{side}x{side}_in1"] = Block(width, width, self.style)
            else:
                self.dec[f"{side}x{side}_up"] = Block(width, width, self.style, "up")
            for i in range(a.num_blocks + 1):
                wider, attention = a.model_channels * a.channel_mult[level], side in a.attn_resolutions
                block = Block(width + skips.pop(), wider, self.style, attention=attention)
                self.dec[f"{side}x{side}_block{i}"] = block
                width = wider
        return width

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), label (B,), classes (B, label_dim) one-hot."""
        e = torch.cat(sinusoids(label, self.layout.model_channels), 1)
        e = self.map_layer1(F.silu(self.map_layer0(e)))
        if self.map_label is not None and classes is not None:
            e = e + self.map_label(classes)
        e = F.silu(e)
        skips = []
        for block in self.enc.values():
            x = block(x, e) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            x = block(torch.cat([x, skips.pop()], 1) if "block" in name else x, e)
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out
