"""Methods that photos_peers.py compares, ours and those of deepinv: a photo's measurement in, samples out.

All get the photo prior and the noise level that `invsolve run --simulate` takes. Ours are walks of PC with
antithetic pairs, or another sampler; deepinv's are those of invsolve/bench/peers_deepinv.py, which has their
settings, with the operator as physics and fewer steps: DPS 100, PiGDM and moment matching 50 (the class they
share has no number of steps of its own). A point estimate is made once.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from tasks import Posed
from torch import Tensor

from invsolve.bench.peers import counting
from invsolve.likelihood import Gaussian
from invsolve.plugins import load
from invsolve.priors.catalogue import load_prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.result import Result
from invsolve.rng import seed_of
from invsolve.run.settings import NAMES, SIMULATED_SIGMA_Y
from invsolve.samplers.pc import PC
from invsolve.solve import solve

__all__ = ["DEFAULT", "METHODS", "Drawn", "Method", "prior"]


@dataclass(frozen=True)
class Drawn:
    """What a method gives, and whether samples 2k and 2k + 1 are a pair of opposite noise."""

    result: Result
    antithetic: bool = False


Method = Callable[[Posed, int, int], Drawn]  # photo, samples, seed


@cache
def prior() -> DenoiserPrior:
    """Load the prior that `invsolve run` takes."""
    return load_prior(NAMES["prior"])


def walked(guidance: str, posed: Posed, n: int, seed: int) -> Drawn:
    """Draw antithetic pairs by PC, as `invsolve run` does."""
    sampler = PC(batch=1, antithetic=True)
    likelihood = Gaussian(posed.y, posed.operator, SIMULATED_SIGMA_Y)
    return Drawn(solve(prior(), likelihood, guidance=guidance, sampler=sampler, n=n, seed=seed), True)


def sampled(sampler: str, posed: Posed, n: int, seed: int) -> Drawn:
    """Draw by another sampler of ours; a point estimate once."""
    part = load().build("sampler", sampler, options={"batch": 1})
    likelihood = Gaussian(posed.y, posed.operator, SIMULATED_SIGMA_Y)
    n = 1 if getattr(part, "point_estimate", False) else n
    return Drawn(solve(prior(), likelihood, sampler=part, n=n, seed=seed))


def of_deepinv(name: str, steps: int | None, posed: Posed, n: int, seed: int) -> Drawn:
    """Draw by a method of deepinv, sample by sample, and count its calls of the prior."""
    from invsolve.bench.peers_deepinv import POINTS, SAMPLERS
    from invsolve.bench.peers_deepinv import Posed as Given

    calls, started, n = Counter[str](), time.perf_counter(), 1 if name in POINTS else n

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        level = torch.as_tensor(sigma, dtype=torch.float64).flatten().expand(len(x))
        if not level.any():  # DDRM ends there, where no network was trained: the image is its own mean
            return x
        calls["forward"] += len(x)
        return counting(prior().denoise(x.float(), level).to(x), calls)

    given = Given(denoise, _physics(posed), posed.y, tuple(posed.truth.shape), SIMULATED_SIGMA_Y, spread=0.0)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deepinv warns of what it does itself
        rows = []
        for k in range(n):
            own = seed_of(name, seed, k)
            torch.manual_seed(own)
            rows.append(SAMPLERS[name](given, 1, steps, own).detach())
    nfe = {key: calls[key] / n for key in ("forward", "vjp")}
    return Drawn(Result(torch.cat(rows).float(), nfe=nfe, seconds=time.perf_counter() - started))


def _physics(posed: Posed) -> object:
    """The operator with its noise, and singular values of every channel, which DDRM does not repeat."""
    from deepinv.physics import GaussianNoise

    operator = posed.operator
    operator.noise_model = GaussianNoise(SIMULATED_SIGMA_Y)
    operator.mask = operator.mask.expand(-1, len(posed.truth), *operator.mask.shape[2:]).clone()
    return operator


WALKS = ("moment-matching", "pigdm", "tmpd", "ddrm", "diffpir", "ddnm-plus")
STEPS = {"dps": 100, "dps-annealed": 100, "pigdm": 50, "moment-matching": 50}  # fewer than the adapters take
METHODS: dict[str, Method] = {
    **{name: partial(walked, name) for name in WALKS},
    **{name: partial(sampled, name) for name in ("daps", "red-diff")},
    **{
        f"deepinv/{name}": partial(of_deepinv, name, STEPS.get(name))
        for name in (
            "dpir",
            "ddrm",
            "ddrm-linear",
            "diffpir",
            "pigdm",
            "dps",
            "dps-annealed",
            "moment-matching",
        )
    },
}
DEFAULT = WALKS[0]
