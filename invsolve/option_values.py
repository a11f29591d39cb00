"""From the text of a flag, or a value of a TOML file, to what an option takes; errors repeat its help.

A text is read for what it says: 3 is a number where one is wanted. A value of a file has a type already, and
is taken at it: true is no number, and "3" neither.
"""

import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from invsolve.errors import InputError, UnknownName
from invsolve.options import Option, Type, members, origin

__all__ = ["check_table", "from_text", "spelled"]

Given = Any  # the text of a flag, or a value of a TOML file


def _number(value: object) -> float:
    number = float(_not_bool(value))
    if math.isnan(number):
        raise ValueError(value)
    return number


def _not_bool(value: object) -> Given:
    if isinstance(value, bool):
        raise ValueError(value)
    return value


def _truth(text: object) -> bool:
    return {"true": True, "false": False}[str(text)]


def _none(text: object) -> None:
    if text != "none":
        raise ValueError(text)


def _exactly(*kinds: type) -> Callable[[object], Given]:
    def check(value: object) -> object:
        if type(value) not in kinds:
            raise ValueError(value)
        return value

    return check


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return Path(value)


Readers = Mapping[Type, Callable[[Given], object]]
_TEXT: Readers = {float: _number, int: int, bool: _truth, str: str, Path: _path, types.NoneType: _none}
_VALUE: Readers = {
    float: lambda v: _number(_exactly(float, int)(v)),
    int: _exactly(int),
    bool: _exactly(bool),
    str: _exactly(str),
    Path: _path,
    types.NoneType: lambda v: None if v is None else _none(v),  # None: read from a flag already
}


def _convert(kind: Type, value: Given, readers: Readers) -> object:
    """Read value as kind; ValueError where it is none."""
    if origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}[str(value)]
    if len(members(kind)) > 1:
        return _first(members(kind), value, readers)
    if origin(kind) is tuple:
        return _several(get_args(kind), value, readers)
    return readers[kind](value)


def _first(members: Sequence[Type], value: object, readers: Readers) -> object:
    for member in members:
        try:
            return _convert(member, value, readers)
        except (ValueError, KeyError):
            continue
    raise ValueError(value)


def _several(members: Sequence[Type], value: Given, readers: Readers) -> tuple[object, ...]:
    items = value.split(",") if isinstance(value, str) else _exactly(list, tuple)(value)
    kinds = [members[0]] * len(items) if members[-1] is ... else members
    return tuple(_convert(kind, item, readers) for kind, item in zip(kinds, items, strict=True))


def from_text(option: Option, text: str, flag: str) -> object:
    """Convert the text given for a flag."""
    return _checked(option, text, f"--{flag}", _TEXT)


def _checked(option: Option, value: object, where: str, readers: Readers) -> object:
    try:
        return _convert(option.type, value, readers)
    except (ValueError, KeyError, TypeError):
        wants = spelled(option.type)
        raise InputError(f"{where} is {value!r}, but it must be {wants}: {option.help}.") from None


def check_table(kind: str, options: Sequence[Option], table: Mapping[str, object]) -> dict[str, object]:
    """Check the values of a part's table in a TOML file; keys are option names, with - or _."""
    known = {option.key: option for option in options}
    values: dict[str, object] = {}
    for key, value in table.items():
        option = known.get(key.replace("-", "_"))
        if option is None:
            raise UnknownName(f"option of the {kind}", key, (o.name for o in options))
        values[option.key] = _checked(option, value, f"[{kind}] {key}", _VALUE)
    return values


_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", Path: "a path"}


def spelled(kind: Type) -> str:
    """Say in words what a type takes: a number or none."""
    if origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if origin(kind) is tuple:
        first, count = get_args(kind)[0], "" if ... in get_args(kind) else f"{len(get_args(kind))} "
        return f"{count}{_WORDS[first].removeprefix('a ')}s joined by commas"
    if len(members(kind)) > 1:
        return " or ".join(sorted((spelled(m) for m in members(kind)), key="none".__eq__))
    return "none" if kind is types.NoneType else _WORDS[kind]
