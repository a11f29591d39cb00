"""How far each built-in guidance, predictor and sampler is from the posterior, where the posterior is known.

    python benchmarks/distances.py [--n 2000] [--steps 100] [--seeds 3] [--only KIND ...] [--write]

Guidances: DPM-Solver++ walks on the problems of exact_problems.py, images of 8 x 8 pixels, under VE, VP and
sub-VP; a seed draws truth, noise and samples. The figures are those of invsolve.diagnostics, means over seeds
and, for the distance, half the width of their 95 % interval. The distance is W2 between the Gaussians of both
sets of moments over the posterior's size; on the mixture, where moments do not tell modes apart, it is the
sliced W1. Beside it its floor: the mean over exact sets of the same n. PiGDM gets the right variance of the
data, DPS its default step size. `classifier`, which takes no operator, gets the exact p(c | x_t) of a pair of
the mixture's Gaussians, and draws that pair.

Predictors: the sd ratio, 1 for a right posterior, after 25, 50 and 100 steps with Exact guidance.

Samplers: each with its defaults and, where it takes one, moment matching, on the same problems with images of
4 x 4 pixels, under VE, 400 samples a run: some cost as much as a hundred walks.

Guidances and samplers have eight times as many seeds in the plane.

--write puts the tables between <!-- distances --> and <!-- /distances --> in docs/distances.md, shorter ones,
of distances over their floors, into README.md, and a summary of each method into invsolve/distances.json,
which `invsolve list` shows. With --only guidances, predictors or samplers the two pages stay, and of the
summaries those of the others do.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from compared import PROBLEMS, Run, builtin, drawn, entry, floor_of, problem, seeds_of, with_interval
from distances_of_samplers import sampler_runs, sampler_summaries, sampler_table
from exact_problems import GAUSSIAN
from figures import provenance, table
from short_tables import short_guidances, short_samplers

from invsolve.diagnostics import distance
from invsolve.errors import InputError, InvsolveError
from invsolve.files import write_whole
from invsolve.guidance import Exact, Guidance
from invsolve.plugins import load
from invsolve.posterior import Posterior
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import DPMpp, Predictor
from invsolve.sde import SDE, VE, VP, SubVP

ROOT = Path(__file__).parents[1]
SDES: dict[str, SDE] = {"VE": VE(), "VP": VP(), "sub-VP": SubVP()}
PREDICTOR_STEPS = (25, 50, 100)
OTHER = {"classifier": ("class",)}  # problems of those that take no operator
KINDS = ("guidances", "predictors", "samplers")
FEWER = 400  # samples of a sampler's runs, at most


# ---- guidances


def guidance_named(name: str, variance: float) -> Guidance:
    """Build a guidance; the one that wants to be told the variance of the data is told it."""
    registry = load()
    wants = any(option.key == "data_variance" for option in registry.options("guidance", name))
    guidance = registry.build("guidance", name, options={"data_variance": variance} if wants else {})
    assert isinstance(guidance, Guidance)
    return guidance


def run(name: str, guidance: str, sde: SDE, n: int, steps: int, seed: int) -> Run | None:
    """Draw n samples and compare them; None where the guidance refuses the problem."""
    posed = problem(name, seed)
    method = guidance_named(guidance, posed.variance)
    posterior = Posterior(posed.prior, posed.likelihood, sde=sde, guidance=method)
    return drawn(name, posterior, PC(DPMpp(), steps=steps), n, seed)


Runs = dict[tuple[str, str], dict[str, list[Run]]]  # (guidance, problem) -> SDE -> a run for each seed


def guidance_runs(names: Sequence[str], n: int, steps: int, seeds: int) -> Runs:
    """Run every guidance on every problem that it does not refuse."""
    found: Runs = {}
    for guidance in names:
        for name in OTHER.get(guidance, PROBLEMS):
            print(f"{guidance} on {name}", file=sys.stderr, flush=True)
            runs = {
                label: [run(name, guidance, sde, n, steps, seed) for seed in seeds_of(name, seeds)]
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
        far = " / ".join(with_interval([r.distance for r in each]) for each in by_sde.values())
        of = {key: _three(by_sde, key) for key in ("mean_error", "sd_ratio", "coverage90")}
        calls = statistics.mean(r.calls for each in by_sde.values() for r in each)
        rows.append([guidance, name, far, f"{floor_of(name, n, seeds):.3f}", *of.values(), f"{calls:.0f}"])
    return table([*head, "forward + vjp"], rows)


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


def guidance_summaries(runs: Runs, n: int, seeds: int) -> dict[str, object]:
    """Return what `invsolve list` shows of a guidance; the mean over problems and SDEs."""
    guidances: dict[str, object] = {}
    for guidance in dict.fromkeys(name for name, _ in runs):
        names = [name for name in (*GAUSSIAN, "class") if (guidance, name) in runs]
        far = statistics.mean(
            r.distance for name in names for each in runs[guidance, name].values() for r in each
        )
        lowest = statistics.mean(floor_of(name, n, seeds) for name in names)
        distance, posterior = ("SW1", "exact class") if "class" in names else ("W2", "exact posterior")
        words = f"{distance} {far:.3f} to the {posterior} (exact samples {lowest:.3f})"
        guidances[guidance] = entry(distance.lower(), far, lowest) | {"summary": words}
    return guidances


def predictor_summaries(ratios: Ratios) -> dict[str, object]:
    """Return what `invsolve list` shows of a predictor: its sd ratio under VE."""
    return {
        name: {
            "sd_ratio": {str(s): round(r, 4) for s, r in zip(PREDICTOR_STEPS, by_sde["VE"], strict=True)},
            "summary": f"sd ratio {by_sde['VE'][1]:.3f} after {PREDICTOR_STEPS[1]} steps",
        }
        for name, by_sde in ratios.items()
    }


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


def write(content: str, short: str, summary: Mapping[str, object], root: Path) -> None:
    """Put the summaries into the package and, where every kind was measured, the tables into the pages."""
    known = root / "invsolve" / "distances.json"
    if set(summary) == set(KINDS):
        for page, tables in {root / "README.md": short, root / "docs" / "distances.md": content}.items():
            whole = between_markers(page.read_text(encoding="utf-8"), "distances", tables)
            write_whole(page, whole.encode())
    before = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    write_whole(known, (json.dumps(before | summary, indent=1) + "\n").encode())


def measure(options: argparse.Namespace) -> tuple[list[str], list[str], dict[str, object]]:
    """Measure the kinds asked for: their tables, the short ones, and their summaries."""
    n, seeds, tables, short, summary = options.n, options.seeds, list[str](), list[str](), dict[str, object]()
    if "guidances" in options.only:
        names = options.guidances or builtin("guidance")
        runs = guidance_runs(names, n, options.steps, seeds)
        tables.append(guidance_table(runs, n, seeds))
        short.append(short_guidances(runs, n, seeds))
        summary["guidances"] = guidance_summaries(runs, n, seeds)
    if "predictors" in options.only:
        ratios = predictor_ratios(n, seeds)
        tables.append(predictor_table(ratios))
        summary["predictors"] = predictor_summaries(ratios)
    if "samplers" in options.only:
        few = min(n, FEWER)
        found = sampler_runs(options.samplers or builtin("sampler"), few, seeds)
        tables.append(sampler_table(found, few, seeds))
        short.append(short_samplers(found, few, seeds))
        summary["samplers"] = sampler_summaries(found, few, seeds)
    return tables, short, summary


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000, help="samples of each run")
    parser.add_argument("--steps", type=int, default=100, help="steps of the guidances' runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--guidances", nargs="+", help="built-in ones; by default all")
    parser.add_argument("--samplers", nargs="+", help="built-in ones; by default all")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kinds; by default all")
    parser.add_argument("--write", action="store_true", help="write the pages and invsolve/distances.json")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    tables, short, summary = measure(options)
    source = f"By `{provenance(argv)}`."
    content = "\n\n".join([*tables, source])
    print(content)
    if options.write:
        write(content, "\n\n".join([*short, source]), summary, ROOT)


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
