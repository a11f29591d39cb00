"""Dead detector rows: y = x with every n-th row lost."""

from typing import TYPE_CHECKING, Annotated

from invsolve import hookimpl
from invsolve.errors import InputError

if TYPE_CHECKING:
    from deepinv.physics import Physics

__all__ = ["invsolve_operators", "stripes"]


def stripes(
    shape: tuple[int, int, int],
    period: Annotated[int, "rows from one dead row to the next, 2 or more"] = 4,
) -> "Physics":
    """Lose every n-th detector row."""
    import torch
    from deepinv.physics import Inpainting

    if period < 2:
        raise InputError(f"period is 2 or more rows, but it is {period}: with 1 every row is dead.")
    if period > shape[1]:
        raise InputError(f"period is {period} rows, but the image has {shape[1]}: no row is lost.")
    mask = torch.ones(shape)
    mask[:, period - 1 :: period] = 0
    operator = Inpainting(img_size=shape, mask=mask)
    operator.shape = shape
    return operator


@hookimpl
def invsolve_operators() -> dict[str, object]:
    """Offer the operator stripes."""
    return {"stripes": stripes}
