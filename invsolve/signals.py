"""Ctrl-C (SIGINT) and a scheduler's SIGTERM: both stop a command in an orderly way, its processes with it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "deaf", "started_by_others", "terminable"]


def started_by_others() -> bool:
    """Whether torchrun, or a scheduler, started this process as one of several."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a scheduler sends before it kills."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated inside at a SIGTERM, as KeyboardInterrupt is at a SIGINT.

    Not in one process of several that others started: it may wait in a library for a peer that hangs, where
    Python hears nothing, and who started it says what happened.
    """
    if started_by_others() or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    with _answered(signal.SIGTERM, stop):
        yield


@contextmanager
def deaf() -> Iterator[None]:
    """Let processes started inside ignore Ctrl-C from their first instruction on: the parent decides."""
    with _answered(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def _answered(
    number: int, answer: Callable[[int, FrameType | None], None] | signal.Handlers
) -> Iterator[None]:
    """Answer a signal in another way, in the main thread: no other may choose."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, answer)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)
