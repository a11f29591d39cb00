"""Describe a part from its source, without importing it.

`invsolve list` and `--help` must not wait for torch. So a part given as "package.module:attribute" is found
on disk (no package is imported on the way, only the top one located), parsed, and its docstring, defaults and
annotations are read from the syntax tree. Names are followed within the module and through its imports, base
classes included.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Literal, Optional, Union

from invsolve.errors import PluginError
from invsolve.options import Description, Option, Type, first_sentence, make_option

__all__ = ["describe_source", "needs_source"]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_TYPES: dict[str, object] = {
    **{kind.__name__: kind for kind in (float, int, str, bool, tuple, Path)},
    "Annotated": Annotated,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
}


class _Unknown(Exception):
    """A name or expression that the source alone does not settle."""


class Expression(str):
    """A default that only running the module would tell: its text."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the expression as it is written."""
        return str(self)


@dataclass(frozen=True)
class _Module:
    """A parsed module and the package that its relative imports start from."""

    name: str
    package: str
    tree: ast.Module

    def find(self, name: str) -> Iterator[ast.stmt]:
        """Statements at the top of the module that give this name its meaning."""
        return (node for node in self.tree.body if name in _defines(node))


def _defines(node: ast.stmt) -> list[str]:
    """Names that a statement defines."""
    if isinstance(node, Definition):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) and node.value else []
    return [a.asname or a.name for a in node.names] if isinstance(node, ast.ImportFrom) else []


@lru_cache(maxsize=256)
def _module(name: str) -> _Module:
    spec = _spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise PluginError(f"there is no source of a module {name!r}")
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    return _Module(name, package, ast.parse(Path(spec.origin).read_bytes()))


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without importing the packages above it."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _definition(module: _Module, name: str) -> tuple[_Module, ast.AST]:
    """Follow a name to what it stands for, through imports and plain renamings."""
    node = next(module.find(name), None)
    if isinstance(node, ast.ImportFrom):
        alias = next(a for a in node.names if (a.asname or a.name) == name)
        base = "." * node.level + (node.module or "")
        return _definition(_module(importlib.util.resolve_name(base, module.package)), alias.name)
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        return (
            _definition(module, node.value.id) if isinstance(node.value, ast.Name) else (module, node.value)
        )
    if node is None:
        raise _Unknown(name)
    return module, node


def describe_source(target: str) -> Description:
    """Read the docstring and the options of "package.module:attribute" from its source."""
    name, _, attribute = target.partition(":")
    try:
        module, node = _definition(_module(name), attribute)
    except (_Unknown, SyntaxError) as error:
        raise PluginError(f"the source of {name!r} has no readable {attribute!r} ({error})") from None
    if not isinstance(node, Definition):
        return Description("", ())
    found = (parameter.option() for parameter in _parameters(module, node).values())
    return Description(
        first_sentence(ast.get_docstring(node) or ""), tuple(option for option in found if option)
    )


def needs_source(target: str) -> list[str]:
    """Parameters without a default of the factory "package.module:attribute"."""
    name, _, attribute = target.partition(":")
    try:
        return _needed(_definition(_module(name), attribute)[1])
    except (_Unknown, SyntaxError) as error:
        raise PluginError(f"the source of {name!r} has no readable {attribute!r} ({error})") from None


