"""Other methods than the default on photographs: ours, and deepinv's, with the same prior and measurement.

    python benchmarks/photos_peers.py FOLDER --images 3 --samples 8 --methods moment-matching deepinv/diffpir
    python benchmarks/photos_peers.py FOLDER --methods --write

Crops, tasks, noise and figures are those of photos.py; the methods are in photos_methods.py. Nothing is
clipped before PSNR is taken, save by methods that clip themselves. A method that raises, or gives NaN, is a
row that says so.

The mean of n independent draws is worse than the posterior mean: by 1/n of their variance in squared error,
0.5 dB at n = 8 for a right posterior. Our walks draw antithetic pairs, whose errors nearly cancel; deepinv's
methods cannot. So PSNR is given for the mean of eight draws and for infinitely many: the squared error of the
mean, less the variance of that mean as the draws have it. That estimate is without bias, so a costly method
can be drawn fewer times: its mean of eight is then the mean of infinitely many with an eighth of the variance
added.

A unit of work is one method on one task of one image; the rows are kept in --out, one after each unit, and
the table is of all that is there. The default's rows may be those of photos.py (--default). Two methods are
compared on the crops that both have. --write puts the tables into docs/photos.md.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from distances import between_markers
from figures import commit, interval, provenance, table
from photos import figures_of
from photos_methods import DEFAULT, METHODS, Drawn, prior
from pool import computed
from tasks import TASKS, pose
from torch import Tensor

from invsolve.bench.record import Record, Row
from invsolve.errors import InputError, InvsolveError, UnknownName
from invsolve.files import write_whole
from invsolve.run.settings import SIMULATED_SIGMA_Y
from invsolve.training.data import image_files

PAGE = Path(__file__).resolve().parent.parent / "docs" / "photos.md"
SIZE = 256
EIGHT = 8  # draws whose mean is compared
ALLOWED = 0.1  # dB that the default may be below the best mean

# ---- one unit


@dataclass(frozen=True)
class Unit:
    """One method on one task of one image; place is the image's in the sorted folder."""

    method: str
    task: str
    file: Path
    place: int
    samples: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the unit in the record."""
        return f"{self.method} {self.task} {self.file.name}"


def compute(unit: Unit) -> Row:
    """Degrade, restore and measure; what a method raises is the row's only entry."""
    posed = pose(unit.task, unit.file, SIZE, SIMULATED_SIGMA_Y, unit.seed + unit.place)
    try:
        drawn = METHODS[unit.method](posed, unit.samples, unit.seed)
    except Exception as error:  # a stranger's code may raise anything: the row says what
        line = (str(error).strip().splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {line}"}
    if not bool(torch.isfinite(drawn.result.samples).all()):
        return {"error": "diverged: NaN or infinite samples"}
    row = figures_of(drawn.result, posed, SIMULATED_SIGMA_Y, antithetic=drawn.antithetic)
    return row | {"samples": len(drawn.result.samples), **expected(drawn, posed.truth, row["psnr_mean"])}


def expected(drawn: Drawn, truth: Tensor, of_mean: float) -> Row:
    """PSNR of the mean of eight and of infinitely many draws; a single point is its own mean."""
    units = drawn.result.samples.double()
    if drawn.antithetic:
        units = (units[0::2] + units[1::2]) / 2
    n, wanted = len(units), EIGHT // 2 if drawn.antithetic else EIGHT
    if n < 2:
        return {"psnr_of_8": of_mean, "psnr_limit": None}
    variance = float(units.var(0).mean())
    least = float((units.mean(0) - truth).square().mean()) - variance / n
    return {"psnr_of_8": psnr_of(least + variance / wanted), "psnr_limit": psnr_of(least)}


def psnr_of(mse: float) -> float:
    """PSNR of a mean squared error; infinite where an estimate of it is not positive."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


# ---- the report


def by_task(rows: Mapping[str, Row], task: str) -> dict[str, dict[str, Row]]:
    """Method -> image -> row, the default first."""
    found: dict[str, dict[str, Row]] = {}
    for name, row in rows.items():
        method, of, image = name.split(" ", 2)
        if of == task:
            found.setdefault(method, {})[image] = row
    return {name: found[name] for name in METHODS if name in found}


def behind(found: Mapping[str, Mapping[str, Row]], method: str) -> list[float]:
    """PSNR of the default's mean less that of a method's, on each crop that both have, in dB."""
    ours = {image: row for image, row in found.get(DEFAULT, {}).items() if "error" not in row}
    both = {image: row for image, row in found[method].items() if image in ours and "error" not in row}
    return [ours[image]["psnr_of_8"] - row["psnr_of_8"] for image, row in both.items()]


def cell(values: Iterable[float | None], digits: int = 2) -> str:
    """Mean and 95 % interval over crops of the values there are."""
    there = [value for value in values if value is not None]
    if not there:
        return ""
    mean, half = interval(there)
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


FIGURES = {"psnr_of_8": 2, "psnr_limit": 2, "psnr_sample": 2, "chi2": 2, "coverage90": 2, "dispersion": 2}
HEAD = (
    *("method", "crops", "draws", "default less it, dB", "PSNR of the mean of 8", "of infinitely many"),
    *("of one sample", "chi2", "coverage90", "dispersion", "calls + vjp a sample", "seconds"),
)


def line_of(found: Mapping[str, Mapping[str, Row]], method: str) -> list[str]:
    """One line of the table."""
    rows = list(found[method].values())
    good = [row for row in rows if "error" not in row]
    if not good:
        return [method, f"0 of {len(rows)}", "", f"failed: {rows[0]['error']}", *[""] * (len(HEAD) - 4)]
    crops = str(len(rows)) if len(good) == len(rows) else f"{len(good)} of {len(rows)}"
    gap = "" if method == DEFAULT else cell(behind(found, method))
    figures = [cell([row[name] for row in good], digits) for name, digits in FIGURES.items()]
    calls = " + ".join(f"{np.mean([row[name] for row in good]):.0f}" for name in ("forward", "vjp"))
    draws = " to ".join(str(n) for n in sorted({row["samples"] for row in good}))
    return [
        method,
        crops,
        draws,
        gap,
        *figures,
        calls,
        cell([float(np.mean([r["seconds"] for r in good]))], 0),
    ]


def verdict(task: str, found: Mapping[str, Mapping[str, Row]]) -> str:
    """Say whether the default's mean is no further than allowed below each other one, on common crops."""
    gaps = {method: behind(found, method) for method in found if method != DEFAULT}
    means = {method: float(np.mean(gap)) for method, gap in gaps.items() if gap}
    if not means:
        return f"{task}: nothing to compare."
    best = min(means, key=lambda method: means[method])
    passed = "pass" if means[best] >= -ALLOWED else "FAIL"
    gap = f"{cell(gaps[best])} dB on {len(gaps[best])} crops"
    return f"{passed}: {task}, default less the best other mean ({best}): {gap}."


def report(rows: Mapping[str, Row]) -> str:
    """One table a task, and the verdicts."""
    found = {task: by_task(rows, task) for task in TASKS}
    parts = [
        f"### {task}\n\n{table(HEAD, [line_of(methods, name) for name in methods])}"
        for task, methods in found.items()
        if methods
    ]
    return "\n\n".join(
        [*parts, "\n".join(f"- {verdict(t, methods)}" for t, methods in found.items() if methods)]
    )


# ---- the command


def of_photos(path: Path, identity: Mapping[str, object]) -> dict[str, Row]:
    """Take the rows of a record of photos.py as the default's; InputError where its settings are others."""
    stored = json.loads(path.read_text())
    wanted = {**identity, "samples": EIGHT, "guidance": DEFAULT, "sigma_y": SIMULATED_SIGMA_Y}
    if other := [key for key, value in wanted.items() if stored["identity"].get(key) != value]:
        raise InputError(f"{path} was computed with another {', '.join(other)} than the default's here.")
    more = {"psnr_limit": None, "samples": EIGHT}
    return {
        f"{DEFAULT} {name}": row | more | {"psnr_of_8": row["psnr_mean"]}
        for name, row in stored["rows"].items()
        if "error" not in row
    }


def shared(given: Mapping[str, Row], rows: Mapping[str, Row]) -> dict[str, Row]:
    """Of the default's rows, those of crops that another method has."""
    crops = {name.split(" ", 1)[1] for name in rows}
    return {name: row for name, row in given.items() if name.split(" ", 1)[1] in crops}


def units(options: argparse.Namespace) -> list[Unit]:
    """Units of the images that the seed draws, as photos.py draws them; image by image."""
    files = image_files([options.folder])
    chosen = np.random.default_rng(options.seed).permutation(len(files))[: options.images]
    return [
        Unit(method, task, files[place], int(place), options.samples, options.seed)
        for place in chosen
        for method in options.methods
        for task in options.tasks
    ]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path, help=f"folder of images, each at least {SIZE} pixels a side")
    add("--images", type=int, default=3, help="how many the seed draws")
    add("--methods", nargs="*", default=list(METHODS), help="names; none only prints")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--seed", type=int, default=0)
    add("--samples", type=int, default=8)
    add("--processes", type=int, default=1)
    add("--out", type=Path, default=Path("photos_peers.json"))
    add("--default", type=Path, nargs="*", default=[], help="records of photos.py, for the default's rows")
    add("--overwrite", action="store_true", help="forget what --out holds")
    add("--write", action="store_true", help="write docs/photos.md")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Compute what is missing and print the tables."""
    options = arguments(argv)
    for name in options.methods:
        if name not in METHODS:
            raise UnknownName("method", name, METHODS)
    sha256 = prior().sha256
    identity = {"seed": options.seed, "prior_sha256": sha256, "size": SIZE}
    record = Record(options.out, identity, overwrite=options.overwrite)
    given = {name: row for path in options.default for name, row in of_photos(path, identity).items()}
    todo = [unit for unit in units(options) if unit.name not in record.rows | given]
    for unit, row in computed(compute, todo, options.processes):
        record.add(unit.name, row | {"commit": commit()})
        said = row.get("error") or f"{row['psnr_of_8']:.2f} dB, {row['seconds']:.0f} s"
        print(f"{unit.name}: {said}", file=sys.stderr, flush=True)
    rows = record.rows | shared(given, record.rows)
    commits = ", ".join(sorted({row["commit"] for row in rows.values()}))
    origin = f"By `{provenance(argv)}`; prior photo {sha256[:12]}, rows computed at {commits}."
    content = f"{report(rows)}\n\n{origin}"
    print(content)
    if options.write:
        write_whole(PAGE, between_markers(PAGE.read_text(encoding="utf-8"), "photos", content).encode())


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
