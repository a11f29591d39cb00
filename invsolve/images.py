"""Image files in and out: arrays (C, H, W) of float32, 0 black, 1 white. Each odd case is decided here.

What a reader does by itself differs between libraries and is often wrong. Here, and `notes` says so:

    EXIF orientation         turned upright
    palette, 1 bit, YCbCr    expanded
    CMYK                     turned into RGB without its profile
    alpha channel            kept aside, not blended
    16 bits                  divided by 65535; a 16-bit colour PNG is read with 8 bits, the reader's limit
    floating point           must lie in [0, 1] already
    several pages            refused
    too many pixels          refused before decoding

A file is read in full or not at all; nothing is guessed, rescaled or repaired.
"""

import hashlib
import io
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invsolve.arrays import (
    BROKEN,
    MAX_PIXELS,
    Floats,
    Numbers,
    array,
    channels_first,
    check_size,
    first_line,
    load_array,
    parse_npy,
    read_bytes,
    unit_range,
)
from invsolve.errors import InputError, OutputError

if TYPE_CHECKING:
    from PIL import Image
    from tifffile import TiffFile

__all__ = ["MIN_SIDE", "SAMPLE", "LoadedImage", "array", "grey", "load_array", "load_image", "save_png"]

SAMPLE = Path(__file__).parent / "samples" / "astronaut.png"
MIN_SIDE = 16
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
_LIST = "PNG, JPEG, TIFF, WebP, BMP, GIF or .npy"
_PLAIN = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "CMYK": "RGB"}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class LoadedImage:
    """An image file: pixels (C, H, W), C 1 or 3; alpha (1, H, W) or None; what was done to it; its hash."""

    pixels: Floats
    alpha: Floats | None
    notes: tuple[str, ...]
    sha256: str


def load_image(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE, margin: float = 0.0
) -> LoadedImage:
    """Read an image or a .npy array; InputError says in a line what is wrong with it.

    margin lets floating-point values lie in [-margin, 1 + margin]: a measurement carries noise.
    """
    path, notes = Path(path), list[str]()
    content = read_bytes(path, max_pixels)
    if path.suffix.lower() == ".npy":
        planes = channels_first(parse_npy(path, content, max_pixels), path)
    elif content[:4] in (b"II*\0", b"MM\0*"):
        planes = _tiff(path, content, max_pixels, notes)
    else:
        planes = _picture(path, content, max_pixels, notes)
    if min(planes.shape[1:]) < min_side:
        size = f"{planes.shape[1]} x {planes.shape[2]} pixels"
        raise InputError(f"{path} is {size}, too small: at least {min_side} a side are needed.")
    unit = np.ascontiguousarray(unit_range(planes, path, margin))
    pixels, alpha = (unit[:-1], unit[-1:]) if len(unit) in (2, 4) else (unit, None)
    if alpha is not None:
        notes.append("alpha channel kept aside")
    return LoadedImage(pixels, alpha, tuple(notes), hashlib.sha256(content).hexdigest())


def grey(image: Floats) -> Floats:
    """One channel of an image whose channels agree, up to the rounding of JPEG; refuse a colour image."""
    spread = float((image.max(0) - image.min(0)).max())
    if spread > 4 / 255:  # JPEG's colour transform errs by a few of 255 levels
        raise InputError(
            f"the image has colour: its channels differ by up to {spread:.2f}; expected a grey one."
        )
    return np.asarray(image.mean(0, keepdims=True))


def save_png(path: Path | str, image: object) -> None:
    """Write (C, H, W), C 1 or 3, as 8 bits: clipped to [0, 1], never rescaled; a whole file or none."""
    from PIL import Image

    values = np.asarray(array(image), dtype=np.float32)
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise InputError(f"a picture has shape (1 or 3, H, W), but this one has {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError(f"{path} would have {(~np.isfinite(values)).sum()} values that are NaN or infinite.")
    levels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(buffer, format="PNG")
    _replace(Path(path), buffer.getvalue())


def _replace(path: Path, content: bytes) -> None:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o644)  # a temporary file is private
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}.") from error


def _tiff(path: Path, content: bytes, max_pixels: int, notes: list[str]) -> Numbers:
    """Read bytes by Pillow, which knows more codecs, and all else by tifffile, which keeps every bit."""
    from tifffile import TiffFile, TiffFileError

    if not logging.getLogger("tifffile").handlers:
        logging.getLogger("tifffile").addHandler(logging.NullHandler())  # we report what is wrong
    try:
        with TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            _one_page(path, len(file.pages))
            check_size(path, page.imagewidth * page.imagelength, max_pixels)
            planes = None if page.dtype in (np.uint8, np.bool_) else _deep(path, file)
    except InputError:
        raise
    except (*BROKEN, TiffFileError, RuntimeError) as error:
        raise InputError(f"{path} is a TIFF file that cannot be read ({first_line(error)}).") from error
    if planes is None:
        return _picture(path, content, max_pixels, notes)
    notes.append(f"{planes.dtype} TIFF")
    return planes


def _deep(path: Path, file: "TiffFile") -> Numbers:
    page = file.pages.first
    kind, turn = int(page.photometric), page.tags.valueof(_ORIENTATION, 1)
    if kind not in (1, 2):  # black is zero, RGB
        raise InputError(f"{path} is a {page.dtype} TIFF of photometric type {kind}; expected grey or RGB.")
    if turn != 1:
        raise InputError(f"{path} is a {page.dtype} TIFF with orientation {turn}. Save it upright.")
    return channels_first(page.asarray(), path)


def _picture(path: Path, content: bytes, max_pixels: int, notes: list[str]) -> Numbers:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns late of large files; we refuse early
            image: Image.Image = Image.open(io.BytesIO(content), formats=_FORMATS)
            check_size(path, image.width * image.height, max_pixels)
            _one_page(path, 1 if image.format == "MPO" else getattr(image, "n_frames", 1))
            image.load()
            turn = image.getexif().get(_ORIENTATION, 1)
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        text = content[:512].isascii() and b"\0" not in content[:512]
        raise InputError(
            f"{path} is not an image{' (looks like text)' if text else ''}; expected {_LIST}."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels: {first_line(error)}.") from error
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path} is damaged or cut short ({first_line(error)}).") from error
    deep = content[:8] == b"\x89PNG\r\n\x1a\n" and content[24] == 16 and not image.mode.startswith("I")
    notes += ["first picture of a multi-picture JPEG"] * (image.format == "MPO")
    notes += [f"turned upright (EXIF orientation {turn})"] * (turn not in (0, 1))
    notes += ["16-bit colour PNG read with 8 bits; TIFF or .npy keep all 16"] * deep
    notes += ["CMYK turned into RGB without its colour profile"] * (image.mode == "CMYK")
    return _planes(path, upright)


def _one_page(path: Path, pages: int) -> None:
    if pages != 1:
        raise InputError(f"{path} has {pages} pages; expected one image. Save the page you mean by itself.")


def _planes(path: Path, image: "Image.Image") -> Numbers:
    """Turn any colour mode into L, LA, RGB or RGBA planes (C, H, W); 16-bit grey stays 16-bit."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)[None]
    keyed = "transparency" in image.info
    if image.mode == "P":
        mode = "RGBA" if keyed else "RGB"
    elif keyed and image.mode in ("1", "L", "RGB"):
        mode = "RGBA" if image.mode == "RGB" else "LA"
    else:
        mode = _PLAIN.get(image.mode, image.mode)
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path} is in colour mode {image.mode}; expected grey, RGB or CMYK.")
    values = np.asarray(image.convert(mode))
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
