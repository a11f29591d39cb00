"""Tensors out of pickles, without running what is in them.

A pickle is a program: it may name any function of any installed module and call it. Both readers here look
every name up in a short list, and refuse the file at the first name that is not on it. Nothing is imported
on the file's behalf.

    read_torch     .pt and .pth (torch.save): torch's own restricted reader. Files of score_sde hold a numpy
                   number (the learning rate), so three names of numpy are allowed on top of torch's list
    read_records   .pkl of EDM: objects that carry their own source code, which is meant to be executed on
                   loading. Here each becomes an inert Record of its state; the source stays a string. Their
                   tensors are pickles within the pickle, and go through read_torch's rules again

A tensor may claim more numbers than the file holds (by strides of zero); such a file is refused before
anything is made of it.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import InputError

__all__ = ["Record", "read_records", "read_torch", "tensors_of"]

Content = Any  # whatever a file holds: that is looked at afterwards

_SCALAR: Any = np.float64(0).__reduce__()[0]  # the private function that numpy rebuilds one number with
NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.dtype,
    np.dtypes.Float64DType,
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # the same, as numpy 1 called it
]


def read_torch(path: Path) -> Content:
    """Read what torch.save wrote; InputError in one line for anything else."""
    with path.open("rb") as file:
        return _guarded(path, _load, file)


def read_records(path: Path) -> Content:
    """Read a pickle of EDM as records and tensors; InputError in one line for anything else."""
    with path.open("rb") as file:
        return _guarded(path, lambda each: _Reader(each).load(), file)


def _load(file: BinaryIO) -> Content:
    _refuse_packed(file)
    with torch.serialization.safe_globals(NUMPY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the age of the format
        return torch.load(file, map_location="cpu", weights_only=True)


def _refuse_packed(file: BinaryIO) -> None:
    """Refuse an archive whose entries grow when they are read: torch.save compresses nothing."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return
    with zipfile.ZipFile(file) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if claimed > size:
        raise pickle.UnpicklingError(f"an archive of {size} bytes that claims {claimed}")


def _guarded(path: Path, read: Any, file: BinaryIO) -> Content:  # noqa: ANN401 - a function of the file
    """Call a reader; whatever a damaged or hostile file provokes becomes one line."""
    try:
        return read(file)
    except Exception as error:  # the file decides what is raised
        name = re.search(r"GLOBAL ([\w.]+)|which names ([\w.]+)", str(error))
        if name:
            raise InputError(
                f"{path} is a pickle that asks for {name[1] or name[2]}, which no weights need. "
                "It is refused, and nothing in it was run."
            ) from None
        said = re.sub(r"(?s).*WeightsUnpickler error: ", "", str(error)).strip() or type(error).__name__
        first = said.splitlines()[0][:100].rstrip(".")
        raise InputError(
            f"{path} cannot be read as weights ({first}). It may be cut short: copy it again."
        ) from None


class Record:
    """An object of a pickle that is not rebuilt: its class by name, what it was made of, and its state."""

    kind = ""
    walked = False  # a file could hold one in many places, or in itself: names without end

    def __init__(self, *made_of: object) -> None:
        """Keep the arguments."""
        self.made_of, self.state = made_of, {}  # type: tuple[object, ...], dict[str, Any]  # as in the file

    def __setstate__(self, state: object) -> None:
        """Keep the state, of an object that may never have been initialised."""
        self.made_of = vars(self).get("made_of", ())
        self.state = state if isinstance(state, dict) else {"state": state}


class _Dict(dict[object, object]):
    """A dict with attributes, of which only the items matter."""

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes."""


class _Function:
    """A function that a pickle may call but not alter: plain functions take any attribute it sets."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        """Keep the function."""
        self._call = call

    def __call__(self, *given: object) -> Content:
        """Call it."""
        return self._call(*given)

    def __setstate__(self, state: object) -> None:
        """Refuse to be altered."""
        raise pickle.UnpicklingError("it alters what reads it")


def _storage(content: bytes) -> Content:
    """Read the bytes of a storage, a pickle of its own, by read_torch's rules."""
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("the bytes of a storage are no bytes")
    found = _load(io.BytesIO(content))
    if not isinstance(found, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("the bytes of a storage hold something else")
    return found


def _tensor(
    storage: Content, offset: int, size: Sequence[int], stride: Sequence[int], *rest: object
) -> Tensor:
    """View a storage as a tensor; torch refuses a view beyond its end."""
    bare = storage._untyped_storage  # the public way warns that this kind of storage is going away
    flat = torch.empty(0, dtype=storage.dtype).set_(bare)
    return flat.as_strided(size, stride, offset)


def _parameter(data: Tensor, *rest: object) -> Tensor:
    """A parameter is its tensor."""
    return data


def _persistent(meta: dict[str, Any]) -> Record:
    """Make a record of an object that carries its source: the source is left where it is."""
    record = Record()
    record.kind = str(meta["class_name"])
    record.__setstate__(meta["state"])
    return record


_KNOWN: dict[str, Any] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _Function(_persistent),
    "dnnlib.util.EasyDict": _Dict,
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch.storage._load_from_bytes": _Function(_storage),
    **{f"numpy.{name}": Record for name in ("dtype", "ndarray")},
    **{
        f"numpy.{core}.multiarray.{name}": Record
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    "_codecs.encode": Record,
}


class _Reader(pickle.Unpickler):
    """A pickle reader that knows the names above, and layers of torch, which become records."""

    def find_class(self, module: str, name: str) -> Content:
        """Give what stands for a name; nothing is imported."""
        full = f"{module}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        if module.startswith("torch.nn.modules.") and name.isidentifier():
            return type(name, (Record,), {"kind": name})
        raise pickle.UnpicklingError(f"a pickle which names {full}")


def tensors_of(path: Path, table: object) -> dict[str, Tensor]:
    """The table as names and tensors, if it is that: dense, real, and no larger than the file."""
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path} holds a {type(table).__name__}, but weights are names and tensors.")
    odd = [str(name) for name, value in table.items() if not _plain(name, value)]
    if odd:
        raise InputError(f"{path} holds {len(odd)} entries that are no weights, {min(odd)[:60]!r} first.")
    size, claimed = path.stat().st_size, sum(_bytes(table.values()))
    if claimed > 4 * size + 100_000:  # shared weights may count twice, buffers are small
        raise InputError(f"{path} claims weights of {claimed} bytes, but it has {size}. It is refused.")
    return {name: value.detach() for name, value in table.items()}


def _plain(name: object, value: object) -> bool:
    """Whether an entry is a name and a dense tensor of real numbers."""
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
    )


def _bytes(values: Any) -> Iterator[int]:  # noqa: ANN401 - the values of a dict
    for value in values:
        yield value.numel() * value.element_size()