def _needed(node: ast.AST) -> list[str]:
    """Names without a default: of a function, of __init__, or among the fields of a dataclass."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        a = node.args
        positional = [*a.posonlyargs, *a.args]
        bare = positional[: len(positional) - len(a.defaults)]
        bare += [k for k, default in zip(a.kwonlyargs, a.kw_defaults, strict=True) if default is None]
        return [argument.arg for argument in bare if argument.arg != "self"]
    body = node.body if isinstance(node, ast.ClassDef) else []
    starts = [item for item in body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if starts:
        return _needed(starts[0])
    bare_fields = [item.target for item in body if isinstance(item, ast.AnnAssign) and item.value is None]
    return [target.id for target in bare_fields if isinstance(target, ast.Name)]


@dataclass(frozen=True)
class _Parameter:
    """A parameter with a default, and the module its expressions are read in."""

    module: _Module
    name: str
    annotation: ast.expr | None
    default: ast.expr

    def option(self) -> Option | None:
        """Make the option, where the annotation is Annotated[type, "help"]."""
        if self.annotation is None:
            return None
        try:
            annotation = _type(self.module, self.annotation)
        except _Unknown:
            return None
        return make_option(self.name, annotation, _value_or_text(self.module, self.default))


def _parameters(module: _Module, node: ast.AST) -> dict[str, _Parameter]:
    """Parameters with a default, in order: of a function, of __init__, or the fields of a dataclass."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return {p.name: p for p in _arguments(module, node.args)}
    if not isinstance(node, ast.ClassDef):
        return {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return {p.name: p for p in _arguments(module, item.args)}
    found: dict[str, _Parameter] = {}
    for base in reversed(node.bases):
        found |= _inherited(module, base)
    return found | {p.name: p for p in _fields(module, node)}


def _arguments(module: _Module, arguments: ast.arguments) -> Iterator[_Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    first = len(positional) - len(arguments.defaults)
    for argument, default in zip(positional[first:], arguments.defaults, strict=True):
        yield _Parameter(module, argument.arg, argument.annotation, default)
    for argument, keyword in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if keyword is not None:
            yield _Parameter(module, argument.arg, argument.annotation, keyword)


def _inherited(module: _Module, base: ast.expr) -> dict[str, _Parameter]:
    try:
        return _parameters(*_definition(module, base.id)) if isinstance(base, ast.Name) else {}
    except (_Unknown, PluginError):  # a base in another language, or outside any module: it has no options
        return {}


def _fields(module: _Module, node: ast.ClassDef) -> Iterator[_Parameter]:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            default = item.value
            if isinstance(default, ast.Call) and _last_name(default.func) == "field":
                given = {k.arg: k.value for k in default.keywords}
                default = given.get("default", default)
            yield _Parameter(module, item.target.id, item.annotation, default)


def _last_name(node: ast.AST) -> str:
    """Last word of a dotted name: typing.Literal -> Literal."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _type(module: _Module, node: ast.AST) -> Type:
    """Evaluate an annotation over the known types; other members of a union become object."""
    if isinstance(node, ast.Constant):
        return (
            _type(module, ast.parse(node.value, mode="eval").body)
            if isinstance(node.value, str)
            else node.value
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Union[_type(module, node.left), _type(module, node.right)]  # noqa: UP007 - evaluates it
    if isinstance(node, ast.Subscript):
        return _subscript(module, node)
    name = _last_name(node)
    if name in _TYPES:
        return _TYPES[name]
    try:
        return _type(*_definition(module, name))
    except (_Unknown, PluginError):
        return object


def _subscript(module: _Module, node: ast.Subscript) -> Type:
    base = _type(module, node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base is Literal:
        return Literal[tuple(_value(module, item) for item in items)]
    if base is Annotated:
        return Annotated[_type(module, items[0]), *(_value_or_text(module, item) for item in items[1:])]
    inner = [_type(module, item) for item in items]
    if base in (Union, Optional):
        return Union[*inner, *([None] if base is Optional else [])]
    return GenericAlias(tuple, tuple(inner)) if base is tuple else object


def _value_or_text(module: _Module, node: ast.expr) -> object:
    try:
        return _value(module, node)
    except _Unknown:
        return Expression(ast.unparse(node))


def _value(module: _Module, node: ast.AST) -> object:
    """Evaluate a literal, a constant of the module, or an f-string of these."""
    if isinstance(node, ast.Name):
        return _value(*_definition(module, node.id))
    if isinstance(node, ast.JoinedStr):
        return "".join(str(_value(module, part)) for part in node.values)
    if isinstance(node, ast.FormattedValue) and node.format_spec is None:
        return _value(module, node.value)
    try:
        return ast.literal_eval(node) if isinstance(node, ast.expr) else _raise(node)
    except ValueError:
        return _raise(node)


def _raise(node: ast.AST) -> object:
    raise _Unknown(ast.unparse(node))
