"""Checkpoints of a training run: safetensors and a JSON file, never pickle.

    OUT/step-00001200/weights.safetensors  average.safetensors  optimizer.safetensors  state.json

A checkpoint is written under a temporary name, flushed, and renamed in one move; only then are older ones
deleted. A run killed at any moment finds its last whole checkpoint.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from invsolve.errors import InputError, OutputError

__all__ = ["Tensors", "flat", "latest", "load", "save", "state"]

Tensors = dict[str, dict[str, Tensor]]


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(out: Path, step: int, parts: Tensors, state: dict[str, object]) -> Path:
    """Write one checkpoint atomically and delete the older ones; returns its folder."""
    target, partial = out / f"step-{step:08d}", out / f"partial-{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in parts.items():
            save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, partial / f"{name}.safetensors")
        (partial / "state.json").write_text(json.dumps(state, indent=1))
        for path in [*partial.iterdir(), partial]:
            sync(path)
        if not target.exists():
            partial.rename(target)
            sync(out)
    except OSError as error:
        raise OutputError(f"the checkpoint {target} cannot be written: {error}.") from error
    for stale in [p for p in out.glob("step-*") if p != target] + list(out.glob("partial-*")):
        shutil.rmtree(stale)
    return target


def latest(out: Path) -> Path | None:
    """Give the newest whole checkpoint under out, or None."""
    return max(out.glob("step-*"), default=None)


def load(folder: Path) -> tuple[Tensors, dict[str, object]]:
    """Read a checkpoint back."""
    names = ("weights", "average", "optimizer")
    try:
        parts = {name: load_file(folder / f"{name}.safetensors") for name in names}
    except Exception as error:  # safetensors raises several kinds; all mean one thing here
        raise _broken(folder, error) from error
    return parts, state(folder)


def state(folder: Path) -> dict[str, object]:
    """Read what a checkpoint says of its run: counters, settings and budget."""
    try:
        known: dict[str, object] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise _broken(folder, error) from error
    return known


def _broken(folder: Path, error: Exception) -> InputError:
    return InputError(f"{folder} is not a whole checkpoint ({error}). Delete it to go back to none.")


def flat(parameters: list[torch.nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Move parameters and gradients into two flat vectors that they become views of."""
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient = torch.zeros_like(vector)
    place = 0
    for p in parameters:
        window = slice(place, place + p.numel())
        p.data, p.grad = vector[window].view(p.shape), gradient[window].view(p.shape)
        place += p.numel()
    return vector, gradient
