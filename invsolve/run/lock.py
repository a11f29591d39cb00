"""One run at a time in a directory: a lock that the system takes back however the process ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from invsolve.errors import OutputError
from invsolve.files import writable

__all__ = ["locked"]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory, made if need be, removed if it stays empty; OutputError where another run does."""
    writable(directory)
    try:
        import fcntl
    except ImportError:  # Windows: the user takes care
        yield
        return
    path = directory / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another run is at work in {directory}. Wait for it, or choose another --out."
            ) from None
        except OSError:  # a file system without locks: two runs would compute the same shards, no harm
            yield
            return
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if not any(directory.iterdir()):
                directory.rmdir()
