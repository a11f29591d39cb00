"""Hints: what a weight file cannot tell about itself.

They come from three places, the first wins: arguments of `load_prior`, which are the options --prior.NAME of
the command line; a file prior.toml beside the weights (in a folder of weights: inside it). What the file
tells is never asked: a hint that its format has no use for is refused, so that none is ignored silently.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from invsolve.errors import InputError, UnknownName

__all__ = ["Hints", "gather"]

BESIDE = "prior.toml"


@dataclass(frozen=True)
class Hints:
    """What may be told about a weight file of another toolkit; ours need no hint."""

    sde: Annotated[Literal["ve", "vp", "subvp"] | None, "SDE that a score_sde net was trained with"] = None
    sigma_min: Annotated[float | None, "lowest trained noise level, for images in [0, 1]"] = None
    sigma_max: Annotated[float | None, "highest trained noise level, for images in [0, 1]"] = None
    beta_min: Annotated[float | None, "beta at t = 0 of a score_sde net of vp or subvp, 0.1 if not given"] = (
        None
    )
    beta_max: Annotated[float | None, "beta at t = 1 of a score_sde net of vp or subvp, 20 if not given"] = (
        None
    )
    image_size: Annotated[int | None, "height and width of the training images, in pixels"] = None
    noise_schedule: Annotated[
        Literal["linear", "cosine"] | None, "betas of a net that was trained at 1000 discrete steps"
    ] = None
    num_heads: Annotated[int | None, "attention heads in each block of an ADM net"] = None
    num_head_channels: Annotated[int | None, "channels of each attention head of an ADM net"] = None
    attention_order: Annotated[
        Literal["legacy", "new"] | None, "whether an ADM net splits heads first (legacy) or q, k, v (new)"
    ] = None
    class_labels: Annotated[int | None, "index of the class that a class-conditional net draws from"] = None

    def __post_init__(self) -> None:
        """Refuse a value of another type, or out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not _fits(value, get_args(field.type)[0]):
                raise InputError(f"hint {field.name} is {value!r}, but it is: {get_args(field.type)[1]}.")
            lowest = 0 if field.name in ("class_labels", "sigma_min", "beta_min") else 1e-12
            if isinstance(value, int | float) and not lowest <= value < float("inf"):
                raise InputError(f"hint {field.name} is {value}, out of range: {get_args(field.type)[1]}.")

    @property
    def given(self) -> dict[str, object]:
        """The hints that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def only(self, source: object, kind: str, names: Collection[str]) -> None:
        """Refuse a hint that files of this kind have no use for."""
        extra = sorted(self.given.keys() - set(names))
        if extra:
            raise InputError(
                f"{source} is {kind}, which has no use for the hint {', '.join(extra)}. "
                f"It takes: {', '.join(sorted(names)) or 'none'}."
            )

    def need(self, source: object, kind: str, names: Collection[str], advice: str = "") -> None:
        """Refuse to guess: every one of these hints must be given; "a or b" stands for either."""
        missing = [name for name in names if not any(each in self.given for each in name.split(" or "))]
        if missing:
            options = ", ".join(f"--prior.{name.split(' or ')[-1].replace('_', '-')}" for name in missing)
            raise InputError(
                f"{source} is {kind}, which does not tell {', '.join(missing)}. Give {options}, "
                f"the arguments of load_prior, or {BESIDE} beside the file.{advice}"
            )


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - a type expression such as int | None
    """Whether a value is of an option's type; whole numbers serve as floats."""
    for member in get_args(kind):
        if get_origin(member) is Literal:
            if value in get_args(member):
                return True
        elif member is NoneType:
            if value is None:
                return True
        elif isinstance(value, (int, float) if member is float else member) and not isinstance(value, bool):
            return True
    return False


def gather(path: Path | None, given: Mapping[str, object]) -> Hints:
    """Hints of the caller, over those of prior.toml beside the weights."""
    table = _beside(path) if path else {}
    table |= {name: value for name, value in given.items() if value is not None}
    for name in table:
        if name not in vars(Hints()):
            raise UnknownName("hint", name, vars(Hints()))
    return Hints(**table)  # type: ignore[arg-type]  # Hints checks every type itself


def _beside(path: Path) -> dict[str, object]:
    file = (path if path.is_dir() else path.parent) / BESIDE
    try:
        table: dict[str, object] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as TOML: {error}.") from None
    return {name.replace("-", "_"): value for name, value in table.items()}
