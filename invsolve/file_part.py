"""Take a factory from a file that the user names: --operator ./mine.py:stripes, without any packaging."""

import importlib.util
import re
import sys
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from invsolve.errors import InputError
from invsolve.hookspecs import Factory
from invsolve.isolation import guarded

__all__ = ["is_file_part", "load_file_part"]

_FILE_PART = re.compile(
    r"(?P<path>.+\.py)(:(?P<attribute>[^:\\/]*))?"
)  # the path may hold a drive letter's colon


def is_file_part(name: str) -> bool:
    """Tell ./mine.py:stripes from the name of a registered part."""
    return _FILE_PART.fullmatch(name) is not None


def load_file_part(target: str) -> Factory:
    """Run the file of "path.py:attribute" and return the factory of that name."""
    found = _FILE_PART.fullmatch(target)
    if found is None:
        raise InputError(f"{target!r} is no part of a file: write ./file.py:NAME.")
    path = Path(found["path"])
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r} to take {found['attribute'] or 'a part'} from.")
    module = _run(path)
    name = found["attribute"] or ""
    factory: Factory | None = getattr(module, name, None) if name else None
    if factory is None:
        raise InputError(_missing(path, name, _own(module)))
    if not callable(factory):
        raise InputError(
            f"{name!r} of {path} is of type {type(factory).__name__}, but a part is a function or a class."
        )
    return factory


def _run(path: Path) -> ModuleType:
    """Import a file under a name of its own; dataclasses look their module up in sys.modules."""
    name = f"invsolve_file_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with guarded(f"the file {str(path)!r}"):
        spec.loader.exec_module(module)
    return module


def _own(module: ModuleType) -> list[str]:
    """Functions and classes that the file itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
    ]


def _missing(path: Path, name: str, own: list[str]) -> str:
    offered = f"It defines: {', '.join(own) or 'nothing'}. Write ./file.py:NAME."
    if not name:
        return f"which part of {path} is meant? {offered}"
    near = get_close_matches(name, own, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{path} has no {name!r}.{hint} {offered}"
