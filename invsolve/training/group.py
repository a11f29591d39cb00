"""The processes of one training: who starts them, what they tell each other, and how they fail together.

`train` starts its own (processes=2), on this machine; or it is started several times, by torchrun or by a
scheduler that sets RANK, WORLD_SIZE and MASTER_ADDR:

    torchrun --standalone --nproc-per-node 2 -m invsolve train --config photo --data images --out run

Both ways are the same run: process k of n draws from (seed, step, k), and gradients are averaged through
gloo, so two processes of either kind leave the same loss curve, on CPUs bit for bit. A process that dies
takes the others with it, for no step is whole without its share; the same command goes on from the last
checkpoint.
"""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from invsolve import errors
from invsolve.errors import Interrupted, InvsolveError
from invsolve.heap import keep_freed_memory
from invsolve.signals import deaf, started_by_others

__all__ = ["agreed", "average", "local_rank", "rank", "start", "started_by_others", "world"]

AGAIN = "The same command goes on from the last checkpoint."


def rank() -> int:
    """Number of this process, 0 for the one that reports and saves."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if started_by_others() else 0


def local_rank() -> int:
    """Number of this process among those of its machine."""
    told = (os.environ[name] for name in ("LOCAL_RANK", "SLURM_LOCALID") if name in os.environ)
    return int(next(told, rank())) if started_by_others() else rank()


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start(work: Callable[..., None], arguments: tuple[object, ...], processes: int) -> None:
    """Call work(*arguments) here, in processes of our own, or as one of those that others started.

    work is a function of a module, so that a new process finds it.
    """
    if started_by_others():
        _meet()
        _together(work, arguments)
    elif processes == 1:
        work(*arguments)
    else:
        with tempfile.TemporaryDirectory() as meeting:
            try:
                _spawned((work, arguments, meeting, processes), processes)
            except ProcessExitedException as error:
                raise _failure(Path(meeting), error) from None


def agreed(value: float) -> float:
    """Take the first process's value on every process: clocks differ."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    with _among_peers():
        dist.broadcast(shared, 0)
    return shared.item()


def average(gradient: Tensor) -> None:
    """Replace each process's vector by their mean."""
    if world() > 1:
        shared = gradient.cpu()  # gloo's devices
        with _among_peers():
            dist.all_reduce(shared)
        gradient.copy_(shared / world())


@contextmanager
def _among_peers() -> Iterator[None]:
    """Say what a broken connection means: gloo reports it as a RuntimeError of many words."""
    try:
        yield
    except RuntimeError:
        raise Interrupted(f"another process of this training is gone. {AGAIN}") from None


def _spawned(arguments: tuple[object, ...], processes: int) -> None:
    """Start processes that _join and wait for them; what stops the waiting, such as Ctrl-C, ends them."""
    with deaf():
        started = spawn(_join, arguments, nprocs=processes, join=False, daemon=True)  # type: ignore[no-untyped-call]  # unannotated in torch
    try:
        while not started.join():
            pass
    finally:
        for process in started.processes:
            process.kill()
            process.join()


def _join(
    number: int, work: Callable[..., None], arguments: tuple[object, ...], meeting: str, n: int
) -> None:
    """Work as one of several processes, a single thread each, which end with the one that started them."""
    torch.set_num_threads(1)
    keep_freed_memory()
    parent = parent_process()
    assert parent is not None, "spawn starts this"
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
    _meet(init_method=f"file://{meeting}/meeting", rank=number, world_size=n)
    try:
        _together(work, arguments)
    except InvsolveError as error:
        said = {"kind": type(error).__name__, "message": str(error)}
        (Path(meeting) / f"{number}.json").write_text(json.dumps(said))
        sys.exit(error.exit_code)


def _meet(init_method: str | None = None, rank: int = -1, world_size: int = -1) -> None:
    """Form the group, which ends where it is left: gloo's threads abort a process that ends before them.

    torch.distributed.nn.functional, which torch's optimizers import, keeps the group of that moment as a
    default of its functions, and with it the threads; imported before, it keeps none.
    """
    import_module("torch.distributed.nn.functional")
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world_size)


def _together(work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """Work as one of a group and leave it together: gloo aborts a process whose peer is gone."""
    try:
        work(*arguments)
        with _among_peers():
            dist.barrier()
    finally:
        dist.destroy_process_group()


def _failure(meeting: Path, ended: ProcessExitedException) -> InvsolveError:
    """The error that a process wrote down before it ended, or that it was killed."""
    said = [json.loads(file.read_text()) for file in sorted(meeting.glob("*.json"))]
    said.sort(key=lambda line: line["kind"] == Interrupted.__name__)  # the cause before its consequence
    if said and (said[0]["kind"] != Interrupted.__name__ or not ended.signal_name):
        kind: type[InvsolveError] = getattr(errors, said[0]["kind"])
        return kind.__new__(kind, said[0]["message"])  # a message is whole: no words of a constructor
    by = f"was killed by {ended.signal_name}" if ended.signal_name else f"ended with code {ended.exit_code}"
    return Interrupted(f"process {ended.error_index} of this training {by}. {AGAIN}")
