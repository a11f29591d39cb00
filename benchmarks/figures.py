"""What every benchmark prints beside its numbers: an interval for a mean, and where the numbers come from."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t  # type: ignore[import-untyped]  # scipy ships no types

__all__ = ["commit", "interval", "provenance", "table"]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; NaN for a single value."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)) if n else float("nan"), float("nan")
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return float(np.mean(values)), half


def commit() -> str:
    """Commit of the checkout, with a + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def provenance(argv: Sequence[str] | None = None) -> str:
    """One line that lets the numbers be made again: command, commit, machine, versions."""
    command = shlex.join([Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)])
    return f"{command}; commit {commit()}; {_processor()}, torch {torch.__version__}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
