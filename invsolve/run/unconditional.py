"""Samples of a prior alone: what it takes images for, before any measurement.

DIR/samples.h5            a result file without measurement
DIR/samples/000.png ...   each sample, and DIR/sheet.png all at once
"""

import time
from pathlib import Path

import torch
from torch import Tensor

from invsolve.device import choose_device
from invsolve.errors import InputError
from invsolve.files import writable
from invsolve.posterior import Posterior
from invsolve.result import Result
from invsolve.run import parts
from invsolve.run.pictures import are_images, save_samples, save_sheet
from invsolve.run.screen import Screen
from invsolve.run.settings import Tables

__all__ = ["draw", "event_shape", "write"]

_SIDE = 64


def draw(tables: Tables, size: tuple[int, int] | None, screen: Screen) -> Result:
    """Draw run.samples samples of the prior, one by one."""
    run, device = tables["run"], choose_device(str(tables["run"]["device"]))
    prior, started = parts.load_prior(tables, device), time.perf_counter()
    shape = event_shape(prior.shape, size)
    prior = parts.tiled(prior, tables, shape)
    posterior = Posterior(prior, None, sde=parts.build("sde", tables), shape=shape)
    for note in parts.tile_notes(posterior):
        screen.note(note)
    sampler, samples = parts.build_sampler(parts.settled(tables, prior, None)[0]), list[Tensor]()
    for k in range(run["samples"]):
        samples.append(sampler(posterior, 1, run["seed"], k))
        screen.note(f"{k + 1} of {run['samples']}")
    return Result(
        torch.cat(samples).cpu(),
        nfe={"forward": posterior.calls["forward"] / len(samples)},
        seconds=time.perf_counter() - started,
        config=tables,
        seed=run["seed"],
        prior_sha256=parts.prior_sha256(tables, device),
        units=len(samples),
    )


def event_shape(own: tuple[int | None, ...] | None, size: tuple[int, int] | None) -> tuple[int, ...]:
    """Shape of a sample: the prior's own, its free sides taken from the size asked for."""
    if own is None:
        own = (3, None, None)
    sides = (None, *(size or (_SIDE, _SIDE)))
    if len(own) == 3:
        own = tuple(side or given for side, given in zip(own, sides, strict=True))
    full = tuple(side for side in own if side is not None)
    if len(full) < len(own) or (size and full[-2:] != size):
        raise InputError(f"this prior makes samples of shape {own}, so --size {size} does not fit.")
    return full


def write(result: Result, out: Path) -> None:
    """Write the result file, and pictures where samples are images."""
    writable(out)
    result.save(out / "samples.h5")
    if are_images(result.samples):
        save_samples(out, result.samples)
        save_sheet(out, result.samples)
