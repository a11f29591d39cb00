"""One unit of work, inside whatever process: read the problem, build its parts, walk, write the shard."""

import time
import traceback
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from invsolve.errors import InvsolveError, OutputError
from invsolve.isolation import reason
from invsolve.run import parts
from invsolve.run.events import Done, Event, Failed, Tick
from invsolve.run.problem import Problem
from invsolve.run.shards import Shard, write_shard
from invsolve.run.units import Unit

__all__ = ["PROBLEM", "attempt"]

PROBLEM = "problem.npz"
_NO_MEMORY = "there is not enough memory for a single sample. Give a smaller image, or smaller tiles: --tile."


@lru_cache(maxsize=1)
def _ready(directory: Path, written: int) -> tuple[Problem, parts.Parts]:
    """Read a problem and build its parts, once for all its units."""
    problem = Problem.load(directory / PROBLEM)
    if problem is None:
        raise OutputError(f"{directory / PROBLEM} is gone or damaged. The same command makes it again.")
    return problem, parts.Parts.of(problem)


def attempt(unit: Unit) -> Iterator[Event]:
    """Compute a unit and write its shard; whatever goes wrong becomes an event."""
    try:
        problem, made = _ready(unit.directory, (unit.directory / PROBLEM).stat().st_mtime_ns)
        shard = yield from _shard(unit, problem, made)
        write_shard(unit.shard, shard)
        yield Done(unit)
    except InvsolveError as error:
        yield Failed(unit, str(error), error.exit_code)
    except Exception as error:  # a plugin may raise anything, and other units go on
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
    chi2: list[Tensor] = []
    x, trace = torch.empty(0), dict[str, Tensor]()
    for i, steps, x, of_sets in _states(made, first, n, problem.seed):  # the last x is the samples
        chi2.append(made.chi2(x))
        trace |= of_sets
        share = (first - unit.first + n * i / steps) / unit.n
        yield Tick(unit, share, float(chi2[-1].mean()))
    return x.detach(), {"chi2": torch.stack(chi2, 1), **trace}


def _states(
    made: parts.Parts, first: int, n: int, seed: int
) -> Iterator[tuple[int, int, Tensor, dict[str, Tensor]]]:
    """States of the walk (i, of, x, nothing); a sampler without a walk has one, its samples."""
    if hasattr(made.sampler, "weighed"):
        samples, ess, log_evidence = made.sampler.weighed(made.posterior, n, seed, first)
        yield 1, 1, samples, {"ess": ess, "log_evidence": log_evidence}
    elif hasattr(made.sampler, "walk"):
        for step in made.sampler.walk(made.posterior, n, seed, first):
            yield step.i, made.steps + 1, step.x, {}
    else:
        yield 1, 1, made.sampler(made.posterior, n, seed, first), {}


def _memory(error: Exception) -> bool:
    """Whether this is lack of memory: torch on a CPU says so in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
