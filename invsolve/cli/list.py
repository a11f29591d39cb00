"""The command `invsolve list`: every part on offer, where it comes from, and what is broken."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any

import typer

from invsolve.errors import UnknownName
from invsolve.hookspecs import KINDS
from invsolve.plugins import Row, load
from invsolve.run import presets

__all__ = ["list_command"]

_PRESET = "preset"


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(help="Kind of part: operator, prior, sde, sampler, ..., or presets; all if left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the parts that invsolve and the installed plugins offer, and the presets."""
    registry, asked = load(), None if kind is None else _kind(kind)
    rows = [] if asked == _PRESET else registry.rows(asked)
    rows += presets.rows(registry) if asked in (None, _PRESET) else []
    typer.echo(json.dumps([_plain(row) for row in rows], indent=2) if as_json else _table(rows))


def _kind(word: str) -> str:
    """Kind of part, or preset, for a word; UnknownName names them all."""
    kind = word.lower().removesuffix("s")
    if kind not in (*KINDS, _PRESET):
        raise UnknownName("kind of part", word, (*KINDS, _PRESET))
    return kind


def _plain(row: Row) -> dict[str, object]:
    from invsolve.option_values import spelled

    options = [
        {"name": o.name, "type": spelled(o.type), "help": o.help, "default": _json_value(o.default)}
        for o in row.options
    ]
    weights = _weights(row.name) if _is_own_prior(row) else {}
    own = {"options": options, "measured": _measured(row, _distances())}
    return asdict(row) | own | ({"weights": weights} if weights else {})


def _json_value(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)


def _table(rows: Iterable[Row]) -> str:
    """Align the columns kind, name, from, description, measured and options."""
    head, known = ("kind", "name", "from", "description", "measured", "options"), _distances()
    cells = [
        head,
        *((r.kind, r.name, f"{r.distribution} {r.version}", *_words(r, known)) for r in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(3)]
    return "\n".join(_line(line, widths) for line in cells)


def _words(row: Row, known: dict[str, dict[str, dict[str, str]]]) -> tuple[str, str, str]:
    """Give a part's description, what is measured or known of it in brackets, and its flags."""
    summary = _told(_weights(row.name)) if _is_own_prior(row) else _measured(row, known)
    flags = " ".join(f"--{option.name}" for option in row.options)
    return row.description, f"[{summary}]" if summary else "", flags


def _is_own_prior(row: Row) -> bool:
    return row.kind == "prior" and row.distribution == "invsolve"


def _measured(row: Row, known: dict[str, dict[str, dict[str, str]]]) -> str:
    """Say how far a method of ours is from the posterior; empty if unknown."""
    figures = known.get(f"{row.kind}s", {}) if row.distribution == "invsolve" else {}
    return figures.get(row.name, {}).get("summary", "")


def _weights(name: str) -> dict[str, object]:
    """What the file of a shipped prior says of itself: images, range, noise levels, bytes, licence."""
    file = files("invsolve").joinpath(f"priors/weights/{name}.safetensors")
    if not file.is_file():
        return {}
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    known = json.loads(content[8 : 8 + length])["__metadata__"]
    side = int(known["side"]) if "side" in known else None
    return {
        "shape": [int(known["channels"]), side, side],
        "range": [0, 1],
        "sigma_min": float(known["sigma_min"]),
        "sigma_max": float(known["sigma_max"]),
        "bytes": len(content),
        "licence": known["licence"],
    }


def _told(weights: dict[str, Any]) -> str:  # Any: JSON
    """The same in words."""
    if not weights:
        return ""
    shape = " x ".join("any" if side is None else str(side) for side in weights["shape"])
    return (
        f"{shape} in [0, 1], sigma {weights['sigma_min']:g} to {weights['sigma_max']:g}, "
        f"{weights['bytes'] / 1e6:.1f} MB, {weights['licence']}"
    )


def _distances() -> dict[str, dict[str, dict[str, str]]]:
    """Read the figures that benchmarks/distances.py measured: kind, name, summary."""
    found: dict[str, dict[str, dict[str, str]]] = json.loads(
        files("invsolve").joinpath("distances.json").read_text(encoding="utf-8")
    )
    return found


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
    return "  ".join([left, *filter(None, cells[3:])]).rstrip()
