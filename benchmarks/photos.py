"""Three restorations of photographs beside their usual baselines, on the centre crops of an image folder.

    python benchmarks/photos.py FOLDER [--images 20] [--seed 0] [--samples 8] [--steps 50] [--processes 2] ...

inpaint, superres and deblur of tasks.py, with noise of sigma_y = 0.02 on images in [0, 1]. What is not given
is what `invsolve run` does. Nothing is clipped before PSNR is taken, neither ours nor theirs.

Printed over images: mean and 95 % interval (Student's t) of the PSNR of the posterior mean, of one sample
(mean over samples) and of the baseline, of the mean's gain over the baseline, of chi2, coverage90 and
dispersion (invsolve.metrics), of network calls per sample and of seconds per image. A unit of work is one
task on one image, in a single-thread process; after each one the file --out is replaced as a whole, and the
same command again goes on from there, also with more images or other tasks.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from figures import commit, interval, provenance, table
from pool import computed
from tasks import TASKS, Posed, pose

from invsolve import metrics
from invsolve.bench.record import Record, Row
from invsolve.errors import InvsolveError
from invsolve.guidance import Guidance
from invsolve.likelihood import Gaussian
from invsolve.option_values import check_table
from invsolve.plugins import load
from invsolve.priors.catalogue import load_prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.result import Result
from invsolve.run.settings import DEFAULTS, NAMES, SIMULATED_SIGMA_Y, STAND_INS
from invsolve.samplers.pc import PC
from invsolve.solve import solve
from invsolve.training.data import image_files

ALLOWED = {"chi2": (0.8, 1.2), "coverage90": (0.75, 0.97), "dispersion": (0.7, 1.35)}
FIGURES = {
    "psnr_mean": "PSNR of the posterior mean, dB",
    "psnr_sample": "PSNR of one sample, dB",
    "psnr_baseline": "PSNR of the baseline, dB",
    "gain": "gain of the mean over the baseline, dB",
    "chi2": "chi2",
    "coverage90": "coverage90",
    "dispersion": "dispersion",
    "forward": "network calls a sample",
    "vjp": "vector-Jacobian products a sample",
    "seconds": "seconds an image",
}


@dataclass(frozen=True)
class Settings:
    """What decides the figures of a unit, beside the task and the image."""

    size: int
    seed: int
    sigma_y: float
    samples: int
    steps: int
    prior: str
    sde: str
    guidance: str
    guidance_steps: int | None
    tolerance: float | None
    predictor: str
    corrector: str
    gamma: float
    independent: bool
    device: str


# ---- one unit


@dataclass(frozen=True)
class Unit:
    """One task on one image; place is the image's in the sorted folder, and part of its seeds."""

    settings: Settings
    task: str
    file: Path
    place: int

    @property
    def name(self) -> str:
        """Name of the unit in the record."""
        return f"{self.task} {self.file.name}"


def compute(unit: Unit) -> Row:
    """Degrade, restore and measure; an error of ours is the row's only entry."""
    try:
        return _figures(unit)
    except InvsolveError as error:
        return {"error": str(error)}


def _figures(unit: Unit) -> Row:
    s = unit.settings
    posed = pose(unit.task, unit.file, s.size, s.sigma_y, s.seed + unit.place, s.device)
    result = restore(s, Gaussian(posed.y, posed.operator, s.sigma_y))
    return figures_of(result, posed, s.sigma_y, antithetic=not s.independent)


def figures_of(result: Result, posed: Posed, sigma_y: float, *, antithetic: bool) -> Row:
    """Measure samples of a photo; antithetic says that 2k and 2k + 1 are a pair of opposite noise."""
    samples, truth = result.samples, posed.truth
    of_mean, of_baseline = metrics.psnr(result.mean.cpu(), truth), metrics.psnr(posed.baseline, truth)
    return {
        "psnr_mean": of_mean,
        "psnr_sample": float(np.mean([metrics.psnr(sample.cpu(), truth) for sample in samples])),
        "psnr_baseline": of_baseline,
        "gain": of_mean - of_baseline,
        "chi2": metrics.chi2(samples, posed.y, posed.operator, sigma_y),
        "coverage90": metrics.coverage90(samples.cpu(), truth),
        "dispersion": metrics.dispersion(samples.cpu(), truth, antithetic),
        "forward": result.nfe["forward"],
        "vjp": result.nfe["vjp"],
        "seconds": result.seconds,
    }


def restore(s: Settings, likelihood: Gaussian) -> Result:
    """Draw the samples; on a CPU one by one, as `invsolve run` does with such images."""
    sampler = PC(
        predictor=_part("predictor", s.predictor),
        corrector=_part("corrector", s.corrector),
        steps=s.steps,
        batch=1 if s.device == "cpu" else None,
        antithetic=not s.independent,
    )
    prior, guidance = _prior(s.prior, s.device), _guidance(s)
    return solve(
        prior,
        likelihood,
        sde=s.sde,
        guidance=guidance,
        sampler=sampler,
        gamma=s.gamma,
        n=s.samples,
        seed=s.seed,
    )


@cache
def _prior(name: str, device: str) -> DenoiserPrior:
    return load_prior(name).to(device)


