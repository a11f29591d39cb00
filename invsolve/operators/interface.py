"""What an operator is, in types that cost nothing to import.

An operator is the linear map A from the unknown image to the noiseless measurement, y = A x + noise, over
batches: images (B, C, H, W) to measurements (B, *m). A factory builds one from the shape (C, H, W) of the
unknown image and its options. Beside A and its transpose an operator may carry its singular value
decomposition,

    A = U diag(mask) V^T,    A x = U(mask * V_adjoint(x)),

where U^T U = 1 on the range of A; then Gaussian problems need no inner solver.

An operator without A_adjoint is a black box: A may be any function of x, and is only ever evaluated. Samplers
that need no transpose take it (enkg; others if A is made of torch operations), the others refuse it. Such an
operator needs a `picture` (below).

Two optional attributes serve a run that starts from a measured file; a plugin that has neither gets the
default.

    factory.unknown_shape(measured, options)   shape of the image from that of the file; default: the same
    operator.picture(y)                        the measurement as an image to look at; default: A_dagger(y)

A blur, or one of which every n-th pixel is kept, may tell its spectrum, which starts an inner solver well
and needs to be right away from the borders only:

    operator.power                             |k^(f)|^2 of its kernel, (H, W // 2 + 1) as rfft2 gives it
"""

from collections.abc import Callable, Mapping
from operator import index
from typing import TYPE_CHECKING, Protocol, TypeVar

from invsolve.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Array",
    "Operator",
    "Shape",
    "UnknownShape",
    "image_shape",
    "measured_from",
    "picture",
    "unknown_shape",
]

Shape = tuple[int, ...]
UnknownShape = Callable[[Shape, Mapping[str, object]], Shape]
Factory = TypeVar("Factory", bound=Callable[..., object])


class Array(Protocol):
    """A tensor or a numpy array."""

    def __array__(self) -> object:
        """Values as numpy sees them."""


class Operator(Protocol):
    """A linear map over batches, built for images of one shape (C, H, W)."""

    shape: Shape

    def A(self, x: "Tensor") -> "Tensor":
        """Measure images: (B, *shape) -> (B, *m)."""

    def A_adjoint(self, y: "Tensor") -> "Tensor":
        """Apply the transpose: (B, *m) -> (B, *shape)."""

    def A_dagger(self, y: "Tensor") -> "Tensor":
        """Return the smallest image that best explains y: (B, *m) -> (B, *shape)."""


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """Check that shape is (channels, height, width) of an image, and return it as integers."""
    try:
        channels, height, width = (index(side) for side in shape)
    except (TypeError, ValueError):
        raise InputError(
            f"an operator needs the image shape (channels, height, width), but got {shape!r}."
        ) from None
    if min(channels, height, width) < 1:
        raise InputError(f"an image of shape {shape} has no pixels.")
    return channels, height, width


def measured_from(rule: UnknownShape) -> Callable[[Factory], Factory]:
    """Decorate a factory with the rule that gives the unknown image's shape from the measurement's."""

    def attach(factory: Factory) -> Factory:
        factory.unknown_shape = rule  # type: ignore[attr-defined]  # a function takes attributes
        return factory

    return attach


def unknown_shape(factory: Callable[..., object], measured: Shape, options: Mapping[str, object]) -> Shape:
    """Shape of the image behind a measured file of that shape: the same, unless the factory knows better."""
    rule: UnknownShape | None = getattr(factory, "unknown_shape", None)
    return measured if rule is None else rule(measured, options)


def picture(operator: Operator, y: "Tensor") -> "Tensor":
    """Show measurements as images, (B, *m) -> (B, C, H, W): the operator's own picture, or A_dagger(y).

    One that has neither shows y as it is, where that is an image; InputError where it is none.
    """
    show: Callable[[Tensor], Tensor] | None = getattr(operator, "picture", None)
    show = show or getattr(operator, "A_dagger", None)
    if show is None and y.ndim != 4:
        raise InputError("the operator has neither picture(y) nor A_dagger(y), and y is no image: add one.")
    return y if show is None else show(y)
