"""The command `invsolve run`: photos and an operator in, posterior samples and measured numbers out."""

import sys
from collections.abc import Collection
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.cli.flags import Parts, help_for, parse_part_options
from invsolve.errors import InputError
from invsolve.gamma import parse_gamma
from invsolve.plugins import Registry, load
from invsolve.run import drive, free, presets, settings
from invsolve.run.screen import screen
from invsolve.run.settings import Tables
from invsolve.run.tile import parse_tile
from invsolve.run.words import as_json, as_text

__all__ = ["TILE", "directory", "option", "run_command", "show_help", "with_options"]

_NUMBERS = ("gamma", "steps", "samples", "seed", "device")
_SWITCHES = (
    "preset",
    "tile",
    "simulate",
    "truth",
    "sigma-y",
    "out",
    "config",
    "overwrite",
    "json",
    "quiet",
    "help",
)
_OWN = (*_NUMBERS, *_SWITCHES, *settings.PARTS)
_OPERATOR = "what happened to the image: a name of `invsolve list operators`, or ./file.py:NAME"
_PRIOR = "what images look like: a name, or a weight file [default: photo]"
_GAMMA = (
    "weight of the likelihood, or HIGH:LOW for high to low noise; 1 is Bayes' rule, other values have no "
    "posterior of their own [default: 1; 4 for a classifier]"
)
_SIGMA_Y = (
    "standard deviation of the noise, for images in [0, 1], as 0.02 or 5/255, or auto [default: 0.02 when "
    "simulating]"
)
_GUIDANCE = "approximation of grad log p(y | x_t) [default: auto, by the problem]"
TILE = (
    "evaluate the prior in tiles of that many pixels, 0 for none; auto: 512 for images above 1024 x 1024 "
    "pixels [default: auto]"
)
_OUT = "directory of the results [default: ./<stem>-<operator>]"
_PRESET = "settings of a paper, see `invsolve list presets`; flags and --config win over it"
_SIMULATE = "INPUT is a clean photo: degrade it first, and measure against it"


def directory(text: str) -> Path:
    """Read the path of a directory; the empty text, an unset variable as a rule, is none."""
    if not text:
        raise typer.BadParameter("the path is empty; name a directory, or leave the flag out")
    return Path(text)


def option(text: str, *names: str) -> Any:  # noqa: ANN401  typer's own class is an implementation detail
    """Describe a flag by its help text, and its names where they are not the parameter's."""
    return typer.Option(*names, help=text)


