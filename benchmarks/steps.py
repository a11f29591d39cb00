"""What few steps cost: the spread of posterior samples of photographs in few steps beside that in many.

    python benchmarks/steps.py FOLDER --images 12 --task superres

One Brownian motion drives all walks, so there is next to no chance in the ratio of their spreads. With x_0
given x_t held fixed, the reverse SDE moves x / (alpha lambda^2), lambda = sigma / alpha, by a Brownian motion
B in 1 / lambda^2; the noise of a step from lambda_t to lambda_s is

    z = (B(1 / lambda_s^2) - B(1 / lambda_t^2)) / sqrt(1 / lambda_s^2 - 1 / lambda_t^2).

Printed: geometric means over crops of the ratio of sd to that of the many steps, of all pixels and by
frequency (cycles an image), with 95 % intervals; the means of dispersion and of the PSNR that the mean of
infinitely many draws has.
"""

import argparse
import math
import statistics
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from figures import interval, provenance, table
from tasks import TASKS, pose
from torch import Tensor

from invsolve import metrics
from invsolve.guidance import MomentMatching
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.priors.catalogue import load_prior
from invsolve.rng import seed_of
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import DPMpp, Memory
from invsolve.samplers.walk import noised
from invsolve.training.data import image_files

SIGMA_Y, DRAWS, SIZE = 0.02, 8, 64
BANDS = ((0, math.inf), (0, 8), (8, 16), (16, math.inf))
MANY = "160"
WALKS = {
    MANY: PC(steps=160),
    "40, the default": PC(),
    "25": PC(steps=25),
    "40, order 2": PC(DPMpp(order=2)),
    "40, order 2, karras": PC(DPMpp(order=2), grid="karras"),
    "40, order 3, karras": PC(DPMpp(order=3), grid="karras"),
}


class Motion:
    """A Brownian motion on the clock of some walks, one path for each of DRAWS images."""

    def __init__(self, clocks: Iterable[Sequence[float]], shape: tuple[int, ...], seed: int) -> None:
        """Draw the increments between all times of the clocks."""
        self.times = sorted({time for clock in clocks for time in clock})
        rng = torch.Generator().manual_seed(seed)
        sizes = [math.sqrt(late - early) for early, late in pairwise(self.times)]
        self.moves = [size * torch.randn((DRAWS, *shape), generator=rng) for size in sizes]
        self.start = torch.randn((DRAWS, *shape), generator=rng)

    def noise(self, early: float, late: float) -> Tensor:
        """Standard normal noise of a step."""
        first, last = self.times.index(early), self.times.index(late)
        return sum(self.moves[first:last], torch.zeros_like(self.start)) / math.sqrt(late - early)


def clock(walk: PC, posterior: Posterior) -> list[float]:
    """1 / lambda^2 at the times of a walk; walks share their ends, but for rounding."""
    return [round(float(posterior.sde.ratio(t)) ** -2, 9) for t in walk.times(posterior)]


@torch.no_grad()
def drawn(walk: PC, posterior: Posterior, motion: Motion) -> Tensor:
    """Samples (DRAWS, C, H, W) of one walk."""
    times, ticks = walk.times(posterior), clock(walk, posterior)
    memory: Memory | None = None
    x = noised(posterior.sde, posterior.prior.centre, times[0], motion.start)
    for (t, s), tick in zip(pairwise(times), pairwise(ticks), strict=True):
        given: Any = partial(motion.noise, *tick)  # stands for a Noise
        x, memory = walk.predictor.step(posterior, x, t, s, given, memory)
    return posterior.mean(x, times[-1])


def spreads(samples: Tensor) -> list[float]:
    """Standard deviation of samples (n, C, H, W) in each band of frequencies."""
    power = torch.fft.fft2(samples - samples.mean(0), norm="ortho").abs().square().mean(1).sum(0)
    power = power / (len(samples) - 1)
    cycles = torch.fft.fftfreq(samples.shape[-1]) * samples.shape[-1]
    radius = (cycles[:, None] ** 2 + cycles[None] ** 2).sqrt()
    return [float(power[(radius >= low) & (radius < high)].mean().sqrt()) for low, high in BANDS]


def judgement(samples: Tensor, truth: Tensor) -> tuple[float, float]:
    """Dispersion, and the PSNR that the mean of infinitely many such draws has."""
    error = float((samples.mean(0) - truth).square().mean() - samples.var(0).mean() / DRAWS)
    return metrics.dispersion(samples.numpy(), truth.numpy()), -10 * math.log10(error)


def _row(name: str, found: Sequence[Sequence[float]], many: Sequence[Sequence[float]]) -> list[str]:
    """Ratios of the spreads to those of the many steps, then dispersion and PSNR."""
    logs = [
        [math.log(few[i] / most[i]) for few, most in zip(found, many, strict=True)] for i in range(len(BANDS))
    ]
    pairs = [interval(values) for values in logs]
    ratios = [f"{math.exp(mean):.3f} ± {math.exp(mean) * half:.3f}" for mean, half in pairs]
    judged = [statistics.mean(row[i] for row in found) for i in (-2, -1)]
    return [name, *ratios, *(f"{value:.2f}" for value in judged)]


def main() -> None:
    """Restore each crop by every walk, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of pictures that the prior was not trained on")
    parser.add_argument("--task", choices=TASKS, default="superres")
    parser.add_argument("--images", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    prior, rows = load_prior("photo"), {name: list[list[float]]() for name in WALKS}
    for seed, file in enumerate(image_files([given.folder])[: given.images]):
        posed = pose(given.task, file, SIZE, SIGMA_Y, seed)
        likelihood = Gaussian(posed.y, posed.operator, SIGMA_Y)
        posterior = Posterior(prior, likelihood, guidance=MomentMatching(), shape=(3, SIZE, SIZE))
        clocks = (clock(walk, posterior) for walk in WALKS.values())
        motion = Motion(clocks, posterior.shape, seed_of("steps", seed))
        for name, walk in WALKS.items():
            samples = drawn(walk, posterior, motion)
            rows[name].append([*spreads(samples), *judgement(samples, posed.truth)])
    head = ["steps", "sd, all", "0 to 8 cycles", "8 to 16", "above", "dispersion", "PSNR, dB"]
    print(table(head, [_row(name, found, rows[MANY]) for name, found in rows.items()]))
    print(provenance())


if __name__ == "__main__":
    main()
