"""Options of a part: one rule for every kind, read from the factory and from nothing else.

A parameter of a factory (a function, a class or a frozen dataclass) that has a default and the annotation
Annotated[type, "help"] is an option. From that alone come its flags, help, checks and TOML key:

    period: Annotated[int, "rows from one dead row to the next"] = 4   ->   --period, --operator.period

A type is float, int, str, bool, Path, a Literal, a tuple of these, or a union. Members of a union that no
command line could give (arrays, objects) are left to the library's callers.
"""

import builtins
import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

from invsolve.errors import InputError, UnknownName
from invsolve.hookspecs import Factory

__all__ = [
    "Description",
    "Option",
    "check_table",
    "describe",
    "from_text",
    "narrowed",
    "options_of",
    "spelled",
]

Type = Any  # a type expression such as float | None: these have no common class
Given = Any  # the text of a flag, or a value of a TOML file


@dataclass(frozen=True)
class Option:
    """One option: name in kebab-case, what it takes, its help and its default."""

    name: str
    type: Type
    help: str
    default: object

    @property
    def key(self) -> str:
        """Name of the factory's parameter."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Description:
    """What a factory says about itself: the first sentence of its docstring, and its options."""

    sentence: str
    options: tuple[Option, ...]


def options_of(factory: Factory | str) -> tuple[Option, ...]:
    """Options of a factory, or of "package.module:attribute" without importing it."""
    return describe(factory).options


def describe(factory: Factory | str) -> Description:
    """Describe a factory from the live object, or a "package.module:attribute" from its source."""
    if isinstance(factory, str):
        from invsolve.source import describe_source

        return describe_source(factory)
    doc = factory.__doc__ or ""
    if doc.startswith(
        f"{getattr(factory, '__name__', '')}("
    ):  # what a dataclass without a docstring is given
        doc = ""
    found = (
        _option(p, _resolved(p.annotation, factory)) for p in inspect.signature(factory).parameters.values()
    )
    return Description(first_sentence(doc), tuple(option for option in found if option))


def first_sentence(doc: str) -> str:
    """First paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())


class _Names(dict[str, object]):
    """The names of a module; one that only a type checker knows stands for any object."""

    def __missing__(self, name: str) -> object:
        return getattr(builtins, name, object)


def _resolved(annotation: Type, factory: Factory) -> Type:
    """Evaluate an annotation written as a string, or one with a string inside."""
    names = _Names(vars(sys.modules[factory.__module__]))
    if isinstance(annotation, str):
        return eval(annotation, {}, names)  # the module's own text
    if _origin(annotation) is Annotated and isinstance(annotation.__origin__, ForwardRef):
        kind = eval(annotation.__origin__.__forward_arg__, {}, names)
        return Annotated[kind, *annotation.__metadata__]
    return annotation


def _option(parameter: inspect.Parameter, annotation: object) -> Option | None:
    if parameter.default is inspect.Parameter.empty:
        return None
    return make_option(parameter.name, annotation, parameter.default)


def make_option(name: str, annotation: object, default: object) -> Option | None:
    """Make an option of an annotated parameter; None where it is none."""
    if _origin(annotation) is not Annotated:
        return None
    kind, sentence, *_ = get_args(annotation)
    kind = narrowed(kind)
    if not isinstance(sentence, str) or kind is None:
        return None
    return Option(name.replace("_", "-"), kind, sentence, default)


def _origin(kind: Type) -> object:
    return get_origin(kind)


def _members(kind: Type) -> list[Type]:
    """Members of a union, those that accept any text last; [kind] for anything else."""
    if _origin(kind) not in (Union, types.UnionType):
        return [kind]
    return sorted(get_args(kind), key=lambda m: (str, Path).index(m) if m in (str, Path) else -1)


def narrowed(kind: Type) -> Type | None:
    """Drop the members of a union that a text cannot give; None where nothing is left."""
    if len(_members(kind)) > 1:
        kept = [m for m in _members(kind) if narrowed(m) is not None]
        return Union[tuple(kept)] if set(kept) - {types.NoneType} else None  # noqa: UP007 - built at run time
    if _origin(kind) is tuple:
        return kind if all(m is ... or m in _TEXT for m in get_args(kind)) else None
    return kind if _origin(kind) is Literal or kind in _TEXT else None


# ---- from a text, or from a value of a TOML file, to the option's type


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
    types.NoneType: _none,
}


def _convert(kind: Type, value: Given, readers: Readers) -> object:
    """Read value as kind; ValueError where it is none."""
    if _origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}[str(value)]
    if len(_members(kind)) > 1:
        return _first(_members(kind), value, readers)
    if _origin(kind) is tuple:
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
    if _origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if _origin(kind) is tuple:
        first, count = get_args(kind)[0], "" if ... in get_args(kind) else f"{len(get_args(kind))} "
        return f"{count}{_WORDS[first].removeprefix('a ')}s joined by commas"
    if len(_members(kind)) > 1:
        return " or ".join(sorted((spelled(m) for m in _members(kind)), key="none".__eq__))
    return "none" if kind is types.NoneType else _WORDS[kind]
