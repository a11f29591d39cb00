"""The setting [run] tile: the side of the tiles in which the prior is evaluated, in pixels.

    N       tiles of N x N pixels      0    the image whole
    auto    whole up to 1024 x 1024 pixels, in tiles of 512 beyond, where the prior can be tiled

With its halo a tile of 512 of the prior photo takes as much memory as an image of 960 x 960 pixels: where
auto begins to tile, the network's memory, about 2 GB, stops growing. What still grows are the vectors of the
sampler and the solve, some 20 times the image (`benchmarks/tiling.py`). Nothing here imports torch.
"""

from collections.abc import Sequence

from invsolve.errors import InputError

__all__ = ["AUTO", "check_tile", "chosen", "parse_tile"]

AUTO = "auto"
_WHOLE, _SIZE = 1024 * 1024, 512


def parse_tile(text: str) -> int | str:
    """Read the flag: a number of pixels, or auto."""
    value: int | str = int(text) if text.isascii() and text.isdigit() else text
    check_tile(value)
    return value


def check_tile(value: object) -> None:
    """Refuse what is neither a number of pixels nor auto."""
    if value != AUTO and not (isinstance(value, int) and value >= 0):
        raise InputError(f"--tile must be a number of pixels, 0 for none, or auto, but it is {value!r}.")


def chosen(value: int | str, shape: Sequence[int]) -> int:
    """Side of the tiles for images of that shape, (..., H, W); 0 for none."""
    if value != AUTO:
        return int(value)
    return _SIZE if len(shape) == 3 and shape[-2] * shape[-1] > _WHOLE else 0
