"""The command `invsolve sample`: draw from a prior alone, to see what it takes images for."""

import json as text
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from invsolve.cli.run import TILE, directory, option, show_help, with_options
from invsolve.errors import InputError
from invsolve.lock import locked
from invsolve.plugins import Registry, load
from invsolve.run import settings
from invsolve.run.screen import screen
from invsolve.run.settings import Tables
from invsolve.run.tile import AUTO, parse_tile

__all__ = ["sample_command"]

_OUT = "directory of the results [default: ./<prior>-samples]"
_KINDS = ("prior", "sde", "sampler", "predictor", "corrector")
_OWN = (*_KINDS, "n", "size", "steps", "seed", "tile", "device", "out", "overwrite", "json", "quiet", "help")


def sample_command(
    ctx: typer.Context,
    prior: Annotated[str, option("a name of `invsolve list priors`, or a weight file")] = "photo",
    n: Annotated[int, option("samples to draw", "-n", "--samples")] = 16,
    size: Annotated[
        str | None, option("height and width as H,W, where the prior leaves them free [default: 64,64]")
    ] = None,
    sde: Annotated[str, option("forward noising: ve, vp or subvp")] = "ve",
    sampler: Annotated[str, option("sampler; auto is pc")] = "auto",
    predictor: Annotated[str, option("step of pc back in time")] = "dpmpp",
    corrector: Annotated[str, option("move of pc at fixed time")] = "none",
    steps: Annotated[int | None, option("steps from noise to sample [default: 40]")] = None,
    seed: Annotated[int, option("seed of the samples")] = 0,
    tile: Annotated[str, option(TILE.partition(" [")[0])] = AUTO,
    device: Annotated[str, option("auto, cpu, cuda or cuda:i")] = "auto",
    out: Annotated[Path | None, typer.Option(help=_OUT, parser=directory, metavar="PATH")] = None,
    overwrite: Annotated[bool, option("write over earlier samples", "--overwrite")] = False,
    json: Annotated[bool, option("print one JSON object instead of text", "--json")] = False,
    quiet: Annotated[bool, option("show no progress", "--quiet")] = False,
    help: Annotated[bool, option("show this, and the options of the parts chosen", "--help")] = False,
) -> None:
    """Draw samples of a prior, without a measurement: pictures, a contact sheet and a result file."""
    registry = load()
    given: Tables = {kind: {"name": ctx.params[kind]} for kind in _KINDS}
    if help:
        return show_help(ctx, settings.options_of_parts(given, registry, _KINDS), _OWN, inputs="")
    given = with_options(ctx, given, registry, _OWN)
    run = {"samples": n, "seed": seed, "tile": parse_tile(tile), "device": device}
    run |= {} if steps is None else {"steps": steps}
    tables = _checked(given, run, registry)
    out = _free(out or Path(f"{Path(prior).stem}-samples"), overwrite)
    return _draw(tables, _size(size), out, quiet=quiet, json=json)


def _checked(given: Tables, run: dict[str, Any], registry: Registry) -> Tables:  # Any: see Tables
    """Resolve the parts and refuse what a draw of the prior has no use for."""
    for name in given.get("run", {}).get("input", []):
        raise InputError(f"sample takes no INPUT, but got {name!r}. To reconstruct a photo: invsolve run.")
    tables = {"run": run} | settings.resolve_parts(given, registry, _KINDS)
    settings.take_steps(run, tables["sampler"])
    settings.check_counts(run)
    return tables


def _draw(tables: Tables, size: tuple[int, int] | None, out: Path, *, quiet: bool, json: bool) -> None:
    from invsolve.run.unconditional import draw, write

    with locked(out):  # found not writable now, not when all is done
        with redirect_stdout(sys.stderr):  # plugins may print; stdout carries results
            result = draw(tables, size, screen(quiet=quiet))
        write(result, out)
    calls, shape = result.nfe["forward"], list(result.samples.shape)
    if json:
        typer.echo(
            text.dumps({"out": str(out), "shape": shape, "seconds": result.seconds, "nfe": dict(result.nfe)})
        )
    else:
        sides = " x ".join(map(str, shape[1:]))
        typer.echo(
            f"{shape[0]} samples of {sides}, {calls:.0f} network calls each, {result.seconds:.1f} s, in {out}"
        )


def _size(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    try:
        height, width = (int(side) for side in given.split(","))
    except ValueError:
        raise InputError(f"--size must be two whole numbers H,W, but it is {given!r}.") from None
    if min(height, width) < 1:
        raise InputError(f"--size must be at least 1,1, but it is {given!r}.")
    return height, width


def _free(out: Path, overwrite: bool) -> Path:
    """Refuse a directory that holds samples already."""
    if (out / "samples.h5").exists() and not overwrite:
        raise InputError(f"{out} holds samples already. Add --overwrite, or another --out.")
    return out
