"""The command `invsolve calibrate`: whether a solver's samples are draws of the posterior, on simulated
problems."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli.run import directory, option, show_help, with_options
from invsolve.errors import InputError
from invsolve.gamma import parse_gamma
from invsolve.lock import locked
from invsolve.plain_json import json_text
from invsolve.plugins import Registry, load
from invsolve.run import settings
from invsolve.run.screen import screen
from invsolve.run.settings import Tables
from invsolve.run.tile import AUTO

__all__ = ["calibrate_command"]

_KINDS = ("operator", "prior", "sde", "guidance", "sampler", "predictor", "corrector")
_NUMBERS = ("problems", "samples", "sigma-y", "assumed-sigma-y", "gamma", "steps", "seed", "device")
_OWN = (*_KINDS, *_NUMBERS, "size", "truths", "out", "overwrite", "json", "quiet", "help")
_OPERATOR = "what happened to the image: a name of `invsolve list operators`, or ./file.py:NAME"
_PRIOR = "a name of `invsolve list priors`, a weight file, or ./file.py:NAME, such as an exact prior"
_SIZE = "side, or height and width as H,W, of images where the prior leaves them free [default: 64]"
_OUT = "directory of calibration.json and .png; a study begun there goes on [default: nothing is written]"


def calibrate_command(
    ctx: typer.Context,
    operator: Annotated[str | None, option(_OPERATOR)] = None,
    prior: Annotated[str, option(_PRIOR)] = "photo",
    problems: Annotated[int, option("problems to pose, at least 2")] = 100,
    samples: Annotated[int, option("posterior samples of each, independent, at least 2")] = 15,
    sigma_y: Annotated[float, option("standard deviation of the noise, in units of the measurement")] = 0.02,
    assumed_sigma_y: Annotated[float | None, option("what the solver is told instead")] = None,
    truths: Annotated[str, option("prior, to draw them from it, or a folder of photos to crop")] = "prior",
    size: Annotated[str | None, option(_SIZE)] = None,
    sde: Annotated[str, option("forward noising: ve, vp or subvp")] = "ve",
    guidance: Annotated[str, option("approximation of grad log p(y | x_t); auto, by the problem")] = "auto",
    sampler: Annotated[str, option("sampler; auto, by the problem")] = "auto",
    predictor: Annotated[str, option("step of pc back in time")] = "dpmpp",
    corrector: Annotated[str, option("move of pc at fixed time")] = "none",
    gamma: Annotated[str, option("weight of the likelihood, or HIGH:LOW; 1 is Bayes' rule")] = "1",
    steps: Annotated[int | None, option("steps from noise to sample [default: 40]")] = None,
    seed: Annotated[int, option("seed of truths, noise and samples")] = 0,
    device: Annotated[str, option("auto, cpu, cuda or cuda:i")] = "auto",
    out: Annotated[Path | None, typer.Option(help=_OUT, parser=directory, metavar="PATH")] = None,
    overwrite: Annotated[bool, option("start anew where another study is", "--overwrite")] = False,
    json: Annotated[bool, option("print one JSON object instead of tables", "--json")] = False,
    quiet: Annotated[bool, option("show no progress", "--quiet")] = False,
    help: Annotated[bool, option("show this, and the options of the parts chosen", "--help")] = False,
) -> None:
    """Measure whether samples are draws of the posterior: SBC, TARP, coverage, chi2 and variance.

    Truths are drawn from the prior, measured and reconstructed; the figures say by how much, and the verdict
    whether, truths can be told from samples. With --out the same command again goes on where it was stopped.
    """
    registry = load()
    given: Tables = {kind: {"name": ctx.params[kind]} for kind in _KINDS if ctx.params[kind]}
    if help:
        return show_help(ctx, settings.options_of_parts(given, registry, _KINDS), _OWN, inputs="")
    weight = gamma if ":" in gamma else parse_gamma(gamma)
    run: dict[str, object] = {
        "samples": samples,
        "sigma_y": sigma_y,
        "gamma": weight,
        "seed": seed,
        "device": device,
    }
    tables = _tables(with_options(ctx, given, registry, _OWN), run, steps, registry)
    if problems < 2:
        raise InputError(f"--problems must be at least 2, to have a spread, but it is {problems}.")
    from invsolve.calibration import command

    folder = None if truths == "prior" else Path(truths)
    study = command.Study(tables, _size(size), problems, folder, assumed_sigma_y)
    with nullcontext() if out is None else locked(out):  # found not writable now, not when all is done
        with redirect_stdout(sys.stderr):  # plugins may print; stdout carries results
            found = command.run(study, screen(quiet=quiet), out, overwrite=overwrite)
        data = command.write(found, study, out)
    typer.echo(json_text(data) if json else found.text())


def _tables(given: Tables, run: dict[str, object], steps: int | None, registry: Registry) -> Tables:
    """Resolve the parts and refuse what cannot be solved."""
    for name in given.get("run", {}).get("input", []):
        raise InputError(
            f"calibrate takes no INPUT, but got {name!r}. For photos as truths: --truths FOLDER."
        )
    own = run | {"tile": AUTO} | ({} if steps is None else {"steps": steps})
    tables = {"run": own} | settings.resolve_parts(given, registry, _KINDS)
    settings.take_steps(own, tables["sampler"])
    settings.check_counts(own)
    parse_gamma(str(own["gamma"]))
    return tables


def _size(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    try:
        sides = [int(side) for side in given.split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise InputError(f"--size must be one or two whole numbers, as 64 or 48,64, but it is {given!r}.")
    return sides[0], sides[-1]
