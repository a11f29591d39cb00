"""Missing pixels: y = mask * x, the mask 1 where a pixel was seen and 0 where it is lost.

The lost entries of y are zero and carry no noise: they are no measurement at all.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from invsolve.errors import InputError
from invsolve.operators import adapter
from invsolve.operators.interface import Array, Operator, image_shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DEFAULT_KEEP", "inpaint"]

DEFAULT_KEEP = 0.3


def inpaint(
    shape: tuple[int, int, int],
    keep: Annotated[
        float | None,
        "share of the pixels that is seen, drawn at random, in (0, 1); 0.3 if nothing is given",
    ] = None,
    box: Annotated[
        str | tuple[int, ...] | None, "lost rectangle: top, left, height, width, as Y,X,H,W, in pixels"
    ] = None,
    mask: Annotated[
        Path | str | Array | None, "black and white image of the photo's size: white is seen, black is lost"
    ] = None,
    mask_seed: Annotated[int, "seed of the random mask, a whole number"] = 0,
) -> Operator:
    """Lose pixels: at random, in a rectangle, or where a mask is black.

    keep draws whole pixels, all channels together, and exactly that share of them. A mask array is (H, W),
    (1, H, W) or (C, H, W) with two levels, 0 and one other.
    """
    _, height, width = shape = image_shape(shape)
    given = [name for name, value in (("keep", keep), ("box", box), ("mask", mask)) if value is not None]
    if len(given) > 1:
        raise InputError(f"inpaint takes one of keep, box and mask, but got {' and '.join(given)}.")
    if mask is not None:
        return adapter.inpainting(shape, _given(mask, shape))
    if box is not None:
        return adapter.inpainting(shape, _outside(_corners(box), height, width))
    return adapter.inpainting(
        shape, _random(DEFAULT_KEEP if keep is None else keep, height, width, mask_seed)
    )


def _random(keep: float, height: int, width: int, seed: int) -> "Tensor":
    import torch

    if not 0 < keep < 1:
        raise InputError(f"keep is a share between 0 and 1, but it is {keep}. With nothing lost use denoise.")
    count = max(1, round(keep * height * width))
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(height * width)
    mask[order[:count]] = 1
    return mask.reshape(1, height, width)


def _corners(box: str | tuple[int, ...]) -> tuple[int, int, int, int]:
    try:
        y, x, h, w = (int(part) for part in (box.split(",") if isinstance(box, str) else box))
    except (TypeError, ValueError):
        raise InputError(f"box is four whole numbers Y,X,H,W, but it is {box!r}.") from None
    return y, x, h, w


def _outside(box: tuple[int, int, int, int], height: int, width: int) -> "Tensor":
    import torch

    y, x, h, w = box
    if min(y, x) < 0 or min(h, w) < 1 or y + h > height or x + w > width:
        raise InputError(
            f"box {y},{x},{h},{w} does not lie in the image of height {height} and width {width}."
        )
    if (h, w) == (height, width):
        raise InputError(f"box {y},{x},{h},{w} covers the whole image, so nothing is measured.")
    mask = torch.ones(1, height, width)
    mask[:, y : y + h, x : x + w] = 0
    return mask


def _given(mask: Path | str | Array, shape: tuple[int, int, int]) -> "Tensor":
    """Two-level mask (1 or C, H, W) from a file or an array; the larger level is what was seen."""
    import torch

    from invsolve.arrays import array
    from invsolve.images import load_image

    if isinstance(mask, Path | str):
        name, levels = f"mask {mask}", load_image(mask, min_side=1).pixels
    else:
        name, levels = "the mask", array(mask)
    values = torch.as_tensor(levels).float()
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[0] not in (1, shape[0]) or tuple(values.shape[1:]) != shape[1:]:
        raise InputError(
            f"{name} has shape {tuple(values.shape)}, but the image is {shape}. "
            f"Make it {shape[1]} high and {shape[2]} wide."
        )
    return _two_levels(values, name)


def _two_levels(values: "Tensor", name: str) -> "Tensor":
    top = values.max()
    seen = values == top
    between = int((~seen & (values != 0)).sum())
    if between:
        raise InputError(
            f"{name} has {between} values that are neither black nor white. Save it with two levels, as PNG."
        )
    if not top > 0:
        raise InputError(f"{name} is black everywhere, so nothing is measured. White is seen, black is lost.")
    if bool(seen.all()):
        raise InputError(f"{name} is white everywhere, so nothing is lost. Use denoise.")
    return seen[:1].float() if bool((seen == seen[:1]).all()) else seen.float()
