"""Weights into a network: every name and shape must meet, every number must be finite.

A file that does not fit is described in one line, by counts and by what its names look like, never by a list
of three hundred keys.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from invsolve.errors import InputError

__all__ = ["Weights", "bare", "fit", "guess", "one_line", "refuse_nan"]

Weights = Mapping[str, Tensor]
LONGEST = 1000  # characters of a message: names in a file may be of any length

LOOKS = (  # (part of a name, what such files are)
    ("model.diffusion_model.", "a latent diffusion model (Stable Diffusion), which works on no pixels"),
    ("quant_conv", "the autoencoder of a latent diffusion model"),
    ("out.2.positional_embedding", "a classifier of noisy images of guided-diffusion, not a denoiser"),
    ("all_modules.", "a network of score_sde"),
    ("map_layer0.", "an EDM network (a bare state of one needs the .pkl it came from)"),
    ("m_head", "deepinv's DRUNet: build it and pass the object to load_prior"),
    ("input_blocks.", "a network of guided-diffusion or a relative of it"),
    ("down_blocks.", "a UNet of diffusers, which needs its folder with config.json"),
    ("exp_avg", "the state of an optimiser: take the model or EMA file beside it"),
    ("fc.weight", "a classifier of clean images"),
    ("inner_model.", "a network of k-diffusion"),
    ("blocks.0.attn", "a transformer"),
)


def one_line(said: str) -> str:
    """A message with names out of a file: escape what is not printable, cut what has no end."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in said[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def guess(names: Iterable[str]) -> str:
    """Say what a file with such names looks like."""
    text = "\n".join(names)
    return next((kind for mark, kind in LOOKS if mark in text), "no network known here")


def bare(state: Weights) -> dict[str, Tensor]:
    """Strip the prefix that wrappers for several processes leave before every name."""
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def refuse_nan(source: object, state: Weights) -> None:
    """Refuse weights with NaN or infinity, and those of another kind: quantised ones lack their scale."""
    other = [name for name, value in state.items() if not value.is_floating_point()]
    if other:
        raise InputError(
            f"{len(other)} of {len(state)} weights in {source} are no floating-point numbers, but "
            f"{state[min(other)].dtype}, {min(other)!r} first."
        )
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(
            f"{len(broken)} of {len(state)} weights in {source} hold NaN or infinity, {min(broken)!r} first."
        )


def fit(source: object, kind: str, network: nn.Module, state: Weights) -> None:
    """Load the weights into the network, all of them or none."""
    wanted = network.state_dict()
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    shapes = [name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape]
    if missing or extra or shapes:
        raise InputError(
            f"the weights in {source} are not those of {kind}: {len(missing)} missing, {len(extra)} "
            f"unexpected, {len(shapes)} of another shape, {min([*missing, *extra, *shapes])!r} among them. "
            f"It looks like {guess(state)}."
        )
    refuse_nan(source, state)
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
