"""The moving average of the weights, which is what is validated and shipped.

    average <- d average + (1 - d) weights        d = min(decay, (1 + n) / (10 + n)) at the n-th step

The ramp lets the average forget the random start (that of TensorFlow's ExponentialMovingAverage).
"""

from torch import Tensor

__all__ = ["average_weights", "decay_at"]


def decay_at(step: int, decay: float) -> float:
    """Give the decay of the n-th step, n = 0, 1, ...."""
    return min(decay, (1 + step) / (10 + step))


def average_weights(average: Tensor, weights: Tensor, step: int, decay: float) -> None:
    """Move the average, a flat vector, towards the weights in place."""
    average.lerp_(weights, 1 - decay_at(step, decay))
