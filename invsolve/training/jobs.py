"""What one call of `invsolve train` does: one training, or a chain of them.

Each training of a chain begins with the weights of the one before. A config with `after = "photo-1"` is the
last of such a chain:

    OUT/photo-1/<name>.safetensors   the weights of the config photo-1, and all else that a training leaves
    OUT/<name>.safetensors           those of the config asked for

Stopped anywhere, the same call skips the trainings that have left their weights and goes on with the next.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from invsolve.errors import InputError
from invsolve.training.config import TrainingConfig, read_config

__all__ = ["Job", "chain"]


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: what to learn from and where to write."""

    config: TrainingConfig
    asked: TrainingConfig  # the config before its budget was changed, which names the run
    folders: tuple[Path, ...]
    out: Path
    validation: Path | None = None
    start: Path | None = None
    chained: bool = False  # start is what an earlier job of the same call leaves

    @property
    def weights(self) -> Path:
        """The file it ends with."""
        return self.out / f"{self.config.name}.safetensors"


def chain(
    config: TrainingConfig,
    folders: tuple[Path, ...],
    out: Path,
    validation: Path | None,
    start: Path | None,
    budget: Mapping[str, float],
) -> tuple[Job, ...]:
    """List the jobs of a config, those it comes after first; with start it comes after none.

    budget replaces `images` and `seconds` of each config. Raises InputError where a config comes after
    itself or after one of another architecture.
    """
    jobs: list[Job] = []
    for asked, folder in [(config, out)] if start else _configs(config, out):
        given = dataclasses.replace(asked, **budget)  # type: ignore[arg-type]  # the keys are two of its fields
        begin = jobs[-1].weights if jobs else start
        jobs.append(Job(given, asked, folders, folder, validation, begin, bool(jobs)))
    return tuple(jobs)


def _configs(config: TrainingConfig, out: Path) -> list[tuple[TrainingConfig, Path]]:
    """Follow `after` back to a config that begins anew; the first to train comes first."""
    found, names = [(config, out)], [config.after]
    while names[-1]:
        before = read_config(Path(names[-1]), config.kind)
        if before.architecture != config.architecture:
            raise InputError(
                f"after = {names[-1]!r} names a config of another architecture. Its weights do not fit."
            )
        if before.after in names:
            raise InputError(
                f"after = {before.after!r} leads back to itself. One config of a chain begins anew."
            )
        found.append((before, out / Path(names[-1]).stem))
        names.append(before.after)
    return found[::-1]
