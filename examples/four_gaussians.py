"""Four equal Gaussians in the plane, sampled from their exact score: where a sampler's faults can be seen.

    python examples/four_gaussians.py [--predictor NAME] [--corrector NAME] [--steps N] [--plot]

The mixture has means (+-1, +-1), standard deviation 0.1 and weights 1/4; the SDE is VE with sigma from 0.01
to 3.5. A right sampler leaves nothing further than 5 standard deviations from a mode, puts a quarter of the
samples on each, within the binomial error, and keeps each mode's width. --plot draws the samples into
four_gaussians.png, in the folder where it is run.
"""

import argparse
import math
import sys

import torch

from invsolve import VE, InvsolveError, MixturePrior, solve
from invsolve.plugins import load

SD, N = 0.1, 4000
MODES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def draw(predictor: str, corrector: str, steps: int, seed: int) -> torch.Tensor:
    """Draw N samples, (N, 2)."""
    prior = MixturePrior(MODES, torch.full((4,), 0.25), SD**2)
    sde = VE(sigma_min=0.01, sigma_max=3.5)
    return solve(
        prior, None, sde=sde, predictor=predictor, corrector=corrector, steps=steps, n=N, seed=seed
    ).samples


def faults(samples: torch.Tensor, steps: int) -> list[str]:
    """Print what was found, and return a sentence for each claim that fails."""
    distance, nearest = torch.cdist(samples, MODES).min(1)
    near = (distance < 5 * SD).float().mean().item()
    weights = torch.bincount(nearest, minlength=4) / N
    width = (samples - MODES[nearest]).std(0).mean().item()
    print(f"within 5 sd of a mode: {near:.2%}")
    print(f"weights: {', '.join(f'{w:.3f}' for w in weights.tolist())}")
    print(f"standard deviation of a mode: {width:.4f}")
    binomial = math.sqrt(0.25 * 0.75 / N)
    error = 4 / math.sqrt(4 * N) + 8 / steps  # four standard errors of 2 N numbers, and a first-order bias
    found = []
    if near < 1:
        found.append(f"{1 - near:.2%} of the samples lie further than 5 sd from every mode; expected none.")
    if (weights - 0.25).abs().max() > 4 * binomial:
        found.append(f"a weight differs from 0.25 by more than 4 binomial errors of {binomial:.4f}.")
    if abs(width / SD - 1) > error:
        found.append(f"the modes have standard deviation {width:.4f}; expected {SD} within {error:.1%}.")
    return found


def plot(samples: torch.Tensor) -> None:
    """Draw the samples into four_gaussians.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5), layout="constrained")
    axes.scatter(samples[:, 0], samples[:, 1], s=2, alpha=0.4, linewidths=0)
    axes.set(aspect="equal", xlim=(-2, 2), ylim=(-2, 2), title=f"{len(samples)} samples of four Gaussians")
    figure.savefig("four_gaussians.png", dpi=120)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Sample, check, and return 1 where a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictor", default="reverse-diffusion", choices=load().names("predictor"))
    parser.add_argument("--corrector", default="langevin", choices=load().names("corrector"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action="store_true")
    options = parser.parse_args(argv)
    try:
        samples = draw(options.predictor, options.corrector, options.steps, options.seed)
    except InvsolveError as error:
        print(error, file=sys.stderr)
        return 1
    if options.plot:
        plot(samples)
    found = faults(samples, options.steps)
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
