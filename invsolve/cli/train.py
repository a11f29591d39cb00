"""The command `invsolve train`: learn a prior, or a classifier p(c | x_t), from images."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train_command"]


def train_command(
    config: Annotated[
        Path, typer.Option(help="TOML file of settings, or the name of one that ships, such as photo")
    ],
    out: Annotated[Path, typer.Option(help="folder for checkpoints and weights; a started run goes on")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="folder of images, searched deeply, perhaps several; idx or npz for whole images"),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="what to learn: prior or classifier [default: the config's]")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="folder of other images, to measure on")] = None,
    processes: Annotated[int, typer.Option(help="single-thread processes that share the work", min=1)] = 1,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:i; several processes go round the GPUs")
    ] = "auto",
    start: Annotated[
        Path | None,
        typer.Option(help="weight file to begin from, in place of trainings that the config comes after"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(help="crops to see in all, in place of the config's; each training of a chain", min=1),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="seconds to train in all, over all slices; each training of a chain", min=1),
    ] = None,
) -> None:
    """Train a prior or a classifier; the same command again resumes, a changed budget bends the schedule."""
    from invsolve.training import read_chain, read_config, train
    from invsolve.training.group import rank

    *earlier, settings = [read_config(config, kind)] if start else read_chain(config, kind)
    train(
        settings,
        data or [],
        out,
        earlier=earlier,
        validation=validation,
        processes=processes,
        device=device,
        start=start,
        images=images,
        seconds=seconds,
    )
    if not rank():  # of the processes that torchrun starts, one speaks
        typer.echo(out / f"{settings.name}.safetensors")
