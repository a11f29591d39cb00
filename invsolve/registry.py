"""What is on offer: every part by kind and name, where it comes from, and the plugins that are broken.

Two distributions that offer one name clash only for who asks for that name; the rest goes on working. A part
may also be ./file.py:attribute, wherever a name is taken.
"""

import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from invsolve.errors import InvsolveError, PluginError, UnknownName
from invsolve.file_part import is_file_part, load_file_part
from invsolve.hookspecs import GROUP, KINDS, Factory
from invsolve.isolation import guarded
from invsolve.options import Description, Option, describe

__all__ = ["Broken", "Part", "Registry", "Row", "kind_of"]


@dataclass(frozen=True)
class Part:
    """A part on offer: its factory or "package.module:attribute", and the distribution it comes from."""

    kind: str
    name: str
    source: Factory | str
    distribution: str
    version: str

    def load(self) -> Factory:
        """Return the factory, importing its module if need be; PluginError where that fails."""
        if not isinstance(self.source, str):
            return self.source
        module, _, attribute = self.source.partition(":")
        with guarded(f"{self.kind} {self.name!r} of {self.distribution!r}"):
            factory: Factory = getattr(importlib.import_module(module), attribute)
            return factory

    def describe(self) -> Description:
        """Describe the factory; PluginError where its source or its signature cannot be read."""
        with guarded(f"{self.kind} {self.name!r} of {self.distribution!r}"):
            return describe(self.source)


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why, on one line."""

    name: str
    distribution: str
    version: str
    reason: str


@dataclass(frozen=True)
class Row:
    """A line of `invsolve list`."""

    kind: str
    name: str
    distribution: str
    version: str
    description: str
    options: tuple[Option, ...] = ()
    broken: bool = False


@dataclass(frozen=True)
class Registry:
    """Every part on offer, by kind and name, and the plugins that are broken."""

    parts: tuple[Part, ...] = ()
    broken: tuple[Broken, ...] = ()
    _files: dict[str, Factory] = field(default_factory=dict, repr=False)  # files run once, not at each look

    def names(self, kind: str) -> list[str]:
        """Names on offer for a kind, sorted."""
        return sorted({part.name for part in self.parts if part.kind == kind})

    def part(self, kind: str, name: str) -> Part:
        """Find a part by name or ./file.py:attribute; PluginError where two distributions share the name."""
        if is_file_part(name):
            if name not in self._files:
                self._files[name] = load_file_part(name)
            return Part(kind, name, self._files[name], "file", "")
        found = self._offering(kind, name)
        if not found:
            raise UnknownName(kind, name, self.names(kind))
        if len(found) > 1:
            raise PluginError(_clash(found))
        return found[0]

    def _offering(self, kind: str, name: str) -> list[Part]:
        return [part for part in self.parts if (part.kind, part.name) == (kind, name)]

    def get(self, kind: str, name: str) -> Factory:
        """Return the factory of a part, importing it now."""
        return self.part(kind, name).load()

    def options(self, kind: str, name: str) -> tuple[Option, ...]:
        """Options of a part, without importing it."""
        return self.part(kind, name).describe().options

    def needs(self, kind: str, name: str) -> list[str]:
        """Parameters without a default of a part's factory, which is not imported for that."""
        part = self.part(kind, name)
        with guarded(f"{kind} {name!r} of {part.distribution!r}"):
            if isinstance(part.source, str):
                from invsolve.source import needs_source

                return needs_source(part.source)
            parameters = inspect.signature(part.source).parameters.values()
            return [p.name for p in parameters if p.default is p.empty]

    def build(
        self, kind: str, name: str, *args: object, options: Mapping[str, object] | None = None
    ) -> object:
        """Call a part's factory; an exception not ours becomes a PluginError that names the plugin."""
        part = self.part(kind, name)
        factory = part.load()
        if part.distribution == GROUP:
            return factory(*args, **(options or {}))
        with guarded(f"{kind} {name!r}{'' if is_file_part(name) else f' of {part.distribution!r}'}"):
            return factory(*args, **(options or {}))

    def owners(self, option: str) -> list[str]:
        """Parts that have an option of this name, as "operator inpaint": for error messages."""
        return sorted(
            f"{part.kind} {part.name}"
            for part, description in self._described()
            if isinstance(description, Description) and any(o.name == option for o in description.options)
        )

    def _described(self) -> Iterator[tuple[Part, Description | InvsolveError]]:
        for part in self.parts:
            try:
                yield part, part.describe()
            except InvsolveError as error:
                yield part, error

    def rows(self, kind: str | None = None) -> list[Row]:
        """Rows of `invsolve list`: the parts of a kind (None for all), then the broken plugins."""
        rows = [
            self._row(part, description)
            for part, description in self._described()
            if kind in (None, part.kind)
        ]
        rows.sort(key=lambda row: (KINDS.index(row.kind), row.name, row.distribution))
        return rows + [
            Row("plugin", b.name, b.distribution, b.version, f"broken: {b.reason}", broken=True)
            for b in self.broken
        ]

    def _row(self, part: Part, found: Description | InvsolveError) -> Row:
        base = (part.kind, part.name, part.distribution, part.version)
        others = self._offering(part.kind, part.name)
        if len(others) > 1:
            return Row(*base, f"broken: {_clash(others)}", broken=True)
        if isinstance(found, InvsolveError):
            return Row(*base, f"broken: {found}", broken=True)
        return Row(*base, found.sentence, found.options)


def kind_of(word: str) -> str:
    """Kind of part for a word, singular or plural: operators -> operator."""
    kind = word.lower().removesuffix("s")
    if kind not in KINDS:
        raise UnknownName("kind of part", word, KINDS)
    return kind


def _clash(parts: Iterable[Part]) -> str:
    """Say who offers one name twice."""
    found = list(parts)
    both = " and ".join(repr(part.distribution) for part in found)
    return f"{found[0].kind} {found[0].name!r} is offered by both {both}. Uninstall one of them."
