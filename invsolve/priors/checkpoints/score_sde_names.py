"""The numbered layers of a score_sde network: which layout they are, and their names in SongUNet.

Walking along all_modules.0, 1, ... each layer shows by its parameters what it is:

    W alone               frequencies of the Fourier embedding
    a matrix, a vector    linear layer or group norm;  4 axes: convolution
    GroupNorm_1           residual block; one with Conv_2 from c to c channels changes the resolution
    NIN_3                 attention
    Conv2d_0 alone        pyramid of the input, learned ("residual")
    Conv alone            1 x 1 convolution that adds the pyramid of the input ("skip")

Fixed filters (the pyramids' own halving and doubling) have no parameters and no number.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.priors.checkpoints.fit import Weights
from invsolve.priors.checkpoints.song_unet import Block, SongLayout, SongUNet

__all__ = ["RESAMPLING", "kind_of", "layers_of", "read_layout", "renamed"]

Layer = dict[str, Tensor]
RESAMPLING = "resampling of the DDPM network"
BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}


def layers_of(path: Path, state: Weights) -> list[Layer]:
    """Parameters of each numbered layer."""
    layers: dict[int, Layer] = {}
    for name, value in state.items():
        found = re.fullmatch(r"all_modules\.(\d{1,4})\.(.+)", name)
        if not found:
            raise InputError(f"{path} has a weight {name[:60]!r}, which no network of score_sde has.")
        layers.setdefault(int(found[1]), {})[found[2]] = value
    return [layers.get(i, {}) for i in range(max(layers) + 1)]


def kind_of(layer: Layer) -> str:
    """What a layer is."""
    if not layer or "W" in layer:
        return "fourier" if layer else "nothing"
    if "NIN_3.W" in layer:
        return "attention"
    if "GroupNorm_1.weight" in layer:
        return "block" if "NIN_0.W" not in layer else "block of the DDPM network"
    if "Conv2d_0.weight" in layer:
        return "pyramid"
    if "Conv.weight" in layer:
        return "combine"
    if "weight" in layer:
        return {1: "norm", 2: "linear", 4: "conv"}.get(layer["weight"].ndim, "weight")
    return RESAMPLING if "Conv_0.weight" in layer else "layer"


def changes_size(layer: Layer) -> bool:
    """Whether a residual block halves or doubles the resolution."""
    skip = layer.get("Conv_2.weight")
    return skip is not None and skip.ndim == 4 and skip.shape[0] == skip.shape[1]


def read_layout(path: Path, state: Weights, image_size: int) -> SongLayout:
    """Walk along the encoder: blocks of each level, their widths, attention, and the pyramid."""
    layers = layers_of(path, state)
    kinds = [kind_of(layer) for layer in layers]
    unknown = [kind for kind in kinds if " " in kind]
    if unknown:
        raise InputError(f"{path} has a {unknown[0]}, but does not change the resolution as DDPM does.")
    fourier = kinds[0] == "fourier"
    start = 3 if fourier else 2
    if kinds[fourier:start] != ["linear", "linear"] or kinds[start : start + 2] != ["conv", "block"]:
        raise InputError(f"{path} does not start like NCSN++: its first layers are {', '.join(kinds[:5])}.")
    entry = layers[start]["weight"].shape
    blocks, widths, attention, encoder = _levels(path, layers, kinds, start + 1)
    factor = 2 ** (len(widths) - 1)
    if image_size % factor:
        raise InputError(f"image_size is {image_size}, but {path} needs a multiple of {factor}.")
    if any(width % entry[0] for width in widths) or entry[1] > 4:
        raise InputError(f"{path} takes {entry[1]} channels to {entry[0]}, and then {widths}: no NCSN++.")
    return SongLayout(
        img_resolution=image_size,
        in_channels=entry[1],
        out_channels=entry[1],
        model_channels=entry[0],
        channel_mult=tuple(width // entry[0] for width in widths),
        num_blocks=blocks,
        attn_resolutions=tuple(image_size >> level for level in attention),
        embedding_type="fourier" if fourier else "positional",
        channel_mult_noise=1 + fourier,
        encoder_type=encoder,
        decoder_type="skip" if kinds.count("norm") > 1 else "standard",
        resample_filter=(1, 1) if encoder == "standard" else (1, 3, 3, 1),
    )


def _levels(
    path: Path, layers: list[Layer], kinds: list[str], at: int
) -> tuple[int, list[int], list[int], str]:
    """Blocks a level, width of each level, levels with attention, and kind of the encoder."""
    widths: list[int] = []
    attention: list[int] = []
    counts: list[int] = []
    blocks, encoder = 0, "standard"
    while at < len(layers):
        seen = 0
        while kinds[at : at + 1] == ["block"] and not changes_size(layers[at]) and seen < (blocks or 99):
            seen, width = seen + 1, int(layers[at]["Conv_1.weight"].shape[0])
            if kinds[at + 1 : at + 2] == ["attention"]:
                attention, at = [*attention, len(widths)], at + 1
            at += 1
        blocks = blocks or seen
        counts.append(seen)
        if not seen or seen != blocks:
            raise InputError(f"{path} has levels of {counts} residual blocks, but NCSN++ has equal numbers.")
        widths.append(width)
        if kinds[at : at + 1] != ["block"] or not changes_size(layers[at]):
            break
        encoder = {"combine": "skip", "pyramid": "residual"}.get(
            (kinds[at + 1 : at + 2] or [""])[0], "standard"
        )
        at += 1 if encoder == "standard" else 2
    return blocks, widths, sorted(set(attention)), encoder


def expected(network: SongUNet) -> Iterator[tuple[str, str]]:
    """Kind and name of each layer in the order of the file."""
    if network.layout.embedding_type == "fourier":
        yield "fourier", "map_noise"
    yield from (("linear", "map_layer0"), ("linear", "map_layer1"))
    kinds = {"skip": "combine", "residual": "pyramid"}
    for half in ("enc", "dec"):
        for name, module in getattr(network, half).items():
            last = name.split("_")[-1]
            if isinstance(module, Block):
                yield "block", f"{half}.{name}"
                if module.attention:
                    yield "attention", f"{half}.{name}"
            elif last not in ("down", "up"):  # a fixed filter
                yield kinds.get(last, last), f"{half}.{name}"


def renamed(path: Path, network: SongUNet, state: Weights) -> dict[str, Tensor]:
    """The weights under the names of SongUNet; its fixed filters are its own."""
    layers, wanted = layers_of(path, state), list(expected(network))
    kinds = [kind_of(layer) for layer in layers]
    if kinds != [kind for kind, _ in wanted]:
        at = next((i for i, (kind, _) in enumerate(wanted) if kinds[i : i + 1] != [kind]), len(wanted))
        raise InputError(
            f"{path} has {len(kinds)} layers, but NCSN++ of its size has {len(wanted)}: layer {at} differs "
            f"({kinds[at] if at < len(kinds) else 'none'})."
        )
    result: dict[str, Tensor] = {}
    for (kind, name), layer in zip(wanted, layers, strict=True):
        try:
            result |= {f"{name}.{key}": value for key, value in RENAMED[kind](layer)}
        except (KeyError, RuntimeError) as error:
            raise InputError(f"the {kind} {name} of {path} lacks a weight or its shape ({error}).") from None
    taps = torch.tensor(network.layout.resample_filter, dtype=torch.float32)
    fixed = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    return result | {key: fixed for key in network.state_dict() if key.endswith("resample_filter")}


Pairs = Iterator[tuple[str, Tensor]]


def _same(layer: Layer) -> Pairs:
    yield from layer.items()


def _block(layer: Layer) -> Pairs:
    for key, value in layer.items():
        part, _, rest = key.partition(".")
        yield f"{BLOCK[part]}.{rest}", value


def _attention(layer: Layer) -> Pairs:
    """q, k and v of one channel are neighbours in SongUNet: channel 3 c + j."""
    yield from ((f"norm2.{key}", layer[f"GroupNorm_0.{key}"]) for key in ("weight", "bias"))
    weights = [layer[f"NIN_{j}.W"].T for j in range(4)]
    yield "qkv.weight", torch.stack(weights[:3], 1).flatten(0, 1)[:, :, None, None]
    yield "qkv.bias", torch.stack([layer[f"NIN_{j}.b"] for j in range(3)], 1).flatten()
    yield "proj.weight", weights[3][:, :, None, None]
    yield "proj.bias", layer["NIN_3.b"]
    known = {f"NIN_{j}.{key}" for j in range(4) for key in "Wb"} | {"GroupNorm_0.weight", "GroupNorm_0.bias"}
    yield from ((key, value) for key, value in layer.items() if key not in known)


def _stripped(layer: Layer) -> Pairs:
    yield from ((key.split(".", 1)[1], value) for key, value in layer.items())


def _fourier(layer: Layer) -> Pairs:
    yield from (("freqs" if key == "W" else key, value) for key, value in layer.items())


RENAMED = {
    "conv": _same,
    "linear": _same,
    "norm": _same,
    "block": _block,
    "attention": _attention,
    "combine": _stripped,
    "pyramid": _stripped,
    "fourier": _fourier,
}
