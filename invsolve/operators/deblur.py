"""Blur: y = k * x, a true convolution with a kernel of sum 1, so that a constant image stays what it is.

Kernels: a Gaussian, cut at 4 standard deviations (as scipy.ndimage.gaussian_filter does); the random path of
a shaken camera; or a file, odd sizes, nonnegative, divided by its sum.

Borders: "circular" joins opposite edges and is diagonal in Fourier space; "reflect" mirrors about the edge
pixel, "replicate" repeats it, "constant" continues the image by zeros (the one border that darkens the rim).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from invsolve.errors import InputError, UnknownName
from invsolve.operators import adapter
from invsolve.operators.interface import Array, Operator, image_shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BORDERS", "deblur"]

BORDERS = ("circular", "reflect", "replicate", "constant")


def deblur(
    shape: tuple[int, int, int],
    kernel: Annotated[
        str | Path | Array, "gaussian, motion, or a kernel file: .npy or a grey image"
    ] = "gaussian",
    std: Annotated[float, "standard deviation of the gaussian kernel, in pixels, > 0"] = 2.0,
    border: Annotated[
        str, "how the image goes on beyond its edge: circular, reflect, replicate or constant"
    ] = "circular",
    length: Annotated[int, "side of the motion kernel, in pixels, odd, 3 or more"] = 21,
    motion_seed: Annotated[int, "seed of the motion kernel's path, a whole number"] = 0,
) -> Operator:
    """Blur by a kernel; a real photo is best described by border replicate or reflect."""
    shape = image_shape(shape)
    if border not in BORDERS:
        raise UnknownName("border", border, BORDERS)
    if isinstance(kernel, str) and kernel in ("gaussian", "motion"):
        weights = _gaussian(std) if kernel == "gaussian" else _motion(length, motion_seed)
    else:
        weights = _given(kernel)
    h, w = weights.shape
    if h > shape[1] or w > shape[2]:
        raise InputError(
            f"the blur kernel is {h} x {w} pixels, larger than the image of {shape[1]} x {shape[2]}."
        )
    operator = (
        adapter.circular_blur(shape, weights.float())
        if border == "circular"
        else adapter.blur(shape, weights.float(), border)
    )
    operator.picture, operator.power = _same, _power(weights, shape)  # type: ignore[attr-defined]  # optional, see interface
    return operator


def _power(weights: "Tensor", shape: tuple[int, int, int]) -> "Tensor":
    import torch

    spectrum: Tensor = torch.fft.rfft2(weights, s=shape[1:])
    return spectrum.abs() ** 2


def _same(y: "Tensor") -> "Tensor":
    """Show the blurred image itself: A_dagger would show amplified noise."""
    return y


def _gaussian(std: float) -> "Tensor":
    import torch

    if not 0 < std < float("inf"):
        raise InputError(f"std is a length > 0 in pixels, but it is {std}.")
    radius = max(1, int(4 * std + 0.5))
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-((offset / std) ** 2) / 2)
    line = line / line.sum()
    return torch.outer(line, line)


def _motion(length: int, seed: int) -> "Tensor":
    if length < 3 or length % 2 == 0:
        raise InputError(
            f"length is the odd side of the motion kernel, 3 pixels or more, but it is {length}."
        )
    return adapter.motion_kernel(length, seed)


def _given(kernel: str | Path | Array) -> "Tensor":
    """Kernel (h, w) of sum 1 from a file or an array; every fault is named."""
    import torch

    from invsolve.arrays import array

    name = "the blur kernel"
    if isinstance(kernel, str | Path):
        name, values = f"kernel {kernel}", torch.as_tensor(_read(Path(kernel))).double()
    else:
        values = torch.as_tensor(array(kernel)).double()
    if values.ndim != 2 or min(values.shape) < 3 or not all(side % 2 for side in values.shape):
        raise InputError(f"{name} has shape {tuple(values.shape)}; expected two odd sides, 3 pixels or more.")
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            f"{name} has {int((~torch.isfinite(values)).sum())} values that are NaN or infinite."
        )
    if float(values.min()) < 0 or float(values.sum()) <= 0:
        raise InputError(
            f"{name} has minimum {float(values.min()):.3g} and sum {float(values.sum()):.3g}; "
            "expected values >= 0, not all of them 0."
        )
    return values / values.sum()


def _read(path: Path) -> Array:
    from invsolve.arrays import load_array
    from invsolve.images import load_image

    if not path.suffix and not path.exists():
        raise UnknownName("kernel (or file)", str(path), ("gaussian", "motion"))
    if path.suffix == ".npy":
        return load_array(path)
    pixels = load_image(path, min_side=1).pixels
    if (pixels != pixels[:1]).any():
        raise InputError(f"kernel {path} is a colour image; expected a grey one.")
    plane: Array = pixels[0]
    return plane
