"""The samples of a run without an operator, their pictures and what the likelihood makes of them.

metrics.json: {"recognised", "log_likelihood", "nfe": {"forward", "vjp"}, "seconds", "samples"}. recognised is
the share of samples to which the guiding classifier itself gives the label: near 1 is necessary, and only an
independent classifier says more. log_likelihood is the mean of log p(y | x_0), nats.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invsolve.arrays import Floats
from invsolve.device import choose_device
from invsolve.errors import InputError
from invsolve.files import sweep, writable, write_whole
from invsolve.gamma import parse_gamma
from invsolve.likelihood import Classifier, Likelihood
from invsolve.plain_json import json_text
from invsolve.posterior import Posterior
from invsolve.result import Result
from invsolve.run import parts
from invsolve.run.compute import share_of, states
from invsolve.run.events import Done, Tick
from invsolve.run.executor import one_thread
from invsolve.run.identity import identity
from invsolve.run.outputs import joined, record_of
from invsolve.run.pictures import are_images, save_moments, save_samples, save_sheet
from invsolve.run.screen import Screen
from invsolve.run.settings import Tables, to_toml
from invsolve.run.shards import Shard, read_shard, write_shard
from invsolve.run.units import Unit, chunk_size, plan

__all__ = ["draw"]


def draw(tables: Tables, out: Path, screen: Screen) -> dict[str, Any]:  # Any: JSON
    """Compute the units that are missing, write every file and return the report."""
    run, device = tables["run"], choose_device(str(tables["run"]["device"]))
    posterior, own, chosen = _posterior(tables, device)
    sampler, folder = parts.build_sampler(own), out / "units"
    writable(folder)
    sweep(folder)
    write_whole(out / "run.toml", to_toml(tables, chosen).encode())
    chunk = chunk_size(own, max(1, int(np.prod(posterior.shape[1:]))), device)
    units = plan(folder, identity(tables, device), int(run["samples"]), chunk)
    with screen.sampling(run["samples"]), one_thread():
        shards = [_shard(unit, posterior, sampler, int(run["seed"]), device, screen) for unit in units]
    result = replace(_merged(shards, tables, device), chosen=chosen)
    result.save(out / "posterior.h5")
    if are_images(result.samples):
        save_samples(out, result.samples)
        save_sheet(out, result.samples)
        save_moments(out, result)
    metrics = _metrics(result, posterior)
    write_whole(out / "metrics.json", json_text(metrics, 1).encode())
    return {"input": _title(tables), "out": str(out), "metrics": metrics, "notes": _notes(tables)}


def _notes(tables: Tables) -> list[str]:
    """Say that a weight other than 1 was given or chosen."""
    gamma = tables["run"]["gamma"]
    return [] if gamma == 1 else [f"gamma {gamma}: sharper or broader than p(x_0 | y), which is gamma 1"]


def _posterior(tables: Tables, device: str) -> tuple[Posterior, Tables, str]:
    """Build the posterior; with it the tables in which nothing is left to be chosen, and what was."""
    prior, likelihood = parts.load_prior(tables, device), parts.build("likelihood", tables)
    if isinstance(likelihood, Classifier):
        likelihood.net.to(device)
    if prior.shape is None or None in prior.shape:
        raise InputError(
            f"prior {tables['prior']['name']} makes images of any size, and no measurement says which: "
            "choose a prior of one size, such as --prior digits."
        )
    own, chosen = parts.settled(tables, prior, likelihood)
    prior = parts.tiled(prior, tables, [side for side in prior.shape if side])
    sde, guidance = (parts.build(kind, own) for kind in ("sde", "guidance"))
    gamma = parse_gamma(str(tables["run"]["gamma"]))
    return Posterior(prior, likelihood, sde=sde, guidance=guidance, gamma=gamma), own, chosen


def _shard(
    unit: Unit,
    posterior: Posterior,
    sampler: Any,  # noqa: ANN401  any callable (posterior, n, seed, first)
    seed: int,
    device: str,
    screen: Screen,
) -> Shard:
    """Take the unit's shard from the disk, or compute it."""
    found = read_shard(unit.shard) if unit.shard.exists() else None
    if found is not None:
        screen.done_already(unit.n)
        return found
    posterior.calls.clear()
    clock, started = time.perf_counter(), time.time()
    samples, trace = _drawn(sampler, posterior, unit, seed, screen)
    seconds = time.perf_counter() - clock
    shard = Shard(unit.first, samples, dict(posterior.calls), started, seconds, device, trace)
    write_shard(unit.shard, shard)
    screen.show(Done(unit))
    return shard


def _drawn(
    sampler: Any,  # noqa: ANN401  any callable (posterior, n, seed, first)
    posterior: Posterior,
    unit: Unit,
    seed: int,
    screen: Screen,
) -> tuple[Floats, dict[str, Floats]]:
    """Draw a unit's samples, step by step, and what a sampler of particle sets says of its sets."""
    of_sets, steps = dict[str, Tensor](), getattr(sampler, "steps", 1)
    for step, of_sets in states(sampler, posterior, unit.n, seed, unit.first):  # noqa: B007  used below
        screen.show(Tick(unit, share_of(step, steps), None))
    return _array(step.x), {name: _array(values) for name, values in of_sets.items()}


def _array(values: Tensor) -> Floats:
    found: Floats = values.detach().cpu().float().numpy()
    return found


def _merged(shards: list[Shard], tables: Tables, device: str) -> Result:
    n = sum(len(shard.samples) for shard in shards)
    return Result(
        samples=torch.from_numpy(np.concatenate([shard.samples for shard in shards])),
        nfe={name: sum(shard.calls.get(name, 0) for shard in shards) / n for name in ("forward", "vjp")},
        seconds=sum(shard.seconds for shard in shards),
        config=tables,
        seed=int(tables["run"]["seed"]),
        prior_sha256=parts.prior_sha256(tables, device),
        units=len(shards),
        ess=joined(shards, "ess"),
        log_evidence=joined(shards, "log_evidence"),
    )


def _metrics(result: Result, posterior: Posterior) -> dict[str, Any]:  # Any: JSON
    assert posterior.likelihood is not None, "a run has a likelihood"
    return _verdict(posterior.likelihood, result.samples.to(posterior.prior.device)) | record_of(result)


@torch.no_grad()
def _verdict(likelihood: Likelihood, samples: Tensor) -> dict[str, float]:
    """What the likelihood makes of the samples."""
    found = {"log_likelihood": float(likelihood.log_prob(samples).mean())}
    if isinstance(likelihood, Classifier):
        chosen = likelihood.log_classes(samples).argmax(1)
        found["recognised"] = float((chosen == likelihood.label).float().mean())
    return found


def _title(tables: Tables) -> str:
    """Say what was drawn: digits given classifier, label 7."""
    table = tables["likelihood"]
    label = f", label {table['label']}" if "label" in table else ""
    return f"{Path(str(tables['prior']['name'])).stem} given {table['name']}{label}"
