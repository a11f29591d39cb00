"""The command `invsolve run`: photos and an operator in, posterior samples and measured numbers out."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from invsolve.cli.flags import help_for, parse_part_options
from invsolve.errors import InputError
from invsolve.options import Option
from invsolve.plugins import Registry, load
from invsolve.run import drive, settings
from invsolve.run.screen import screen
from invsolve.run.settings import Tables
from invsolve.run.words import as_json, as_text

__all__ = ["run_command"]

_NUMBERS = ("gamma", "steps", "samples", "seed", "device")
_SWITCHES = ("simulate", "truth", "sigma-y", "out", "config", "overwrite", "json", "quiet", "help")
_OWN = (*_NUMBERS, *_SWITCHES, *settings.PARTS)
_OPERATOR = "what happened to the image: a name of `invsolve list operators`, or ./file.py:NAME"
_PRIOR = "what images look like: a name, or a weight file [default: photo]"
_GAMMA = (
    "weight of the likelihood; 1 is Bayes' rule, other values have no posterior of their own [default: 1]"
)
_SIGMA_Y = "standard deviation of the noise, for images in [0, 1], or auto [default: 0.02 when simulating]"
_GUIDANCE = "approximation of grad log p(y | x_t) [default: moment-matching]"
_SIMULATE = "INPUT is a clean photo: degrade it first, and measure against it"


def _option(text: str, *names: str) -> Any:  # noqa: ANN401  typer's own class is an implementation detail
    return typer.Option(*names, help=text)


def run_command(
    ctx: typer.Context,
    operator: Annotated[str | None, _option(_OPERATOR)] = None,
    prior: Annotated[str | None, _option(_PRIOR)] = None,
    likelihood: Annotated[str | None, _option("noise of the measurement [default: gaussian]")] = None,
    sde: Annotated[str | None, _option("forward noising: ve, vp or subvp [default: ve]")] = None,
    guidance: Annotated[str | None, _option(_GUIDANCE)] = None,
    sampler: Annotated[str | None, _option("sampler [default: auto, which is pc]")] = None,
    predictor: Annotated[str | None, _option("step of pc back in time [default: dpmpp]")] = None,
    corrector: Annotated[str | None, _option("move of pc at fixed time [default: none]")] = None,
    gamma: Annotated[float | None, _option(_GAMMA)] = None,
    steps: Annotated[int | None, _option("steps from noise to sample [default: 40]")] = None,
    samples: Annotated[int | None, _option("posterior samples to draw [default: 8]")] = None,
    sigma_y: Annotated[str | None, _option(_SIGMA_Y)] = None,
    seed: Annotated[int | None, _option("seed of samples and simulated noise [default: 0]")] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda or cuda:i [default: auto]")] = None,
    out: Annotated[Path | None, _option("directory of the results [default: ./<stem>-<operator>]")] = None,
    simulate: Annotated[bool, _option(_SIMULATE, "--simulate")] = False,
    truth: Annotated[Path | None, _option("clean photo to compare with, for a measured INPUT")] = None,
    config: Annotated[
        Path | None, _option("TOML file of settings, such as run.toml; flags win over it")
    ] = None,
    overwrite: Annotated[bool, _option("start anew where another run is", "--overwrite")] = False,
    json: Annotated[bool, _option("print one JSON object instead of text", "--json")] = False,
    quiet: Annotated[bool, _option("show no progress and no notes", "--quiet")] = False,
    help: Annotated[bool, _option("show this, and the options of the parts chosen", "--help")] = False,
) -> None:
    """Reconstruct INPUT... (photos, folders, patterns); with none, a bundled photo is degraded and restored.

    The same command again goes on where it was interrupted, and returns at once when it had finished.
    """
    registry = load()
    given = _flags(ctx.params)
    tables = settings.merge(settings.read_config(config) if config else {}, given)
    parts = _options(tables, registry)
    if help:
        typer.echo(f"{ctx.get_help()}\n{help_for(parts, own=_OWN)}")
        return
    parsed = parse_part_options(ctx.args, parts, own=_OWN, owners=registry.owners)
    tables = settings.merge(tables, settings.as_tables(parsed.options, parsed.inputs))
    resolved = settings.resolve(tables, registry, config)
    with _resumable():
        outcome = drive.run(resolved, out, screen(quiet=quiet), overwrite=overwrite)
    typer.echo(as_json(outcome) if json else as_text(outcome))
    raise typer.Exit(outcome.exit_code)


def _flags(values: dict[str, Any]) -> Tables:  # Any: what typer read
    """Tables of the run's own flags that were given."""
    given: Tables = {kind: {"name": values[kind]} for kind in settings.PARTS if values[kind]}
    run = {key: values[key] for key in _NUMBERS if values[key] is not None}
    if values["simulate"]:
        run["simulate"] = True
    if values["truth"] is not None:
        run["truth"] = str(values["truth"].absolute())
    if values["sigma_y"] is not None:
        run["sigma_y"] = _sigma_y(values["sigma_y"])
    return given | {"run": run}


def _sigma_y(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise InputError(f"--sigma-y must be a number > 0 or auto, but it is {text!r}.") from None


def _options(tables: Tables, registry: Registry) -> dict[str, list[Option]]:
    """Options of the parts chosen, by kind; the number of steps is the run's own."""
    names = settings.NAMES | {kind: str(table["name"]) for kind, table in tables.items() if "name" in table}
    found = {kind: settings.options_of(kind, name, registry) for kind, name in names.items()}
    return {kind: [o for o in each if (kind, o.name) != ("sampler", "steps")] for kind, each in found.items()}


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which a scheduler sends before it kills."""


@contextmanager
def _resumable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into their exit codes and a line that says how to go on."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        print("interrupted: finished units are kept, and the same command goes on.", file=sys.stderr)
        raise typer.Exit(143 if isinstance(error, _Terminated) else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
