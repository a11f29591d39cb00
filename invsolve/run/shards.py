"""Shards: the samples of one unit in one HDF5 file, written whole, checked whenever they are read.

    /samples (n, *event) float32     /trace/chi2 (n, states)
    of whole particle sets also      /trace/ess (sets, states)    /trace/log_evidence (sets)
    attributes: first, sha256, calls (JSON), started, seconds, device

A shard is done when it is there and the stored SHA-256 of its samples is that of its samples. Any other file
is redone.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invsolve.files import write_whole

__all__ = ["Shard", "read_shard", "write_shard"]


@dataclass(frozen=True)
class Shard:
    """What a unit computed: samples (n, *event), the calls it made over all its samples, and the time it
    took."""

    first: int
    samples: NDArray[np.float32]
    calls: Mapping[str, int]
    started: float  # seconds since 1970
    seconds: float
    device: str = "cpu"
    trace: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard, whole or not at all."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["samples"] = shard.samples
        for name, values in shard.trace.items():
            file[f"trace/{name}"] = values
        file.attrs["first"] = shard.first
        file.attrs["sha256"] = _digest(shard.samples)
        file.attrs["calls"] = json.dumps(shard.calls)
        file.attrs["started"] = shard.started
        file.attrs["seconds"] = shard.seconds
        file.attrs["device"] = shard.device
    write_whole(path, buffer.getvalue())


def read_shard(path: Path) -> Shard | None:
    """Read and check a shard; None where it is damaged."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _checked(file)
    except (OSError, KeyError, ValueError, RuntimeError):  # how h5py says that a file is damaged
        return None


def _checked(file: Any) -> Shard | None:  # noqa: ANN401  h5py has no types
    samples, attrs = file["samples"][()], file.attrs
    if attrs["sha256"] != _digest(samples):
        return None
    trace = {name: values[()] for name, values in file.get("trace", {}).items()}
    return Shard(
        int(attrs["first"]),
        samples,
        json.loads(attrs["calls"]),
        float(attrs["started"]),
        float(attrs["seconds"]),
        str(attrs["device"]),
        trace,
    )


def _digest(samples: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()
