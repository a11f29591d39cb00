"""The command `invsolve bench`: measure every method where the truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from invsolve.plain_json import json_text

__all__ = ["bench_command"]


def bench_command(
    benchmark: Annotated[str, typer.Argument(help="What to measure: posterior.")],
    dx: Annotated[
        str, typer.Option(help="dimensions of the mixtures, as 8,80; none leaves them out")
    ] = "8,80",
    dy: Annotated[str, typer.Option(help="measurements of each mixture")] = "1,2,4",
    images: Annotated[
        str, typer.Option(help="Gaussian image problems: of inpaint,deblur,superres,colorize, or none")
    ] = "inpaint,deblur,superres,colorize",
    side: Annotated[int, typer.Option(help="sides of the images, in pixels, 12 to 64")] = 16,
    methods: Annotated[
        str | None,
        typer.Option(help="guidances, samplers or sampler/guidance, as pigdm,smc@vp [default: all built-in]"),
    ] = None,
    peers: Annotated[
        str, typer.Option(help="libraries whose methods are rows too: of deepinv,azula; one is deepinv/dps")
    ] = "none",
    seeds: Annotated[int, typer.Option(help="problems of each kind")] = 10,
    samples: Annotated[int, typer.Option(help="samples of each method on each problem")] = 1000,
    steps: Annotated[int | None, typer.Option(help="steps of each sampler [default: its own]")] = None,
    out: Annotated[Path, typer.Option(help="folder of results; a benchmark begun there goes on")] = Path(
        "bench"
    ),
    overwrite: Annotated[bool, typer.Option(help="begin anew")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Measure how far each method is from exact posteriors; the same command again resumes."""
    from invsolve.bench.command import bench_posterior, chosen

    chosen(benchmark)
    found, shown = bench_posterior(
        dx, dy, images, side, methods, peers, seeds, samples, steps, out, overwrite=overwrite
    )
    typer.echo(json_text(found, 1) if json else shown)
