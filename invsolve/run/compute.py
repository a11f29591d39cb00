"""One unit of work, inside whatever process: read the problem, build its parts, walk, write the shard."""

import time
import traceback
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import InvsolveError, OutputError
from invsolve.isolation import reason
from invsolve.posterior import Posterior
from invsolve.run import parts
from invsolve.run.events import Done, Event, Failed, Tick
from invsolve.run.problem import Problem
from invsolve.run.shards import Shard, write_shard
from invsolve.run.units import Unit
from invsolve.samplers.walk import Step

__all__ = ["PROBLEM", "attempt", "share_of", "states"]

PROBLEM = "problem.npz"
_NO_MEMORY = "there is not enough memory for a single sample. Give a smaller image, or smaller tiles: --tile."


@lru_cache(maxsize=1)
def _ready(directory: Path, written: int) -> tuple[Problem, parts.Parts]:
    """Read a problem and build its parts, once for all its units."""
    problem = Problem.load(directory / PROBLEM)
    if problem is None:
        raise OutputError(f"{directory / PROBLEM} is gone or damaged. The same command makes it again.")
    return problem, parts.Parts.of(problem)


def _written(path: Path) -> int:
    """When a file was written, ns; OutputError where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        raise OutputError(f"{path} is gone. The same command makes it again.") from None


def attempt(unit: Unit) -> Iterator[Event]:
    """Compute a unit and write its shard; whatever goes wrong becomes an event."""
    try:
        problem, made = _ready(unit.directory, _written(unit.directory / PROBLEM))
        shard = yield from _shard(unit, problem, made)
        write_shard(unit.shard, shard)
        yield Done(unit)
    except InvsolveError as error:
        yield Failed(unit, str(error), error.exit_code)
    except (Exception, SystemExit) as error:  # a plugin may raise anything, and other units go on
        if _memory(error):
            yield Failed(unit, _NO_MEMORY, 4)
        else:
            yield Failed(unit, reason(error), 3, traceback.format_exc())


def _shard(unit: Unit, problem: Problem, made: parts.Parts) -> Generator[Tick, None, Shard]:
    """Compute all samples of the unit at once, or one by one where memory does not suffice."""
    clock, started = time.perf_counter(), time.time()
    made.posterior.calls.clear()
    made.likelihood.calls.clear()
    try:
        walked = [(yield from _walk(unit, unit.first, unit.n, problem, made))]
    except (MemoryError, RuntimeError) as error:
        if not _memory(error) or unit.n == 1 or hasattr(made.sampler, "weighed"):  # a set is never split
            raise
        walked = []
    for first in range(unit.first, unit.first + unit.n) if not walked else ():
        walked.append((yield from _walk(unit, first, 1, problem, made)))
    samples = torch.cat([x for x, _ in walked]).cpu().float().numpy()
    trace = {name: torch.cat([t[name] for _, t in walked]).cpu().float().numpy() for name in walked[0][1]}
    calls = dict(made.posterior.calls + made.likelihood.calls)
    seconds = time.perf_counter() - clock
    return Shard(unit.first, samples, calls, started, seconds, problem.device, trace)


def _walk(
    unit: Unit, first: int, n: int, problem: Problem, made: parts.Parts
) -> Generator[Tick, None, tuple[Tensor, dict[str, Tensor]]]:
    """Samples first .. first + n - 1 of the unit, and what is traced: chi2 of each state on the way, (n,
    states), and what a sampler of particle sets says of its sets."""
    chi2, of_sets = list[Tensor](), dict[str, Tensor]()
    for step, of_sets in states(made.sampler, made.posterior, n, problem.seed, first):  # noqa: B007  used below
        each = made.chi2(step.x[:n])  # of a particle set as many as there will be samples
        chi2 += [each] if step.share is None else []  # states at steps of their own fit no table
        share = share_of(step, made.steps)
        yield Tick(unit, (first - unit.first + n * share) / unit.n, float(each.mean()))
    return step.x.detach(), {"chi2": torch.stack(chi2 or [each], 1), **of_sets}


def states(
    sampler: Any,  # noqa: ANN401  any callable (posterior, n, seed, first)
    posterior: Posterior,
    n: int,
    seed: int,
    first: int,
) -> Iterator[tuple[Step, dict[str, Tensor]]]:
    """States of the walk, the last of which is the samples, with what is then known of particle sets; a
    sampler without a walk has one state."""
    if hasattr(sampler, "weighing"):
        for step, found in sampler.weighing(posterior, n, seed, first):
            yield step, {"ess": found.ess, "log_evidence": found.log_evidence} if found else {}
    elif hasattr(sampler, "walk"):
        for step in sampler.walk(posterior, n, seed, first):
            yield step, {}
    else:
        yield Step(1, 0.0, sampler(posterior, n, seed, first), 1.0), {}


def share_of(step: Step, steps: int) -> float:
    """Share of a walk of that many steps that is done, 0 to 1; PC makes one more, to the mean."""
    return step.i / (steps + 1) if step.share is None else step.share


def _memory(error: BaseException) -> bool:
    """Whether this is lack of memory: torch on a CPU says so in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
