"""Numbers from files: .npy read by its header first, and the rules that turn planes of numbers into an image.

An image is (C, H, W) of float32, 0 black and 1 white. Integers are divided by the largest value of their
type; floating-point values must lie in [0, 1] already, for nothing is rescaled by guess. NaN, infinite and
complex values and objects are refused; no pickle is ever opened, and no more is allocated than the limit
allows.
"""

import io
import struct
import zlib
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invsolve.errors import InputError

__all__ = [
    "BROKEN",
    "MAX_PIXELS",
    "Floats",
    "Numbers",
    "array",
    "channels_first",
    "check_size",
    "first_line",
    "load_array",
    "parse_npy",
    "read_bytes",
    "unit_range",
]

Floats = NDArray[np.float32]
Numbers = NDArray[Any]  # Any: the file decides
MAX_PIXELS = 64_000_000
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, LookupError, TypeError)


def array(values: Any) -> Numbers:  # noqa: ANN401  a tensor of any device, or what numpy takes
    """Values of a tensor or an array-like as a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def load_array(path: Path | str, max_pixels: int = MAX_PIXELS) -> Numbers:
    """Read a .npy file of real numbers as it is, of any shape."""
    return parse_npy(Path(path), read_bytes(Path(path), max_pixels), max_pixels)


def read_bytes(path: Path, max_pixels: int) -> bytes:
    """Read a whole file that exists, is regular, not empty and no larger than the pixel limit could need."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; expected a file.")
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        raise InputError(f"there is no file {path}." + (f" Did you mean {near[0]}?" if near else ""))
    if not path.is_file():
        raise InputError(f"{path} is not a regular file.")
    if path.stat().st_size > 32 * max_pixels + (1 << 20):  # 4 channels of 8 bytes, and metadata
        raise InputError(f"{path} has {path.stat().st_size / 1e6:.0f} MB, too many for an image.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error
    if not content:
        raise InputError(f"{path} is empty (0 bytes).")
    return content


def check_size(path: Path, pixels: int, max_pixels: int) -> None:
    """Refuse an image beyond the limit, by what its header says."""
    if pixels > max_pixels:
        limit = f"the limit is {max_pixels / 1e6:g} million"
        raise InputError(f"{path} has {pixels / 1e6:.3g} million pixels; {limit}. Crop or reduce it.")


def parse_npy(path: Path, content: bytes, max_pixels: int) -> Numbers:
    """Decode .npy after a look at its header."""
    stream = io.BytesIO(content)
    try:
        version, _ = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = header(stream)
    except (*BROKEN, TokenError) as error:
        raise InputError(f"{path} is not a .npy file that can be read ({first_line(error)}).") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise InputError(f"{path} holds {dtype}; expected real numbers. Objects are never unpickled.")
    if min(shape, default=1) < 1:
        raise InputError(f"{path} holds an array of shape {shape}, which has no values.")
    count = int(np.prod(shape, dtype=object))
    check_size(path, count // 4, max_pixels)  # up to 4 values a pixel
    expected = stream.tell() + count * dtype.itemsize
    if len(content) != expected:
        raise InputError(
            f"{path} has {len(content)} bytes, but its header says {expected}: cut short or damaged."
        )
    values = np.frombuffer(content, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if columns_first else "C").copy()


def channels_first(values: Numbers, path: Path) -> Numbers:
    """Bring (H, W), (C, H, W) or (H, W, C) to (C, H, W); the channel axis is the short one, of 1 to 4."""
    planes = values[None] if values.ndim == 2 else values
    if planes.ndim == 3 and planes.shape[0] > 4 >= planes.shape[2]:
        planes = planes.transpose(2, 0, 1)
    if planes.ndim != 3 or planes.shape[0] > 4:
        raise InputError(
            f"{path} has shape {values.shape}; expected (H, W), (C, H, W) or (H, W, C), C at most 4."
        )
    return planes


def unit_range(planes: Numbers, path: Path, margin: float) -> Floats:
    """Scale integers by their type's largest value; check that floats lie in [-margin, 1 + margin]."""
    if planes.dtype.kind == "b":
        return np.asarray(planes, np.float32)
    if planes.dtype in (np.uint8, np.uint16):
        return np.asarray(planes / np.float32(np.iinfo(planes.dtype).max), np.float32)
    if planes.dtype.kind != "f":
        raise InputError(f"{path} holds {planes.dtype}; expected 8 or 16 bits unsigned, or floats in [0, 1].")
    bad = ~np.isfinite(planes)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{path} has {bad.sum()} values that are NaN or infinite, the first at {first} of (C, H, W)."
        )
    low, high = float(planes.min()), float(planes.max())
    if low < -margin or high > 1 + margin:
        raise InputError(
            f"{path} has values from {low:.4g} to {high:.4g}; expected 0 (black) to 1 (white). Rescale it."
        )
    return np.asarray(planes, np.float32)


def first_line(error: BaseException) -> str:
    """What a library says is wrong, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
