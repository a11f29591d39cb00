"""One problem: a measurement y, the operator behind it, the noise level, and the truth where it is known.

    simulate    the file is the truth x, and y = A x + sigma_y n on the measured entries
    measured    the file is y; the shape of the unknown image follows from the operator

A problem is a file, so that a worker needs nothing else and a second start continues with the very same
measurement.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from invsolve.arrays import Floats
from invsolve.files import write_whole

if TYPE_CHECKING:
    from invsolve.run.settings import Tables

__all__ = ["Problem"]

_ARRAYS = ("y", "picture", "truth", "mask", "alpha")


@dataclass(frozen=True)
class Problem:
    """What a unit needs to know; arrays are float32 without batch axis.

    tables are the settings; identity is all that decides the samples; alpha is the mask that came with the
    photo.
    """

    tables: "Tables"
    identity: dict[str, Any]  # Any: settings and hashes, as JSON can write them
    shape: tuple[int, int, int]
    sigma_y: float
    device: str
    y: Floats
    picture: Floats
    truth: Floats | None = None
    mask: Floats | None = None
    alpha: Floats | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """Seed of the samples and of the simulated noise."""
        return int(self.tables["run"]["seed"])

    @property
    def samples(self) -> int:
        """Samples asked for."""
        return int(self.tables["run"]["samples"])

    def save(self, path: Path) -> None:
        """Write the problem as one .npz file."""
        arrays = {name: value for name in _ARRAYS if (value := getattr(self, name)) is not None}
        rest = {name: value for name, value in vars(self).items() if name not in _ARRAYS}
        buffer = io.BytesIO()
        np.savez(buffer, json=np.array(json.dumps(rest)), **arrays)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Problem | None":
        """Read it back; None where it is not there or damaged, for it can be made again."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                rest = json.loads(str(file["json"]))
                arrays = {name: file[name] for name in _ARRAYS if name in file}
            rest["shape"] = tuple(rest["shape"])
            return cls(**rest, **arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
            return None
