"""Find the parts that invsolve and the installed plugins offer.

`load()` asks one entry point of the group `invsolve` after the other, each in a plugin manager of its own:
whatever goes wrong there (an exception, sys.exit) costs that plugin and nothing else. It becomes one warning
line, and a row "broken: reason" of `invsolve list`. Nothing is kept between calls: the Registry is an object.

Environment: INVSOLVE_DISABLE_PLUGINS=a,b leaves these distributions (or entry points) out, `all` every
plugin; INVSOLVE_STRICT_PLUGINS=1 makes a broken plugin an error.

A plugin is code: to install one is to trust it. Settings can name registered parts and files that the user
names on the command line, never a dotted import path.
"""

import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points, version

import pluggy

from invsolve import hookspecs
from invsolve.errors import PluginError
from invsolve.file_part import load_file_part
from invsolve.hookspecs import GROUP, KINDS, Factory, hook_name
from invsolve.isolation import guarded, reason
from invsolve.registry import Broken, Part, Registry, Row, kind_of

__all__ = ["Broken", "Part", "Registry", "Row", "kind_of", "load", "load_file_part", "parts_of"]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET = re.compile(r"[\w.]+:\w+")


def load(environ: Mapping[str, str] = os.environ) -> Registry:
    """Ask invsolve itself and every installed plugin for parts; warn on stderr of each broken one."""
    from invsolve import builtins

    parts = parts_of(builtins, GROUP, version(GROUP))
    broken: list[Broken] = []
    for point in _enabled(environ.get("INVSOLVE_DISABLE_PLUGINS", "")):
        distribution, release = _origin(point)
        try:
            parts += _parts_of_point(point)
        except PluginError as error:
            if environ.get("INVSOLVE_STRICT_PLUGINS", "0") not in ("", "0"):
                raise
            cause = error.__cause__
            broken.append(Broken(point.name, distribution, release, reason(cause) if cause else str(error)))
            print(f"warning: {error}. Everything else works.", file=sys.stderr)
    return Registry(tuple(parts), tuple(broken))


def _enabled(disabled: str) -> list[EntryPoint]:
    out = {name.strip() for name in disabled.split(",")}
    return [
        point
        for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)
        if not out & {"all", point.name, _origin(point)[0]}
    ]


def _origin(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point belongs to."""
    return (point.dist.name, point.dist.version) if point.dist else (point.name, "")


def _parts_of_point(point: EntryPoint) -> list[Part]:
    """Import one plugin and collect what it offers: all of it, or a PluginError."""
    distribution, release = _origin(point)
    with guarded(f"plugin {point.name!r} of {distribution} {release}"):
        return parts_of(point.load(), distribution, release)


def parts_of(plugin: object, distribution: str, release: str) -> list[Part]:
    """Call the hooks of one plugin, in a manager of its own, so that nothing has to be rolled back."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()  # a hook that does not exist, most often a misspelt one
    if not manager.get_hookcallers(plugin):
        raise TypeError("it implements no hook; mark its functions with @invsolve.hookimpl")
    return [
        Part(kind, _name(name, kind), _source(source, name, kind), distribution, release)
        for kind in KINDS
        for offered in getattr(manager.hook, hook_name(kind))()
        for name, source in _table(offered, kind).items()
    ]


def _table(offered: object, kind: str) -> Mapping[object, object]:
    if not isinstance(offered, Mapping):
        raise TypeError(f"{hook_name(kind)} must return a dict {{name: factory}}, but it returns {offered!r}")
    return offered


def _name(name: object, kind: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TypeError(
            f"{hook_name(kind)} names a part {name!r}, but a name is in kebab-case: moment-matching"
        )
    return name


def _source(source: object, name: object, kind: str) -> Factory | str:
    if callable(source) or (isinstance(source, str) and _TARGET.fullmatch(source)):
        return source
    raise TypeError(
        f"{hook_name(kind)} gives {source!r} for {name!r}, "
        "but it must be a factory or 'package.module:attribute'"
    )
