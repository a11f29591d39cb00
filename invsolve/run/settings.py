"""The settings of a run as tables of plain values: what run.toml holds and --config reads.

    [run]        preset, input, simulate, truth, sigma_y, gamma, steps, samples, seed, tile, device
    [operator]   name, and its options; and so [likelihood] [prior] [sde] [guidance] [sampler] [predictor]
                 [corrector]

What was given (flags over a file) is resolved by filling in the default of every option of every chosen part.
Options are read from sources, so nothing heavy is imported here, and equal settings mean the same run.
"""

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from invsolve.errors import InputError, UnknownName
from invsolve.file_part import is_file_part
from invsolve.gamma import parse_gamma
from invsolve.operators.inpaint import DEFAULT_KEEP
from invsolve.option_values import check_table
from invsolve.options import Option, describe
from invsolve.registry import Registry
from invsolve.run.tile import AUTO, check_tile
from invsolve.source import Expression

__all__ = [
    "NAMES",
    "PARTS",
    "STAND_INS",
    "Tables",
    "as_tables",
    "check_counts",
    "defaults_of",
    "flat",
    "merge",
    "options_of_parts",
    "read_config",
    "resolve",
    "resolve_parts",
    "take_steps",
    "to_toml",
]

Tables = dict[str, dict[str, Any]]  # Any: numbers, names, lists: what TOML can hold
PARTS = ("operator", "likelihood", "prior", "sde", "guidance", "sampler", "predictor", "corrector")
NAMES = {
    "likelihood": "gaussian",
    "prior": "photo",
    "sde": "ve",
    "guidance": "auto",
    "sampler": "auto",
    "predictor": "dpmpp",
    "corrector": "none",
}
STAND_INS = {"guidance": "moment-matching", "sampler": "pc"}  # whose options "auto" has
DEFAULTS = {"simulate": False, "gamma": 1.0, "samples": 8, "seed": 0, "tile": AUTO, "device": "auto"}
SIMULATED_SIGMA_Y = 0.02
_LARGEST = 2**63 - 1  # what TOML and HDF5 hold
_ONE_OF = {"keep", "box", "mask"}  # options of inpaint that exclude each other
_TYPES: dict[str, tuple[type, ...]] = {
    "preset": (str,),
    "input": (list,),
    "simulate": (bool,),
    "truth": (str,),
    "sigma_y": (float, int, str),
    "gamma": (float, int, str),
    "steps": (int,),
    "samples": (int,),
    "seed": (int,),
    "tile": (int, str),
    "device": (str,),
}


def read_config(path: Path) -> Tables:
    """Read a TOML file of settings; InputError names the file, and the line or the key."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config file {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None
    for name, table in tables.items():
        if name not in ("run", *PARTS):
            raise InputError(f"{path}: {UnknownName('table', name, ('run', *PARTS))}")
        if not isinstance(table, dict):
            raise InputError(f"{path}: [{name}] must be a table, but {name} is {table!r}.")
    try:
        _check_run(tables.get("run", {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return tables


def _check_run(table: Mapping[str, object]) -> None:
    for key, value in table.items():
        if key not in _TYPES:
            raise UnknownName("key of [run]", key, _TYPES)
        if type(value) not in _TYPES[key]:
            wanted = " or ".join(kind.__name__ for kind in _TYPES[key])
            raise InputError(f"[run] {key} is {value!r}, but it must be {wanted}.")


def merge(low: Tables, high: Tables) -> Tables:
    """Lay the values of high over those of low; a part of another name keeps none of its options.

    One way to say what is lost replaces another, too: --mask FILE wins over keep in a file.
    """
    merged: Tables = {}
    for kind in {**low, **high}:
        below, above = low.get(kind, {}), high.get(kind, {})
        other = kind != "run" and {"name"} <= above.keys() & below.keys() and above["name"] != below["name"]
        if kind == "operator" and _ONE_OF & above.keys():
            below = {key: value for key, value in below.items() if key not in _ONE_OF}
        merged[kind] = above if other else below | above
    return merged


def resolve(given: Tables, registry: Registry, config: Path | None = None) -> Tables:
    """Fill in every default and check every value that needs no file; errors name the config file, if any."""
    run = DEFAULTS | given.get("run", {})
    tables: Tables = {"run": run} | resolve_parts(given, registry, PARTS, config)
    if tables["likelihood"]["name"] != "gaussian":
        name = tables["likelihood"]["name"]
        raise InputError(
            f"--likelihood {name} is for the library: with an operator a run takes gaussian noise, so far."
        )
    take_steps(run, tables["sampler"])
    if "antithetic" in tables["sampler"] and "antithetic" not in given.get("sampler", {}):
        tables["sampler"]["antithetic"] = True  # the mean of a few samples is what a run is for
    if run.get("truth") and (run["simulate"] or not run.get("input")):
        raise InputError("--truth belongs to a measured INPUT; with --simulate INPUT itself is the truth.")
    if run["simulate"] or not run.get("input"):
        run["simulate"] = True
        run.setdefault("sigma_y", SIMULATED_SIGMA_Y)
        _choose_mask(tables["operator"])
    _check_numbers(run)
    return tables


def take_steps(run: dict[str, Any], sampler: dict[str, Any]) -> None:  # Any: see Tables
    """Move the number of steps, where none is given the sampler's own, into [run]."""
    steps = sampler.pop("steps", 1)
    run.setdefault("steps", steps)


