"""What `invsolve calibrate` does, from the tables of its parts to its files.

DIR/calibration.json    all figures, and the settings they were measured with
DIR/calibration.png     the picture
"""

import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invsolve.calibration.plot import plot
from invsolve.calibration.report import Calibration, conclude
from invsolve.calibration.simulate import Experiment, Outcome, Simulator, Truths, photos
from invsolve.calibration.study import check_sampler
from invsolve.device import choose_device
from invsolve.files import writable, write_whole
from invsolve.gamma import parse_gamma
from invsolve.likelihood import Gaussian
from invsolve.plain_json import json_text
from invsolve.result import Result
from invsolve.run import parts
from invsolve.run.foreign import check_foreign
from invsolve.run.measure import check_sigma_y
from invsolve.run.screen import Screen
from invsolve.run.settings import Tables
from invsolve.run.unconditional import event_shape
from invsolve.solve import solve

__all__ = ["Study", "run", "write"]

_LINES = 10  # progress lines


@dataclass(frozen=True)
class Study:
    """What to calibrate: parts and counts by table, the free sides of images, and where truths come from."""

    tables: Tables
    size: tuple[int, int] | None
    problems: int
    truths: Path | None  # a folder of photos; None for draws of the prior
    assumed: float | None


def run(study: Study, screen: Screen) -> Calibration:
    """Pose and solve the problems one by one."""
    experiment, chosen = _experiment(study)
    if chosen:
        screen.note(f"auto took {chosen}")
    outcomes, started = list[Outcome](), time.monotonic()
    for k in range(study.problems):
        outcomes.append(experiment.outcome(k))
        if (k + 1) * _LINES // study.problems > k * _LINES // study.problems:
            left = (time.monotonic() - started) / (k + 1) * (study.problems - k - 1)
            screen.note(f"{k + 1} of {study.problems} problems, {left:.0f} s left")
    return replace(conclude(outcomes, experiment.samples, experiment.simulator.seed), chosen=chosen)


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
