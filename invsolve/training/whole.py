"""Images of one size, taken whole and with their labels: digits, letters, thumbnails.

Three forms are read, each from a file or the folder that holds it:

    idx       train-images-idx3-ubyte, with train-labels-idx1-ubyte beside it, both perhaps .gz (MNIST's form:
              two zero bytes, type 8, the number of axes, each length as 4 bytes big endian, then the bytes)
    npz       images (n, H, W) or (n, H, W, C) as uint8, and labels (n,) where there are any
    folder    image files of one size; the folder an image lies in is its class, in alphabetical order

Images smaller than the config's `crop` get a black border. A batch is a function of (seed, step, rank) alone;
nothing is mirrored or turned, for a mirrored 2 is no digit. The last `hold_out` images are measured on and
never trained on.
"""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invsolve.errors import InputError
from invsolve.training.config import TrainingConfig
from invsolve.training.data import Bytes, image_files, open_image

__all__ = ["Whole", "load_whole", "read_idx"]

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Whole:
    """Images (n, side, side, C), their classes (n,) or None, and how many at the end are held out."""

    pixels: Bytes
    labels: Labels | None
    hold_out: int = 0

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw n training images (n, C, side, side) in [-1, 1] and their classes, -1 where there is none."""
        chosen = rng.integers(len(self.pixels) - self.hold_out, size=n)
        return as_images(self.pixels[chosen]), self._classes(chosen)

    def batch(self, config: TrainingConfig, step: int, rng: np.random.Generator) -> Tensor:
        """Images alone: what a prior learns from."""
        return self.draw(config.batch, rng)[0]

    def held_out(self) -> tuple[Tensor, Tensor]:
        """The images that are not trained on, and their classes."""
        last = np.arange(len(self.pixels) - self.hold_out, len(self.pixels))
        return as_images(self.pixels[last]), self._classes(last)

    def _classes(self, chosen: Labels) -> Tensor:
        if self.labels is None:
            return torch.full((len(chosen),), -1)
        return torch.from_numpy(self.labels[chosen])


def as_images(pixels: Bytes) -> Tensor:
    """Bytes (n, H, W, C) to images (n, C, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def load_whole(sources: Sequence[Path], config: TrainingConfig) -> Whole:
    """Read images and labels of one source, and put a black border around them up to `crop` pixels a side."""
    if len(sources) != 1:
        raise InputError(f"{len(sources)} sources of whole images; expected one file or folder.")
    pixels, labels = _read(sources[0], config)
    channels = config.architecture.in_channels
    if pixels.shape[-1] != channels:
        raise InputError(f"{sources[0]} has {pixels.shape[-1]} channels, but in_channels is {channels}.")
    if config.hold_out >= len(pixels):
        raise InputError(f"hold_out = {config.hold_out} leaves nothing of {len(pixels)} images.")
    return Whole(bordered(pixels, config.crop), labels, config.hold_out)


def bordered(pixels: Bytes, side: int) -> Bytes:
    """Centre images (n, H, W, C) on black squares of that side."""
    gaps = [side - length for length in pixels.shape[1:3]]
    if min(gaps) < 0:
        raise InputError(f"images of {pixels.shape[1]} x {pixels.shape[2]} pixels, but crop is {side}.")
    around = [(gap // 2, gap - gap // 2) for gap in gaps]
    return np.pad(pixels, ((0, 0), *around, (0, 0)))


def _read(source: Path, config: TrainingConfig) -> tuple[Bytes, Labels | None]:
    if source.is_dir():
        inside = sorted(p for p in source.iterdir() if "images-idx3" in p.name or p.suffix == ".npz")
        if not inside:
            return _read_folder(source, config)
        source = inside[0]
    if not source.is_file():
        raise InputError(f"{source} is neither a file nor a folder. Give idx or npz files, or images.")
    return _read_npz(source) if source.suffix == ".npz" else _read_pair(source)


def _read_pair(images: Path) -> tuple[Bytes, Labels | None]:
    """An idx file of images and the one of labels beside it."""
    pixels = read_idx(images, 3)[..., None]
    name = images.name.removesuffix(".gz").replace("images-idx3", "labels-idx1")
    found = [
        p for p in (images.with_name(name), images.with_name(f"{name}.gz")) if p != images and p.exists()
    ]
    return pixels, _labels(images, read_idx(found[0], 1), len(pixels)) if found else None


def read_idx(path: Path, axes: int) -> Bytes:
    """Read an idx file of bytes with that many axes, .gz or not."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as an idx file ({error}).") from None
    shape = np.frombuffer(content[4 : 4 + 4 * axes], ">u4").astype(int)
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) != 4 + 4 * axes + shape.prod():
        raise InputError(f"{path} is no whole idx file of bytes with {axes} axes.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_npz(path: Path) -> tuple[Bytes, Labels | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            pixels, labels = file["images"], file.get("labels")
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} has no array 'images' that can be read ({error}).") from None
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise InputError(f"{path}: images are {pixels.dtype} {pixels.shape}; expected uint8 (n, H, W[, C]).")
    pixels = pixels.reshape(*pixels.shape[:3], -1)
    return pixels, None if labels is None else _labels(path, labels, len(pixels))


def _read_folder(folder: Path, config: TrainingConfig) -> tuple[Bytes, Labels | None]:
    files, channels = image_files([folder], config.exclude), config.architecture.in_channels
    pictures = [np.asarray(open_image(path, channels)) for path in files]
    sizes = {p.shape[:2] for p in pictures}
    if len(sizes) != 1:
        raise InputError(f"{folder} holds images of {len(sizes)} sizes; whole images need exactly one.")
    classes, own = np.unique([path.parent.name for path in files], return_inverse=True)
    pixels = np.stack(pictures).reshape(len(files), *sizes.pop(), -1)
    order = np.random.default_rng(0).permutation(
        len(files)
    )  # files lie class by class; the last are held out
    return pixels[order], own[order].astype(np.int64) if len(classes) > 1 else None


def _labels(path: Path, labels: NDArray[np.integer], n: int) -> Labels:
    if labels.shape != (n,):
        raise InputError(f"{path} has {n} images, but labels of shape {labels.shape}.")
    return labels.astype(np.int64)
