"""Samples against a known posterior: the problems, the figures and their floor, shared by distances.py."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

from exact_problems import GAUSSIAN, Problem, class_problem, gaussian_problem, mixture_problem
from figures import interval
from torch import Tensor

from invsolve.diagnostics import Distance, distance, sliced_wasserstein
from invsolve.errors import Divergence, Refused
from invsolve.plugins import load
from invsolve.posterior import Posterior
from invsolve.solve import Sampler

PROBLEMS = (*GAUSSIAN, "mixture")
IN_THE_PLANE = {"mixture": mixture_problem, "class": class_problem}
SIDE = 8  # pixels of the images along an axis
MORE = 8  # times as many seeds in the plane, where a mode's share of the samples is left to chance


@dataclass(frozen=True)
class Run:
    """One set of samples against the posterior: its figures, its distance, its calls per sample."""

    figures: Distance
    distance: float
    calls: float


@cache
def problem(name: str, seed: int, side: int = SIDE) -> Problem:
    """One of PROBLEMS, or `class`; images have side x side pixels."""
    return IN_THE_PLANE[name](seed) if name in IN_THE_PLANE else gaussian_problem(name, side, seed)


def compared(name: str, seed: int, samples: Tensor, calls: float = 0.0, side: int = SIDE) -> Run:
    """Compare samples with the posterior of the named problem."""
    exact = problem(name, seed, side).exact
    figures = distance(samples, exact)
    if name not in IN_THE_PLANE:
        return Run(figures, figures.w2, calls)
    return Run(figures, sliced_wasserstein(samples, exact.sample(len(samples), 10_000 + seed)), calls)


def seeds_of(name: str, seeds: int) -> range:
    """Seeds of a problem: MORE times as many in the plane."""
    return range(seeds * MORE if name in IN_THE_PLANE else seeds)


@cache
def floor_of(name: str, n: int, seeds: int, side: int = SIDE) -> float:
    """Mean distance of exact sets of n samples, four for each of its seeds."""
    posed = [(seed, problem(name, seed, side).exact) for seed in seeds_of(name, seeds)]
    sets = [(seed, exact.sample(n, 1 + i)) for seed, exact in posed for i in range(4)]
    return statistics.mean(compared(name, seed, samples, side=side).distance for seed, samples in sets)


def builtin(kind: str) -> list[str]:
    """Names of the parts that come with invsolve."""
    return [part.name for part in load().parts if part.kind == kind and part.distribution == "invsolve"]


def drawn(
    name: str, posterior: Posterior, sampler: Sampler, n: int, seed: int, side: int = SIDE
) -> Run | None:
    """Draw n samples with a sampler and compare them; None where the parts refuse the problem."""
    try:
        samples = sampler(posterior, n, seed)
    except Refused:
        return None
    except Divergence:  # infinitely far: the table says so
        endless = Distance(*[float("inf")] * len(fields(Distance)))
        return Run(endless, float("inf"), posterior.calls.total() / n)
    return compared(name, seed, samples, posterior.calls.total() / n, side)


def with_interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval."""
    mean, half = interval(values)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if len(values) > 1 else "")


def entry(key: str, value: float, floor: float, prefix: str = "") -> dict[str, object]:
    """What distances.json has of a distance and its floor."""
    return {key: round(value, 4), f"{prefix}floor": round(floor, 4)}
