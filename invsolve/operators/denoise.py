"""Noise alone: y = x, so that all that is asked of the prior is to remove the noise."""

from invsolve.operators import adapter
from invsolve.operators.interface import Operator, image_shape

__all__ = ["denoise"]


def denoise(shape: tuple[int, int, int]) -> Operator:
    """Leave the image as it is."""
    return adapter.denoising(image_shape(shape))
