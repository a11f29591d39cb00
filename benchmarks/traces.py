"""Does the trace of a denoiser's derivative tell how far each picture is off?

    python benchmarks/traces.py FOLDER [--prior photo] [--count 40] [--seed 0] [--side 64]

The mean variance of a pixel given its noisy picture is sigma^2 times the mean diagonal of the derivative. One
row a noise level ([0, 1] units), over the centre crops of an image folder: the rms error of the denoised
crops, of the smoothest tenth and of the roughest; the standard deviation over crops of the log of the error,
which is what a covariance of one size for all would be off by; and mean and standard deviation of the log of
error over claimed sd, seen through one probe as in invsolve.priors.stationary; "none" where a claim is not
positive.
"""

import argparse
from pathlib import Path

import torch
from denoising import centre_crops
from figures import provenance

from invsolve.linalg import dot
from invsolve.prior import Denoised, Prior
from invsolve.priors.catalogue import load_prior
from invsolve.sde import VE

LEVELS = (0.16, 0.25, 0.4, 0.7, 1.5, 3.0, 8.0, 20.0, 50.0)
HEAD = "| sigma | rms error | smoothest tenth | roughest tenth | sd of log error | log error over claim |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prior", default="photo", help="name or file of a prior that has a surrogate")
    parser.add_argument("--count", type=int, default=40, help="images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=64, help="pixels a side of a crop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, low = load_prior(options.prior), (256 - options.side) // 2
    if prior.surrogate is None:
        parser.error(f"the prior {options.prior} has no surrogate; expected one whose derivative it replaces")
    truths = torch.cat(centre_crops(options.folder, options.count, options.seed))
    truths = truths[:, :, low : low + options.side, low : low + options.side]
    probe = prior.surrogate.probe(tuple(truths.shape[1:]))[None]
    print(provenance(), HEAD, "|---|---|---|---|---|---|", sep="\n")
    for level in LEVELS:
        print(row(prior, probe, truths, level, options.seed), flush=True)


def row(prior: Prior, probe: torch.Tensor, truths: torch.Tensor, level: float, seed: int) -> str:
    """One noise level."""
    noise = torch.randn(truths.shape, generator=torch.Generator().manual_seed(seed))
    errors, claims = [], []
    for truth, z in zip(truths[:, None], noise[:, None], strict=True):
        at = Denoised(prior, VE(), truth + level * z, VE().time(level), graph=True)
        errors.append(float((at.mean - truth).square().mean()))
        claims.append(level**2 * float(dot(probe, at.vjp(probe))) / probe.numel())
    error = torch.tensor(errors).sort()
    tenth = max(1, len(errors) // 10)
    off = (error.values / torch.tensor(claims)[error.indices]).log() / 2
    rms = [float(part.mean().sqrt()) for part in (error.values, error.values[:tenth], error.values[-tenth:])]
    cells = [f"{level:g}", *(f"{value:.4f}" for value in rms), f"{float((error.values.log() / 2).std()):.2f}"]
    told = f"{float(off.mean()):+.2f} ± {float(off.std()):.2f}" if min(claims) > 0 else "none"
    return f"| {' | '.join(cells)} | {told} |"


if __name__ == "__main__":
    main()
