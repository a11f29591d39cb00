"""Is it a noising x_t = alpha(t) x_0 + sigma(t) z, with the f, g, inverse and kernel of that alpha and sigma?

A lost factor of alpha is invisible where alpha is one, and a g that does not belong to sigma gives samples
that are too narrow or too wide by a few per cent: nobody sees that in a picture.
"""

from typing import Any

import torch
from torch import Tensor

from invsolve.errors import CheckFailed
from invsolve.testing.common import Check, demand, same_each_time

__all__ = ["CHECKS", "check_sde"]

_SLOPE = (
    1e-4  # relative: central differences of step 1e-5 are good to 1e-6 in float64 where the SDE is smooth
)
_EXACT = 1e-6  # relative, in float64


def _times() -> Tensor:
    return torch.linspace(0.01, 0.99, 41, dtype=torch.float64)


def _worst(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the expected value or absolute where that is below one."""
    return float(((got - expected).abs() / expected.abs().clamp_min(1.0)).max())


def _slope(values: Tensor) -> Tensor:
    """Central difference of values at (t + h, t - h), h = 1e-5."""
    return (values[0] - values[1]) / 2e-5


def _around(t: Tensor) -> Tensor:
    return torch.stack([t + 1e-5, t - 1e-5])


def works_on_tensors_of_times(sde: Any) -> str:  # noqa: ANN401 - whether it is an SDE is the question
    """Check that alpha, sigma, f, g and ratio map times to float64 values of the same shape."""
    t = _times().reshape(1, -1)
    for name in ("alpha", "sigma", "f", "g", "ratio"):
        got = getattr(sde, name)(t)
        demand(
            got.shape == t.shape and got.dtype == torch.float64,
            f"{name} of float64 times {tuple(t.shape)} has shape {tuple(got.shape)} and dtype {got.dtype}.",
        )
        demand(torch.isfinite(got).all(), f"{name} is NaN or infinite somewhere on [0.01, 0.99].")
    return "float64 values, one a time"


def lets_the_signal_fall(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check that alpha > 0 does not rise."""
    alpha = sde.alpha(_times())
    rise = float(alpha.diff().max())
    demand(rise <= 0, f"alpha must not rise with t, but it rises by {rise:.3g} between two times.")
    demand((alpha > 0).all(), f"alpha must be > 0, but it falls to {float(alpha.min()):.3g}.")
    return f"from {float(alpha[0]):.3g} to {float(alpha[-1]):.3g}"


def lets_the_noise_rise(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check that sigma / alpha rises, and ratio is that."""
    t = _times()
    ratio = sde.sigma(t) / sde.alpha(t)
    fall = -float(ratio.diff().min())
    demand(fall < 0, f"sigma / alpha must rise with t, but it falls by {fall:.3g} between two times.")
    error = _worst(sde.ratio(t) / ratio, torch.ones_like(t))
    demand(error <= _EXACT, f"ratio is {error:.3g} away from sigma / alpha.")
    return f"from {float(ratio[0]):.3g} to {float(ratio[-1]):.3g}"


def has_the_drift_of_its_signal(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check f = d log(alpha) / dt."""
    t = _times()
    error = _worst(sde.f(t), _slope(sde.alpha(_around(t)).log()))
    demand(error <= _SLOPE, f"f is {error:.3g} away from the slope of log(alpha).")
    return f"error {error:.1e}"


def has_the_diffusion_of_its_noise(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check g^2 = d(sigma^2)/dt - 2 f sigma^2, with f the slope of log(alpha)."""
    t = _times()
    f = _slope(sde.alpha(_around(t)).log())
    expected = _slope(sde.sigma(_around(t)) ** 2) - 2 * f * sde.sigma(t) ** 2
    error = float((sde.g(t) ** 2 / expected - 1).abs().max())
    demand(error <= _SLOPE, f"g^2 is {error:.3g} of itself away from d(sigma^2)/dt - 2 f sigma^2.")
    return f"error {error:.1e}"


def inverts_its_ratio(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check time(sigma(t) / alpha(t)) = t."""
    t = _times()
    error = float((sde.time(sde.sigma(t) / sde.alpha(t)) - t).abs().max())
    demand(error <= _EXACT, f"time(sigma / alpha) is {error:.3g} away from t.")
    return f"error {error:.1e}"


def has_steps_that_add_up(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check that noising in two short steps equals one long step, and leads from marginal to marginal."""
    r, s, t = _times()[:-20], _times()[10:-10], _times()[20:]
    (a1, b1), (a2, b2), (a, b) = sde.transition(r, s), sde.transition(s, t), sde.transition(r, t)
    error = max(_worst(a1 * a2, a), _worst(((a2 * b1) ** 2 + b2**2).sqrt() / b, torch.ones_like(b)))
    demand(error <= _EXACT, f"noising in two short steps is {error:.3g} away from one long step.")
    reached = ((a * sde.sigma(r)) ** 2 + b**2).sqrt() / sde.sigma(t)
    error = max(_worst(a * sde.alpha(r), sde.alpha(t)), _worst(reached, torch.ones_like(t)))
    demand(error <= _EXACT, f"a step leads {error:.3g} away from alpha and sigma at its end.")
    return f"error {error:.1e}"


def is_pure(sde: Any) -> str:  # noqa: ANN401 - see above
    """Check that evaluating changes nothing."""
    for name in ("alpha", "sigma", "f", "g"):
        said = same_each_time(name, getattr(sde, name), _times())
    return said


CHECKS: tuple[Check[Any], ...] = (  # Any: whatever a factory gave
    works_on_tensors_of_times,
    lets_the_signal_fall,
    lets_the_noise_rise,
    has_the_drift_of_its_signal,
    has_the_diffusion_of_its_noise,
    inverts_its_ratio,
    has_steps_that_add_up,
    is_pure,
)


def check_sde(sde: Any) -> None:  # noqa: ANN401 - see above
    """Check an SDE, given as an object or as a factory without arguments."""
    built = sde if hasattr(sde, "alpha") and not isinstance(sde, type) else sde()
    if not callable(getattr(built, "alpha", None)) or not callable(getattr(built, "sigma", None)):
        raise CheckFailed(
            f"an SDE has methods alpha(t) and sigma(t), but a {type(built).__name__} has not both."
        )
    for check in CHECKS:
        check(built)
