"""Files that are whole or absent, whatever kills the process: write beside, flush to disk, rename.

A rename replaces a file in one step on one file system; fsync of the file before it and of the directory
after it make that hold through a power cut too. Names that end in .part are leftovers of a killed process.
"""

import hashlib
import os
from pathlib import Path

from invsolve.errors import OutputError

__all__ = ["PART", "sha256_of", "sweep", "writable", "write_whole"]

PART = ".part"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in full or not at all; OutputError names the path and the reason."""
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        _flushed(part, content)
        os.replace(part, path)
        _flush_directory(path.parent)
    except OSError as error:
        _remove(part)
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error


def writable(directory: Path) -> None:
    """Make the directory, and check that files can be written into it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the directory {directory}: {error.strerror or error}.") from error
    probe = directory / f".probe.{os.getpid()}{PART}"
    try:
        _flushed(probe, b"\0")
        probe.unlink()
    except OSError as error:
        _remove(probe)
        raise OutputError(f"cannot write into {directory}: {error.strerror or error}.") from error


def sweep(directory: Path) -> int:
    """Remove what killed processes left half-written; return how many files that were."""
    parts = [path for path in directory.glob(f".*{PART}") if path.is_file()]
    for part in parts:
        part.unlink(missing_ok=True)
    return len(parts)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # the write's own error is the one to report
        return


def _flush_directory(directory: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
