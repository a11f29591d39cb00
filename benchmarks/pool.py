"""Units of work in single-thread processes, which end with the one that started them."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

import torch

Unit = TypeVar("Unit")
Row = TypeVar("Row")


def computed(
    compute: Callable[[Unit], Row], todo: Sequence[Unit], processes: int
) -> Iterator[tuple[Unit, Row]]:
    """Compute units in single-thread processes, or in this one, and yield each when it is done."""
    if processes < 2:
        torch.set_num_threads(1)
        yield from ((unit, compute(unit)) for unit in todo)
        return
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with ProcessPoolExecutor(processes, get_context("spawn"), _start) as pool:
        futures = {pool.submit(compute, unit): unit for unit in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _start() -> None:
    """Keep a worker to one thread, and end it with its parent."""
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
