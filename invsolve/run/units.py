"""Units of work: one image x one chunk of samples, whose result is one shard, a file in DIR/units.

How samples fall into chunks follows from the number of pixels, the steps and the kind of device, never from a
clock or the number of processes: so every start of a run plans the same units. The noise of sample k is a
function of the seed and k alone, so a unit can be computed twice, by anybody, and gives the same bytes. A
unit's name holds the hash of all that decides its samples, so a shard of other settings is never taken for
it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from invsolve.run.settings import Tables

__all__ = ["Unit", "chunk_size", "plan"]

_PIXEL_STEPS = 256 * 256 * 50  # 10 to 25 s on one core with the photo prior
_MOST = {"cpu": 4, "cuda": 32}  # samples of a unit at most: small images must fill several processes too
_SPEED = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class Unit:
    """Samples first .. first + n - 1 of the problem whose files are in `directory`."""

    directory: Path
    first: int
    n: int
    id: str

    @property
    def shard(self) -> Path:
        """File of the unit's samples."""
        return self.directory / f"{self.first:05d}-{self.id}.h5"


def chunk_size(tables: Tables, pixels: int, device: str) -> int:
    """Samples of a unit, so that it takes at most about 30 s; one sample or particle set is never split.

    The samples of a set are its draws or, where each particle is a sample, its particles.
    """
    whole = tables["sampler"].get("draws") or tables["sampler"].get("particles")
    if whole:
        return int(whole)
    kind, steps = device.split(":")[0], int(tables["run"]["steps"])
    batch = int(tables["sampler"].get("batch") or _MOST[kind])
    return max(1, min(batch, _MOST[kind], _SPEED[kind] * _PIXEL_STEPS // (pixels * steps)))


def plan(directory: Path, identity: object, samples: int, chunk: int) -> list[Unit]:
    """Units of one image; identity is everything that decides the samples, as JSON can write it."""
    return [
        Unit(directory, first, n, _hash([identity, first, n]))
        for first in range(0, samples, chunk)
        for n in [min(chunk, samples - first)]
    ]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
