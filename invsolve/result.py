"""A result: the samples of a posterior, what they were drawn from, and what they cost. One HDF5 file holds
all of it.

    /samples (n, *event)   float32, with dimension scales     /mean /std (*event)   of them, std with ddof 1
    /measurement (*m)      as the operator gives it           /truth (*event)       where it is known
    /mask (1 or C, H, W)   1 = known, for masking operators   /log_weights (n)      of weighted samplers
    /trace/* (n, states)   per sample, for instance chi2 along the walk
    /ess (sets, states)    of particle sets: effective sample size along the walk, in particles
    /log_evidence (sets)   of particle sets: independent estimates of log p(y), nats

    attributes: invsolve_version, config (JSON), seed, prior_sha256, units, nfe (JSON, a sample), seconds,
    chosen

Reading needs neither the prior nor its weights. With one sample there is no spread, and std is NaN.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.files import write_whole

__all__ = ["Result"]

_SCALES = {4: ("sample", "channel", "row", "column"), 3: ("channel", "row", "column")}
_OPTIONAL = ("measurement", "truth", "mask", "log_weights", "ess", "log_evidence")


@dataclass(frozen=True)
class Result:
    """Samples (n, *event) and their origin; nfe counts calls per sample: forward, vjp, A, At.

    ess (sets, states) and log_evidence (sets,) are those of a particle sampler's sets, None for others.
    chosen says what "auto" took and why, on one line; it is empty where everything was named.
    """

    samples: Tensor
    nfe: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    measurement: Tensor | None = None
    truth: Tensor | None = None
    mask: Tensor | None = None
    log_weights: Tensor | None = None
    ess: Tensor | None = None
    log_evidence: Tensor | None = None
    trace: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # Any: settings are numbers, names and tables
    seed: int = 0
    prior_sha256: str = ""
    units: int = 1
    chosen: str = ""

    @cached_property
    def weights(self) -> Tensor:
        """Weights of the samples, (n,), of sum 1."""
        if self.log_weights is None:
            return torch.full((len(self.samples),), 1 / len(self.samples), dtype=torch.float64)
        return self.log_weights.double().softmax(0)

    @cached_property
    def mean(self) -> Tensor:
        """Posterior mean, (*event), in the dtype of the samples."""
        return self._average(self.samples.double()).to(self.samples.dtype)

    @cached_property
    def std(self) -> Tensor:
        """Posterior standard deviation, (*event), ddof 1; NaN for one sample."""
        n = len(self.samples)
        if n == 1:
            return torch.full_like(self.samples[0], torch.nan)
        square = self._average((self.samples.double() - self.mean.double()) ** 2)
        return (square * n / (n - 1)).sqrt().to(self.samples.dtype)

    def _average(self, values: Tensor) -> Tensor:
        average: Tensor = torch.tensordot(self.weights.to(values), values, 1)
        return average

    def save(self, path: Path | str) -> None:
        """Write the result as one HDF5 file, whole or not at all."""
        import h5py

        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for name, values in self._arrays().items():
                file[name] = values.detach().cpu().float().numpy()
            _attach_scales(file)
            for name, value in self._attributes().items():
                file.attrs[name] = value
        write_whole(Path(path), buffer.getvalue())

    def _arrays(self) -> dict[str, Tensor]:
        arrays = {"samples": self.samples, "mean": self.mean, "std": self.std}
        arrays |= {name: value for name in _OPTIONAL if (value := getattr(self, name)) is not None}
        return arrays | {f"trace/{name}": values for name, values in self.trace.items()}

    def _attributes(self) -> dict[str, str | int | float]:
        from importlib.metadata import version

        return {
            "invsolve_version": version("invsolve"),
            "config": json.dumps(self.config),
            "nfe": json.dumps(dict(self.nfe)),
            "seconds": self.seconds,
            "seed": self.seed,
            "prior_sha256": self.prior_sha256,
            "units": self.units,
            "chosen": self.chosen,
        }

    @classmethod
    def load(cls, path: Path | str) -> "Result":
        """Read a result file; InputError where it is none."""
        import h5py

        try:
            with h5py.File(path, "r") as file:
                return cls(**_read(file))
        except FileNotFoundError:
            raise InputError(f"there is no result file {path}.") from None
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path} is not a result file of invsolve ({error}).") from error


def _attach_scales(file: Any) -> None:  # noqa: ANN401  h5py has no types
    """Name the axes of every dataset that is shaped like samples or like one of them."""
    samples = file["samples"]
    if samples.ndim not in _SCALES:
        return
    names = _SCALES[samples.ndim]
    for name, size in zip(names, samples.shape, strict=True):
        file[name] = range(size)
        file[name].make_scale(name)
    for name in ("samples", "mean", "std", "truth"):
        if name in file:
            dataset = file[name]
            for axis, scale in enumerate(names[-dataset.ndim :]):
                dataset.dims[axis].label = scale
                dataset.dims[axis].attach_scale(file[scale])


def _read(file: Any) -> dict[str, Any]:  # noqa: ANN401  h5py has no types
    arrays = {name: torch.from_numpy(file[name][()]) for name in ("samples", *_OPTIONAL) if name in file}
    trace = {name: torch.from_numpy(values[()]) for name, values in file.get("trace", {}).items()}
    attrs = file.attrs
    return {
        **arrays,
        "trace": trace,
        "config": json.loads(attrs["config"]),
        "nfe": json.loads(attrs["nfe"]),
        "seconds": float(attrs["seconds"]),
        "seed": int(attrs["seed"]),
        "prior_sha256": str(attrs["prior_sha256"]),
        "units": int(attrs["units"]),
        "chosen": str(attrs.get("chosen", "")),  # files of version 0.1.0 may lack it
    }
