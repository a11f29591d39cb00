"""The file of a learned prior: one safetensors file of fp16 weights, as in priors/weight_file.py.

What it says of itself:

    format        invsolve-prior-1
    architecture  JSON, the fields of invsolve.priors.network.Architecture
    data_range    JSON, lowest and highest value of the images the network was trained on
    sigma_min, sigma_max    trained noise levels in physical units (images in [0, 1])
    surrogate_above         noise level beyond which photographs' covariance stands in for the derivative
    sha256        of the tensors
    name, licence, images (seen in training), config_hash
    side          pixels a side, for images of one size only
    halo          pixels around one that its answer depends on; else the architecture tells
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from invsolve.errors import InputError
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.network import Architecture, DenoisingUNet, build
from invsolve.priors.weight_file import ADVICE, contents, filled, metadata_of, stated_sha256, write_weights

__all__ = ["load_safetensors_prior", "read_metadata", "save_safetensors_prior", "side_of"]

FORMAT = "invsolve-prior-1"
LARGEST = 8192  # side of images that come in one size


def read_metadata(path: Path) -> dict[str, str]:
    """Read what a prior file says about itself; refuses files that are no prior of ours."""
    return metadata_of(path, contents(path), FORMAT)


def _described(
    path: Path, metadata: Mapping[str, str]
) -> tuple[Architecture, tuple[float, float], float, float]:
    """Turn the metadata into architecture, data range, sigma_min and sigma_max."""
    try:
        architecture = Architecture(**json.loads(metadata["architecture"]))
        low, high = map(float, json.loads(metadata["data_range"]))
        sigma_min, sigma_max = float(metadata["sigma_min"]), float(metadata["sigma_max"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"the metadata of {path} cannot be used ({error}). {ADVICE}") from None
    if not (-math.inf < low < high < math.inf and 0 < sigma_min < sigma_max < math.inf):
        raise InputError(
            f"{path} says data range [{low}, {high}], sigma {sigma_min} to {sigma_max}: not finite and "
            "increasing."
        )
    return architecture, (low, high), sigma_min, sigma_max


def _surrogate_level(path: Path, metadata: Mapping[str, str]) -> float | None:
    """Noise level beyond which photographs' covariance stands in for the derivative; None where none is
    stated."""
    text = metadata.get("surrogate_above")
    try:
        level = None if text is None else float(text)
    except ValueError:
        level = math.nan
    if level is not None and not level > 0:
        raise InputError(f"{path} states surrogate_above = {text}; it must be a noise level > 0.")
    return level


def side_of(path: Path, metadata: Mapping[str, str]) -> int | None:
    """Height and width of images that come in one size; None where none is stated."""
    text = metadata.get("side")
    if text is not None and not 0 < _pixels(text) <= LARGEST:
        raise InputError(f"{path} states side = {text[:20]}; it must be a number of pixels, 1 to {LARGEST}.")
    return None if text is None else int(text)


def _halo_of(path: Path, metadata: Mapping[str, str], needed: int) -> int:
    """Pixels around one that its answer depends on: those stated, never fewer than the architecture needs."""
    text = metadata.get("halo", str(needed))
    if _pixels(text) < needed:
        raise InputError(
            f"{path} states halo = {text[:20]}; its architecture needs a number of at least {needed} pixels."
        )
    return int(text)


def _pixels(text: str) -> int:
    """A whole number written in few digits, else -1."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1


def load_safetensors_prior(path: Path) -> DenoiserPrior:
    """Load a prior, or refuse the file in one line."""
    content = contents(path)
    metadata = metadata_of(path, content, FORMAT)
    architecture, data_range, sigma_min, sigma_max = _described(path, metadata)
    sha256 = stated_sha256(path, content, metadata)
    network = filled(path, content, build, architecture)
    prior = DenoiserPrior(
        network,
        channels=architecture.in_channels,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        data_range=data_range,
        surrogate_above=_surrogate_level(path, metadata),
        name=metadata.get("name", path.stem),
        side=side_of(path, metadata),
    )
    prior.halo = _halo_of(path, metadata, architecture.halo)
    prior.metadata, prior.sha256 = metadata, sha256
    return prior


def save_safetensors_prior(
    path: Path,
    network: DenoisingUNet,
    *,
    name: str,
    licence: str,
    sigma_min: float,
    sigma_max: float,
    data_range: tuple[float, float] = (-1.0, 1.0),
    about: Mapping[str, str],
) -> None:
    """Write a prior in fp16; sigma_min and sigma_max in physical units; about: more metadata."""
    metadata = {
        **about,
        "format": FORMAT,
        "name": name,
        "licence": licence,
        "architecture": json.dumps(dataclasses.asdict(network.architecture)),
        "channels": str(network.architecture.in_channels),
        "halo": str(network.architecture.halo),
        "data_range": json.dumps(data_range),
        "sigma_min": repr(sigma_min),
        "sigma_max": repr(sigma_max),
    }
    write_weights(path, network, metadata)
