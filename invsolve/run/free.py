"""A run without operator and INPUT: samples of a prior given a likelihood of x_0 alone, such as a class.

    invsolve run --prior digits --likelihood classifier --label 7 --samples 20

    DIR/run.toml  DIR/units/*.h5  DIR/posterior.h5  DIR/metrics.json  DIR/mean.png  DIR/std.png
    DIR/samples/000.png ...  DIR/sheet.png    each sample, and all of them at once

Units, shards, resuming and the record of a finished run are those of any other run. What is heavy is imported
when there is something to compute.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from invsolve.errors import InputError
from invsolve.gamma import parse_gamma
from invsolve.lock import locked
from invsolve.registry import Registry
from invsolve.run import record, settings
from invsolve.run.drive import Outcome
from invsolve.run.settings import Tables
from invsolve.run.tile import AUTO

if TYPE_CHECKING:
    from invsolve.run.screen import Screen

__all__ = ["implied", "is_free", "resolve", "run"]

_KINDS = tuple(kind for kind in settings.PARTS if kind != "operator")
_DEFAULTS = {"gamma": 1.0, "samples": 8, "seed": 0, "tile": AUTO, "device": "auto"}
_GAMMA = {"classifier": 4.0}  # cross-entropy learns slopes too rough for Bayes' 1: docs/classifiers.md
_OF_A_MEASUREMENT = {"input": "INPUT", "simulate": "--simulate", "truth": "--truth", "sigma_y": "--sigma-y"}


def is_free(tables: Tables, registry: Registry) -> bool:
    """Whether the likelihood that was asked for needs neither a measurement nor an operator."""
    name = tables.get("likelihood", {}).get("name")
    return name is not None and not registry.needs("likelihood", str(name))


def implied(tables: Tables) -> Tables:
    """Choose the guidance that fits, and its weight, where none was asked for."""
    gamma = _GAMMA.get(str(tables["likelihood"]["name"]))
    weight: Tables = {} if gamma is None else {"run": {"gamma": gamma}}
    return settings.merge({"guidance": {"name": "classifier"}} | weight, tables)


def resolve(given: Tables, registry: Registry, config: Path | None = None) -> Tables:
    """Fill in every default and refuse what belongs to a measurement."""
    name = given["likelihood"]["name"]
    extra = [word for key, word in _OF_A_MEASUREMENT.items() if given.get("run", {}).get(key)]
    extra += ["--operator"] if given.get("operator") else []
    if extra:
        raise InputError(f"likelihood {name} is of the image itself: leave out {' and '.join(extra)}.")
    run = _DEFAULTS | given.get("run", {})
    tables: Tables = {"run": run} | settings.resolve_parts(given, registry, _KINDS, config)
    settings.take_steps(run, tables["sampler"])
    settings.check_counts(run)
    parse_gamma(str(run["gamma"]))
    return tables


def run(tables: Tables, out: Path | None, screen: "Screen", *, overwrite: bool = False) -> Outcome:
    """Do the run, or what is left of it."""
    out = out or Path(_name(tables))
    outcome = Outcome(out)
    reports = None if overwrite else record.finished(out, tables, [])
    if reports is not None:
        screen.note("this run is finished already; --overwrite starts it anew")
        outcome.images = reports
        return outcome
    if not overwrite:
        record.check_settings(out, tables)
    with locked(out):
        (out / record.FINISHED).unlink(missing_ok=True)
        if overwrite:
            record.forget(out)
        went_in = record.contents(tables, [])
        try:
            outcome.images = [_compute(tables, out, screen)]
        except InputError:
            record.withdraw(out)
            raise
        record.finish(out, tables, [], outcome.images, went_in)
    return outcome


def _compute(tables: Tables, out: Path, screen: "Screen") -> dict[str, object]:
    from invsolve.run.conditional import draw

    return draw(tables, out, screen)


def _name(tables: Tables) -> str:
    """Name of the directory: digits-classifier-7."""
    words = [Path(str(tables[kind]["name"]).rpartition(":")[2]).stem for kind in ("prior", "likelihood")]
    label = tables["likelihood"].get("label")
    return "-".join(words + ([] if label is None else [str(label)])).replace(os.sep, "-")
