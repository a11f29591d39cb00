"""How few network calls twisted SMC needs: sliced distance over its floor against calls, on the mixtures.

    python benchmarks/curve.py [--dx 8] [--dy 1,2,4] [--calls 25,50,100,200,400,800] [--seeds 5] [--write]

The problems, figures and floors are those of `invsolve bench posterior`: 1,000 samples, means over seeds with
95 % intervals. Calls are forward evaluations of the prior per returned sample, particles counted; each brings
one vector-Jacobian product a measured entry. What a budget buys is in SETTINGS, the same in every dimension:
it was chosen on seeds 200 to 203 in 8 dimensions, and fewer than 24 steps lose at any number of particles.

A unit's row is kept in --out as soon as it is there; the same command goes on where it was stopped. --write
puts the table between <!-- curve --> and <!-- /curve --> of docs/benchmark.md and the plot into
docs/curve.png.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

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


def draw(posed: Problem, calls: int, seed: int) -> Row:
    """Figures of 1,000 samples with that many calls each, and what was really called."""
    ratio, steps = SETTINGS[calls]
    sampler = TwistedSMC(steps=steps, particles=N, draws=N // ratio)
    sde = VE(sigma_max=max(VE.sigma_max, 5 * posed.prior.extent))
    result = solve(posed.prior, posed.likelihood, sde=sde, sampler=sampler, n=N, seed=seed)
    return mixture_figures(posed, result.samples) | {key: result.nfe[key] for key in ("forward", "vjp")}


def fill(record: Record, problems: Sequence[tuple[int, int]], calls: Sequence[int], seeds: int) -> None:
    """Compute the rows that are missing, seed by seed."""
    for seed in range(seeds):
        for dx, dy in problems:
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


def distances(record: Record, dx: int, dy: int, calls: int, seeds: int) -> list[float]:
    """SW-1 of each seed; of no calls, its floor."""
    return [record.rows[key(dx, dy, seed, calls)]["sw1"] for seed in range(seeds)]


def line(record: Record, dx: int, dy: int, calls: Sequence[int], seeds: int) -> list[str]:
    """One row of the table: SW-1 at each number of calls, and its ratio to the floor with its interval."""
    floors, cells = distances(record, dx, dy, 0, seeds), []
    for c in calls:
        values = distances(record, dx, dy, c, seeds)
        ratio, half = over(values, floors)
        cells.append(f"{statistics.mean(values):.3f} ({ratio:.2f} ± {half:.2f})")
    mean, half = interval(floors)
    return [f"{dx} / {dy}", str(seeds), f"{mean:.3f} ± {half:.3f}", *cells]


def plot(record: Record, problems: Sequence[tuple[int, int]], calls: Sequence[int], seeds: int) -> bytes:
    """Mean SW-1 over mean floor against calls with its interval, a curve a mixture, as a PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, (dx, dy) in enumerate(problems):
        floors = distances(record, dx, dy, 0, seeds)
        ratios = [over(distances(record, dx, dy, c, seeds), floors) for c in calls]
        middles, halves = zip(*ratios, strict=True)
        beside = [c * 1.02 ** (i - (len(problems) - 1) / 2) for c in calls]  # bars side by side
        label = f"$d_x$ = {dx}, $d_y$ = {dy}"
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
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("curve.json"), help="rows of the units done so far")
    parser.add_argument("--write", action="store_true", help="write docs/benchmark.md and docs/curve.png")
    options = parser.parse_args(argv)
    if unknown := [c for c in options.calls if c not in SETTINGS]:
        parser.error(f"--calls {unknown}: no settings; there are some for {list(SETTINGS)}.")
    torch.set_num_threads(1)
    problems = [(dx, dy) for dx in options.dx for dy in options.dy]
    record = Record(options.out, {"samples": N}, overwrite=False)
    fill(record, problems, options.calls, options.seeds)
    head = ["d_x / d_y", "seeds", "floor", *(f"{c} calls" for c in options.calls)]
    lines = [line(record, dx, dy, options.calls, options.seeds) for dx, dy in problems]
    content = f"{table(head, lines)}\n\nSW-1 (over the floor ± 95 %). By `{provenance(argv)}`."
    print(content)
    if options.write:
        page = ROOT / "docs" / "benchmark.md"
        write_whole(page, between_markers(page.read_text(encoding="utf-8"), "curve", content).encode())
        write_whole(ROOT / "docs" / "curve.png", plot(record, problems, options.calls, options.seeds))


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
