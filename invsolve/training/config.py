"""The settings of a training run, read from a TOML file.

A key is a field of TrainingConfig; the table [architecture] holds the fields of the network's Architecture.
What the file leaves out keeps its default; what it misspells is refused by name.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from invsolve.classifiers.network import ClassifierArchitecture
from invsolve.errors import InputError, UnknownName
from invsolve.priors.network import Architecture
from invsolve.sde import SDE, VE, VP, SubVP

__all__ = ["ARCHITECTURES", "TrainingConfig", "config_file", "from_table", "read_config"]

OPTIMIZERS = ("adamw", "muon")
ARCHITECTURES: dict[str, type[Architecture] | type[ClassifierArchitecture]] = {
    "prior": Architecture,
    "classifier": ClassifierArchitecture,
}
DATA = ("crops", "whole", "phantoms")
SDES: dict[str, Callable[[float, float], SDE]] = {  # of images in [-1, 1], from sigma_min and sigma_max
    "ve": VE,
    "vp": lambda low, high: VP(),
    "subvp": lambda low, high: SubVP(),
}
TIMED = ("song", "likelihood", "uniform-likelihood")  # objectives that draw the times of an SDE
OBJECTIVES = ("edm", *TIMED, "ladder", "sliced", "sliced-vr", "exact")
CONFIGS = Path(__file__).parent / "configs"  # of the priors that ship
LATER = {"later": True}  # a setting without which older runs were hashed: left out at its default


@dataclass(frozen=True)
class TrainingConfig:
    """One training run; lengths in pixels, noise levels in the [-1, 1] scale of the network."""

    name: str = "photo"
    kind: str = "prior"  # or classifier
    licence: str = "see the model card"
    architecture: Architecture | ClassifierArchitecture = field(default_factory=Architecture)
    # the images
    data: str = "crops"  # of pictures; whole: images of one size; phantoms: drawn, no data
    hold_out: int = 0  # last images of whole ones that are measured on, never trained on
    exclude: tuple[str, ...] = ()  # file name patterns left out
    scales: tuple[float, ...] = (1.0, 0.7, 0.5)
    crop: int = 64
    wide_every: int = 8  # every n-th batch holds a quarter as many crops of twice the side
    permute_share: float = 0.1  # crops with their colours exchanged
    grey_share: float = 0.05  # crops without colour
    after: str = field(default="", metadata=LATER)  # name of the config trained before it
    # the noise
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    uniform_share: float = 0.25  # log-uniform over the whole range; the rest is log-normal
    log_mean: float = -1.4
    log_std: float = 1.3
    surrogate_above: float = 0.0  # physical level beyond which photographs' covariance guides; 0 for never
    # the objective (invsolve.training.choice, docs/training.md)
    objective: str = field(default="edm", metadata=LATER)
    sde: str = field(default="ve", metadata=LATER)  # whose times `song` and the likelihoods draw
    levels: int = field(default=10, metadata=LATER)  # noise levels of `ladder`
    # the slopes of a classifier (invsolve.training.slopes)
    slopes: float = field(default=0.0, metadata=LATER)  # weight of its gradients beside its values
    beside: str = field(default="", metadata=LATER)  # name or file of the prior that it is to guide
    # the optimisation: it ends when the first of the two budgets is spent
    images: int = 1_000_000
    seconds: float = 0.0  # 0 for no limit
    batch: int = 16  # per process
    optimizer: str = "adamw"  # or muon: inner convolutions by Muon, the rest by AdamW
    rate: float = 1.5e-3
    warm_up: int = 300  # steps
    flat: float = 0.3  # share of the budget before the cosine
    clip: float = 1.0
    average: float = 0.9993  # decay of the moving average of the weights
    seed: int = 0
    # the bookkeeping
    save_seconds: float = 120.0
    validate_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        for name in ("crop", "wide_every", "images", "batch", "rate", "sigma_min", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"{name} = {getattr(self, name)} in the training config; it must be positive."
                )
        if self.optimizer not in OPTIMIZERS:
            raise UnknownName("optimizer", self.optimizer, OPTIMIZERS)
        if self.data not in DATA:
            raise UnknownName("kind of data", self.data, DATA)
        if not self.sigma_min < self.sigma_max:
            raise InputError(f"sigma_min = {self.sigma_min} is not below sigma_max = {self.sigma_max}.")
        self._check_objective()
        if not 0 <= self.average < 1 or not 0 <= self.flat < 1:
            raise InputError(f"average = {self.average} and flat = {self.flat} must lie in [0, 1).")
        if self.slopes < 0 or bool(self.slopes) != bool(self.beside):
            raise InputError(
                f"slopes = {self.slopes} and beside = {self.beside!r}: "
                "slopes above 0 need the prior they belong to, and 0 needs none."
            )

    def _check_objective(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UnknownName("objective", self.objective, OBJECTIVES)
        if self.sde not in SDES:
            raise UnknownName("sde", self.sde, SDES)
        if self.kind == "classifier" and self.objective != "edm":
            raise InputError(
                f"objective = {self.objective!r} learns a score; a classifier learns by cross-entropy."
            )
        if self.sde != "ve" and self.objective not in TIMED:
            raise InputError(
                f"sde = {self.sde!r} goes unused by objective = {self.objective!r}: "
                f"only {', '.join(TIMED)} draw its times."
            )
        if self.levels < 2:
            raise InputError(f"levels = {self.levels}; a ladder needs two or more.")
        if self.objective in TIMED:
            high = float(self.process().ratio(1.0))
            if self.sigma_max > high * (1 + 1e-9):  # VE ends at sigma_max itself
                raise InputError(
                    f"sigma_max = {self.sigma_max} is beyond the noise of {self.sde}, {high:.4g}."
                )

    def process(self) -> SDE:
        """The SDE that is named, of images in [-1, 1]."""
        return SDES[self.sde](self.sigma_min, self.sigma_max)

    def digest(self) -> str:
        """Hash of the settings, so that weights can name the run they come from."""
        unused = {f.name for f in fields(self) if f.metadata and getattr(self, f.name) == f.default}
        said = {name: value for name, value in asdict(self).items() if name not in unused}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def read_config(path: Path, kind: str | None = None) -> TrainingConfig:
    """Read a TOML file, or the config of that name that ships (photo, digits, ...).

    Unknown keys and values of another type are refused. kind goes over the file's.
    """
    try:
        table = tomllib.loads(config_file(path).read_text())
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
        raise InputError(
            f"no training config at {path} ({error.strerror}). Start from one that ships: {names}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None
    if not isinstance(table.get("architecture", {}), dict):
        raise InputError(f"architecture = {table['architecture']!r} in {path}; expected a table.")
    try:
        return from_table(table if kind is None else table | {"kind": kind})
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"[architecture] in {path}: {error}") from None


def config_file(path: Path) -> Path:
    """The file that ships under a bare name, if no file here has it; any other path as it is."""
    file = CONFIGS / f"{path}.toml"
    return file if str(path) == path.stem and not path.is_file() and file.exists() else path


def from_table(table: Mapping[str, Any]) -> TrainingConfig:  # Any: what TOML or JSON holds
    """Make the settings of a table; that of a checkpoint, too."""
    outer = {key: value for key, value in table.items() if key != "architecture"}
    settings = checked(TrainingConfig, outer)
    kind = settings.get("kind", "prior")
    if kind not in ARCHITECTURES:
        raise UnknownName("kind of training", str(kind), ARCHITECTURES)
    made = ARCHITECTURES[kind]
    return TrainingConfig(architecture=made(**checked(made, table.get("architecture", {}))), **settings)


def checked(kind: type, table: Mapping[str, Any]) -> dict[str, Any]:  # Any: what TOML holds
    """Return the table with lists as tuples; every key must be a field of kind, every value of its type."""
    default = {f.name: f.default for f in fields(kind) if f.name != "architecture"}
    for key in table:
        if key not in default:
            raise UnknownName("training setting", key, default)
    return {key: alike(key, value, default[key]) for key, value in table.items()}


def alike(key: str, value: object, default: object) -> object:
    """Return a value in the type of the default, or refuse it; whole numbers pass as floats."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(alike(key, entry, default[0] if default else "") for entry in value)
    if type(value) is type(default) and not isinstance(default, tuple):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    raise InputError(
        f"{key} has {value!r} in the training config; expected the type {type(default).__name__}."
    )
