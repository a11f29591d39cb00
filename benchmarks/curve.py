"""How few network calls twisted SMC needs: sliced distance over its floor against calls, on the mixtures.

    python benchmarks/curve.py [--dx 8] [--dy 1,2,4] [--calls 25,50,100,200,400,800] [--seeds 5] [--write]

The problems, figures and floors are those of `invsolve bench posterior`: 1,000 samples, means over seeds with
95 % intervals. Calls are forward evaluations of the prior per returned sample, particles counted; each brings
one vector-Jacobian product a measured entry. What a budget buys is in SETTINGS, the same in every dimension:
it was chosen on seeds 200 to 203 in 8 dimensions, and fewer than 24 steps lose at any number of particles.
--seeds takes one number, or one for each --dx.

A unit's row is kept in --out as soon as it is there; the same command goes on where it was stopped. --write
puts the table between <!-- curve --> and <!-- /curve --> of docs/benchmark.md and the plot into
docs/curve.png.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from distances import between_markers
from figures import interval, over, provenance, table

from invsolve.bench.mixtures import Problem, mixture_problem
from invsolve.bench.posterior import floor_figures, mixture_figures
from invsolve.bench.record import Record, Row
from invsolve.errors import InvsolveError
from invsolve.files import write_whole
from invsolve.samplers.smc import TwistedSMC
from invsolve.sde import VE
from invsolve.solve import solve

ROOT = Path(__file__).resolve().parent.parent
N = 1000  # samples, and particles of a set
SETTINGS = {25: (1, 24), 50: (2, 24), 100: (2, 49), 200: (4, 49), 400: (4, 99), 800: (8, 99)}  # ratio, steps


class Curve(NamedTuple):
    """One mixture: dimensions of x and of y, and how many seeds."""

    dx: int
    dy: int
    seeds: int


def draw(posed: Problem, calls: int, seed: int) -> Row:
    """Figures of 1,000 samples with that many calls each, and what was really called."""
    ratio, steps = SETTINGS[calls]
    sampler = TwistedSMC(steps=steps, particles=N, draws=N // ratio)
    sde = VE(sigma_max=max(VE.sigma_max, 5 * posed.prior.extent))
    result = solve(posed.prior, posed.likelihood, sde=sde, sampler=sampler, n=N, seed=seed)
    return mixture_figures(posed, result.samples) | {key: result.nfe[key] for key in ("forward", "vjp")}


def fill(record: Record, curves: Sequence[Curve], calls: Sequence[int]) -> None:
    """Compute the rows that are missing, seed by seed."""
    for seed in range(max(curve.seeds for curve in curves)):
        for dx, dy in [(curve.dx, curve.dy) for curve in curves if seed < curve.seeds]:
            missing = [c for c in (0, *calls) if key(dx, dy, seed, c) not in record.rows]
            posed = mixture_problem(dx, dy, seed) if missing else None
            for c in missing:
                assert posed is not None
                print(key(dx, dy, seed, c), file=sys.stderr, flush=True)
                row = draw(posed, c, seed) if c else floor_figures(mixture_figures, posed, N)
                record.add(key(dx, dy, seed, c), row)


def key(dx: int, dy: int, seed: int, calls: int) -> str:
    """Name of a row; no calls at all is the floor."""
    return f"mixture {dx}/{dy}, seed {seed}, {calls} calls"


def distances(record: Record, curve: Curve, calls: int) -> list[float]:
    """SW-1 of each seed; of no calls, its floor."""
    return [record.rows[key(curve.dx, curve.dy, seed, calls)]["sw1"] for seed in range(curve.seeds)]


def line(record: Record, curve: Curve, calls: Sequence[int]) -> list[str]:
    """One row of the table: SW-1 at each number of calls, and its ratio to the floor with its interval."""
    floors, cells = distances(record, curve, 0), []
    for c in calls:
        values = distances(record, curve, c)
        ratio, half = over(values, floors)
        cells.append(f"{statistics.mean(values):.3f} ({ratio:.2f} ± {half:.2f})")
    mean, half = interval(floors)
    return [f"{curve.dx} / {curve.dy}", str(curve.seeds), f"{mean:.3f} ± {half:.3f}", *cells]


def plot(record: Record, curves: Sequence[Curve], calls: Sequence[int]) -> bytes:
    """Mean SW-1 over mean floor against calls with its interval, a curve a mixture, as a PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, curve in enumerate(curves):
        floors = distances(record, curve, 0)
        ratios = [over(distances(record, curve, c), floors) for c in calls]
        middles, halves = zip(*ratios, strict=True)
        beside = [c * 1.02 ** (i - (len(curves) - 1) / 2) for c in calls]  # bars side by side
        label = f"$d_x$ = {curve.dx}, $d_y$ = {curve.dy}"
        axes.errorbar(beside, middles, halves, fmt="o-", markersize=4, capsize=2, linewidth=1, label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="network calls per returned sample", ylabel="SW-1 / floor", ylim=(0, None))
    axes.set_xticks(calls, [str(c) for c in calls])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    target = io.BytesIO()
    figure.savefig(target, dpi=150, format="png")
    return target.getvalue()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write table and plot where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dx", type=_numbers, default=[8])
    parser.add_argument("--dy", type=_numbers, default=[1, 2, 4])
    parser.add_argument("--calls", type=_numbers, default=list(SETTINGS))
    parser.add_argument("--seeds", type=_numbers, default=[5], help="problems, perhaps of each --dx")
    parser.add_argument("--out", type=Path, default=Path("curve.json"), help="rows of the units done so far")
    parser.add_argument("--write", action="store_true", help="write docs/benchmark.md and docs/curve.png")
    options = parser.parse_args(argv)
    if unknown := [c for c in options.calls if c not in SETTINGS]:
        parser.error(f"--calls {unknown}: no settings; there are some for {list(SETTINGS)}.")
    seeds = options.seeds * len(options.dx) if len(options.seeds) == 1 else options.seeds
    if len(seeds) != len(options.dx):
        parser.error(f"--seeds has {len(seeds)} numbers; one, or one for each --dx of {options.dx}, will do.")
    torch.set_num_threads(1)
    curves = [Curve(dx, dy, n) for dx, n in zip(options.dx, seeds, strict=True) for dy in options.dy]
    record = Record(options.out, {"samples": N}, overwrite=False)
    fill(record, curves, options.calls)
    head = ["d_x / d_y", "seeds", "floor", *(f"{c} calls" for c in options.calls)]
    lines = [line(record, curve, options.calls) for curve in curves]
    content = f"{table(head, lines)}\n\nSW-1 (over the floor ± 95 %). By `{provenance(argv)}`."
    print(content)
    if options.write:
        page = ROOT / "docs" / "benchmark.md"
        write_whole(page, between_markers(page.read_text(encoding="utf-8"), "curve", content).encode())
        write_whole(ROOT / "docs" / "curve.png", plot(record, curves, options.calls))


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
