"""Figures of a long benchmark, one row a unit of work, in a file that is whole or absent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invsolve.errors import InputError
from invsolve.files import write_whole

__all__ = ["Record", "Row"]

Row = dict[str, Any]  # Any: figures by name, or the text of an error


class Record:
    """The rows so far and the settings they were computed with; a row is kept as soon as it is added."""

    def __init__(self, path: Path, identity: Mapping[str, object], *, overwrite: bool) -> None:
        """Take up what the file has; refuse it where it was computed with something else."""
        self.path, self.identity, self.rows = path, dict(identity), dict[str, Row]()
        if path.exists() and not overwrite:
            stored = json.loads(path.read_text())
            before = stored["identity"]
            other = [key for key in self.identity if before.get(key) != self.identity[key]]
            if other:
                changes = ", ".join(f"{key} {before.get(key)!r} -> {self.identity[key]!r}" for key in other)
                raise InputError(f"{path} holds figures of another benchmark ({changes}). Pass --overwrite.")
            self.rows = stored["rows"]

    def add(self, name: str, row: Row) -> None:
        """Put in a unit's figures and replace the file."""
        self.rows[name] = row
        write_whole(self.path, json.dumps({"identity": self.identity, "rows": self.rows}, indent=1).encode())
