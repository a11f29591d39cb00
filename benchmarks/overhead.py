"""What the toolkit costs beside the network: PC's time over that of the very network calls it made.

    python benchmarks/overhead.py [--repeats 3] [--steps N] [--only time|calls]

Time. Each step of a walk is timed, and at once the same numbers of denoisings and vector-Jacobian products
are made bare, at the same shapes and noise levels. So both clocks run side by side in one process and meet
the same load; a ratio is a median over repeats, of CPU time of one thread. Wanted: at most 1.05 with the
photo prior at 256 x 256, 1.3 at 16 x 16 with a network of about 50,000 parameters.

Calls. Denoisings and vector-Jacobian products per sample until the posterior mean of a Gaussian image
problem (16 x 16, stationary covariance, sigma_y 0.05) is right to 0.1 posterior standard deviations, root
mean square over pixels, at the least of 5, 10, 20, ... 320 steps that reach it. The Monte-Carlo error of n
samples, 1/sqrt(n), is taken out in quadrature. The last column is the sd ratio there, 1 for a right
posterior: a mean alone is cheap.
"""

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from exact_problems import Problem, gaussian_problem
from figures import provenance, table
from torch import Tensor

from invsolve import operators
from invsolve.diagnostics import distance
from invsolve.errors import Divergence, Refused
from invsolve.guidance import DPS, Guidance, MomentMatching, PiGDM
from invsolve.guidances.replace import Replace
from invsolve.heap import keep_freed_memory
from invsolve.images import SAMPLE, load_image
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.priors.catalogue import load_prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.network import Architecture, build
from invsolve.rng import Noise
from invsolve.samplers.correctors import Langevin
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import (
    Ancestral,
    DPMpp,
    EulerMaruyama,
    Heun,
    Predictor,
    ReverseDiffusion,
)

STEPS = (5, 10, 20, 40, 80, 160, 320)
TARGET = 0.1
PREDICTORS: dict[str, Predictor] = {
    "euler-maruyama": EulerMaruyama(),
    "reverse-diffusion": ReverseDiffusion(),
    "ancestral": Ancestral(),
    "heun": Heun(),
    "dpmpp sde": DPMpp("sde"),
    "dpmpp ode": DPMpp("ode"),
}


# ---- time


@dataclass(frozen=True)
class Bare:
    """The network's work alone, on fixed images x (n, *event)."""

    prior: Prior
    x: Tensor

    def __call__(self, level: float, forward: int, vjp: int) -> None:
        """Denoise `forward` times and take `vjp` vector-Jacobian products, spread over them."""
        sigma = torch.full((len(self.x),), level, dtype=torch.float64)
        x = (self.prior.centre + level * self.x).requires_grad_(vjp > 0)
        for i in range(forward):
            with torch.set_grad_enabled(vjp > 0):  # a graph that nobody pulls back through is no need
                mean = self.prior.denoise(x, sigma)
            for _ in range(vjp // forward + (i < vjp % forward)):
                torch.autograd.grad(mean, x, self.x, retain_graph=True)


def clocks(posterior: Posterior, sampler: PC, n: int) -> tuple[float, float]:
    """CPU seconds of a walk, and of its network calls alone, made bare after each step."""
    noise = Noise(0, "bare", n, posterior.shape, dtype=posterior.prior.dtype)
    bare, walk, ours, theirs = Bare(posterior.prior, noise()), sampler.walk(posterior, n, 0), 0.0, 0.0
    levels = posterior.sde.ratio(sampler.times(posterior))
    for i in range(sampler.steps + 2):
        before = Counter(posterior.calls)
        started = time.process_time()
        next(walk)
        ours += time.process_time() - started
        made = posterior.calls - before
        started = time.process_time()
        bare(float(levels[min(i, sampler.steps)]), made["forward"] // n, made["vjp"] // n)
        theirs += time.process_time() - started
    return ours, theirs


def photo_posterior(guidance: Guidance | None) -> Posterior:
    """Inpainting of the bundled photo at 256 x 256 with the photo prior."""
    return _inpainting(load_prior("photo"), 256, guidance)


@torch.no_grad()
def small_posterior(guidance: Guidance | None) -> Posterior:
    """Inpainting at 16 x 16 with a network of about 50,000 parameters and random weights."""
    network = build(Architecture(stem=8, widths=(10, 16), blocks=1))
    network.head.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))  # built as zero
    return _inpainting(DenoiserPrior(network, name="small"), 16, guidance)


def _inpainting(prior: Prior, side: int, guidance: Guidance | None) -> Posterior:
    shape = (3, side, side)
    operator = operators.inpaint(shape, keep=0.3)
    truth = torch.from_numpy(load_image(SAMPLE).pixels)[:, -side:, -side:]
    y = operator.A(truth[None] + 0.02 * Noise(0, "measurement", 1, shape)())
    likelihood = None if guidance is None else Gaussian(y, operator, 0.02)
    return Posterior(prior, likelihood, guidance=guidance, shape=shape)


