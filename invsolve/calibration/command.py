"""What `invsolve calibrate` does, from the tables of its parts to its files.

DIR/calibration.json    all figures, and the settings they were measured with
DIR/calibration.png     the picture
DIR/problems.jsonl      the problems solved so far: the same command goes on, also with more of them
"""

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invsolve.calibration.journal import JOURNAL, Journal
from invsolve.calibration.plot import plot
from invsolve.calibration.report import Calibration, conclude
from invsolve.calibration.simulate import Experiment, Simulator, Truths, photos
from invsolve.calibration.study import check_sampler
from invsolve.device import choose_device
from invsolve.files import sweep, writable, write_whole
from invsolve.gamma import parse_gamma
from invsolve.likelihood import Gaussian
from invsolve.plain_json import json_text
from invsolve.result import Result
from invsolve.run import parts
from invsolve.run.executor import one_thread
from invsolve.run.foreign import check_foreign
from invsolve.run.identity import identity
from invsolve.run.inputs import expand
from invsolve.run.measure import check_sigma_y
from invsolve.run.record import hashes
from invsolve.run.screen import Screen
from invsolve.run.settings import Tables
from invsolve.run.unconditional import event_shape
from invsolve.solve import solve

__all__ = ["Study", "run", "write"]

_LINES = 10  # progress lines
_FILES = ("calibration.json", "calibration.png", JOURNAL)


@dataclass(frozen=True)
class Study:
    """What to calibrate: parts and counts by table, the free sides of images, and where truths come from."""

    tables: Tables
    size: tuple[int, int] | None
    problems: int
    truths: Path | None  # a folder of photos; None for draws of the prior
    assumed: float | None


def run(study: Study, screen: Screen, out: Path | None = None, *, overwrite: bool = False) -> Calibration:
    """Pose and solve the problems one by one; in a folder, those that are solved there already are kept."""
    experiment, chosen = _experiment(study)
    if chosen:
        screen.note(f"auto took {chosen}")
    journal = None if out is None else _journal(study, experiment, out, overwrite)
    outcomes = {} if journal is None else {k: v for k, v in journal.outcomes.items() if k < study.problems}
    if outcomes:
        screen.note(f"{len(outcomes)} of {study.problems} problems are solved already")
    todo, started = [k for k in range(study.problems) if k not in outcomes], time.monotonic()
    with one_thread():
        for done, k in enumerate(todo, start=1):
            outcomes[k] = experiment.outcome(k)
            if journal is not None:
                journal.add(k, outcomes[k])
            if done * _LINES // len(todo) > (done - 1) * _LINES // len(todo):
                left = (time.monotonic() - started) / done * (len(todo) - done)
                screen.note(f"{len(outcomes)} of {study.problems} problems, {left:.0f} s left")
    in_order = [outcomes[k] for k in range(study.problems)]
    return replace(conclude(in_order, experiment.samples, experiment.simulator.seed), chosen=chosen)


def _journal(study: Study, experiment: Experiment, out: Path, overwrite: bool) -> Journal:
    """Take up the study in a folder; one that may be overwritten leaves nothing there."""
    sweep(out)
    if overwrite:
        for name in _FILES:
            (out / name).unlink(missing_ok=True)
    told = experiment.assumed
    photos = () if study.truths is None else expand([str(study.truths)])
    contents = "".join(hashes(photos).values())
    device = choose_device(str(study.tables["run"]["device"]))
    decides = identity(study.tables, device) | {
        "shape": experiment.simulator.shape,
        "assumed sigma_y": experiment.simulator.sigma_y if told is None else told,
        "truths": sha256(contents.encode()).hexdigest() if photos else "prior",
    }
    return Journal(out, decides)


def _experiment(study: Study) -> tuple[Experiment, str]:
    """Build what is calibrated; with it what "auto" took, and why."""
    tables, own = study.tables, study.tables["run"]
    device = choose_device(str(own["device"]))
    shape = event_shape(parts.load_prior(tables, device).shape, study.size)
    prior = parts.build_prior(tables, shape, device)
    operator = parts.build_operator(tables, shape, device)
    if not parts.is_own("operator", str(tables["operator"]["name"])):
        check_foreign(operator, shape, str(tables["operator"]["name"]))
    check_sigma_y(own["sigma_y"], operator)
    nothing = Gaussian(operator.A(prior.centre.expand(1, *shape)), operator, own["sigma_y"])
    tables, chosen = parts.settled(tables, prior, nothing)
    sampler, gamma = parts.build_sampler(tables), parse_gamma(str(own["gamma"]))
    sde, guidance = (parts.build(kind, tables) for kind in ("sde", "guidance"))
    check_sampler(sampler)

    def solver(likelihood: Gaussian, n: int, seed: int) -> Result:
        return solve(
            prior, likelihood, sde=sde, guidance=guidance, sampler=sampler, gamma=gamma, n=n, seed=seed
        )

    truths: Truths | None = None if study.truths is None else photos(study.truths, shape, own["seed"])
    simulator = Simulator(prior, operator, own["sigma_y"], shape, own["seed"], truths)
    return Experiment(simulator, solver, own["samples"], study.assumed), chosen


def write(found: Calibration, study: Study, out: Path | None) -> dict[str, Any]:  # Any: JSON
    """Return everything as plain data, and write it with its picture where a folder is given."""
    told = {
        "truths": "prior" if study.truths is None else str(study.truths),
        "assumed_sigma_y": study.assumed,
    }
    settings: dict[str, Any] = {**study.tables, "run": study.tables["run"] | told}
    data = found.as_dict() | {"settings": settings, "invsolve_version": version("invsolve")}
    if out is not None:
        writable(out)
        write_whole(out / "calibration.json", json_text(data, 1).encode())
        plot(found, out / "calibration.png")
    return data
