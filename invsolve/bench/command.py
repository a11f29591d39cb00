"""What `invsolve bench posterior` does, from the texts of its flags to its files.

DIR/posterior.json    the rows, one a method, problem and seed, and the settings they were computed with
DIR/summary.json      means, intervals and floors, and where the numbers come from
DIR/posterior.md      the tables
DIR/posterior.png     distance over floor
"""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from invsolve.bench.methods import builtin_methods
from invsolve.bench.peers import peers_of
from invsolve.bench.posterior import Plan, measure, rows_of
from invsolve.bench.record import Record
from invsolve.bench.summary import Cell, cells, plot, tables
from invsolve.errors import InputError, UnknownName
from invsolve.files import writable, write_whole
from invsolve.plain_json import json_text

__all__ = ["bench_posterior", "chosen"]


def chosen(benchmark: str) -> None:
    """Refuse a benchmark that there is not."""
    if benchmark != "posterior":
        raise UnknownName("benchmark", benchmark, ["posterior"])


def bench_posterior(
    dx: str,
    dy: str,
    images: str,
    side: int,
    methods: str | None,
    peers: str,
    seeds: int,
    samples: int,
    steps: int | None,
    out: Path,
    *,
    overwrite: bool = False,
) -> tuple[dict[str, object], str]:
    """Measure what the texts name, write the files, and return the summary and the tables."""
    names = _words(methods) if methods is not None else builtin_methods()
    names += [name for library in _words(peers) for name in peers_of(library)]
    plan = Plan(
        _pairs(dx, dy), tuple(_words(images)), side, tuple(names), methods is not None, seeds, samples, steps
    )
    writable(out)
    identity: dict[str, object] = {"samples": samples, "steps": steps, "version": version("invsolve")}
    record = Record(out / "posterior.json", identity, overwrite=overwrite)
    total = sum(1 for _ in plan.units())
    for unit in measure(plan, record):
        print(f"{len(record.rows) + 1} of {total}: {unit.key}", file=sys.stderr, flush=True)
    return _write(cells(rows_of(record, plan)), identity, out)


def _pairs(dx: str, dy: str) -> tuple[tuple[int, int], ...]:
    """Pair each d_x with each d_y; where more would be measured than there is, say that it is left out."""
    pairs = [(x, y) for x in _numbers("dx", dx) for y in _numbers("dy", dy)]
    for x, y in pairs:
        if y > x:
            print(f"mixture {x}/{y} is left out: d_y is more than d_x", file=sys.stderr)
    return tuple((x, y) for x, y in pairs if y <= x)


def _write(found: list[Cell], identity: dict[str, object], out: Path) -> tuple[dict[str, object], str]:
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    summary: dict[str, object] = identity | {"machine": machine, "cells": found}
    shown = tables(found)
    write_whole(out / "summary.json", json_text(summary, 1).encode())
    write_whole(out / "posterior.md", (shown + "\n").encode())
    plot(found, out / "posterior.png")
    return summary, shown


def _words(given: str) -> list[str]:
    return [] if given == "none" else [word.strip() for word in given.split(",") if word.strip()]


def _numbers(name: str, given: str) -> list[int]:
    try:
        return [int(word) for word in _words(given)]
    except ValueError:
        raise InputError(f"--{name} must be whole numbers with commas, but it is {given!r}.") from None