def time_table(steps: int, repeats: int) -> str:
    """Ratios of PC's time to the network's, by network, guidance and sampler."""
    samplers = {
        "dpmpp": PC(DPMpp(), steps=steps),
        "ancestral + langevin": PC(Ancestral(), Langevin(), steps=steps),
    }
    guidances = {"none": None, "pigdm": PiGDM(), "moment-matching": MomentMatching()}
    places = [("photo, 256 x 256", photo_posterior, 1, 1.05), ("small, 16 x 16", small_posterior, 8, 1.3)]
    head = ["network", "samples", "guidance", "sampler", "PC, s", "network alone, s", "ratio", "wanted"]
    rows = []
    for place, make, n, wanted in places:
        for guidance, sampler in product(guidances, samplers):
            posterior = make(guidances[guidance])
            clocks(posterior, replace(samplers[sampler], steps=2), n)  # the first calls are slow
            found = [clocks(posterior, samplers[sampler], n) for _ in range(repeats)]
            ours, bare = (statistics.median(column) for column in zip(*found, strict=True))
            ratio = statistics.median(a / b for a, b in found)
            verdict = f"{'pass' if ratio <= wanted else 'FAIL'} <= {wanted}"
            rows.append(
                [place, str(n), guidance, sampler, f"{ours:.3f}", f"{bare:.3f}", f"{ratio:.3f}", verdict]
            )
    return table(head, rows)


# ---- calls


@dataclass(frozen=True)
class Reached:
    """Smallest number of steps that gives the mean and what it takes; steps None where none of STEPS does."""

    steps: int | None
    calls: float
    error: float
    sd_ratio: float

    def cells(self) -> list[str]:
        """The last cells of a row: steps, calls, error, sd ratio."""
        steps = "never" if self.steps is None else str(self.steps)
        return [steps, f"{self.calls:.0f}", f"{self.error:.3f}", f"{self.sd_ratio:.2f}"]


def reach(problem: Problem, guidance: Guidance, predictor: Predictor, n: int) -> Reached:
    """Take more steps until the mean is right to TARGET posterior standard deviations."""
    for steps in STEPS:
        found = _after(problem, guidance, predictor, steps, n)
        if found.error < TARGET:
            return found
    return replace(found, steps=None)


def _after(problem: Problem, guidance: Guidance, predictor: Predictor, steps: int, n: int) -> Reached:
    posterior = Posterior(problem.prior, problem.likelihood, guidance=guidance)
    try:
        off = distance(PC(predictor, steps=steps)(posterior, n, 0), problem.exact)
    except Divergence:  # too few steps for this predictor: infinitely far is what the table says
        return Reached(steps, posterior.calls.total() / n, math.inf, math.inf)
    error = math.sqrt(max(off.mean_error**2 - 1 / n, 0.0))
    return Reached(steps, posterior.calls.total() / n, error, off.sd_ratio)


def guidances_for(problem: Problem) -> dict[str, Guidance]:
    """Return the guidances with the options that are right for the problem."""
    return {
        "moment-matching": MomentMatching(),
        "pigdm": PiGDM(data_variance=problem.variance),
        "dps": DPS(),
        "replace": Replace(),
    }


def calls_rows(n: int, side: int) -> Iterator[list[str]]:
    """Rows of the table of calls; Replace is left out where the operator's rows are not orthogonal."""
    for kind in ("inpaint", "blur"):
        problem = gaussian_problem(kind, side)
        for (name, guidance), predictor in product(guidances_for(problem).items(), PREDICTORS):
            try:
                yield [kind, name, predictor, *reach(problem, guidance, PREDICTORS[predictor], n).cells()]
            except Refused:
                break


def calls_table(n: int, side: int) -> str:
    """Cost of a mean that is right to TARGET, by problem, guidance and predictor."""
    head = ["problem", "guidance", "predictor", "steps", "forward + vjp", "mean error, sd", "sd ratio"]
    return table(head, list(calls_rows(n, side)))


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="walks of each kind that are timed")
    parser.add_argument("--steps", type=int, default=PC.steps, help="steps of the walks that are timed")
    parser.add_argument(
        "--samples", type=int, default=400, help="samples behind each mean of the second table"
    )
    parser.add_argument("--side", type=int, default=16, help="side of the images of the second table")
    parser.add_argument("--only", choices=("time", "calls"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as invsolve run does
    print(f"{provenance(argv)}\n", flush=True)
    if options.only != "calls":
        print(f"{time_table(options.steps, options.repeats)}\n", flush=True)
    if options.only != "time":
        print(calls_table(options.samples, options.side))


if __name__ == "__main__":
    main()
