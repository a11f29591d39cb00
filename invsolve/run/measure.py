"""From an image file to a problem: simulate a measurement, or take the file as one.

Simulated noise comes from the seed and the image's content, and lies on the measured entries alone; a
measured file is set to zero where nothing was measured. What was decided on the way (crops, alpha channels,
noise estimates) is noted for the screen.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invsolve.arrays import Floats
from invsolve.errors import InputError, PluginError
from invsolve.images import MIN_SIDE, LoadedImage, grey, load_image
from invsolve.isolation import guarded
from invsolve.likelihood import measured_entries
from invsolve.operators import picture, unknown_shape
from invsolve.rng import Noise
from invsolve.run import parts
from invsolve.run.estimate import estimate_sigma_y
from invsolve.run.foreign import check_foreign
from invsolve.run.problem import Problem
from invsolve.run.settings import Tables

__all__ = ["Source", "check_sigma_y", "make"]

_CROPS = {
    "superres": "factor"
}  # operators that need sides of whole multiples, and the option that says of what


@dataclass(frozen=True)
class Source:
    """An image file and the settings under which it becomes a problem; identity is handed through."""

    tables: Tables
    path: Path
    image: LoadedImage
    identity: dict[str, Any]  # Any: JSON
    device: str

    @property
    def operator(self) -> str:
        """Name of the operator."""
        return str(self.tables["operator"]["name"])


def make(source: Source) -> Problem:
    """Build the problem of one image; whatever a foreign operator raises is laid at its door."""
    build = _simulated if source.tables["run"]["simulate"] else _measured
    if parts.is_own("operator", source.operator):
        return build(source)
    with guarded(f"operator {source.operator!r}"):
        return build(source)


def _simulated(source: Source) -> Problem:
    tables, notes = source.tables, list(source.image.notes)
    truth = _cropped(tables, source.image.pixels, notes)
    operator = _operator(source, truth.shape)
    x = torch.from_numpy(truth)[None]
    clean, known = operator.A(x)[0], measured_entries(operator, tuple(truth.shape), x)
    sigma_y = check_sigma_y(float(tables["run"]["sigma_y"]), operator)
    content = hashlib.sha256(truth.tobytes()).hexdigest()
    noise = Noise(int(tables["run"]["seed"]), content, 1, tuple(clean.shape))("measurement")[0]
    y = torch.where(known, clean + sigma_y * noise, torch.zeros(()))
    return _problem(source, operator, y, known, sigma_y, truth=truth, notes=notes)


def _measured(source: Source) -> Problem:
    notes, image = list(source.image.notes), source.image
    pixels = grey(image.pixels) if source.operator == "colorize" else image.pixels
    factory = parts.registry().get("operator", source.operator)
    shape = unknown_shape(factory, pixels.shape, source.tables["operator"])
    alpha = _alpha(source, notes)
    operator = _operator(source, shape, alpha)
    y = torch.from_numpy(pixels)
    known = measured_entries(operator, shape, y)
    if known.shape != y.shape:
        raise InputError(
            f"{source.path} has shape {tuple(y.shape)}, but {source.operator} of an image of {tuple(shape)} "
            f"gives {tuple(known.shape)}."
        )
    y = torch.where(known, y, torch.zeros(()))
    sigma_y = source.tables["run"]["sigma_y"]
    if sigma_y == "auto":
        sigma_y = estimate_sigma_y(pixels, known.numpy())
        notes.append(f"sigma_y {sigma_y:.4g}, estimated from the photo")
    truth = _truth(source.tables, shape)
    sigma_y = check_sigma_y(sigma_y, operator)
    return _problem(source, operator, y, known, sigma_y, truth=truth, alpha=alpha, notes=notes)


def _operator(source: Source, shape: tuple[int, ...], alpha: Floats | None = None) -> Any:  # noqa: ANN401  a physics
    """Build the operator, for an image that is large enough and that the prior takes."""
    operator = parts.build_operator(source.tables, shape, "cpu", alpha)
    if operator is None:
        raise PluginError(
            f"the factory of operator {source.operator!r} returned None; "
            "it must return the operator it makes. Is a return missing?"
        )
    if len(shape) != 3 or min(shape[1:]) < MIN_SIDE:
        sides = " x ".join(map(str, shape[1:]))
        raise InputError(
            f"the image behind {source.path} has {sides} pixels; at least {MIN_SIDE} a side are needed."
        )
    parts.build_prior(source.tables, shape, source.device)
    if not parts.is_own("operator", source.operator):
        check_foreign(operator, shape, source.operator)
    return operator


def _problem(
    source: Source,
    operator: Any,  # noqa: ANN401  a physics
    y: Tensor,
    known: Tensor,
    sigma_y: float,
    *,
    truth: Floats | None,
    notes: list[str],
    alpha: Floats | None = None,
) -> Problem:
    return Problem(
        tables=source.tables,
        identity=source.identity,
        shape=tuple(operator.shape),
        sigma_y=sigma_y,
        device=source.device,
        y=y.numpy(),
        picture=_picture(operator, y, source.operator),
        truth=truth,
        mask=_mask(known, operator),
        alpha=alpha,
        notes=notes,
    )


def _picture(operator: Any, y: Tensor, name: str) -> Floats:  # noqa: ANN401  a physics
    """Show the measurement as measurement.png will."""
    shown: Floats = picture(operator, y[None])[0].numpy()
    if shown.ndim != 3 or shown.shape[0] not in (1, 3):
        raise PluginError(
            f"operator {name!r} shows its measurement as {shown.shape}, but a picture is (1 or 3, H, W): "
            "give it a method picture(y) that makes one."
        )
    return shown


def _mask(known: Tensor, operator: Any) -> Floats | None:  # noqa: ANN401  a physics
    """Mask (1 or C, H, W) of the pixels that were seen, where y is an image with holes."""
    if tuple(known.shape) != tuple(operator.shape) or bool(known.all()):
        return None
    one = known[:1] if bool((known == known[:1]).all()) else known
    mask: Floats = one.float().numpy()
    return mask


def _cropped(tables: Tables, pixels: Floats, notes: list[str]) -> Floats:
    """Cut right and bottom to whole multiples where the operator needs them."""
    option = _CROPS.get(str(tables["operator"]["name"]))
    if option is None:
        return pixels
    multiple = max(1, int(tables["operator"][option]))
    if multiple > min(pixels.shape[1:]):
        raise InputError(
            f"{option} {multiple} is larger than the image, {pixels.shape[1]} x {pixels.shape[2]}."
        )
    height, width = (size - size % multiple for size in pixels.shape[1:])
    if (height, width) != pixels.shape[1:]:
        notes.append(f"cropped to {height} x {width} pixels, multiples of {option} {multiple}")
    return np.ascontiguousarray(pixels[:, :height, :width])


def _alpha(source: Source, notes: list[str]) -> Floats | None:
    """Mask from the alpha channel, where inpainting has no other: only full opacity counts as seen."""
    alpha, table = source.image.alpha, source.tables["operator"]
    if source.operator != "inpaint" or {"mask", "box"} & set(table) or alpha is None:
        return None
    seen = (alpha >= 1).astype(np.float32)
    if seen.all() or not seen.any():
        how = "opaque" if seen.all() else "transparent"
        raise InputError(
            f"the alpha channel of {source.path} is {how} everywhere. Give --mask FILE or --box Y,X,H,W."
        )
    lost = 1 - float(seen.mean())
    notes.append(f"mask from the alpha channel: {lost:.1%} of the pixels are not opaque, so they are lost")
    return seen


def _truth(tables: Tables, shape: tuple[int, ...]) -> Floats | None:
    path = tables["run"].get("truth")
    if path is None:
        return None
    truth = load_image(Path(path)).pixels
    if truth.shape != tuple(shape):
        raise InputError(
            f"truth {path} has shape {truth.shape}, but the image to reconstruct has {tuple(shape)}."
        )
    return truth


def check_sigma_y(sigma_y: float, operator: Any) -> float:  # noqa: ANN401  a physics
    """Refuse a noise level of 8-bit units where measurements are images in [0, 1]."""
    if sigma_y <= 1 or len(getattr(operator, "shape", ())) != 3:
        return float(sigma_y)
    of_white = operator.A(torch.ones(1, *operator.shape))
    if float(of_white.min()) >= -1e-3 and float(of_white.max()) <= 1 + 1e-3:
        raise InputError(
            f"--sigma-y {sigma_y:g} is larger than the range of the image, 0 to 1. "
            f"Did you mean {sigma_y:g}/255 = {sigma_y / 255:.3g}?"
        )
    return float(sigma_y)
