"""gamma, the weight of the likelihood: a number, or a schedule over the noise level lambda = sigma/alpha.

gamma = 1 is Bayes' rule. Guidance by a classifier is often given more weight late, where the classifier knows
most, or early, where the class is decided; so a Ramp goes from one value at high noise to another at low
noise, on a logarithmic scale around lambda = 1/2, half of the range of images in [0, 1]:

    gamma(lambda) = low + (high - low) lambda^2 / (lambda^2 + 1/4)

On the command line `--gamma 3:1` is 3 at high noise and 1 at low noise.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invsolve.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Gamma", "Ramp", "check_gamma", "gamma_at", "parse_gamma"]

MIDDLE = 0.5


@dataclass(frozen=True)
class Ramp:
    """From `high` at high noise to `low` at low noise; both >= 0."""

    high: float
    low: float

    def __call__(self, level: "Tensor") -> "Tensor":
        """gamma at noise levels (B,)."""
        return self.low + (self.high - self.low) * level**2 / (level**2 + MIDDLE**2)


Gamma = float | Ramp


def gamma_at(gamma: Gamma, level: "Tensor") -> "Tensor | float":
    """Value at noise levels (B,): a number, or one a row."""
    return gamma(level) if isinstance(gamma, Ramp) else gamma


def check_gamma(gamma: Gamma) -> Gamma:
    """Refuse what is not a finite number >= 0, or two of them."""
    ends = (gamma.high, gamma.low) if isinstance(gamma, Ramp) else (gamma,)
    if not all(0 <= value < math.inf for value in ends):
        raise InputError(f"gamma must be a number >= 0, but it is {gamma}.")
    return gamma


def parse_gamma(text: str) -> Gamma:
    """Read 2.5, or 3:1 for a Ramp from 3 at high noise to 1 at low noise."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0 <= value < math.inf for value in values):
        raise InputError(f"--gamma must be a number >= 0 or HIGH:LOW, such as 3:1, but it is {text}.")
    return values[0] if len(values) == 1 else Ramp(*values)
