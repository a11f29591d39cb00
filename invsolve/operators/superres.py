"""Fewer pixels: y = R x C^T, each row of R and C the weights of one coarse pixel along an axis.

Box: the mean of a block of factor x factor pixels. Bicubic: the cubic kernel of Keys (1981, a = -1/2)
stretched by the factor, its weights divided by their sum at the edge: what Pillow's bicubic reduction
computes, so that a photo made small by such a tool is a measurement of this operator. Both keep a constant
image constant.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

from invsolve.errors import InputError, UnknownName
from invsolve.operators import adapter
from invsolve.operators.interface import Operator, Shape, image_shape, measured_from

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["superres"]

_FACTOR = 4


def _enlarged(measured: Shape, options: Mapping[str, object]) -> Shape:
    """Shape of the fine image behind a coarse one."""
    factor = _checked(options.get("factor", _FACTOR))
    channels, height, width = image_shape(measured)
    return channels, factor * height, factor * width


@measured_from(_enlarged)
def superres(
    shape: tuple[int, int, int],
    factor: Annotated[int, "fine pixels per coarse pixel along each axis, 2 to 8"] = _FACTOR,
    filter: Annotated[str, "how fine pixels are averaged: bicubic or box"] = "bicubic",
) -> Operator:
    """Reduce the image by a whole factor, which must divide its height and width."""
    _, height, width = shape = image_shape(shape)
    factor = _checked(factor)
    filters = {"bicubic": _bicubic, "box": _box}
    if filter not in filters:
        raise UnknownName("filter", filter, filters)
    if height % factor or width % factor:
        raise InputError(
            f"factor {factor} does not divide the image of {height} x {width} pixels. "
            f"Crop it to {height - height % factor} x {width - width % factor}."
        )
    rows, columns = (filters[filter](size, factor) for size in (height, width))
    operator = adapter.separable(shape, rows, columns)
    operator.picture = partial(_interpolated, size=(height, width))  # type: ignore[attr-defined]  # optional
    operator.power = _power(rows, columns)  # type: ignore[attr-defined]  # optional, see interface
    return operator


def _checked(factor: object) -> int:
    if not isinstance(factor, int) or not 2 <= factor <= 8:
        raise InputError(f"factor is a whole number from 2 to 8, but it is {factor!r}.")
    return factor


def _power(rows: "Tensor", columns: "Tensor") -> "Tensor":
    """|k^(f)|^2 of the kernel of a coarse pixel away from the borders, (H, W // 2 + 1)."""
    import torch

    down, along = rows[len(rows) // 2], columns[len(columns) // 2]
    return torch.outer(torch.fft.fft(down).abs() ** 2, torch.fft.rfft(along).abs() ** 2)


def _interpolated(y: "Tensor", size: tuple[int, int]) -> "Tensor":
    """Enlarge by bicubic interpolation: what one would look at without a prior."""
    from torch.nn.functional import interpolate

    return interpolate(y, size=size, mode="bicubic", align_corners=False)


def _box(size: int, factor: int) -> "Tensor":
    import torch

    blocks = torch.eye(size // factor, dtype=torch.float64)
    return torch.kron(blocks, torch.full((1, factor), 1 / factor, dtype=torch.float64))


def _bicubic(size: int, factor: int) -> "Tensor":
    import torch

    fine = torch.arange(size, dtype=torch.float64) + 0.5
    coarse = (torch.arange(size // factor, dtype=torch.float64) + 0.5) * factor
    u = ((fine - coarse[:, None]) / factor).abs()
    near = 1.5 * u**3 - 2.5 * u**2 + 1
    far = -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
    weights = torch.where(u < 1, near, torch.where(u < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)
