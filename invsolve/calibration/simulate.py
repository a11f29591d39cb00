"""Problems whose truth is a draw of the prior, and what a solver makes of them.

    x_0 ~ prior,    y = A x_0 + sigma_y n,    samples = solve(y)

A prior that can draw itself (a method sample(n, seed), as exact priors have) does so; of a learned one the
default sampler draws without a likelihood, truths in 200 steps, so that next to nothing of its error is in
them, and with VE whatever the solver's SDE, so that all solvers are given the same problems. Problem k
depends on the seed and k alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from invsolve.calibration.figures import Figures, Quantities, choose_quantities, figures_of
from invsolve.errors import Divergence, InputError
from invsolve.images import load_image
from invsolve.likelihood import Gaussian, Operator, measured_entries
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.result import Result
from invsolve.rng import Noise, seed_of
from invsolve.run.inputs import expand
from invsolve.samplers.pc import PC

__all__ = ["Draw", "Experiment", "Outcome", "Simulator", "Truths", "photos"]

_STEPS = 200  # of a truth's walk
Truths = Callable[[int], Tensor]  # number of the problem -> truth (*event)
Draw = Callable[[Gaussian, int, int], Result]  # likelihood, samples, seed


@dataclass(frozen=True)
class Simulator:
    """Truths and measurements of problem 0, 1, ... of one seed; truths other than the prior's draws are
    given."""

    prior: Prior
    operator: Operator
    sigma_y: float
    shape: tuple[int, ...]
    seed: int = 0
    truths: Truths | None = None

    def __post_init__(self) -> None:
        """Refuse a noise level that is not positive."""
        if not 0 < self.sigma_y < math.inf:
            raise InputError(f"sigma_y must be a number > 0, but it is {self.sigma_y}.")

    def truth(self, k: int) -> Tensor:
        """Truth of problem k, (*event)."""
        if self.truths is None:
            return self.draw("truth", k)
        given = self.truths(k).to(self.prior.device, self.prior.dtype)
        if tuple(given.shape) != self.shape:
            raise InputError(f"truth {k} has shape {tuple(given.shape)}, but the operator's is {self.shape}.")
        return given

    def draw(self, purpose: str, k: int) -> Tensor:
        """Draw k of the prior for a purpose, (*event)."""
        exact = getattr(self.prior, "sample", None)
        if exact is not None:
            drawn: Tensor = exact(1, seed_of("calibration", purpose, self.seed, k))[0]
            return drawn
        free = Posterior(self.prior, None, shape=self.shape)
        walk = PC(steps=_STEPS) if purpose == "truth" else PC()
        return walk(free, 1, seed_of("calibration", purpose, self.seed), k)[0]

    @torch.no_grad()
    def measure(self, k: int, truth: Tensor) -> Tensor:
        """Measurement of problem k: noise on the measured entries alone, (*m)."""
        clean = self.operator.A(truth[None]).to(truth.dtype)[0]
        key = ("calibration measurement", 1, tuple(clean.shape), k, clean.dtype, clean.device)
        return clean + self.sigma_y * Noise(self.seed, *key)()[0] * self.known

    @cached_property
    def known(self) -> Tensor:
        """Measured entries, boolean (*m)."""
        return measured_entries(self.operator, self.shape, self.like)

    @property
    def like(self) -> Tensor:
        """An image of zeros, of the prior's type, (*event)."""
        return torch.zeros(self.shape, dtype=self.prior.dtype, device=self.prior.device)


@dataclass(frozen=True)
class Outcome:
    """What one problem tells; no figures where the solver diverged."""

    figures: Figures | None
    nfe: Mapping[str, float]  # calls a sample
    seconds: float = 0.0
    chosen: str = ""  # what "auto" took, and why


@dataclass(frozen=True)
class Experiment:
    """A simulator and a solver; assumed is the sigma_y that the solver is told, by default the true one."""

    simulator: Simulator
    solver: Draw
    samples: int
    assumed: float | None = None

    def __post_init__(self) -> None:
        """Refuse fewer than two samples: they have no spread."""
        if self.samples < 2:
            raise InputError(f"samples must be at least 2, to have a spread, but it is {self.samples}.")

    @cached_property
    def quantities(self) -> Quantities:
        """Numbers of an image that are ranked."""
        own = self.simulator
        return choose_quantities(own.operator, own.like, own.seed)

    def outcome(self, k: int) -> Outcome:
        """Pose problem k, solve it and look."""
        own = self.simulator
        truth = own.truth(k)
        y = own.measure(k, truth)
        told = Gaussian(y, own.operator, own.sigma_y if self.assumed is None else self.assumed)
        try:
            result = self.solver(told, self.samples, seed_of("calibration solver", own.seed, k))
        except Divergence:
            return Outcome(None, {})
        draws = torch.cat([truth[None], result.samples.to(truth)])
        gaps = draws - own.draw("reference", k)
        figures = figures_of(draws, gaps, self._residual(draws, y), self.quantities)
        return Outcome(figures, result.nfe, result.seconds, result.chosen)

    @torch.no_grad()
    def _residual(self, draws: Tensor, y: Tensor) -> Tensor:
        """Residual of each draw on the measured entries, in units of the true sigma_y, (S + 1, m)."""
        own = self.simulator
        return (own.operator.A(draws).to(y) - y)[:, own.known] / own.sigma_y


def photos(folder: Path, shape: tuple[int, ...], seed: int) -> Truths:
    """Truths that are crops of a folder's photos: photo after photo, each at a place of its own."""
    files = expand([str(folder)])

    def truth(k: int) -> Tensor:
        path = files[k % len(files)]
        pixels = torch.from_numpy(load_image(path).pixels)
        room = [have - want for have, want in zip(pixels.shape, shape, strict=True)]
        if room[0] or min(room) < 0:
            raise InputError(
                f"{path} has shape {tuple(pixels.shape)}; truths of {shape} cannot be cut from it."
            )
        rng = torch.Generator().manual_seed(seed_of("calibration crop", seed, k))
        top, left = (int(torch.randint(free + 1, (), generator=rng)) for free in room[1:])
        return pixels[:, top : top + shape[1], left : left + shape[2]]

    return truth
