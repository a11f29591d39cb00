"""What decides the samples of a start, flat: one with the same goes on with the files of another.

Where files lie is left out, what is in them is in. A part of another distribution is told by its release and
by the file that defines it; modules which that file, or a ./file.py, imports are not looked into.
"""

import inspect
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invsolve.files import sha256_of
from invsolve.hookspecs import GROUP
from invsolve.plugins import load
from invsolve.run import parts
from invsolve.run.record import files_of, hashes
from invsolve.run.settings import PARTS, Tables, flat

__all__ = ["identity"]

_PLACES = ("run.input", "run.truth", "run.device")


def identity(tables: Tables, device: str) -> dict[str, Any]:  # Any: JSON
    """Settings, hashes of files and weights, releases."""
    named = files_of(tables)
    contents = hashes(named.values())  # of each file once, though two parts may be from one
    settings = {key: value for key, value in flat(tables).items() if key not in _PLACES}
    return {
        **settings,
        **{key: Path(str(settings[key])).name for key in named if key in settings},
        **{f"{key} sha256": contents[str(path)] for key, path in named.items()},
        **dict(_strangers(tables)),
        "prior sha256": parts.prior_sha256(tables, device),
        "device": device.split(":")[0],
        "invsolve": version("invsolve"),
    }


def _strangers(tables: Tables) -> Iterator[tuple[str, str]]:
    """Where each part that another distribution offers comes from."""
    chosen = {kind: tables[kind].get("name") for kind in PARTS if kind in tables}
    for part in load().parts:
        if chosen.get(part.kind) == part.name and part.distribution != GROUP:
            file = inspect.getsourcefile(inspect.unwrap(part.load()))
            digest = sha256_of(Path(file)) if file and Path(file).is_file() else "without source"
            yield f"{part.kind} from", f"{part.distribution} {part.version}, {digest}"
