"""The file of a learned prior: one safetensors file of fp16 weights that says everything about itself.

    8 bytes    length of the header, little endian
    header     JSON: name, dtype and place of each tensor, and __metadata__, strings:
                 format        invsolve-prior-1
                 architecture  JSON, the fields of invsolve.priors.network.Architecture
                 data_range    JSON, lowest and highest value of the images the network was trained on
                 sigma_min, sigma_max    trained noise levels in physical units (images in [0, 1])
                 sha256        of the payload
                 name, licence, images (seen in training), config_hash
                 side          pixels a side, for images of one size only
                 halo          pixels around one that its answer depends on; else the architecture tells
    payload    the tensors

A file is looked at before it is believed: length, header, hash, names, shapes and finite values, each with
its own refusal. Nothing is ever unpickled: a pickle can run code, so such a file is refused by its first
bytes.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from invsolve.errors import InputError, OutputError
from invsolve.priors.checkpoints.fit import refuse_nan
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.network import Architecture, DenoisingUNet, Sized, build

Layout = TypeVar("Layout", bound=Sized)
Built = TypeVar("Built", bound=nn.Module)

__all__ = ["load_safetensors_prior", "read_metadata", "save_safetensors_prior"]

FORMAT = "invsolve-prior-1"
FOREIGN = (
    (b"PK\x03\x04", "a zip archive, most likely a PyTorch pickle, which can run code and is never opened"),
    (b"\x80", "a Python pickle, which can run code and is never opened"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<", "a web page or XML, most likely a download that failed"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
)
LARGEST = 8192  # side of images that come in one size
ADVICE = "Expected a safetensors file written by invsolve train."


def foreign(path: Path, content: bytes) -> InputError:
    """Say what a file is that is not safetensors."""
    kind = next((kind for magic, kind in FOREIGN if content.lstrip().startswith(magic)), None)
    return InputError(f"{path} is {kind or 'not a safetensors file'}. {ADVICE}")


def payload_start(content: bytes) -> int:
    """Give the offset of the payload that the first 8 bytes announce."""
    return 8 + int.from_bytes(content[:8], "little")


def header(path: Path, content: bytes) -> dict[str, object]:
    """Read the header of a safetensors file and hold its length against the file's."""
    start = payload_start(content)
    if content[8:9] != b"{" or start > 100_000_000:
        raise foreign(path, content)
    if start > len(content):
        raise InputError(
            f"{path} is cut short: its header needs {start} bytes, it has {len(content)}. Copy it again."
        )
    try:
        table: dict[str, object] = json.loads(content[8:start])
        places = [t["data_offsets"][1] for name, t in table.items() if name != "__metadata__"]  # type: ignore[index]  # checked by the except
        end = start + max(places, default=0)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise InputError(f"{path} has a broken safetensors header. {ADVICE}") from None
    if end != len(content):
        raise InputError(
            f"{path} is cut short or padded: {end} bytes expected, {len(content)} found. Copy it again."
        )
    return table


def contents(path: Path) -> bytes:
    """Read a file that is there and not empty."""
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a device may never end
        raise InputError(f"{path} is no regular file. Weights are read from files.")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no weight file at {path}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read as a weight file ({error.strerror}).") from None
    if not content:
        raise InputError(f"{path} is empty. {ADVICE}")
    return content


def read_metadata(path: Path) -> dict[str, str]:
    """Read what a prior file says about itself; refuses files that are no prior of ours."""
    return metadata_of(path, contents(path))


def metadata_of(path: Path, content: bytes) -> dict[str, str]:
    """Metadata of a file's content."""
    raw = header(path, content).get("__metadata__")
    table = {str(k): str(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
    if table.get("format") != FORMAT:
        raise InputError(
            f"{path} is a safetensors file, but of format {table.get('format')!r}, not {FORMAT!r}. {ADVICE}"
        )
    return table


def described(
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


def check_weights(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights of other names or shapes, or with NaN or infinity."""
    missing, unknown = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    shapes = [k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape]
    if missing or unknown or shapes:
        first = min([*missing, *unknown, *shapes])
        raise InputError(
            f"the weights in {path} do not fit their architecture: {len(missing)} missing, "
            f"{len(unknown)} unknown, {len(shapes)} of another shape, {first!r} among them. {ADVICE}"
        )
    refuse_nan(path, found)


def filled(
    path: Path, build: Callable[[Layout], Built], architecture: Layout, found: Mapping[str, Tensor]
) -> Built:
    """Build a network around the weights found; a size that is merely claimed takes no memory."""
    held = sum(value.numel() for value in found.values())
    if architecture.least > held:
        raise InputError(
            f"{path} describes a network of {architecture.least} weights or more, but holds {held}. {ADVICE}"
        )
    network = build(architecture)
    check_weights(path, found, network.state_dict())
    network.load_state_dict(found)
    return network


def surrogate_level(path: Path, metadata: Mapping[str, str]) -> float | None:
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


def halo_of(path: Path, metadata: Mapping[str, str], needed: int) -> int:
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
    metadata = metadata_of(path, content)
    architecture, data_range, sigma_min, sigma_max = described(path, metadata)
    sha256 = hashlib.sha256(memoryview(content)[payload_start(content) :]).hexdigest()
    if sha256 != metadata.get("sha256"):
        raise InputError(
            f"{path} is damaged: the sha256 of its weights is not the one it states. Copy it again."
        )
    network = filled(path, build, architecture, load_tensors(content))
    prior = DenoiserPrior(
        network,
        channels=architecture.in_channels,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        data_range=data_range,
        surrogate_above=surrogate_level(path, metadata),
        name=metadata.get("name", path.stem),
        side=side_of(path, metadata),
    )
    prior.halo = halo_of(path, metadata, architecture.halo)
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
    weights = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    check_weights(path, weights, network.state_dict())
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
    bare = save_tensors(weights)
    metadata["sha256"] = hashlib.sha256(bare[payload_start(bare) :]).hexdigest()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(save_tensors(weights, metadata))
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"the weights cannot be written to {path}: {error.strerror}.") from None