def _guidance(s: Settings) -> Guidance:
    """Build the guidance with the options that were given; UnknownName where it has no such option."""
    given = {"cg_steps": s.guidance_steps, "tolerance": s.tolerance}
    table = {name: value for name, value in given.items() if value is not None}
    options = check_table("guidance", load().options("guidance", s.guidance), table)
    guidance: Guidance = _part("guidance", s.guidance, options)
    return guidance


def _part(kind: str, name: str, options: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  any kind of part
    return load().build(kind, name, options=options)


# ---- all units


def units(settings: Settings, folder: Path, tasks: Iterable[str], images: int) -> list[Unit]:
    """Units of the images that the seed draws, image by image; more images go on with the same ones."""
    files = image_files([folder])
    chosen = np.random.default_rng(settings.seed).permutation(len(files))[:images]
    return [Unit(settings, task, files[place], int(place)) for place in chosen for task in tasks]


# ---- the report


def report(rows: Mapping[str, Sequence[Row]]) -> str:
    """Table of the figures of each task's images, and whether what is asked for was reached."""
    good = {task: [row for row in found if "error" not in row] for task, found in rows.items()}
    head = ["mean over images, 95 % interval", *(f"{task} ({len(found)})" for task, found in good.items())]
    body = [[label, *(_cell(name, found) for found in good.values())] for name, label in FIGURES.items()]
    errors = [f"FAIL  {task}: {row['error']}" for task in rows for row in rows[task] if "error" in row]
    return "\n".join(
        [table(head, body), "", *errors, *(line for task in good for line in gates(task, good[task]))]
    )


def _values(name: str, rows: Sequence[Row]) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _cell(name: str, rows: Sequence[Row]) -> str:
    mean, half = interval(_values(name, rows))
    digits = 1 if name in ("forward", "vjp", "seconds") else 2
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(rows) > 1 else "")


def gates(task: str, rows: Sequence[Row]) -> list[str]:
    """Say for each figure with a demand whether the mean over images meets it."""
    lines = []
    for name, (low, high) in {"gain": (TASKS[task].gain, float("inf")), **ALLOWED}.items():
        mean = interval(_values(name, rows))[0]
        wanted = f"at least {low}" if name == "gain" else f"{low} to {high}"
        lines.append(f"{'pass' if low <= mean <= high else 'FAIL'}  {task} {name} {mean:.2f} ({wanted})")
    return lines


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path, help="folder of images, each at least --size a side")
    add("--images", type=int, default=20, help="how many the seed draws")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--size", type=int, default=256, help="side of the crop, in pixels")
    add("--seed", type=int, default=0)
    add("--sigma-y", type=float, default=SIMULATED_SIGMA_Y)
    add("--samples", type=int, default=DEFAULTS["samples"])
    add("--steps", type=int, default=PC.steps)
    add("--prior", default=NAMES["prior"], help="name or file")
    for kind in ("sde", "guidance", "predictor", "corrector"):
        add(f"--{kind}", default=STAND_INS.get(kind, NAMES[kind]))
    add("--guidance-steps", type=int, help="conjugate-gradient steps at most, of moment-matching")
    add("--tolerance", type=float, help="relative residual at which a solve stops, of moment-matching")
    add("--gamma", type=float, default=DEFAULTS["gamma"])
    add("--independent", action="store_true", help="independent samples in place of antithetic pairs")
    add("--device", default="cpu", help="cpu, or cuda with one process")
    add("--processes", type=int, default=2)
    add("--out", type=Path, default=Path("photos.json"))
    add("--overwrite", action="store_true", help="forget what --out holds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compute what is missing and print the table."""
    options = vars(arguments(argv))
    settings = Settings(**{name: options[name] for name in Settings.__annotations__})
    _check(settings)
    sha256 = _prior(settings.prior, "cpu").sha256
    identity = asdict(settings) | {
        "folder": options["folder"].name,
        "prior_sha256": sha256,
        "commit": commit(),
    }
    record = Record(options["out"], identity, overwrite=options["overwrite"])
    wanted = units(settings, options["folder"], options["tasks"], options["images"])
    todo = [unit for unit in wanted if unit.name not in record.rows]
    for i, (unit, row) in enumerate(
        computed(compute, todo, options["processes"]), len(wanted) - len(todo) + 1
    ):
        record.add(unit.name, row | {"commit": commit()})
        print(f"{i} of {len(wanted)}: {unit.name}: {_short(row)}", file=sys.stderr, flush=True)
    rows = {task: [record.rows[u.name] for u in wanted if u.task == task] for task in options["tasks"]}
    commits = sorted({row["commit"] for found in rows.values() for row in found})
    print(f"{provenance(argv)}; prior {settings.prior} {sha256[:12]}, computed at {', '.join(commits)}\n")
    print(report(rows))


def _check(s: Settings) -> None:
    """Refuse names that nobody offers and options that the guidance has not, before anything is computed."""
    for kind in ("sde", "predictor", "corrector"):
        load().part(kind, getattr(s, kind))
    _guidance(s)


def _short(row: Row) -> str:
    return row.get("error") or f"gain {row['gain']:+.2f} dB, chi2 {row['chi2']:.2f}, {row['seconds']:.0f} s"


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
