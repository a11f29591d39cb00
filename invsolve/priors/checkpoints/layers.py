"""Pieces that the U-Nets of diffusion models share: embeddings of the noise level, and attention."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.errors import InputError

__all__ = ["BUILDING", "attend", "sinusoids", "unfilled"]

Layout = TypeVar("Layout")
Built = TypeVar("Built", bound=nn.Module)

# what building or calling a network raises when a file describes it wrongly
BUILDING = (RuntimeError, ValueError, TypeError, ArithmeticError, AttributeError, LookupError, NameError)


def sinusoids(label: Tensor, channels: int, *, endpoint: bool = False) -> tuple[Tensor, Tensor]:
    """Cosines and sines of label 10000^(-k/n), k = 0 .. channels/2 - 1, each (B, channels/2).

    n is channels/2, or one less where the last frequency is to be 1/10000 itself (endpoint). Vaswani et al.
    2017 (arXiv:1706.03762), section 3.5.
    """
    half = channels // 2
    k = torch.arange(half, dtype=torch.float32, device=label.device)
    phase = label.float()[:, None] * torch.exp(-math.log(10000) * k / (half - endpoint))
    return phase.cos(), phase.sin()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over positions, v softmax(q' k / sqrt(c))': (N, c, L) each, and the answer."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def unfilled(source: object, build: Callable[[Layout], Built], layout: Layout) -> Built:
    """Build a network without memory for its weights: the file has them, and may lie about sizes."""
    try:
        with torch.device("meta"):
            return build(layout)
    except BUILDING as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{source} describes a network that cannot be built: {str(layout)[:200]} "
            f"({type(error).__name__}: {said})."
        ) from None
