"""How far each built-in guidance and predictor is from the posterior, where the posterior is known.

    python benchmarks/distances.py [--n 2000] [--steps 100] [--seeds 3] [--write]

Guidances: DPM-Solver++ walks on the problems of exact_problems.py, images of 8 x 8 pixels, under VE, VP and
sub-VP; a seed draws truth, noise and samples. The figures are those of invsolve.diagnostics, means over seeds
and, for the distance, half the width of their 95 % interval. The distance is W2 between the Gaussians of both
sets of moments over the posterior's size; on the mixture, where moments do not tell modes apart, it is the
sliced W1. Beside it its floor: the mean over exact sets of the same n. PiGDM gets the right variance of the
data, DPS its default step size.

Predictors: the sd ratio, 1 for a right posterior, after 25, 50 and 100 steps with Exact guidance.

--write puts the tables between <!-- distances --> and <!-- /distances --> in README.md, and a summary of each
method into invsolve/distances.json, which `invsolve list` shows.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import torch
from exact_problems import GAUSSIAN, Problem, gaussian_problem, mixture_problem
from figures import interval, provenance, table
from torch import Tensor

from invsolve.diagnostics import Distance, distance, sliced_wasserstein
from invsolve.errors import Divergence, InputError, InvsolveError, Refused
from invsolve.files import write_whole
from invsolve.guidance import Exact, Guidance
from invsolve.plugins import load
from invsolve.posterior import Posterior
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import DPMpp, Predictor
from invsolve.sde import SDE, VE, VP, SubVP

ROOT = Path(__file__).parents[1]
SDES: dict[str, SDE] = {"VE": VE(), "VP": VP(), "sub-VP": SubVP()}
PROBLEMS = (*GAUSSIAN, "mixture")
PREDICTOR_STEPS = (25, 50, 100)
OTHER = {"classifier"}  # for likelihoods without an operator


@dataclass(frozen=True)
class Run:
    """One set of samples against the posterior: its figures, its distance, its calls per sample."""

    figures: Distance
    distance: float
    calls: float


@cache
def problem(name: str, seed: int) -> Problem:
    """One of PROBLEMS; images have 8 x 8 pixels."""
    return mixture_problem(seed) if name == "mixture" else gaussian_problem(name, 8, seed)


def compared(name: str, seed: int, samples: Tensor, calls: float = 0.0) -> Run:
    """Compare samples with the posterior of the named problem."""
    exact = problem(name, seed).exact
    figures = distance(samples, exact)
    if name != "mixture":
        return Run(figures, figures.w2, calls)
    return Run(figures, sliced_wasserstein(samples, exact.sample(len(samples), 10_000 + seed)), calls)


@cache
def floor_of(name: str, n: int, seeds: int) -> float:
    """Mean distance of exact sets of n samples, four for each seed."""
    sets = ((seed, problem(name, seed).exact.sample(n, 1 + i)) for seed in range(seeds) for i in range(4))
    return statistics.mean(compared(name, seed, samples).distance for seed, samples in sets)


# ---- guidances


def guidance_named(name: str, variance: float) -> Guidance:
    """Build a guidance; the one that wants to be told the variance of the data is told it."""
    registry = load()
    wants = any(option.key == "data_variance" for option in registry.options("guidance", name))
    guidance = registry.build("guidance", name, options={"data_variance": variance} if wants else {})
    assert isinstance(guidance, Guidance)
    return guidance


def builtin(kind: str) -> list[str]:
    """Names of the parts that come with invsolve."""
    return [part.name for part in load().parts if part.kind == kind and part.distribution == "invsolve"]


def run(name: str, guidance: str, sde: SDE, n: int, steps: int, seed: int) -> Run | None:
    """Draw n samples and compare them; None where the guidance refuses the problem."""
    posed = problem(name, seed)
    method = guidance_named(guidance, posed.variance)
    posterior = Posterior(posed.prior, posed.likelihood, sde=sde, guidance=method)
    try:
        samples = PC(DPMpp(), steps=steps)(posterior, n, seed)
    except Refused:
        return None
    except Divergence:  # infinitely far: the table says so
        endless = Distance(*[float("inf")] * len(fields(Distance)))
        return Run(endless, float("inf"), posterior.calls.total() / n)
    return compared(name, seed, samples, posterior.calls.total() / n)


Runs = dict[tuple[str, str], dict[str, list[Run]]]  # (guidance, problem) -> SDE -> a run for each seed


def guidance_runs(names: Sequence[str], n: int, steps: int, seeds: int) -> Runs:
    """Run every guidance on every problem that it does not refuse."""
    found: Runs = {}
    for guidance in names:
        for name in PROBLEMS:
            print(f"{guidance} on {name}", file=sys.stderr, flush=True)
            runs = {
                label: [run(name, guidance, sde, n, steps, seed) for seed in range(seeds)]
                for label, sde in SDES.items()
            }
            kept = {label: [r for r in each if r is not None] for label, each in runs.items()}
            if any(kept.values()):
                found[guidance, name] = kept
    return found


def guidance_table(runs: Runs, n: int, seeds: int) -> str:
    """One row a guidance and problem; cells of three numbers are VE / VP / sub-VP."""
    head = [
        "guidance",
        "problem",
        "distance, VE / VP / sub-VP",
        "floor",
        "mean error",
        "sd ratio",
        "coverage90",
    ]
    rows = []
    for (guidance, name), by_sde in runs.items():
        far = " / ".join(_with_interval([r.distance for r in each]) for each in by_sde.values())
        of = {key: _three(by_sde, key) for key in ("mean_error", "sd_ratio", "coverage90")}
        calls = statistics.mean(r.calls for each in by_sde.values() for r in each)
        rows.append([guidance, name, far, f"{floor_of(name, n, seeds):.3f}", *of.values(), f"{calls:.0f}"])
    return table([*head, "forward + vjp"], rows)


def _with_interval(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if len(values) > 1 else "")


def _three(by_sde: Mapping[str, Sequence[Run]], key: str) -> str:
    means = (statistics.mean(r.figures.items()[key] for r in each) for each in by_sde.values())
    return " / ".join(f"{mean:.2f}" for mean in means)


# ---- predictors


def predictors() -> dict[str, Predictor]:
    """Return the built-in predictors that sample by themselves, and DPM-Solver++ without noise."""
    registry = load()
    built = {name: registry.build("predictor", name) for name in builtin("predictor") if name != "none"}
    found = {name: part for name, part in built.items() if isinstance(part, Predictor)}
    return found | {"dpmpp, kind ode": DPMpp("ode")}


Ratios = dict[str, dict[str, list[float]]]  # predictor -> SDE -> sd ratio at each of PREDICTOR_STEPS


def predictor_ratios(n: int, seeds: int) -> Ratios:
    """Mean sd ratio over seeds on the inpainting problem, with Exact guidance."""
    found: Ratios = {}
    for name, predictor in predictors().items():
        print(name, file=sys.stderr, flush=True)
        for label, sde in SDES.items():
            found.setdefault(name, {})[label] = [
                statistics.mean(sd_ratio(predictor, sde, steps, n, seed) for seed in range(seeds))
                for steps in PREDICTOR_STEPS
            ]
    return found


def sd_ratio(predictor: Predictor, sde: SDE, steps: int, n: int, seed: int) -> float:
    """Standard deviation of n samples over the posterior's."""
    posed = problem("inpaint", seed)
    posterior = Posterior(posed.prior, posed.likelihood, sde=sde, guidance=Exact())
    return distance(PC(predictor, steps=steps)(posterior, n, seed), posed.exact).sd_ratio


