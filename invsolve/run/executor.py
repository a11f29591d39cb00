"""Executors: units in, events out. Here in this process, or in one single-thread process per core.

A worker process gets one unit at a time through a pipe of its own, computes it, writes the shard itself and
sends events back; no array crosses a process border. Because a worker holds one unit, its death is charged to
that unit alone: the unit is tried again in a fresh process, three times in all, and then reported as failed
while the others go on. A worker whose parent is gone finds its pipe closed at the next step and ends.
"""

import importlib
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from invsolve.heap import keep_freed_memory
from invsolve.run.events import Done, Event, Failed
from invsolve.run.units import Unit
from invsolve.signals import deaf

__all__ = ["Workers", "cores", "here", "obey", "one_thread"]

Serve = Callable[[Connection], None]
_ATTEMPTS = 3
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def here(units: Iterable[Unit]) -> Iterator[Event]:
    """Compute the units one after the other in this process, with one thread on a CPU."""
    from invsolve.run.compute import attempt

    with one_thread():
        for unit in units:
            yield from attempt(unit)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread inside: the sums of several differ in their last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Workers:
    """Single-thread processes that start to import torch as soon as this is made."""

    def __init__(self, count: int, serve: Serve | None = None) -> None:
        """Start them; serve is what each does with its pipe, for the tests."""
        self._serve = serve or _serve
        self._workers = [_Worker(self._serve) for _ in range(count)]
        self._deaths: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._workers)

    def __call__(self, units: Iterable[Unit]) -> Iterator[Event]:
        """Compute the units, in any order; take the next unit from the iterable only when a worker is
        idle."""
        source, again = iter(units), deque[Unit]()
        while True:
            for worker in self._workers:
                if worker.unit is None and (unit := again.popleft() if again else next(source, None)):
                    worker.give(unit)
            busy = {worker.connection: worker for worker in self._workers if worker.unit}
            if not busy:
                return
            for connection in wait(list(busy)):
                yield from self._receive(busy[connection], again)  # type: ignore[index]  # wait gives back what it got

    def _receive(self, worker: "_Worker", again: "deque[Unit]") -> Iterator[Event]:
        try:
            event: Event = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._bury(worker, again)
            return
        if isinstance(event, Done | Failed):
            worker.unit = None
        yield event

    def _bury(self, worker: "_Worker", again: "deque[Unit]") -> Iterator[Event]:
        """Replace a dead worker; give its unit back, or up."""
        unit, cause = worker.unit, worker.stop()
        self._workers[self._workers.index(worker)] = _Worker(self._serve)
        assert unit is not None  # only busy workers are listened to
        self._deaths[unit.id] += 1
        if self._deaths[unit.id] < _ATTEMPTS:
            again.append(unit)
        else:
            yield Failed(unit, f"its process {cause}, {_ATTEMPTS} times out of {_ATTEMPTS}.")

    def close(self) -> None:
        """End all processes at once; what they had in hand is lost, shards are whole."""
        for worker in self._workers:
            worker.stop()
        self._workers = []


class _Worker:
    """One process and the unit it has in hand."""

    def __init__(self, serve: Serve) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        with deaf():
            self.process.start()
        theirs.close()  # so that its death closes the pipe
        self.unit: Unit | None = None

    def give(self, unit: Unit) -> None:
        """Hand over a unit; a dead worker is found out when it is listened to."""
        self.unit = unit
        try:
            self.connection.send(unit)
        except OSError:
            return

    def stop(self) -> str:
        """Kill the process and say how it had ended, if it had."""
        self.process.join(0.1)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.connection.close()
        if code is not None and code < 0:
            probably = ", probably for lack of memory" if code == -signal.SIGKILL else ""
            return f"was killed by signal {-code}{probably}"
        return f"ended with code {code}"


def _serve(connection: Connection) -> None:
    """Live as a worker: units come in, events go out, until the pipe closes."""
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    sys.stdout = sys.stderr  # plugins may print, and stdout carries the parent's results
    import torch

    from invsolve.run.compute import attempt

    torch.set_num_threads(1)
    keep_freed_memory()
    importlib.import_module("deepinv.physics")  # operators will need it: now, while the parent prepares
    obey(connection, attempt)


def obey(connection: Connection, attempt: Callable[[Unit], Iterable[Event]]) -> None:
    """Do with each unit what attempt does, and send its events, until the parent is gone."""
    try:
        while True:
            for event in attempt(connection.recv()):
                connection.send(event)
    except (EOFError, OSError):  # the parent is gone, and nobody waits for torch to take itself apart
        os._exit(0)


def cores() -> int:
    """CPU cores this process may use: its affinity, and the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))
