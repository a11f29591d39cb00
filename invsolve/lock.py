"""One run or training at a time in a directory: a lock that the system takes back however a process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from invsolve.errors import OutputError
from invsolve.files import writable

__all__ = ["locked"]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory, made if need be, removed if it stays empty; OutputError where another run does."""
    if os.name != "posix":  # Windows: the user takes care
        writable(directory)
        yield
        return
    path, file = directory / ".lock", None
    while file is None:
        writable(directory)
        file = _taken(path)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # results lie in it, or the next run's lock
                directory.rmdir()


def _taken(path: Path) -> IO[str] | None:
    """Open and lock the file; None where a run that ended took it away meanwhile, so to be tried again."""
    try:
        file = path.open("w")
    except FileNotFoundError:  # with its directory
        return None
    _lock(file, path.parent)
    if _is(file, path):
        return file
    file.close()  # a lock on a file without a name keeps nobody out
    return None


def _lock(file: IO[str], directory: Path) -> None:
    import fcntl  # not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(
            f"another run is at work in {directory}. Wait for it, or choose another --out."
        ) from None
    except OSError:  # a file system without locks: two runs would compute the same shards, no harm
        return


def _is(file: IO[str], path: Path) -> bool:
    """Whether the open file still has that path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
