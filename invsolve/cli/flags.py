"""Flags of the chosen parts: --keep 0.3, or in full --operator.keep 0.3.

Which flags `invsolve run` takes depends on the parts chosen, so typer leaves them over in ctx.args and this
module reads them:

    options = {"operator": registry.options("operator", "inpaint"), "sde": registry.options("sde", "ve")}
    parsed = parse_part_options(ctx.args, options, own=..., owners=registry.owners)
    operator = registry.build("operator", "inpaint", shape, options=parsed.options["operator"])

What is no flag is an input file, so such a command declares no positional argument of its own. A short form
that two chosen parts share, or that the command itself has, is not accepted: the long form always is.
"""

import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from invsolve.errors import InputError
from invsolve.hookspecs import KINDS
from invsolve.option_values import from_text, spelled
from invsolve.options import Option

__all__ = ["Parsed", "help_for", "parse_part_options"]

Parts = Mapping[str, Sequence[Option]]


class Parsed(NamedTuple):
    """Values by kind and parameter name, and the words that are no flags: the inputs."""

    options: dict[str, dict[str, object]]
    inputs: list[str]


class _Flag(NamedTuple):
    kind: str
    option: Option
    value: str | None = None  # what the flag itself says: --no-shuffle is shuffle = false


def _nobody(option: str) -> list[str]:
    return []


def parse_part_options(
    argv: Sequence[str],
    parts: Parts,
    *,
    own: Collection[str] = (),
    owners: Callable[[str], Sequence[str]] = _nobody,
) -> Parsed:
    """Read the words that typer left over: flags of the chosen parts, and inputs.

    parts: options by kind; own: the command's own flags without dashes; owners: names the parts, chosen or
    not, that have an option (Registry.owners). InputError for a flag that is unknown, ambiguous, given twice
    or wrong.
    """
    parsed = Parsed({kind: {} for kind in parts}, [])
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word == "-":
            parsed.inputs.append(word)
            continue
        flag, equals, text = word.removeprefix("--").partition("=")
        found = _find(word, flag, parts, own, owners)
        values, key = parsed.options[found.kind], found.option.key
        if key in values:
            raise InputError(f"--{flag} is given twice, first as {values[key]}.")
        values[key] = from_text(found.option, text if equals else _text(found, flag, words), flag)
    return parsed


def _text(found: _Flag, flag: str, words: Iterator[str]) -> str:
    """Take the value of a flag from the flag itself or from the next word."""
    if found.value is not None:
        return found.value
    word = next(words, None)
    if word is None or word.startswith("--"):
        after = "nothing comes after it" if word is None else f"{word} comes after it"
        raise InputError(f"--{flag} must be {spelled(found.option.type)}, but {after}.")
    return word


def _flags(parts: Parts) -> dict[str, list[_Flag]]:
    """Every spelling with the options it may mean."""
    table: dict[str, list[_Flag]] = {}
    for kind, options in parts.items():
        for option in options:
            for prefix in ("", f"{kind}."):
                switch = "true" if option.type is bool else None
                table.setdefault(prefix + option.name, []).append(_Flag(kind, option, switch))
                if switch:
                    table.setdefault(f"{prefix}no-{option.name}", []).append(_Flag(kind, option, "false"))
    return table


def _find(
    word: str, flag: str, parts: Parts, own: Collection[str], owners: Callable[[str], Sequence[str]]
) -> _Flag:
    table = _flags(parts)
    found = table.get(flag, []) if word.startswith("--") else []
    if len(found) == 1:
        return found[0]
    if found:
        longs = " or ".join(f"--{f.kind}.{flag}" for f in found)
        raise InputError(f"--{flag} is an option of {len(found)} chosen parts: write {longs}.")
    kind, dot, name = flag.rpartition(".")
    elsewhere = [part for part in owners(name) if not dot or part.startswith(f"{kind} ")]
    if elsewhere:
        raise InputError(f"--{flag} is an option of {' and of '.join(elsewhere)}, which is not chosen.")
    near = get_close_matches(flag, [*table, *own], n=1, cutoff=0.6)
    hint = f" Did you mean --{near[0]}?" if near else " See --help, given after the choice of parts."
    raise InputError(f"there is no option {word.partition('=')[0]}.{hint}")


def help_for(parts: Parts, *, own: Collection[str] = ()) -> str:
    """Render the options of the chosen parts, to be shown below a command's own help."""
    table = _flags(parts)
    rows = [
        (_spellings(kind, option, len(table[option.name]) > 1 or option.name in own), _help(option))
        for kind, options in sorted(parts.items(), key=lambda item: KINDS.index(item[0]))
        for option in options
    ]
    if not rows:
        return ""
    left = min(36, max(len(flags) for flags, _ in rows))
    return (
        "\n".join(["Options of the chosen parts:", *(_row(flags, text, left) for flags, text in rows)]) + "\n"
    )


def _spellings(kind: str, option: Option, long_only: bool) -> str:
    short = "" if long_only else f"--{option.name}, "
    negative = f", --{kind}.no-{option.name}" if option.type is bool else ""
    return f"{short}--{kind}.{option.name}{negative}"


def _help(option: Option) -> str:
    default = "" if option.default is None else f"  [default: {option.default}]"
    return f"{option.help} ({spelled(option.type)}){default}"


def _row(flags: str, text: str, left: int) -> str:
    width = max(80, shutil.get_terminal_size().columns)
    indent = " " * (left + 4)
    first = f"  {flags:<{left}}  " if len(flags) <= left else f"  {flags}\n{indent}"
    body = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
    return first + body[len(indent) :]
