"""Options of a part: one rule for every kind, read from the factory and from nothing else.

A parameter of a factory (a function, a class or a frozen dataclass) that has a default and the annotation
Annotated[type, "help"] is an option. From that alone come its flags, help, checks and TOML key:

    period: Annotated[int, "rows from one dead row to the next"] = 4   ->   --period, --operator.period

A type is float, int, str, bool, Path, a Literal, a tuple of these, or a union. Members of a union that no
command line could give (arrays, objects) are left to the library's callers. Values are read and checked in
option_values.py.
"""

import builtins
import inspect
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

from invsolve.hookspecs import Factory

__all__ = [
    "Description",
    "Option",
    "Type",
    "describe",
    "first_sentence",
    "make_option",
    "members",
    "options_of",
    "origin",
]

Type = Any  # a type expression such as float | None: these have no common class
_SCALARS = (float, int, bool, str, Path, types.NoneType)


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
    if origin(annotation) is Annotated and isinstance(annotation.__origin__, ForwardRef):
        kind = eval(annotation.__origin__.__forward_arg__, {}, names)
        return Annotated[kind, *annotation.__metadata__]
    return annotation


def _option(parameter: inspect.Parameter, annotation: object) -> Option | None:
    if parameter.default is inspect.Parameter.empty:
        return None
    return make_option(parameter.name, annotation, parameter.default)


def make_option(name: str, annotation: object, default: object) -> Option | None:
    """Make an option of an annotated parameter; None where it is none."""
    if origin(annotation) is not Annotated:
        return None
    kind, sentence, *_ = get_args(annotation)
    kind = _narrowed(kind)
    if not isinstance(sentence, str) or kind is None:
        return None
    return Option(name.replace("_", "-"), kind, sentence, default)


def origin(kind: Type) -> object:
    """typing.get_origin, whose own annotation leaves out Literal, tuple and Union."""
    return get_origin(kind)


def members(kind: Type) -> list[Type]:
    """Members of a union, those that accept any text last; [kind] for anything else."""
    if origin(kind) not in (Union, types.UnionType):
        return [kind]
    return sorted(get_args(kind), key=lambda m: (str, Path).index(m) if m in (str, Path) else -1)


def _narrowed(kind: Type) -> Type | None:
    """Drop the members of a union that a text cannot give; None where nothing is left."""
    if len(members(kind)) > 1:
        kept = [m for m in members(kind) if _narrowed(m) is not None]
        return Union[tuple(kept)] if set(kept) - {types.NoneType} else None  # noqa: UP007 - built at run time
    if origin(kind) is tuple:
        return kind if all(m is ... or m in _SCALARS for m in get_args(kind)) else None
    return kind if origin(kind) is Literal or kind in _SCALARS else None