def resolve_parts(
    given: Tables, registry: Registry, kinds: Iterable[str], config: Path | None = None
) -> Tables:
    """Name and all options of each chosen part."""
    tables: Tables = {}
    for kind in kinds:
        table = dict(given.get(kind, {}))
        name = table.pop("name", None) or NAMES.get(kind)
        if name is None:
            raise InputError(
                f"no {kind} is given. Choose one with --{kind}: {', '.join(registry.names(kind))}."
            )
        try:
            tables[kind] = {"name": _absolute(str(name))} | _options(kind, str(name), table, registry)
        except InputError as error:
            raise InputError(f"{config}: {error}" if config else str(error)) from None
    return tables


def _choose_mask(operator: dict[str, Any]) -> None:  # Any: see Tables
    """Write down the share that a simulated inpainting keeps when nothing is said."""
    if operator["name"] == "inpaint" and not {"keep", "box", "mask"} & set(operator):
        operator["keep"] = DEFAULT_KEEP


def _absolute(name: str) -> str:
    """Path of a part that is a file, from the root, so that a run can be repeated anywhere; other names as
    they are."""
    path, colon, attribute = name.rpartition(":")
    if is_file_part(name) and colon:
        return f"{Path(path).absolute()}:{attribute}"
    if os.sep in name and Path(name).is_dir():
        return str(Path(name).absolute())
    return str(plain(name))


def _options(kind: str, name: str, table: Mapping[str, object], registry: Registry) -> dict[str, object]:
    options = options_of(kind, name, registry)
    values = {option.key: option.default for option in options} | check_table(kind, options, table)
    known = {key: value for key, value in values.items() if not isinstance(value, Expression | None)}
    return {key: plain(value) for key, value in known.items()}


def defaults_of(kind: str, name: str, registry: Registry) -> dict[str, object]:
    """Options of a part, with the values that they have when none is given."""
    return _options(kind, name, {}, registry)


def options_of(kind: str, name: str, registry: Registry) -> tuple[Option, ...]:
    """Options of a chosen part; those of a prior given as a file say what the file cannot tell."""
    if name == "auto":
        name = STAND_INS.get(kind, name)
    if kind == "prior" and is_weight_file(name, registry):
        return describe("invsolve.priors.checkpoints.hints:Hints").options
    return registry.options(kind, name)


def options_of_parts(tables: Tables, registry: Registry, kinds: Iterable[str]) -> dict[str, list[Option]]:
    """Options of the chosen parts by kind; the number of steps is the run's own."""
    names = {kind: tables.get(kind, {}).get("name") or NAMES.get(kind) for kind in kinds}
    found = {kind: options_of(kind, str(name), registry) for kind, name in names.items() if name}
    return {kind: [o for o in each if (kind, o.name) != ("sampler", "steps")] for kind, each in found.items()}


def is_weight_file(name: str, registry: Registry) -> bool:
    """Whether a prior is given by the path of its weights: neither a name nor ./file.py:factory."""
    by_path = bool(Path(name).suffix) or len(Path(name).parts) > 1 or Path(name).is_dir()
    return by_path and name not in registry.names("prior") and not is_file_part(name)


def plain(value: object) -> object:
    """Turn a value into what TOML can hold; paths of files become absolute, so that a run can be repeated
    anywhere."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, str) and Path(value).suffix and Path(value).is_file():
        return str(Path(value).absolute())
    return value


def check_counts(run: Mapping[str, Any]) -> None:  # Any: see Tables
    """Refuse a run without steps or samples, in tiles that are none, or of a seed that no file holds."""
    for key in ("steps", "samples"):
        if run[key] < 1:
            raise InputError(f"--{key} must be at least 1, but it is {run[key]}.")
    if abs(run["seed"]) > _LARGEST:
        raise InputError(f"--seed must be a whole number of at most 63 bits, but it is {run['seed']}.")
    check_tile(run["tile"])


def _check_numbers(run: Mapping[str, Any]) -> None:  # Any: see Tables
    check_counts(run)
    parse_gamma(str(run["gamma"]))
    sigma_y = run.get("sigma_y")
    if sigma_y is None:
        raise InputError(
            "--sigma-y is missing: the noise of the measured INPUT, 0.02 say for images in [0, 1], or auto. "
            "To degrade a clean photo first, add --simulate."
        )
    if sigma_y == "auto" and run["simulate"]:
        raise InputError(
            "--sigma-y auto estimates the noise of a measured photo; with --simulate give a number."
        )
    if sigma_y != "auto" and not (isinstance(sigma_y, int | float) and 0 < sigma_y < math.inf):
        raise InputError(f"--sigma-y must be a number > 0 or auto, but it is {sigma_y!r}.")


def to_toml(tables: Tables, chosen: str = "") -> str:
    """Text of run.toml; what "auto" took is a comment, for it follows from the rest."""
    import tomli_w

    return (f"# auto took {chosen}\n" if chosen else "") + tomli_w.dumps(tables)


def flat(tables: Tables) -> dict[str, object]:
    """One level of keys, for comparing: operator.keep and so on."""
    return {f"{kind}.{key}": value for kind, table in tables.items() for key, value in table.items()}


def as_tables(options: Mapping[str, Mapping[str, object]], inputs: list[str]) -> Tables:
    """Tables of what came as flags of the parts, and of the inputs."""
    given = {
        kind: {key: plain(value) for key, value in each.items()} for kind, each in options.items() if each
    }
    return given | ({"run": {"input": inputs}} if inputs else {})
