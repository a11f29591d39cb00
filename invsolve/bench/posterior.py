"""`invsolve bench posterior`: how far each method is from posteriors that are known exactly.

Mixtures (bench/mixtures.py) are measured by the sliced Wasserstein distances SW-1 and SW-2, images
(bench/images.py) by the error of the mean, the ratio of standard deviations, coverage and chi2. Every figure
stands beside its floor, what sets drawn from the posterior itself give; a distance to a finite set is the
mean over four such sets. A unit of work is one method on one problem of one seed; its row is kept as soon as
it is there, so a benchmark that was stopped goes on where it was. A method that diverges or fails is counted
with its reason, never dropped.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.bench.images import check_image, image_problem
from invsolve.bench.methods import method
from invsolve.bench.mixtures import Problem, check_mixture, mixture_problem
from invsolve.bench.peers import PeerFailed
from invsolve.bench.record import Record, Row
from invsolve.diagnostics import distance, sliced_wasserstein
from invsolve.errors import Divergence, InputError, Refused
from invsolve.likelihood import measured_entries

__all__ = [
    "FLOOR",
    "IMAGE_FIGURES",
    "MIXTURE_FIGURES",
    "Plan",
    "Unit",
    "floor_figures",
    "measure",
    "mixture_figures",
    "rows_of",
]

Figures = Callable[[Problem, Tensor], dict[str, float]]
FLOOR = "exact samples"
MIXTURE_FIGURES = ("sw1", "sw2")
IMAGE_FIGURES = ("mean_error", "sd_ratio", "coverage90", "chi2")
_SETS = 4  # exact sets that each distance and each floor is a mean over
_SLICES = 1000
_MANY_DERIVATIVES = ("smc",)  # one a measured entry and step: on images only where they are asked for


@dataclass(frozen=True)
class Plan:
    """What to measure: every method on every problem, for seeds 0 .. seeds - 1."""

    mixtures: tuple[tuple[int, int], ...]  # (d_x, d_y) of each
    images: tuple[str, ...]
    side: int
    methods: tuple[str, ...]
    asked: bool  # whether the methods were named, or are all there are
    seeds: int
    samples: int
    steps: int | None

    def __post_init__(self) -> None:
        """Refuse a plan that measures nothing."""
        if self.seeds < 1 or self.samples < 2:
            raise InputError(f"seeds must be >= 1 and samples >= 2, but are {self.seeds} and {self.samples}.")
        if not (self.mixtures or self.images):
            raise InputError("there is no problem to measure on: give --dx and --dy, or --images.")
        for dx, dy in self.mixtures:  # all before the first hour, not after it
            check_mixture(dx, dy)
        for kind in self.images:
            check_image(kind, self.side)
        for name in self.methods:
            method(name)

    def units(self) -> Iterator["Unit"]:
        """Units of work, problem by problem and seed by seed; the floor is a method like any other."""
        for seed in range(self.seeds):
            for dx, dy in self.mixtures:
                for name in (FLOOR, *self.methods):
                    yield Unit(f"mixture {dx}/{dy}", seed, name, (dx, dy))
            for kind in self.images:
                for name in (FLOOR, *self.methods):
                    if self.asked or name not in _MANY_DERIVATIVES:
                        yield Unit(f"{kind} {self.side}", seed, name, (kind, self.side))


@dataclass(frozen=True)
class Unit:
    """One method on one problem of one seed; what is the mixture's (d_x, d_y) or the image's (kind, side)."""

    problem: str
    seed: int
    method: str
    what: tuple[int, int] | tuple[str, int]

    @property
    def key(self) -> str:
        """Name of its row."""
        return f"{self.problem}, seed {self.seed}, {self.method}"

    def pose(self) -> Problem:
        """Build the problem."""
        kind, size = self.what
        if isinstance(kind, int):
            return mixture_problem(kind, size, self.seed)
        return image_problem(kind, size, self.seed)


def measure(plan: Plan, record: Record) -> Iterator[Unit]:
    """Fill the record, yielding each unit before it is computed; units it has already are skipped."""
    key, posed = "", None
    for unit in plan.units():
        if unit.key in record.rows:
            continue
        yield unit
        if posed is None or key != f"{unit.problem} {unit.seed}":
            key, posed = f"{unit.problem} {unit.seed}", unit.pose()
        about = {"problem": unit.problem, "seed": unit.seed, "method": unit.method}
        record.add(unit.key, about | _row(plan, unit, posed))


def _row(plan: Plan, unit: Unit, posed: Problem) -> Row:
    """Figures, calls and seconds of a unit; or why there are none."""
    figures = mixture_figures if isinstance(unit.what[0], int) else _image_figures
    if unit.method == FLOOR:
        return floor_figures(figures, posed, plan.samples)
    started = time.perf_counter()
    try:
        result = method(unit.method).draw(posed, plan.samples, unit.seed, plan.steps)
    except Refused as error:
        return {"refused": str(error)}
    except Divergence as error:
        return {"diverged": str(error)}
    except PeerFailed as error:
        return {"failed": str(error)}
    seconds = time.perf_counter() - started
    if not torch.isfinite(result.samples).all():
        return {"diverged": "samples are NaN or infinite"}
    return figures(posed, result.samples) | dict(result.nfe) | {"seconds": seconds}


def floor_figures(figures: Figures, posed: Problem, n: int) -> dict[str, float]:
    """Figures of exact sets of n samples, means over four of them."""
    sets = [figures(posed, _exact(posed, n, 100 + i)) for i in range(_SETS)]
    return {name: sum(each[name] for each in sets) / _SETS for name in sets[0]}


def _exact(posed: Problem, n: int, index: int) -> Tensor:
    return posed.exact.sample(n, 1_000_000 + index)  # seeds of its own: far from those of the methods


def mixture_figures(posed: Problem, samples: Tensor) -> dict[str, float]:
    """Sliced Wasserstein distances to exact sets."""
    sets = [_exact(posed, len(samples), i) for i in range(_SETS)]
    return {
        f"sw{order}": sum(sliced_wasserstein(samples, each, order, _SLICES) for each in sets) / _SETS
        for order in (1, 2)
    }


def _image_figures(posed: Problem, samples: Tensor) -> dict[str, float]:
    """Distances of invsolve.diagnostics, and |A x - y|^2 / (m sigma_y^2) over the measured entries."""
    likelihood = posed.likelihood
    known = measured_entries(likelihood.operator, tuple(samples.shape[1:]), likelihood.y)
    z = (likelihood.operator.A(samples) - likelihood.y) / likelihood.sigma_y
    return distance(samples, posed.exact).items() | {"chi2": float(z[:, known].square().mean())}


def rows_of(record: Record, plan: Plan) -> Mapping[tuple[str, str], Sequence[Row]]:
    """Rows of the plan by problem and method, in its order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for unit in plan.units():
        if unit.key in record.rows:
            found.setdefault((unit.problem, unit.method), []).append(record.rows[unit.key])
    return found
