"""A folder of images as one bank of bytes, and batches of random crops from it.

Every image is kept at several scales (Lanczos), so that the prior sees textures at several sizes. A batch
is a function of (seed, step, rank) alone: which image (by area), where, mirrored, turned, colours exchanged
or dropped. A killed run that resumes therefore sees exactly the crops that it would have seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from invsolve.errors import InputError
from invsolve.training.config import TrainingConfig

__all__ = ["Bank", "centre_crops", "crops", "load_bank"]

Bytes = NDArray[np.uint8]
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"}


@dataclass(frozen=True)
class Bank:
    """Pictures (H, W, C) of many sizes, one after another in a flat array of bytes."""

    pixels: Bytes
    starts: tuple[int, ...]
    shapes: tuple[tuple[int, int, int], ...]

    def picture(self, index: int) -> Bytes:
        """View picture number index, shape (H, W, C)."""
        shape = self.shapes[index]
        start = self.starts[index]
        return self.pixels[start : start + int(np.prod(shape))].reshape(shape)

    def large(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of the pictures that hold a crop of this side, and their share of the area."""
        fits = np.array([i for i, (h, w, _) in enumerate(self.shapes) if min(h, w) >= side], dtype=np.int64)
        area = np.array([self.shapes[i][0] * self.shapes[i][1] for i in fits], dtype=np.float64)
        return fits, area / area.sum() if len(area) else area

    def batch(self, config: TrainingConfig, step: int, rng: np.random.Generator) -> Tensor:
        """Draw one batch of crops."""
        return crops(self, config, step, rng)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """None: every picture of the folders is trained on."""
        return torch.empty(0), torch.empty(0)


def image_files(folders: Iterable[Path], exclude: Sequence[str] = ()) -> list[Path]:
    """List the image files of the folders, sorted, without those that match a pattern of exclude."""
    files: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder. Give a folder of images.")
        files += sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    return [f for f in files if not any(fnmatch(f.name, pattern) for pattern in exclude)]


def open_image(path: Path, channels: int) -> Image.Image:
    """Open as RGB (3 channels) or grey (1), of 8 bits a channel; of 16 bits, 65535 is white as in a run."""
    try:
        with Image.open(path) as opened:
            image = _eight_bits(opened) if opened.mode.startswith("I;16") else opened
            if image.mode.startswith(("I", "F")):  # Pillow's conversion would clip at 255
                raise InputError(
                    f"{path} has more than 8 bits a pixel ({image.mode}), and what is white is not known. "
                    "Scale it to 8 bits, or add it to exclude."
                )
            return image.convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as an image ({error}). Remove it or add it to exclude."
        ) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Divide 16 bits by 257, which takes 65535 to 255."""
    return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))


def load_bank(folders: Iterable[Path], config: TrainingConfig) -> Bank:
    """Read every image at every scale; pictures smaller than a crop are left out."""
    pictures: list[Bytes] = []
    folders = list(folders)
    for path in image_files(folders, config.exclude):
        image = open_image(path, config.architecture.in_channels)
        for scale in config.scales:
            size = (round(image.width * scale), round(image.height * scale))
            if min(size) >= config.crop:
                resized = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
                pictures.append(np.asarray(resized).reshape(size[1], size[0], -1))
    if not pictures:
        raise InputError(f"no image of at least {config.crop} pixels in {', '.join(map(str, folders))}.")
    starts = np.cumsum([0] + [p.size for p in pictures[:-1]])
    shapes = tuple((p.shape[0], p.shape[1], p.shape[2]) for p in pictures)
    return Bank(np.concatenate([p.ravel() for p in pictures]), tuple(int(s) for s in starts), shapes)


def augmented(crop: Bytes, config: TrainingConfig, rng: np.random.Generator) -> Bytes:
    """Mirror, turn, exchange the colours or drop them, at random."""
    crop = np.rot90(crop[:, :: rng.choice((-1, 1))], int(rng.integers(4)))
    if rng.random() < config.permute_share:
        crop = crop[..., rng.permutation(crop.shape[-1])]
    if rng.random() < config.grey_share:
        crop = np.broadcast_to(crop.mean(-1, keepdims=True).round().astype(np.uint8), crop.shape)
    return crop


def crops(bank: Bank, config: TrainingConfig, step: int, rng: np.random.Generator) -> Tensor:
    """Draw one batch, (B, C, side, side) in [-1, 1]; now and then a quarter as many of twice the side."""
    side, count = config.crop, config.batch
    if step % config.wide_every == config.wide_every - 1 and len(bank.large(2 * side)[0]):
        side, count = 2 * side, max(count // 4, 1)
    fits, share = bank.large(side)
    batch = []
    for index in rng.choice(fits, count, p=share):
        picture = bank.picture(int(index))
        top, left = (rng.integers(length - side + 1) for length in picture.shape[:2])
        batch.append(augmented(picture[top : top + side, left : left + side], config, rng))
    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1


def centre_crops(folder: Path, side: int, count: int, channels: int) -> Tensor:
    """Centre crops of count images spread evenly over a folder, (n, C, side, side) in [-1, 1]."""
    files = image_files([folder])
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    batch = []
    for path in chosen:
        pixels = np.asarray(open_image(path, channels))
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        if min(top, left) >= 0:
            batch.append(pixels[top : top + side, left : left + side].reshape(side, side, -1))
    if not batch:
        raise InputError(f"no image of at least {side} pixels in {folder} to validate on.")
    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
