"""Outcomes of the problems solved so far, in DIR/problems.jsonl: a study that was stopped goes on from there.

The first line says what decides the outcomes, each line after it is that of one problem, flushed to the disk
before the next problem is posed. A last line that a killed process left torn is cut off. Numbers come back as
they were, so the figures of a study do not tell whether it was stopped.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from invsolve.calibration.figures import Figures
from invsolve.calibration.simulate import Outcome
from invsolve.errors import InputError, OutputError
from invsolve.files import write_whole
from invsolve.run.record import difference

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "problems.jsonl"


class Journal:
    """Outcomes by the number of their problem; one that is added is kept at once."""

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        """Take up what the folder has; InputError where that was found with other settings."""
        self.path, self.identity = folder / JOURNAL, json.loads(json.dumps(identity))
        self.outcomes = self._found(folder) if self.path.exists() else {}

    def add(self, k: int, outcome: Outcome) -> None:
        """Keep the outcome of problem k."""
        line = json.dumps({"problem": k} | asdict(outcome), default=_plain) + "\n"
        if self.outcomes:
            self._append(line)
        else:
            write_whole(self.path, f"{json.dumps(self.identity)}\n{line}".encode())
        self.outcomes[k] = outcome

    def _found(self, folder: Path) -> dict[int, Outcome]:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}.") from error
        whole = content[: content.rfind(b"\n") + 1]
        try:
            if not whole:
                raise ValueError("its first line is not whole")
            first, *rest = [json.loads(line) for line in whole.splitlines()]
            changed, found = difference(first, self.identity), {row["problem"]: _outcome(row) for row in rest}
            _check_alike(found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path} is damaged: {error}. Add --overwrite, or another --out.") from None
        if changed:
            raise InputError(f"{folder} holds another study: {changed}. Add --overwrite, or another --out.")
        if whole != content:
            write_whole(self.path, whole)
        return found

    def _append(self, line: str) -> None:
        try:
            with self.path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}.") from error


def _plain(array: Any) -> object:  # noqa: ANN401  of numpy or torch
    return array.tolist()


def _check_alike(found: Mapping[int, Outcome]) -> None:
    """Refuse rows of several lengths: they are S + 1 numbers in all problems."""
    figures = [outcome.figures for outcome in found.values() if outcome.figures]
    rows = [row for each in figures for row in (*each.quantities.values(), *vars(each).values())]
    lengths = {row.shape[-1] for row in rows if isinstance(row, np.ndarray)}
    if len(lengths) > 1:
        raise ValueError(f"rows have {' and '.join(map(str, sorted(lengths)))} numbers")


def _outcome(line: Mapping[str, Any]) -> Outcome:
    told = {name: line[name] for name in ("nfe", "seconds", "chosen")}
    if line["figures"] is None:
        return Outcome(None, **told)
    rows = {name: np.array(row) for name, row in line["figures"].items() if name != "quantities"}
    ranked = {name: np.array(row) for name, row in line["figures"]["quantities"].items()}
    return Outcome(Figures(ranked, **rows), **told)
