"""A safetensors file that says everything about itself, looked at before it is believed.

    8 bytes    length of the header, little endian
    header     JSON: name, dtype and place of each tensor, and __metadata__, strings:
                 format    which kind of file it is, such as invsolve-prior-1
                 sha256    of the payload
                 and the fields of that kind
    payload    the tensors

Length, header, hash, names, shapes and finite values are checked, each with its own refusal. Nothing is ever
unpickled: a pickle can run code, so such a file is refused by its first bytes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from invsolve.errors import InputError
from invsolve.files import write_whole
from invsolve.priors.checkpoints.fit import refuse_nan
from invsolve.priors.network import Sized

__all__ = ["ADVICE", "contents", "filled", "header", "metadata_of", "stated_sha256", "write_weights"]

Layout = TypeVar("Layout", bound=Sized)
Built = TypeVar("Built", bound=nn.Module)

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive, most likely a PyTorch pickle, which can run code and is never opened"),
    (b"\x80", "a Python pickle, which can run code and is never opened"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<", "a web page or XML, most likely a download that failed"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
)
ADVICE = "Expected a safetensors file written by invsolve train."


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


def header(path: Path, content: bytes) -> dict[str, object]:
    """Read the header of a safetensors file and hold its length against the file's."""
    start = _payload_start(content)
    if content[8:9] != b"{" or start > 100_000_000:
        raise _foreign(path, content)
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


def _foreign(path: Path, content: bytes) -> InputError:
    """Say what a file is that is not safetensors."""
    kind = next((kind for magic, kind in _FOREIGN if content.lstrip().startswith(magic)), None)
    return InputError(f"{path} is {kind or 'not a safetensors file'}. {ADVICE}")


def _payload_start(content: bytes) -> int:
    """Give the offset of the payload that the first 8 bytes announce."""
    return 8 + int.from_bytes(content[:8], "little")


def metadata_of(path: Path, content: bytes, wanted: str, advice: str = ADVICE) -> dict[str, str]:
    """Metadata of a file's content; refuses any format but the one wanted."""
    raw = header(path, content).get("__metadata__")
    table = {str(k): str(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
    if table.get("format") != wanted:
        raise InputError(
            f"{path} is a safetensors file, but of format {table.get('format')!r}, not {wanted!r}. {advice}"
        )
    return table


def stated_sha256(path: Path, content: bytes, metadata: Mapping[str, str]) -> str:
    """SHA-256 of the payload, which must be the one that the metadata state."""
    sha256 = _payload_sha256(content)
    if sha256 != metadata.get("sha256"):
        raise InputError(
            f"{path} is damaged: the sha256 of its weights is not the one it states. Copy it again."
        )
    return sha256


def _payload_sha256(content: bytes) -> str:
    """SHA-256 of the tensors, whatever the header says."""
    return hashlib.sha256(memoryview(content)[_payload_start(content) :]).hexdigest()


def filled(path: Path, content: bytes, build: Callable[[Layout], Built], architecture: Layout) -> Built:
    """Build a network around the weights of a file, or refuse them; a size that is merely claimed takes no
    memory."""
    weights = load_tensors(content)
    held = sum(value.numel() for value in weights.values())
    if architecture.least > held:
        raise InputError(
            f"{path} describes a network of {architecture.least} weights or more, but holds {held}. {ADVICE}"
        )
    network = build(architecture)
    _check_weights(path, weights, network.state_dict())
    network.load_state_dict(weights)
    return network


def _check_weights(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
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


def write_weights(path: Path, network: nn.Module, metadata: dict[str, str]) -> None:
    """Write the weights in fp16 and what is said of them, their sha256 included: a whole file or none."""
    weights = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    _check_weights(path, weights, network.state_dict())
    told = {**metadata, "sha256": _payload_sha256(save_tensors(weights))}
    write_whole(path, save_tensors(weights, told))
