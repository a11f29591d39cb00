"""Lost colour: y = 0.299 R + 0.587 G + 0.114 B, the luma of ITU-R BT.601, which is what a grey photo stores.

The weights sum to 1, so a grey image in three channels measures as itself.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from invsolve.errors import InputError
from invsolve.operators import adapter
from invsolve.operators.interface import Operator, Shape, image_shape, measured_from

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["colorize"]

_LUMA = (0.299, 0.587, 0.114)


def _coloured(measured: Shape, options: Mapping[str, object]) -> Shape:
    """Shape of the colour image behind a grey one."""
    channels, height, width = image_shape(measured)
    if channels != 1:
        raise InputError(f"colorize needs a grey photo of one channel, but this one has {channels}.")
    return 3, height, width


@measured_from(_coloured)
def colorize(shape: tuple[int, int, int]) -> Operator:
    """Keep the brightness of a colour image and lose its colour: (B, 3, H, W) -> (B, 1, H, W)."""
    shape = image_shape(shape)
    if shape[0] != 3:
        raise InputError(f"colorize makes images of 3 channels, but the shape is {shape}.")
    operator = adapter.decolorize(shape, _LUMA)
    operator.picture = _grey  # type: ignore[attr-defined]  # optional, see interface
    return operator


def _grey(y: "Tensor") -> "Tensor":
    """Show grey in three channels: A_dagger would tint it by the weights."""
    return y.repeat(1, 3, 1, 1)
