"""From a checkpoint to a prior or a classifier: averaged weights in fp16, and what the run knows of them."""

from pathlib import Path

from invsolve.errors import InputError
from invsolve.training import checkpoint
from invsolve.training.card import write_card
from invsolve.training.config import TrainingConfig, from_table
from invsolve.training.kinds import KINDS
from invsolve.training.loop import Run

__all__ = ["export"]

SPAN = 2.0  # training images live in [-1, 1]: physical noise levels are half of the network's


def export(folder: Path, file: Path) -> None:
    """Write the newest checkpoint under a training folder as a file of its kind, and its card beside it."""
    newest = checkpoint.latest(folder)
    if newest is None:
        raise InputError(f"no checkpoint in {folder}. Give the output folder of invsolve train.")
    parts, state = checkpoint.load(newest)
    state = {"asked": state["config"], "data": [], "processes": 1} | state  # early checkpoints lack these
    config, asked = (_settings(state, key) for key in ("config", "asked"))
    run = Run(config)
    run.restore(parts)
    about = {"images": str(state["images"]), "config_hash": str(state["config_hash"])}
    if config.objective != "edm":
        about["objective"] = config.objective
    if config.surrogate_above:
        about["surrogate_above"] = repr(config.surrogate_above)
    if config.data == "whole":
        about["side"] = str(config.crop)
    kind = KINDS[config.kind]
    kind.save(
        file,
        run.averaged(),
        name=config.name,
        licence=config.licence,
        sigma_min=config.sigma_min / SPAN,
        sigma_max=config.sigma_max / SPAN,
        about=about,
    )
    write_card(file, kind.load(file).metadata, state, asked)


def _settings(state: dict[str, object], key: str) -> TrainingConfig:
    table = state[key]
    assert isinstance(table, dict), "the settings of a checkpoint are a table"
    return from_table(table)
