"""guided-diffusion (ADM): a plain state_dict, saved by torch, of the U-Net in adm_unet.

The network predicts the noise at step 0 .. 999, for images in [-1, 1]; with a learned variance it has twice
the channels, of which the first half is the noise. What the shapes of the weights tell: channels, widths,
residual blocks, levels with attention, how the resolution changes, how the step enters, number of classes.
What they do not tell has to be said: heads, the order of q, k, v and heads, betas, image size.

    ffhq_10m (DPS), 256x256_diffusion_uncond     num_head_channels 64, attention_order legacy, linear, 256
    64x64_diffusion                              num_head_channels 64, attention_order new, cosine, 64

D(x, sigma) = x - sigma F(x / sqrt(1 + sigma^2), step(sigma)).
"""

import dataclasses
import re
from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn, tensor

from invsolve.errors import InputError
from invsolve.priors.checkpoints.adm_unet import ADMLayout, ADMUNet
from invsolve.priors.checkpoints.denoisers import Noise
from invsolve.priors.checkpoints.fit import Weights, fit, guess, refuse_nan
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior, trained_range
from invsolve.priors.checkpoints.hints import Hints
from invsolve.priors.checkpoints.layers import unfilled
from invsolve.priors.checkpoints.schedules import BETAS, Steps, levels_of

__all__ = ["is_adm", "load_adm", "read_layout"]

KIND = "an ADM network of guided-diffusion"
TAKES = (
    "sigma_min",
    "sigma_max",
    "image_size",
    "noise_schedule",
    "num_heads",
    "num_head_channels",
    "attention_order",
)
PUBLISHED = (
    " Published 256 x 256 nets have num_head_channels 64, attention_order legacy, noise_schedule linear."
)


def is_adm(state: Collection[str]) -> bool:
    """Whether the names are those of the U-Net."""
    return "input_blocks.0.0.weight" in state and "time_embed.0.weight" in state


def load_adm(path: Path, state: Weights, hints: Hints) -> CheckpointPrior:
    """Build the network the shapes tell of, fill it, and put the noise prediction behind D."""
    layout = read_layout(path, state)
    hints.only(path, KIND, (*TAKES, "class_labels") if layout.classes else TAKES)
    layout = _told(path, layout, hints)
    network = unfilled(path, ADMUNet, layout)
    fit(path, KIND, network, state)
    levels = levels_of(BETAS[hints.noise_schedule or ""]())
    sigmas = trained_range(path, hints, (float(levels[0]) / 2, float(levels[-1]) / 2))
    inner = network if hints.class_labels is None else OneClass(network, hints.class_labels)
    size = (layout.in_channels, hints.image_size, hints.image_size)
    card = {"format": "guided-diffusion", **dataclasses.asdict(layout)}
    return CheckpointPrior(Noise(inner, Steps(levels)), size, sigmas, name=path.stem, card=card)


class OneClass(nn.Module):
    """A class-conditional network asked for one class."""

    def __init__(self, network: nn.Module, label: int) -> None:
        """Keep the index of the class."""
        super().__init__()
        self.network, self.index = network, label

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Give every row the class."""
        out: Tensor = self.network(x, step, tensor([self.index] * len(x), device=x.device))
        return out


def read_layout(path: Path, state: Weights) -> ADMLayout:
    """Read the layout from names and shapes."""
    refuse_nan(path, state)
    try:
        blocks, resample = _resampling(state)
        ends = [1 + level * (blocks + 1) for level in range(_count(state, "output_blocks") // (blocks + 1))]
        entry, embed = state["input_blocks.0.0.weight"].shape, state["time_embed.0.weight"].shape
        widths = tuple(state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in ends)
        features = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
        layout = ADMLayout(
            in_channels=entry[1],
            out_channels=state["out.2.weight"].shape[0],
            channels=embed[1],
            widths=widths,
            blocks=blocks,
            attention=tuple(f"input_blocks.{i}.1.qkv.weight" in state for i in ends),
            scale_shift=features == 2 * widths[0],
            resample=resample,
            classes=state["label_emb.weight"].shape[0] if "label_emb.weight" in state else 0,
        )
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise InputError(
            f"{path} has {len(state)} weights of {KIND}, but not all ({error} is missing). "
            f"It looks like {guess(state)}."
        ) from None
    return _checked(path, layout)


def _checked(path: Path, layout: ADMLayout) -> ADMLayout:
    """Refuse channel counts that are no denoiser of images."""
    if layout.in_channels > 4 or layout.out_channels not in (layout.in_channels, 2 * layout.in_channels):
        raise InputError(
            f"{path} takes {layout.in_channels} channels and gives {layout.out_channels}; a denoiser takes 1 "
            "to 4 and gives as many, or twice as many with a learned variance. It may be an upsampler."
        )
    if any(width % 32 for width in layout.widths):
        raise InputError(f"{path} has widths {layout.widths}, but {KIND} has multiples of 32.")
    return layout


def _count(state: Weights, stem: str) -> int:
    """One more than the highest index after the stem."""
    return 1 + max(int(found[1]) for name in state if (found := re.match(rf"{stem}\.(\d{{1,3}})\.", name)))


def _resampling(state: Weights) -> tuple[int, str]:
    """Residual blocks a level, and how the resolution changes: conv, block or pool."""
    count = _count(state, "output_blocks")
    for i in range(count):
        names = {name for name in state if name.startswith(f"output_blocks.{i}.")}
        if any(re.fullmatch(r"output_blocks\.\d+\.[12]\.conv\.weight", name) for name in names):
            return i, "conv"
        if any(re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.2\.weight", name) for name in names):
            return i, "block"
    present = {int(found[1]) for name in state if (found := re.match(r"input_blocks\.(\d{1,3})\.", name))}
    gaps = [i for i in range(count) if i not in present]
    return (gaps[0] - 1, "pool") if gaps else (count - 1, "pool")


def _told(path: Path, layout: ADMLayout, hints: Hints) -> ADMLayout:
    """Add what the hints say to what the shapes say."""
    heads = hints.num_head_channels or hints.num_heads  # as in the original, the width wins
    one = hints.num_heads == 1 and not hints.num_head_channels  # of one head both orders are the same
    asked = [] if heads else ["num_heads or num_head_channels"]
    asked += [] if one else ["attention_order"]
    asked += ["noise_schedule", "image_size", *(["class_labels"] if layout.classes else [])]
    hints.need(path, KIND, asked, PUBLISHED)
    if hints.class_labels is not None and hints.class_labels >= layout.classes:
        raise InputError(f"class_labels is {hints.class_labels}, but {path} has {layout.classes} classes.")
    with_attention = {w for w, has in zip(layout.widths, layout.attention, strict=True) if has}
    for width in with_attention | {layout.widths[-1]}:
        if width % (heads or 1):
            raise InputError(
                f"{path} has attention of {width} channels, which {heads} does not divide "
                "(num_head_channels or num_heads)."
            )
    factor = 2 ** (len(layout.widths) - 1)
    if hints.image_size and hints.image_size % factor:
        raise InputError(f"image_size is {hints.image_size}, but {path} needs a multiple of {factor}.")
    return dataclasses.replace(
        layout,
        heads=hints.num_heads or 1,
        head_channels=hints.num_head_channels,
        new_order=hints.attention_order == "new",
    )
