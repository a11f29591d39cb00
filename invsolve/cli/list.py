"""The command `invsolve list`: every part on offer, where it comes from, and what is broken."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from invsolve.plugins import Row, kind_of, load

__all__ = ["list_command"]


def list_command(
    kind: Annotated[
        str | None, typer.Argument(help="Kind of part: operator, prior, sde, sampler, ...; all if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the parts that invsolve and the installed plugins offer."""
    rows = load().rows(None if kind is None else kind_of(kind))
    typer.echo(json.dumps([_plain(row) for row in rows], indent=2) if as_json else _table(rows))


def _plain(row: Row) -> dict[str, object]:
    from invsolve.options import spelled

    options = [
        {"name": o.name, "type": spelled(o.type), "help": o.help, "default": _json_value(o.default)}
        for o in row.options
    ]
    return asdict(row) | {"options": options}


def _json_value(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)


def _table(rows: Iterable[Row]) -> str:
    """Align the columns kind, name, from, description and options."""
    head = ("kind", "name", "from", "description", "options")
    cells = [
        head,
        *((r.kind, r.name, f"{r.distribution} {r.version}", r.description, _flags(r)) for r in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(3)]
    return "\n".join(_line(line, widths) for line in cells)


def _flags(row: Row) -> str:
    return " ".join(f"--{option.name}" for option in row.options)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
    return "  ".join([left, *filter(None, cells[3:])]).rstrip()