def predictor_table(ratios: Ratios) -> str:
    """One row a predictor; cells are VE / VP / sub-VP."""
    head = ["predictor", *(f"sd ratio, {steps} steps" for steps in PREDICTOR_STEPS)]
    rows = [
        [name, *(" / ".join(f"{r:.3f}" for r in column) for column in zip(*by_sde.values(), strict=True))]
        for name, by_sde in ratios.items()
    ]
    return table(head, rows)


# ---- what is written


def summaries(runs: Runs, ratios: Ratios, n: int, seeds: int) -> dict[str, object]:
    """Return what `invsolve list` shows of a method; W2 is the mean over the Gaussian problems and SDEs."""
    guidances = {}
    for guidance in dict.fromkeys(name for name, _ in runs):
        gaussian = [name for name in GAUSSIAN if (guidance, name) in runs]
        w2 = statistics.mean(
            r.distance for name in gaussian for each in runs[guidance, name].values() for r in each
        )
        lowest = statistics.mean(floor_of(name, n, seeds) for name in gaussian)
        words = f"W2 {w2:.3f} to the exact posterior (exact samples {lowest:.3f})"
        guidances[guidance] = {"w2": round(w2, 4), "floor": round(lowest, 4), "summary": words}
    found = {
        name: {
            "sd_ratio": {str(s): round(r, 4) for s, r in zip(PREDICTOR_STEPS, by_sde["VE"], strict=True)},
            "summary": f"sd ratio {by_sde['VE'][1]:.3f} after {PREDICTOR_STEPS[1]} steps",
        }
        for name, by_sde in ratios.items()
    }
    return {"guidances": guidances, "predictors": found}


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between <!-- name --> and <!-- /name -->."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(opening) != 1 or text.count(closing) != 1:
        raise InputError(f"expected {opening} and {closing} once each in the file.")
    return re.sub(
        f"{re.escape(opening)}.*{re.escape(closing)}",
        lambda _: f"{opening}\n\n{content}\n\n{closing}",
        text,
        flags=re.DOTALL,
    )


def write(content: str, summary: Mapping[str, object], root: Path) -> None:
    """Put the tables into README.md and the summary into the package."""
    readme = root / "README.md"
    whole = between_markers(readme.read_text(encoding="utf-8"), "distances", content)
    write_whole(readme, whole.encode())
    write_whole(root / "invsolve" / "distances.json", (json.dumps(summary, indent=1) + "\n").encode())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000, help="samples of each run")
    parser.add_argument("--steps", type=int, default=100, help="steps of the guidances' runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--guidances", nargs="+", help="built-in ones; by default all that take an operator")
    parser.add_argument("--write", action="store_true", help="write README.md and invsolve/distances.json")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    names = options.guidances or [name for name in builtin("guidance") if name not in OTHER]
    runs = guidance_runs(names, options.n, options.steps, options.seeds)
    ratios = predictor_ratios(options.n, options.seeds)
    parts = [
        guidance_table(runs, options.n, options.seeds),
        predictor_table(ratios),
        f"By `{provenance(argv)}`.",
    ]
    content = "\n\n".join(parts)
    print(content)
    if options.write:
        write(content, summaries(runs, ratios, options.n, options.seeds), ROOT)


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
