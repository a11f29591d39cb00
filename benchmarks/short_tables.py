"""The tables of distances.py in short, for README.md: a row a method, its distances over their floors."""

import statistics
from collections.abc import Iterable, Mapping

from compared import PROBLEMS, SIDE, Run, floor_of
from distances_of_samplers import SMALL
from figures import table

Grouped = Mapping[tuple[str, str], Iterable[Run]]  # (method, problem) -> its runs


def short_table(kind: str, runs: Grouped, n: int, seeds: int, side: int) -> str:
    """One row a method: mean distance over the mean of exact samples, and the calls of a sample."""
    floors = {name: floor_of(name, n, seeds, side) for name in PROBLEMS}
    rows = []
    for method in dict.fromkeys(name for name, _ in runs):
        each = {name: list(runs[method, name]) for name in PROBLEMS if (method, name) in runs}
        far = [_over(each.get(name, []), floors[name]) for name in PROBLEMS]
        rows.append(
            [method, *far, _span([statistics.mean(r.calls for r in found) for found in each.values()])]
        )
    return table([kind, *PROBLEMS, "forward + vjp"], rows)


def _over(runs: list[Run], floor: float) -> str:
    return f"{statistics.mean(r.distance for r in runs) / floor:.2f}" if runs else "refused"


def _span(calls: list[float]) -> str:
    low, high = round(min(calls)), round(max(calls))
    return f"{low}" if low == high else f"{low} to {high}"


def short_guidances(runs: Mapping[tuple[str, str], Mapping[str, Iterable[Run]]], n: int, seeds: int) -> str:
    """The guidances' table, of those that take an operator; the mean is over SDEs too."""
    operated = {key: by_sde for key, by_sde in runs.items() if key[1] in PROBLEMS}
    flat = {key: [r for each in by_sde.values() for r in each] for key, by_sde in operated.items()}
    return short_table("guidance", flat, n, seeds, SIDE)


def short_samplers(runs: Grouped, n: int, seeds: int) -> str:
    """The samplers' table."""
    return short_table("sampler", runs, n, seeds, SMALL)
