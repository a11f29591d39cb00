"""What one call of `invsolve train` does: one training, or a chain of them.

The config asked for may come after another, `after = "second"`, and that one after a third. Each begins
with the weights of the one before:

    OUT/earlier/first/     all that the training by first.toml leaves
    OUT/earlier/second/    that by second.toml, from the weights of first
    OUT/                   that of the config asked for, from the weights of second

The same call again goes on with the last training that has begun; those before it stay as they are.
"""

import dataclasses
import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path

from invsolve.errors import InputError
from invsolve.training import checkpoint
from invsolve.training.config import TrainingConfig, config_file, read_config

__all__ = ["Job", "chain", "pending", "read_chain"]


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

    @property
    def begins_with(self) -> str | None:
        """What a card calls the weights it begins with: for those of a chain, where they lie."""
        if self.start is None:
            return None
        return os.path.relpath(self.start, self.out) if self.chained else self.start.name

    @property
    def budget(self) -> dict[str, float]:
        """What ends it: images seen, or seconds (0 for no limit)."""
        return {"images": self.config.images, "seconds": self.config.seconds}


def read_chain(path: Path, kind: str | None = None) -> tuple[TrainingConfig, ...]:
    """Read a config and those it comes after, the first to train first; kind goes over the files'.

    `after` is the name of a config beside the one that says it, or of one that ships. Raises InputError
    where a name comes twice, or weights of another kind or architecture would be begun with.
    """
    file = config_file(path)
    configs, names = [read_config(path, kind)], list[str]()
    while name := configs[0].after:
        if name in names or Path(name).name != name:
            raise InputError(
                f"after = {name!r} in {file}; expected the name of a config beside it, each once in a chain."
            )
        beside = file.parent / f"{name}.toml"
        asking, file = file, beside if beside.exists() else config_file(Path(name))
        if not file.exists():
            raise InputError(f"after = {name!r} in {asking}, but there is no {beside}, and none ships.")
        before = read_config(file, kind)
        _check_alike(before, configs[0], name)
        configs.insert(0, before)
        names.append(name)
    return tuple(configs)


def _check_alike(before: TrainingConfig, config: TrainingConfig, name: str) -> None:
    for key in ("kind", "architecture"):
        was, needed = getattr(before, key), getattr(config, key)
        if was != needed:
            raise InputError(
                f"after = {name!r} trains weights of {key} {was}, but the config after it has {needed}. "
                "Give both the same."
            )


def chain(
    configs: Sequence[TrainingConfig],
    folders: Sequence[Path],
    out: Path,
    validation: Path | None = None,
    start: Path | None = None,
    budget: Mapping[str, float] | None = None,
) -> tuple[Job, ...]:
    """List the jobs of configs that come one after another, the last in out; the first begins with start.

    budget replaces `images` and `seconds` of each config. Raises InputError where a config lacks images to
    learn from, or says that it comes after one that is not there.
    """
    jobs: list[Job] = []
    _check_begun(configs, start)
    drawn = all(config.data == "phantoms" for config in configs)
    for i, asked in enumerate(configs):
        own = tuple(folders) if drawn or asked.data != "phantoms" else ()
        if not own and asked.data != "phantoms":
            raise InputError('no data to learn from. Name it with --data, or let data = "phantoms" draw it.')
        given = dataclasses.replace(asked, **budget or {})  # type: ignore[arg-type]  # two of its fields
        last = i == len(configs) - 1
        folder = out if last else out / "earlier" / configs[i + 1].after
        begin = jobs[-1].weights if jobs else start
        jobs.append(Job(given, asked, own, folder, validation, begin, chained=bool(jobs)))
    return tuple(jobs)


def _check_begun(configs: Sequence[TrainingConfig], start: Path | None) -> None:
    if start is None and (name := configs[0].after):
        raise InputError(
            f"the config comes after {name!r}. Train that one before (read_chain), or name weights to start."
        )
    if any(not config.after for config in configs[1:]):
        raise InputError("a config of a chain does not say which one it comes after.")


def pending(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Leave out what is done: jobs before the last one that has begun, and that one where others follow.

    Raises InputError where what has begun is not what the jobs ask for.
    """
    begun = 0
    for i, job in enumerate(jobs):
        if folder := checkpoint.latest(job.out):
            state = checkpoint.state(folder)
            _check_same(job, state, earlier=job is not jobs[-1])
            begun = i + (job is not jobs[-1] and _done(job, state))
    return tuple(jobs[begun:])


def _check_same(job: Job, state: Mapping[str, object], earlier: bool) -> None:
    if earlier and state["config_hash"] != job.asked.digest():
        raise InputError(f"{job.out} holds a training by other settings. Choose another output folder.")
    was = state.get("start")
    if job.begins_with not in (None, was):
        began = f"with {was}" if was else "with random weights"
        raise InputError(
            f"the training in {job.out} began {began}, not with {job.begins_with}. "
            "Repeat the call that began it, or choose another output folder."
        )


def _done(job: Job, state: Mapping[str, object]) -> bool:
    """Whether everything was written under this budget: the card comes last."""
    card = job.weights.with_suffix(".md")
    return state["budget"] == job.budget and job.weights.exists() and card.exists()
