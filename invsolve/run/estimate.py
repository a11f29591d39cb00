"""The noise level of a photo from its finest details: `--sigma-y auto`.

Scikit-image's estimate: the median of the diagonal wavelet coefficients (db2), which hold little but noise in
a photo, over that of a standard normal (Donoho and Johnstone 1994). Texture raises it a little. Lost pixels
spoil every coefficient they touch, so pixels scattered at random leave nothing to estimate from.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from invsolve.arrays import Floats
from invsolve.errors import InputError

__all__ = ["estimate_sigma_y"]

_FLOOR = 1e-3  # below the steps of 8 bits: a photo without noise


def estimate_sigma_y(pixels: Floats, known: NDArray[np.bool_]) -> float:
    """Estimate the standard deviation of the noise of a photo (C, H, W), where it is known."""
    from skimage.morphology import erosion

    whole = known.all(0)
    if whole.all():
        return _estimate(pixels)
    inside = erosion(whole, np.ones((7, 7)))
    if inside.mean() < 0.25:
        raise InputError(
            f"--sigma-y auto needs neighbourhoods without a gap, but only {inside.mean():.0%} of the "
            "photo has them. Give --sigma-y as a number."
        )
    return _estimate(np.where(inside, pixels, 0))  # coefficients of exactly 0 do not count


def _estimate(pixels: Floats) -> float:
    import skimage.restoration

    estimate: Any = skimage.restoration.estimate_sigma  # Any: not annotated
    return max(_FLOOR, float(estimate(pixels, channel_axis=0, average_sigmas=True)))
