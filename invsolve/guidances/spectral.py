"""Singular coordinates of a measurement: A = U diag(s) V^T.

There y = A x + e falls apart into one number a component, (U^T y)_i = s_i (V^T x)_i + e_i, and a method that
treats each component by itself is a weight w_i: how much of the misfit of component i it takes over,

    x' = x + V diag(w / s) U^T (y - A x).

w = 1 pins the component to the measurement, w = 0 leaves it to the prior. Components that nothing measures,
s_i = 0, always stay as they are. Noise of one variance in y is noise of that variance in U^T y.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import Refused
from invsolve.guidance import linear_of
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import expand

__all__ = ["ROUNDING", "Spectral", "has_spectrum", "spectral"]

ROUNDING = 1e-5  # share of the largest singular value below which a float32 decomposition knows nothing


@dataclass(frozen=True)
class Spectral:
    """A likelihood in the singular coordinates of its operator, which broadcast with values."""

    linear: LinearLikelihood

    def values(self, like: Tensor) -> Tensor:
        """Singular values s, in the dtype and on the device of like."""
        mask: Tensor = torch.as_tensor(self._operator.mask)
        return mask.to(like)

    @property
    def _operator(self) -> Any:  # noqa: ANN401 - the decomposition is an optional ability
        return self.linear.operator

    def measurement(self, y: Tensor) -> Tensor:
        """Coordinates U^T y of measurements (B, *m)."""
        return self.linear.forward.cast(self._operator.U_adjoint, y)

    def event(self, x: Tensor) -> Tensor:
        """Coordinates V^T x of events (B, *event)."""
        return self.linear.forward.cast(self._operator.V_adjoint, x)

    def back(self, z: Tensor, like: Tensor) -> Tensor:
        """Event V z of coordinates z, in the shape of like."""
        return self.linear.forward.cast(self._operator.V, z).reshape(like.shape)

    def sigma_y(self, method: str) -> float:
        """Return the noise of y as one number; Refused where it has no single one."""
        variance = self.linear.noise_variance(self.linear.y[None])
        if not self.linear.noise_is_gaussian or float(variance.min()) != float(variance.max()):
            raise Refused(
                f"{method} needs Gaussian noise with one sigma_y for all entries of y: other noise mixes in "
                "singular coordinates. Take guidance moment-matching."
            )
        return math.sqrt(float(variance.flatten()[0]))

    def shift(self, x: Tensor, level: Tensor, gain: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return V gain(s, level) U^T (y - A x) for a gain w / s at noise levels (B,).

        Unmeasured components get zero, and gain sees 1 for their s.
        """
        inside = self.measurement(self.linear.residual(x))
        s = self.values(inside)
        seen = s.abs() > ROUNDING * s.abs().max()
        gains = gain(torch.where(seen, s, 1.0), expand(level, inside))
        return self.back(torch.where(seen, gains, 0.0) * inside, x)


def has_spectrum(likelihood: LinearLikelihood) -> bool:
    """Whether the operator carries its singular value decomposition."""
    return all(hasattr(likelihood.operator, name) for name in ("U_adjoint", "V", "V_adjoint", "mask"))


def spectral(likelihood: Likelihood, method: str) -> Spectral:
    """Return the likelihood in singular coordinates; Refused where its operator has none."""
    linear = linear_of(likelihood, method)
    if not has_spectrum(linear):
        name = getattr(linear.operator, "name", type(linear.operator).__name__)
        raise Refused(
            f"{method} works in singular coordinates, but operator {name} has no decomposition (U_adjoint, "
            "V, V_adjoint, mask). Take guidance diffpir or moment-matching, which need its adjoint alone."
        )
    return Spectral(linear)
