"""What every benchmark prints beside its numbers: an interval for a mean, and where the numbers come from."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from invsolve.bench.figures import interval, over, table

__all__ = ["commit", "interval", "over", "place", "provenance", "table"]


def commit() -> str:
    """Commit of the checkout, with a + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def provenance(argv: Sequence[str] | None = None) -> str:
    """One line that lets the numbers be made again: command, commit, machine, versions."""
    command = shlex.join([Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)])
    return f"{command}; {place()}"


def place() -> str:
    """Commit, machine and versions."""
    return f"commit {commit()}; {_processor()}, torch {torch.__version__}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
