"""Is it a denoiser D(x, sigma) = E[x_0 | x_0 + sigma n = x] that samplers can lean on?

Range and noise level have to be adapted together, rows must not meet, and the derivative must be there:
guidance differentiates the denoiser. What "denoises" means is measured where clean signals can be had.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import CheckFailed
from invsolve.images import load_image
from invsolve.testing.common import Check, apart, demand, draw, same_each_time

__all__ = ["CHECKS", "PriorCase", "check_prior", "prior_case"]

_ROUNDING = (
    1e-4  # of the norm: a float32 network differs by 1e-6 between batch sizes, less a hundredfold margin
)
_DERIVATIVE = 0.1  # of itself: a network in bfloat16 has differences good to some per cent
_NO_WORSE = 1.05  # of the noise: at the lowest levels a right denoiser gains nothing, and chance decides
_SIDES = (32, 40)  # height and width for a prior of any size


@dataclass(frozen=True)
class PriorCase:
    """A prior, and clean signals (B, *event) it should know, where there are any."""

    prior: Any  # Any: whether it is a Prior is the question
    images: Tensor | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of an event to test with."""
        if self.images is not None:
            return tuple(self.images.shape[1:])
        if self.prior.shape is None:
            return (8,)
        sides: Iterator[int] = iter(_SIDES)
        return tuple(next(sides, 32) if side is None else side for side in self.prior.shape)

    @cached_property
    def clean(self) -> Tensor:
        """Two signals: clean ones where there are any, else smooth noise around the centre."""
        if self.images is not None:
            return self.images[:2]
        return torch.as_tensor(self.prior.centre).to(self.device) + 0.1 * self.drawn("clean")

    @property
    def dtype(self) -> torch.dtype:
        """Of the prior's samples."""
        return getattr(self.prior, "dtype", torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return getattr(self.prior, "device", torch.device("cpu"))

    def drawn(self, key: str, n: int = 2) -> Tensor:
        """Standard normal numbers (n, *shape) where the prior computes."""
        return draw(self.shape, n, key, self.dtype).to(self.device)

    def noisy(self, level: float, key: str = "noise") -> tuple[Tensor, Tensor]:
        """Clean signals with noise of a level, and sigma (2,) in float64."""
        x = self.clean + level * self.drawn(key)
        return x.to(self.dtype), torch.full((2,), level, dtype=torch.float64, device=self.device)

    def levels(self) -> list[float]:
        """Eight noise levels over the range the prior states, at most 0.002 to 50."""
        low, high = max(self.prior.sigma_min, 0.002), min(self.prior.sigma_max, 50.0)
        return [low * (high / low) ** (i / 7) for i in range(8)]

    @property
    def middle(self) -> float:
        """A noise level in the middle of the range."""
        return self.levels()[3]


def states_what_it_is(case: PriorCase) -> str:
    """Check shape, sigma_min, sigma_max and centre."""
    p = case.prior
    for name in ("denoise", "shape", "sigma_min", "sigma_max", "centre"):
        demand(hasattr(p, name), f"the prior has no {name}.")
    demand(
        0 <= p.sigma_min < p.sigma_max,
        f"sigma_min {p.sigma_min} is not in [0, sigma_max), sigma_max {p.sigma_max}.",
    )
    return f"shape {p.shape}, sigma from {p.sigma_min:.3g} to {p.sigma_max:.3g}"


def keeps_shape_and_dtype(case: PriorCase) -> str:
    """Check that D has the shape and the dtype of x, at sigma in float64."""
    x, sigma = case.noisy(case.middle)
    got = case.prior.denoise(x, sigma)
    demand(got.shape == x.shape, f"denoise of {tuple(x.shape)} has shape {tuple(got.shape)}.")
    demand(got.dtype == x.dtype, f"denoise turns {x.dtype} into {got.dtype}.")
    return f"{tuple(x.shape)} {x.dtype}"


def is_finite_over_its_range(case: PriorCase) -> str:
    """Check that D is finite from sigma_min to sigma_max."""
    for level in case.levels():
        got = case.prior.denoise(*case.noisy(level))
        demand(torch.isfinite(got).all(), f"denoise is NaN or infinite at sigma {level:.3g}.")
    return f"at sigma {case.levels()[0]:.3g} to {case.levels()[-1]:.3g}"


def leaves_clean_signals(case: PriorCase) -> str:
    """Check that D(x, s) - x is no larger than the noise at the smallest s: root mean square at most 2 s."""
    level = case.levels()[0]
    x, sigma = case.noisy(level)
    moved = float((case.prior.denoise(x, sigma) - x).square().mean().sqrt()) / level
    demand(
        moved <= 2,
        f"at sigma {level:.3g} denoise moves x by {moved:.3g} sigma; it must tend to x, at most 2.",
    )
    return f"moves x by {moved:.2f} sigma at sigma {level:.3g}"


def keeps_rows_apart(case: PriorCase) -> str:
    """Check that a row depends on its own x and its own sigma alone."""
    x, _ = case.noisy(case.middle)
    sigma = torch.tensor([case.middle, 2 * case.middle], dtype=torch.float64, device=case.device)
    both = case.prior.denoise(x, sigma)
    worst = max(apart(case.prior.denoise(x[i : i + 1], sigma[i : i + 1]), both[i : i + 1]) for i in range(2))
    allowed = max(_ROUNDING, case.prior.precision)
    demand(worst <= allowed, f"denoise mixes rows: a row changes by {worst:.3g} of its norm beside another.")
    return f"change {worst:.1e}"


def is_pure(case: PriorCase) -> str:
    """Check that denoise changes nothing and repeats itself: no dropout, no noise of its own."""
    return same_each_time("denoise", case.prior.denoise, *case.noisy(case.middle))


def has_a_derivative(case: PriorCase) -> str:
    """Check the vector-Jacobian product of D against a difference along a random direction."""
    x, sigma = case.noisy(case.middle)
    direction, v = case.drawn("direction"), case.drawn("v")
    v = v / v.norm() + direction / direction.norm()  # the product is not near zero
    with torch.enable_grad():
        live = x.clone().requires_grad_(True)
        out = case.prior.denoise(live, sigma)
        demand(out.requires_grad, "denoise has no derivative: it detaches x, or runs without autograd.")
        (pulled,) = torch.autograd.grad((out * v).sum(), live)
    demand(torch.isfinite(pulled).all(), "the derivative of denoise is NaN or infinite.")
    h = 0.1 * case.middle
    ahead, behind = (case.prior.denoise(x + sign * h * direction, sigma) for sign in (1, -1))
    expected = float(((ahead - behind) * v).sum()) / (2 * h)
    error = abs(float((pulled * direction).sum()) - expected) / max(abs(expected), 1e-12)
    demand(
        error <= _DERIVATIVE, f"the derivative of denoise is {error:.3g} of itself away from its difference."
    )
    return f"error {error:.1e}"


def removes_noise(case: PriorCase) -> str:
    """Check that D is nearer to clean signals than the noisy ones are, at every level of its range."""
    if case.images is None:
        return "not measured: no clean signals; pass images (invsolve check --images FOLDER)"
    clean, left = case.images, 1.0
    for level in case.levels():
        x = clean + level * case.drawn("noise", len(clean))
        sigma = torch.full((len(clean),), level, dtype=torch.float64, device=case.device)
        left = float((case.prior.denoise(x, sigma) - clean).norm() / (x - clean).norm())
        demand(
            left < _NO_WORSE, f"at sigma {level:.3g} denoise leaves {left:.3g} of the noise in clean signals."
        )
    demand(left < 0.9, f"at its highest noise level denoise leaves {left:.3g} of the noise in clean signals.")
    return f"leaves {left:.1%} of the noise at the highest level"


CHECKS: tuple[Check[PriorCase], ...] = (
    states_what_it_is,
    keeps_shape_and_dtype,
    is_finite_over_its_range,
    leaves_clean_signals,
    keeps_rows_apart,
    is_pure,
    has_a_derivative,
    removes_noise,
)


def prior_case(prior: Any, images: Tensor | None = None) -> PriorCase:  # noqa: ANN401 - see PriorCase
    """Make the case of a prior, an object or a factory; clean signals are its own samples if it has any."""
    built = prior if hasattr(prior, "denoise") and not isinstance(prior, type) else prior()
    if not hasattr(built, "denoise"):
        raise CheckFailed(f"a prior has a method denoise(x, sigma), but a {type(built).__name__} has none.")
    known = _known(built) if images is None else images
    return PriorCase(built, known if known is None else known.to(PriorCase(built).device))


def _known(prior: Any) -> Tensor | None:  # noqa: ANN401 - see PriorCase
    """Signals that a prior should know: its own samples, or photos for a colour prior of any size."""
    draws: Callable[[int, int], Tensor] | None = getattr(prior, "sample", None)
    if draws is not None:
        return draws(16, 0)
    if tuple(getattr(prior, "shape", None) or ()) != (3, None, None):
        return None
    photo = torch.from_numpy(load_image(Path(__file__).parents[1] / "samples" / "astronaut.png").pixels)
    crops = [photo[:, y : y + 64, x : x + 80] for y in (40, 120) for x in (40, 120)]
    return torch.stack(crops).to(getattr(prior, "dtype", torch.float32))


def check_prior(prior: Any, images: Tensor | None = None) -> None:  # noqa: ANN401 - see PriorCase
    """Check a prior, on clean images (B, *event) where they are given."""
    case = prior_case(prior, images)
    for check in CHECKS:
        check(case)
