"""What a directory already holds: a finished run, a started one, or somebody else's files.

finished.json is written last of all. It names the settings, the hash of every file that went in and the size
of every file that came out; where all of that still holds, the run is done and nothing has to be imported to
see it.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invsolve.errors import InputError
from invsolve.files import sha256_of, write_whole
from invsolve.plain_json import json_text
from invsolve.run.inputs import Input
from invsolve.run.settings import PARTS, Tables, flat

__all__ = [
    "check_settings",
    "contents",
    "difference",
    "files_of",
    "finish",
    "finished",
    "forget",
    "hashes",
    "withdraw",
]

FINISHED = "finished.json"
_PLACES = ("run.input", "run.truth")  # where a file lies; what is in it is hashed
_FILES = (FINISHED, "run.toml", "posterior.h5", "metrics.json", "summary.csv", "failures.csv", "report.html")
_PICTURES = ("measurement.png", "mean.png", "std.png", "sheet.png")


def files_of(tables: Tables) -> dict[str, Path]:
    """Files that decide the result beside the INPUT, by the key that names them."""
    texts = {key: value for key, value in flat(tables).items() if isinstance(value, str)}
    named = {
        key: Path(value.rpartition(":")[0] if ".py:" in value else value) for key, value in texts.items()
    }
    wanted = ("run.truth", *(f"{kind}.{key}" for kind in PARTS for key in tables.get(kind, {})))
    return {key: named[key] for key in wanted if key in named and named[key].suffix and named[key].is_file()}


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its path; an absent file has none."""
    return {str(path): sha256_of(path) if path.is_file() else "" for path in paths}


def finished(out: Path, tables: Tables, inputs: Sequence[Input]) -> list[dict[str, Any]] | None:  # Any: JSON
    """Reports of the run that is finished in `out` with these very settings and files, if there is one."""
    try:
        record = json.loads((out / FINISHED).read_text())
        same = record["tables"] == json.loads(json.dumps(tables))
        whole = all((out / name).stat().st_size == size for name, size in record["outputs"].items())
        reports: list[dict[str, Any]] = record["reports"]
    except (OSError, ValueError, KeyError):
        return None
    return reports if same and whole and record["files"] == contents(tables, inputs) else None


def contents(tables: Tables, inputs: Sequence[Input]) -> dict[str, str]:
    """SHA-256 of every file that goes in, by its path."""
    return hashes([*(given.path for given in inputs), *files_of(tables).values()])


def finish(
    out: Path,
    tables: Tables,
    inputs: Sequence[Input],
    reports: Sequence[Mapping[str, Any]],  # Any: JSON
    went_in: Mapping[str, str],
) -> None:
    """Write down that the run is finished, with the reports of its images and the contents that went in."""
    directories = dict.fromkeys([out, *(given.directory for given in inputs)])
    outputs = [path for directory in directories for path in _outputs(directory)]
    record = {
        "invsolve": version("invsolve"),
        "tables": tables,
        "files": went_in,
        "outputs": {str(path.relative_to(out)): path.stat().st_size for path in outputs},
        "reports": reports,
    }
    write_whole(out / FINISHED, json_text(record, 1).encode())


def _outputs(directory: Path) -> list[Path]:
    named = [directory / name for name in (*_FILES, *_PICTURES) if name != FINISHED]
    return [path for path in (*named, *sorted(directory.glob("samples/*.png"))) if path.is_file()]


def check_settings(out: Path, tables: Tables) -> None:
    """Refuse a directory that holds a run of other settings, or files that are no run's."""
    if (out / "run.toml").exists():
        try:
            old = tomllib.loads((out / "run.toml").read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{out / 'run.toml'} cannot be read ({error}). Add --overwrite, or another --out."
            ) from None
        changed = difference(flat(old), flat(tables))
        if changed:
            raise InputError(
                f"{out} holds a run of other settings: {changed}. Add --overwrite, or another --out."
            )
        return
    foreign = [name for name in (*_FILES, *_PICTURES, "samples", "units") if (out / name).exists()]
    if foreign:
        raise InputError(
            f"{out} has {', '.join(foreign)} that belong to no run. Add --overwrite, or another --out."
        )


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Say which values differ, as key: old -> new; empty where none does."""
    keys = [key for key in {**old, **new} if key not in _PLACES and old.get(key) != new.get(key)]
    return ", ".join(f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys)


def _short(value: object) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def withdraw(directory: Path) -> None:
    """Leave no trace of a run that was refused before it had a single sample."""
    if not any(directory.glob("units/*.h5")):
        forget(directory)
        for folder in (directory / "units", directory / "samples"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def forget(directory: Path) -> None:
    """Remove the files of a run, and nothing else, from its directory."""
    for name in (*_FILES, *_PICTURES):
        (directory / name).unlink(missing_ok=True)
    for pattern in ("units/*.h5", "units/problem.npz", "units/*.txt", "samples/*.png"):
        for path in directory.glob(pattern):
            path.unlink()
