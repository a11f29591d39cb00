"""Presets: the settings of a paper under one name, `invsolve run --preset dps-ffhq`.

    flags  >  --config  >  preset  >  defaults

presets.toml holds them, each with its paper, where its numbers are from, the units of its noise and what
differs here all the same. Some settings depend on the operator; the first one listed is taken where none is
given. run.toml keeps the preset's name beside the values that it came to, so a run is repeated from them.
"""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from invsolve.errors import Refused, UnknownName
from invsolve.registry import Registry, Row
from invsolve.run import settings
from invsolve.run.settings import Tables

__all__ = ["Preset", "of_photo", "preset", "presets", "rows", "under"]


@dataclass(frozen=True)
class Preset:
    """A preset and where it is from; operators holds what depends on the operator, by its name."""

    name: str
    summary: str
    paper: str
    source: str
    noise: str
    prior: str
    differs: str
    tables: Tables
    operators: dict[str, Tables] = field(default_factory=dict)

    def for_operator(self, name: str | None) -> Tables:
        """Return the settings for an operator, the first where it is None; Refused where it has none."""
        if not self.operators:
            return self.tables
        name = name or next(iter(self.operators))
        if name not in self.operators:
            known = ", ".join(self.operators)
            raise Refused(f"preset {self.name} has the paper's settings for {known}, none for {name}.")
        return settings.merge(self.tables, self.operators[name])

    def missing(self, registry: Registry) -> list[str]:
        """Parts that it takes and that are not installed: guidance ddrm."""
        wanted = [self.tables, *self.operators.values()]
        named = [(kind, str(t["name"])) for tables in wanted for kind, t in tables.items() if "name" in t]
        return [f"{kind} {name}" for kind, name in dict.fromkeys(named) if name not in registry.names(kind)]

    def note(self) -> str:
        """Say on one line what it is, in whose units."""
        return f"preset {self.name}: {self.summary} ({self.paper}); {self.noise}; differs: {self.differs}"


@cache
def presets() -> dict[str, Preset]:
    """Every preset, by name."""
    text = files("invsolve").joinpath("presets.toml").read_text(encoding="utf-8")
    return {name: Preset(name, **table) for name, table in tomllib.loads(text).items()}


def preset(name: str) -> Preset:
    """Find a preset; UnknownName where there is none of that name."""
    if name not in presets():
        raise UnknownName("preset", name, presets())
    return presets()[name]


def under(given: Tables, registry: Registry) -> Tables:
    """Lay what is given, flags and config, over the preset that it names; without one it stays as it is."""
    name = given.get("run", {}).get("preset")
    if name is None:
        return given
    found = preset(str(name))
    missing = found.missing(registry)
    if missing:
        raise Refused(
            f"preset {name} needs {' and '.join(missing)}, which is not installed; "
            "`invsolve list presets` says which can run."
        )
    operator = given.get("operator", {}).get("name")
    return settings.merge(found.for_operator(None if operator is None else str(operator)), given)


def of_photo(given: Tables) -> Tables:
    """Leave out the share of pixels that a preset keeps where a photo was measured: its mask says."""
    run, operator = given.get("run", {}), given.get("operator", {})
    if "preset" not in run or run.get("simulate") or not run.get("input") or "keep" not in operator:
        return given
    papers = preset(str(run["preset"])).for_operator(str(operator["name"])).get("operator", {})
    if papers.get("keep") != operator["keep"]:
        return given
    return {**given, "operator": {key: value for key, value in operator.items() if key != "keep"}}


def rows(registry: Registry) -> list[Row]:
    """Rows of `invsolve list presets`: what each is, its noise, and the parts it lacks."""
    return [_row(found, found.missing(registry)) for found in presets().values()]


def _row(found: Preset, missing: list[str]) -> Row:
    operators = f"; {', '.join(found.operators)}" if found.operators else ""
    text = f"{found.summary} ({found.paper}){operators}; {found.noise}"
    lacks = f"not installed: {', '.join(missing)}; " if missing else ""
    return Row("preset", found.name, "invsolve", version("invsolve"), lacks + text, broken=bool(missing))
