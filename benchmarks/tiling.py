"""Peak memory and time of a run on a large image, whole and in tiles.

    python benchmarks/tiling.py [--sides 512 1024] [--tiles 0 256 512] [--steps 2] [--whole-up-to 1024]

Each row is a process of its own that inpaints the bundled photo, enlarged, from 30 % of its pixels with the
photo prior and moment matching: one sample, few steps. Peak memory is that of the process (maximum resident
set) beyond what it holds once the problem is made. `pixels` is what the network sees for each pixel of the
image, halo and all; forward and vjp are calls for the whole image. The last column is the largest difference
from the run without tiles, where there is one: in bfloat16 two orders of sums differ by 2^-8 of the image's
range, so --exact runs in float32.
"""

import argparse
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from figures import provenance, table
from torch import Tensor

from invsolve import operators
from invsolve.images import SAMPLE, load_image
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.priors.catalogue import load_prior
from invsolve.priors.tiled import overhead
from invsolve.rng import Noise
from invsolve.samplers.pc import PC

MIB = 1024  # of ru_maxrss, in KiB


@dataclass(frozen=True)
class Row:
    """One run: side of the image and of the tiles in pixels (0 for none), steps, and float32 or not."""

    side: int
    tile: int
    steps: int
    exact: bool


@dataclass(frozen=True)
class Measured:
    """What a run took."""

    pixels: float
    forward: int
    vjp: int
    seconds: float
    mebibytes: float
    sample: Tensor


@torch.no_grad()
def posterior_of(row: Row) -> Posterior:
    """Inpainting of the bundled photo at side x side pixels."""
    prior, shape = load_prior("photo"), (3, row.side, row.side)
    prior.fast = prior.fast and not row.exact
    photo = torch.from_numpy(load_image(SAMPLE).pixels)[None]
    truth = F.interpolate(photo, size=shape[1:], mode="bilinear")
    operator = operators.inpaint(shape, keep=0.3)
    y = operator.A(truth + 0.02 * Noise(0, "measurement", 1, shape)())
    return Posterior(prior.tiled(row.tile) if row.tile else prior, Gaussian(y, operator, 0.02))


def peak() -> float:
    """Most memory this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def measure(row: Row) -> Measured:
    """Draw one sample, in this process."""
    torch.set_num_threads(1)
    posterior = posterior_of(row)
    before, started = peak(), time.perf_counter()
    sample = PC(steps=row.steps)(posterior, 1, 0)
    seconds, calls = time.perf_counter() - started, posterior.calls
    times = overhead(posterior.prior, row.side, row.side)
    return Measured(times, calls["forward"], calls["vjp"], seconds, peak() - before, sample)


def apart(row: Row) -> Measured:
    """Measure in a fresh process, whose memory is its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (row,))


def cells(row: Row, found: Measured, whole: Tensor | None) -> list[str]:
    """Cells of a row of the table."""
    off = "" if whole is None else f"{float((found.sample - whole).abs().max()):.1e}"
    tile, counts = str(row.tile or "none"), [str(found.forward), str(found.vjp)]
    return [
        str(row.side),
        tile,
        f"{found.pixels:.2f}",
        *counts,
        f"{found.seconds:.1f}",
        f"{found.mebibytes:.0f}",
        off,
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, row by row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024], help="sides of the images")
    parser.add_argument("--tiles", type=int, nargs="+", default=[0, 256, 512], help="sides of the tiles")
    parser.add_argument("--steps", type=int, default=2, help="steps of the walk")
    parser.add_argument("--whole-up-to", type=int, default=1024, help="largest side taken without tiles")
    parser.add_argument("--exact", action="store_true", help="float32 inside the network")
    options = parser.parse_args(argv)
    print(f"{provenance(argv)}\n", flush=True)
    rows = []
    for side in options.sides:
        whole = None
        for tile in options.tiles:
            if tile or side <= options.whole_up_to:
                row = Row(side, tile, options.steps, options.exact)
                found = apart(row)
                rows.append(cells(row, found, whole))
                whole = whole if tile else found.sample
                print(*rows[-1], flush=True)
    head = ["side", "tile", "pixels", "forward", "vjp", "seconds", "peak MiB", "from whole"]
    print(f"\n{table(head, rows)}")


if __name__ == "__main__":
    main()