def run_command(
    ctx: typer.Context,
    operator: Annotated[str | None, option(_OPERATOR)] = None,
    prior: Annotated[str | None, option(_PRIOR)] = None,
    likelihood: Annotated[
        str | None, option("noise of the measurement, or classifier [default: gaussian]")
    ] = None,
    sde: Annotated[str | None, option("forward noising: ve, vp or subvp [default: ve]")] = None,
    guidance: Annotated[str | None, option(_GUIDANCE)] = None,
    sampler: Annotated[str | None, option("sampler [default: auto, by the problem]")] = None,
    predictor: Annotated[str | None, option("step of pc back in time [default: dpmpp]")] = None,
    corrector: Annotated[str | None, option("move of pc at fixed time [default: none]")] = None,
    gamma: Annotated[str | None, option(_GAMMA)] = None,
    steps: Annotated[int | None, option("steps from noise to sample [default: 40]")] = None,
    samples: Annotated[int | None, option("posterior samples to draw [default: 8]")] = None,
    sigma_y: Annotated[str | None, option(_SIGMA_Y)] = None,
    seed: Annotated[int | None, option("seed of samples and simulated noise [default: 0]")] = None,
    tile: Annotated[str | None, option(TILE)] = None,
    device: Annotated[str | None, option("auto, cpu, cuda or cuda:i [default: auto]")] = None,
    out: Annotated[Path | None, typer.Option(help=_OUT, parser=directory, metavar="PATH")] = None,
    simulate: Annotated[bool, option(_SIMULATE, "--simulate")] = False,
    truth: Annotated[Path | None, option("clean photo to compare with, for a measured INPUT")] = None,
    preset: Annotated[str | None, option(_PRESET)] = None,
    config: Annotated[
        Path | None, option("TOML file of settings, such as run.toml; flags win over it")
    ] = None,
    overwrite: Annotated[bool, option("start anew where another run is", "--overwrite")] = False,
    json: Annotated[bool, option("print one JSON object instead of text", "--json")] = False,
    quiet: Annotated[bool, option("show no progress and no notes", "--quiet")] = False,
    help: Annotated[bool, option("show this, and the options of the parts chosen", "--help")] = False,
) -> None:
    """Reconstruct INPUT... (photos, folders, patterns); with none, a bundled photo is degraded and restored.

    A likelihood without an operator takes no INPUT: --prior digits --likelihood classifier --label 7.

    The same command again goes on where it was interrupted, and returns at once when it had finished.
    """
    registry = load()
    tables = settings.merge(settings.read_config(config) if config else {}, _flags(ctx.params))
    tables = presets.under(tables, registry)
    kind = free if free.is_free(tables, registry) else drive
    tables = free.implied(tables) if kind is free else tables
    if help:
        return show_help(ctx, settings.options_of_parts(tables, registry, settings.PARTS), _OWN)
    tables = presets.of_photo(with_options(ctx, tables, registry, _OWN))
    tables = kind.resolve(tables, registry, config)
    shown = screen(quiet=quiet)
    if "preset" in tables["run"]:
        shown.note(presets.preset(tables["run"]["preset"]).note())
    with redirect_stdout(sys.stderr):  # plugins may print; stdout carries results
        outcome = kind.run(tables, out, shown, overwrite=overwrite)
    typer.echo(as_json(outcome) if json else as_text(outcome))
    raise typer.Exit(outcome.exit_code)


def show_help(ctx: typer.Context, parts: Parts, own: Collection[str], inputs: str = "[INPUT]... ") -> None:
    """Print the command's help and the options of the parts chosen."""
    head = ctx.get_help().replace("[OPTIONS]", f"{inputs}[OPTIONS]", 1)
    typer.echo(f"{head}\n\n{help_for(parts, own=own)}".rstrip())


def with_options(ctx: typer.Context, tables: Tables, registry: Registry, own: Collection[str]) -> Tables:
    """Lay the flags of the parts, and the inputs, over the tables; the command's own flags name the kinds."""
    kinds = [kind for kind in settings.PARTS if kind in own]
    parts = settings.options_of_parts(tables, registry, kinds)
    parsed = parse_part_options(ctx.args, parts, own=own, owners=registry.owners)
    return settings.merge(tables, settings.as_tables(parsed.options, parsed.inputs))


def _flags(values: dict[str, Any]) -> Tables:  # Any: what typer read
    """Tables of the run's own flags that were given."""
    given: Tables = {kind: {"name": values[kind]} for kind in settings.PARTS if values[kind]}
    run = {key: values[key] for key in _NUMBERS if values[key] is not None}
    if "gamma" in run and ":" not in run["gamma"]:
        run["gamma"] = parse_gamma(run["gamma"])  # a number in run.toml, too
    if values["tile"] is not None:
        run["tile"] = parse_tile(values["tile"])
    if values["preset"] is not None:
        run["preset"] = values["preset"]
    if values["simulate"]:
        run["simulate"] = True
    if values["truth"] is not None:
        run["truth"] = str(values["truth"].absolute())
    if values["sigma_y"] is not None:
        run["sigma_y"] = _sigma_y(values["sigma_y"])
    return given | {"run": run}


def _sigma_y(text: str) -> float | str:
    """Read auto, a number, or a quotient: the 25/255 that an error message speaks of."""
    number, slash, unit = text.partition("/")
    try:
        return text if text == "auto" else float(number) / float(unit if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"--sigma-y must be a number > 0, such as 0.02 or 5/255, or auto, but it is {text!r}."
        ) from None
