"""The files of a finished image: posterior.h5, the pictures, and metrics.json last."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from invsolve.arrays import Floats
from invsolve.errors import OutputError
from invsolve.files import write_whole
from invsolve.images import save_png
from invsolve.metrics import summary
from invsolve.plain_json import finite, json_text
from invsolve.result import Result
from invsolve.run import parts
from invsolve.run.pictures import save_moments, save_samples
from invsolve.run.prepare import Case
from invsolve.run.problem import Problem
from invsolve.run.shards import Shard, read_shard

__all__ = ["joined", "merge", "record_of", "write"]

_CALLS = ("forward", "vjp", "A", "At")


def merge(problem: Problem, shards: Sequence[Shard]) -> Result:
    """Join the shards of one image into its result."""
    ordered = sorted(shards, key=lambda shard: shard.first)
    samples = torch.from_numpy(np.concatenate([shard.samples for shard in ordered]))
    chi2 = [torch.from_numpy(shard.trace["chi2"]) for shard in ordered]
    return Result(
        samples=samples,
        nfe={name: sum(s.calls.get(name, 0) for s in ordered) / len(samples) for name in _CALLS},
        seconds=_covered([(shard.started, shard.started + shard.seconds) for shard in shards]),
        measurement=torch.from_numpy(problem.y),
        truth=_tensor(problem.truth),
        mask=_tensor(problem.mask),
        trace={"chi2": torch.cat(chi2)} if len({c.shape[1] for c in chi2}) == 1 else {},
        config=problem.tables,
        seed=problem.seed,
        prior_sha256=str(problem.identity.get("prior sha256", "")),
        units=len(ordered),
        ess=joined(ordered, "ess"),
        log_evidence=joined(ordered, "log_evidence"),
    )


def joined(shards: Sequence[Shard], name: str) -> torch.Tensor | None:
    """What shards say of their particle sets, in order; None where they had none."""
    found = [torch.from_numpy(shard.trace[name]) for shard in shards if name in shard.trace]
    return torch.cat(found) if found else None


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of time spans: what the run took, without the pauses between its starts."""
    total, until = 0.0, -math.inf
    for start, end in sorted(spans):
        total, until = total + max(0.0, end - max(start, until)), max(until, end)
    return total


def _tensor(values: Floats | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values)


def write(case: Case) -> dict[str, Any]:  # Any: JSON
    """Write everything of one image and return its report."""
    shards = [shard for unit in case.done if (shard := read_shard(unit.shard))]
    if len(shards) < len(case.done):
        raise OutputError(
            f"shards in {case.folder} were damaged during the run. The same command again redoes them."
        )
    directory, problem = case.input.directory, case.problem
    result = replace(merge(problem, shards), chosen=case.chosen)
    result.save(directory / "posterior.h5")
    save_png(directory / "measurement.png", problem.picture)
    save_moments(directory, result)
    save_samples(directory, result.samples)
    metrics = _metrics(case, result)
    write_whole(directory / "metrics.json", json_text(metrics, 1).encode())
    notes = [*case.notes, *_doubts(metrics, simulated=bool(problem.tables["run"]["simulate"]))]
    return {"input": str(case.input.path), "out": str(directory), "metrics": metrics, "notes": notes}


def _doubts(metrics: Mapping[str, Any], *, simulated: bool) -> list[str]:  # Any: JSON
    """Say where the samples contradict the measurement's noise, and what may be the cause."""
    chi2 = metrics["chi2"]
    if chi2 is not None and 0.5 <= chi2 <= 1.5:
        return []
    found = "infinite" if chi2 is None else f"{chi2:.3g}"
    cause = "are there enough --steps for this method?" if simulated else "is --sigma-y right?"
    return [f"chi2 is {found}, but a right posterior has about 1: {cause}"]


def _metrics(case: Case, result: Result) -> dict[str, Any]:  # Any: JSON
    problem = case.problem
    operator = parts.build_operator(problem.tables, problem.shape, "cpu", problem.alpha)
    measured = summary(
        result.samples,
        torch.from_numpy(problem.y),
        operator,
        problem.sigma_y,
        picture=problem.picture,
        truth=problem.truth,
        mask=problem.mask,
        antithetic=case.antithetic,
    )
    metrics: dict[str, Any] = finite(measured) | record_of(result)
    return metrics


def record_of(result: Result) -> dict[str, Any]:  # Any: JSON
    """What the result says of its own making: cost, particle sets, and what was chosen."""
    cost = {"nfe": dict(result.nfe), "seconds": round(result.seconds, 3), "samples": len(result.samples)}
    return particles(result) | cost | ({"chosen": result.chosen} if result.chosen else {})


def particles(result: Result) -> dict[str, Any]:  # Any: JSON
    """Least and last effective sample size, a mean over sets, and the log of their mean evidence."""
    if result.ess is None or result.log_evidence is None:
        return {}
    ess, each = result.ess.double(), result.log_evidence.double()
    sizes = {"least": float(ess.amin(1).mean()), "last": float(ess[:, -1].mean())}
    return {"ess": sizes, "log_evidence": float(each.logsumexp(0) - math.log(len(each)))}
