"""Training of priors and classifiers: `train` reads a config and images, leaves checkpoints and weights.

    OUT/step-*/          the newest checkpoint (invsolve.training.checkpoint)
    OUT/loss.csv         step, loss: one line a step
    OUT/validation.jsonl denoising PSNR, or accuracy, per noise level of the averaged weights
    OUT/<name>.safetensors  the averaged weights as a prior or classifier, written at the end
    OUT/<name>.md        their model card, and in <name>-training.toml its settings (invsolve.training.card)
    OUT/earlier/*        the trainings that came before, where the config comes after others

The same call again goes on where the last one stopped. Read config, data, loss, kinds, loop, group, jobs in
this order; then objectives, implicit and bound, score matching for any network, of which choice lets a config
take one for images.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from invsolve.device import choose_device, keep_float32, mixed_precision, share_device
from invsolve.errors import InputError
from invsolve.lock import locked
from invsolve.training import checkpoint, group
from invsolve.training.bound import kl_bound
from invsolve.training.config import TrainingConfig, read_config
from invsolve.training.export import export
from invsolve.training.implicit import (
    exact_score_matching,
    rademacher,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from invsolve.training.jobs import Job, chain, pending, read_chain
from invsolve.training.kinds import KINDS, Task, load_source
from invsolve.training.loop import Report, Run, steps
from invsolve.training.objectives import (
    EDM,
    Ladder,
    Likelihood,
    Song,
    UniformLikelihood,
    denoising_score_matching,
    score_of,
)
from invsolve.training.progress import shown

__all__ = [
    "EDM",
    "Job",
    "Ladder",
    "Likelihood",
    "Song",
    "TrainingConfig",
    "UniformLikelihood",
    "denoising_score_matching",
    "exact_score_matching",
    "export",
    "kl_bound",
    "rademacher",
    "read_chain",
    "read_config",
    "score_of",
    "sliced_score_matching",
    "sliced_score_matching_vr",
    "train",
]


def train(
    config: TrainingConfig,
    folders: Sequence[Path],
    out: Path,
    *,
    earlier: Sequence[TrainingConfig] = (),
    validation: Path | None = None,
    processes: int = 1,
    device: str = "auto",
    start: Path | None = None,
    images: int | None = None,
    seconds: float | None = None,
) -> None:
    """Train, or go on training, until the budget is spent; images and seconds replace the config's budget.

    start is a weight file of the same architecture to begin from, in place of random weights. earlier are
    the configs that this one comes after (invsolve.training.jobs), trained first, each under that budget.
    device is auto, cpu, cuda or cuda:i; several processes go round the GPUs there are, unless one is named.
    """
    choose_device(device)
    if processes < 1:
        raise InputError(f"{processes} processes; expected at least one.")
    if processes > 1 and group.started_by_others():
        raise InputError(f"{processes} processes, but torchrun started them already. Leave out --processes.")
    budget = {k: v for k, v in (("images", images), ("seconds", seconds)) if v is not None}
    jobs = chain((*earlier, config), folders, out, validation, start, budget)
    with contextlib.nullcontext() if group.rank() else locked(out):
        group.start(work, (pending(jobs), device), processes)


def resumed(job: Job, device: str) -> Run:
    """Take up the newest checkpoint of job.out, or start anew."""
    run, folder = Run(job.config, device), checkpoint.latest(job.out)
    if folder is None:
        if job.start is not None:
            run.start_from(started(job.start, job.config))
        run.began_with = job.begins_with
        return run
    parts, state = checkpoint.load(folder)
    if state["architecture"] != json.loads(json.dumps(dataclasses.asdict(job.config.architecture))):
        raise InputError(
            f"{folder} holds another architecture than the config. Choose another output folder."
        )
    run.restore(parts)
    run.step, run.images = int(str(state["step"])), int(str(state["images"]))
    run.seconds = float(str(state["seconds"]))
    run.began_with = state.get("start")
    return run


def started(file: Path, config: TrainingConfig) -> nn.Module:
    """Read the network of a weight file, of the config's architecture."""
    network: nn.Module = KINDS[config.kind].load(file).network
    if getattr(network, "architecture", None) != config.architecture:
        raise InputError(
            f"{file} holds another architecture than the config. Start from weights like those asked for."
        )
    return network


def save(run: Run, job: Job) -> Path:
    """Write a checkpoint of the run."""
    config = run.config
    state: dict[str, object] = {
        "step": run.step,
        "images": run.images,
        "seconds": run.seconds,
        "budget": job.budget,
        "architecture": dataclasses.asdict(config.architecture),
        "config": dataclasses.asdict(config),
        "asked": dataclasses.asdict(job.asked),
        "config_hash": job.asked.digest(),
        "data": [folder.name for folder in job.folders],
        "processes": group.world(),
        "start": run.began_with,
    }
    return checkpoint.save(job.out, run.step, run.parts(), state)


def work(jobs: Sequence[Job], device: str) -> None:
    """Do the jobs in turn, as one of the processes."""
    device = share_device(device, group.local_rank())
    keep_float32(device)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    for job in jobs:
        carry_out(job, device)
        group.agreed(0.0)  # the others wait here until the first process has written the weights


def carry_out(job: Job, device: str) -> None:
    """Train as one of the processes; the first one also reports, validates and saves."""
    run, source = resumed(job, device), load_source(job.folders, job.config)
    task = KINDS[job.config.kind].task(job.config, source)
    reports = steps(run, task, group.rank(), group.world())
    if group.rank() > 0:
        for _ in reports:
            pass
        return
    for _ in recorded(run, job, task, shown(reports)):
        pass
    save(run, job)
    validate(run, job, task)
    export(job.out, job.weights)


def recorded(run: Run, job: Job, task: Task, reports: Iterator[Report]) -> Iterator[Report]:
    """Pass the reports on; write the losses, and now and then a checkpoint and a validation."""
    job.out.mkdir(parents=True, exist_ok=True)
    file = job.out / "loss.csv"
    lines = file.read_text().splitlines(keepends=True)[: run.step] if file.exists() else []
    file.write_text("".join(lines))
    saved = validated = time.monotonic()
    with file.open("a") as losses:
        for report in reports:
            losses.write(f"{report.step},{report.loss!r}\n")
            if time.monotonic() - saved >= job.config.save_seconds:
                losses.flush()
                save(run, job)
                saved = time.monotonic()
            if time.monotonic() - validated >= job.config.validate_seconds:
                validate(run, job, task)
                validated = time.monotonic()
            yield report


def validate(run: Run, job: Job, task: Task) -> None:
    """Append the figures of the averaged weights to validation.jsonl, if there are images for it."""
    if job.validation is None and not job.config.hold_out and job.config.data != "phantoms":
        return
    with mixed_precision(run.device):
        figures = task.measured(run.averaged(), job.validation)
    rounded = {name: {s: round(v, 4) for s, v in row.items()} for name, row in figures.items()}
    row = {"step": run.step, "images": run.images, "seconds": round(run.seconds), **rounded}
    with (job.out / "validation.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
