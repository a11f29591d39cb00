"""The samplers' part of distances.py: each with its defaults on the problems whose posterior is known."""

import statistics
import sys
from collections.abc import Sequence

from compared import PROBLEMS, Run, drawn, entry, floor_of, problem, seeds_of, with_interval
from exact_problems import GAUSSIAN
from figures import table

from invsolve.plugins import load
from invsolve.posterior import Posterior

SMALL = 4  # pixels along an axis: some samplers take a derivative for each measured entry and particle

SamplerRuns = dict[tuple[str, str], list[Run]]  # (sampler, problem) -> a run for each seed


def sampler_runs(names: Sequence[str], n: int, seeds: int) -> SamplerRuns:
    """Run every sampler, with its defaults, on every problem that it does not refuse."""
    found: SamplerRuns = {}
    for sampler in names:
        for name in PROBLEMS:
            print(f"{sampler} on {name}", file=sys.stderr, flush=True)
            runs = [sampled(name, sampler, n, seed) for seed in seeds_of(name, seeds)]
            if kept := [r for r in runs if r is not None]:
                found[sampler, name] = kept
    return found


def sampled(name: str, sampler: str, n: int, seed: int) -> Run | None:
    """Draw n samples with a sampler as it is by default."""
    posed, built = problem(name, seed, SMALL), load().build("sampler", sampler)
    assert callable(built)
    return drawn(name, Posterior(posed.prior, posed.likelihood), built, n, seed, SMALL)


def sampler_table(runs: SamplerRuns, n: int, seeds: int) -> str:
    """One row a sampler and problem."""
    head = ["sampler", "problem", "distance", "floor", "mean error", "sd ratio", "coverage90"]
    rows = []
    for (sampler, name), each in runs.items():
        figures = [r.figures.items() for r in each]
        of = [statistics.mean(f[key] for f in figures) for key in ("mean_error", "sd_ratio", "coverage90")]
        far = with_interval([r.distance for r in each])
        calls = statistics.mean(r.calls for r in each)
        row = [sampler, name, far, f"{floor_of(name, n, seeds, SMALL):.3f}", *(f"{v:.2f}" for v in of)]
        rows.append([*row, f"{calls:.0f}"])
    return table([*head, "forward + vjp"], rows)


def sampler_summaries(runs: SamplerRuns, n: int, seeds: int) -> dict[str, object]:
    """Return what `invsolve list` shows of a sampler: W2 over the Gaussian problems, SW1 on the mixture."""
    found: dict[str, object] = {}
    for sampler in dict.fromkeys(name for name, _ in runs):
        each = {name: runs[sampler, name] for name in PROBLEMS if (sampler, name) in runs}
        gaussian = [name for name in GAUSSIAN if name in each]
        words, figures = list[str](), dict[str, object]()
        if gaussian:
            w2 = statistics.mean(r.distance for name in gaussian for r in each[name])
            lowest = statistics.mean(floor_of(name, n, seeds, SMALL) for name in gaussian)
            words.append(f"W2 {w2:.3f} to the exact posterior (exact samples {lowest:.3f})")
            figures |= entry("w2", w2, lowest)
        if "mixture" in each:
            sw1 = statistics.mean(r.distance for r in each["mixture"])
            lowest = floor_of("mixture", n, seeds, SMALL)
            words.append(f"SW1 {sw1:.3f} on a mixture (exact samples {lowest:.3f})")
            figures |= entry("sw1", sw1, lowest, "mixture_")
        found[sampler] = figures | {"summary": "; ".join(words)}
    return found
