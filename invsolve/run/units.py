"""Units of work: one image x one chunk of samples, whose result is one shard, a file in DIR/units.

How samples fall into chunks follows from the number of pixels, the steps and the kind of device, never from a
clock or the number of processes: so every start of a run plans the same units. The noise of sample k is a
function of the seed and k alone, so a unit can be computed twice, by anybody, and gives the same bytes. A
unit's name holds the hash of all that decides its samples, so a shard of other settings is never taken for
it.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from invsolve.run.settings import Tables

__all__ = ["Unit", "chunk_size", "cost", "plan"]

_PIXEL_STEPS = 256 * 256 * 50  # 10 to 25 s on one core with the photo prior
_STEP = 2.4  # network calls of a step of pc with moment matching: one, and a derivative or two
_LANGEVIN = 0.05  # network calls that a Langevin step on the likelihood costs, measured with a blur
_ADAPTIVE = 160.0, 1.1e-3  # such steps of the adaptive ODE at most, with the sum of its default tolerances
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
    kind, steps = device.split(":")[0], cost(tables)
    batch = int(tables["sampler"].get("batch") or _MOST[kind])
    return max(1, min(batch, _MOST[kind], int(_SPEED[kind] * _PIXEL_STEPS / (pixels * steps))))


def cost(tables: Tables) -> float:
    """What a sample costs, in steps of pc with moment matching, as far as the settings tell.

    A step that calls the network no oftener than pc's counts as one. An adaptive sampler's steps follow from
    its tolerances, with order five, and on the problem: 60 to 160 were measured for inpaint, deblur, superres
    and denoise at the default ones.
    """
    sampler, steps = tables["sampler"], int(tables["run"]["steps"])
    if "rtol" in sampler:
        (usual, tolerance), asked = _ADAPTIVE, float(sampler["rtol"] + sampler["atol"])
        return max(2.5 * steps, usual * math.pow(tolerance / asked, 0.2))
    calls = 1 + sampler.get("prior_steps", 0)
    calls += sampler["ode_steps"] + 1 if sampler.get("centre") == "ode" else 0
    calls += _LANGEVIN * sampler["inner_steps"] if sampler.get("inner") == "langevin" else 0
    corrections = tables.get("corrector", {}).get("n_steps", 0)
    return float(steps * (max(1.0, calls / _STEP) + corrections))


def plan(directory: Path, identity: object, samples: int, chunk: int) -> list[Unit]:
    """Units of one image; identity is everything that decides the samples, as JSON can write it."""
    return [
        Unit(directory, first, n, _hash([identity, first, n]))
        for first in range(0, samples, chunk)
        for n in [min(chunk, samples - first)]
    ]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
