"""One image, ready to be computed: its problem (made, or found from an earlier start), its units, and which
of them are done."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invsolve.errors import InputError
from invsolve.files import sweep, writable, write_whole
from invsolve.images import LoadedImage
from invsolve.run import measure, parts
from invsolve.run.compute import PROBLEM
from invsolve.run.events import Failed
from invsolve.run.identity import identity
from invsolve.run.inputs import Input
from invsolve.run.problem import Problem
from invsolve.run.record import difference
from invsolve.run.settings import Tables, to_toml
from invsolve.run.shards import read_shard
from invsolve.run.units import Unit, chunk_size, plan

__all__ = ["Case", "prepare"]


@dataclass
class Case:
    """An image of the run: its problem and units, the sampler and why, and what became of the units."""

    input: Input
    problem: Problem
    units: list[Unit]
    chosen: str = ""
    antithetic: bool = False
    done: list[Unit] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Directory of the shards."""
        return self.input.directory / "units"

    @property
    def missing(self) -> list[Unit]:
        """Units that still have to be computed."""
        over = {unit.id for unit in self.done} | {event.unit.id for event in self.failed}
        return [unit for unit in self.units if unit.id not in over]


def prepare(tables: Tables, given: Input, image: LoadedImage, device: str) -> Case:
    """Make or find the problem of an image, plan its units and look which are done."""
    folder = given.directory / "units"
    own: Tables = {
        **tables,
        "run": tables["run"] | ({"input": [str(given.path)]} if "input" in tables["run"] else {}),
    }
    decides = identity(own, device) | {"input sha256": image.sha256}
    found = _found(folder, decides, given)
    problem = found or measure.make(measure.Source(own, given.path, image, decides, device))
    made = parts.Parts.of(problem)
    notes = [*problem.notes, *made.notes()]  # refuses parts that do not go together
    writable(folder)
    sweep(folder)
    sweep(given.directory)
    if found is None:
        write_whole(given.directory / "run.toml", to_toml(own, made.chosen).encode())
        problem.save(folder / PROBLEM)
    chunk = chunk_size(made.tables, problem.shape[1] * problem.shape[2], device)
    units = plan(folder, problem.identity, problem.samples, chunk)
    pairs = bool(getattr(made.sampler, "antithetic", False))
    case = Case(given, problem, units, made.chosen, pairs, notes=notes)
    _look(case)
    return case


def _found(folder: Path, decides: dict[str, Any], given: Input) -> Problem | None:  # Any: JSON
    """Problem of an earlier start; refused where something that decides the samples has changed since."""
    problem = Problem.load(folder / PROBLEM)
    if problem is None:
        return None
    changed = difference(problem.identity, decides)
    if changed:
        raise InputError(
            f"{given.directory} holds a run of something else: {changed}. Add --overwrite, or another --out."
        )
    return problem


def _look(case: Case) -> None:
    """Find the shards that are whole; a damaged one is named and removed, so that it is computed again."""
    for unit in case.units:
        if not unit.shard.exists():
            continue
        if read_shard(unit.shard) is None:
            case.notes.append(f"{unit.shard} is damaged: it is computed again")
            os.unlink(unit.shard)
        else:
            case.done.append(unit)
