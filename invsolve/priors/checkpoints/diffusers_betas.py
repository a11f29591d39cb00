"""Noise levels of a scheduler of diffusers, from the betas that its JSON file names or lists."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.priors.checkpoints.schedules import cosine_betas, levels_of, linear_betas

__all__ = ["Table", "levels_of_scheduler", "number"]

Table = dict[str, Any]  # what JSON holds


def levels_of_scheduler(path: Path, schedule: Table) -> Tensor:
    """Noise levels of the scheduler's betas, without infinite ones."""
    betas = _betas(path, schedule)
    if not (len(betas) > 1 and bool((betas > 0).all()) and bool((betas <= 1).all())):
        raise InputError(f"the betas of {path} must lie in (0, 1], but they do not.")
    if not schedule.get("rescale_betas_zero_snr"):
        return levels_of(betas[betas < 1])
    root = (1 - betas).cumprod(0).sqrt()  # Lin et al. 2023 (arXiv:2305.08891), algorithm 1
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return (1 / root[:-1] ** 2 - 1).sqrt()


def _betas(path: Path, schedule: Table) -> Tensor:
    """Betas by their name, or as they are written; float64."""
    if schedule.get("trained_betas") is not None:
        try:
            return torch.tensor(schedule["trained_betas"], dtype=torch.float64).flatten()
        except (TypeError, ValueError):
            raise InputError(f"the trained_betas of {path} are no numbers.") from None
    steps = int(number(path, schedule, "num_train_timesteps"))
    first, last = (number(path, schedule, name) for name in ("beta_start", "beta_end"))
    name = schedule["beta_schedule"]
    if not 2 <= steps <= 100_000:
        raise InputError(f"{path} was trained at {steps} steps; 2 to 100000 are possible.")
    if name == "linear":
        return linear_betas(first, last, steps)
    if name == "scaled_linear":
        return linear_betas(first**0.5, last**0.5, steps) ** 2
    if name == "squaredcos_cap_v2":
        return cosine_betas(steps)
    if name == "sigmoid":
        return torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid() * (last - first) + first
    raise InputError(f"{path} has the beta_schedule {name!r}, which is not known here.")


def number(path: Path, table: Table, name: str) -> float:
    """Give a field that must be a number > 0."""
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"the scheduler of {path} has {name} = {value!r}; it must be a number > 0.")
    return float(value)
