"""Problems whose posterior is known in closed form, for overhead.py and distances.py.

    inpaint, blur, matrix    images of side x side pixels, y = A x + noise, sigma_y = 0.05: 40 % of the pixels
                             kept; circular 3 x 3 blur; half as many random projections as there are pixels
    mixture                  four Gaussians in the plane, of unequal weights, seen through one projection
    class                    the same, of which the one or the other pair is asked for by the exact p(c | x_t)

The images are Gaussian with a mean that is nowhere zero and a stationary covariance on the torus, 0.06
exp(-distance / 1.5): about what small patches of photographs have.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve import operators
from invsolve.exact import GaussianPrior, MixturePrior, exact_posterior
from invsolve.likelihood import Classifier, Gaussian
from invsolve.rng import Noise

__all__ = ["GAUSSIAN", "Pairs", "Problem", "class_problem", "gaussian_problem", "mixture_problem"]

VARIANCE = 0.06


@dataclass(frozen=True)
class Problem:
    """A prior, its mean variance per coordinate, a measurement of a draw from it, and the posterior."""

    prior: GaussianPrior | MixturePrior
    likelihood: Gaussian | Classifier
    exact: GaussianPrior | MixturePrior
    variance: float


def gaussian_problem(kind: str, side: int, seed: int = 0) -> Problem:
    """One of the problems on images; the seed draws truth and noise, not the operator."""
    mean = 0.5 + 0.3 * torch.sin(torch.arange(side**2, dtype=torch.float64)).reshape(1, side, side)
    return _problem(GaussianPrior(mean, _covariance(side)), GAUSSIAN[kind](side), 0.05, seed)


MEANS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4])
SPREAD = 0.04


def mixture_problem(seed: int = 0) -> Problem:
    """The problem in the plane; the seed draws truth and noise."""
    prior = MixturePrior(MEANS, WEIGHTS, SPREAD)
    return _problem(prior, torch.tensor([[1.0, 0.3]], dtype=torch.float64), 0.4, seed)


class Pairs(torch.nn.Module):
    """log p(c | x_t) up to a constant: class 0 is the first and last of the Gaussians, class 1 the others."""

    def __init__(self) -> None:
        """Keep the Gaussians of each class as a mixture."""
        super().__init__()
        self.shares = [WEIGHTS[[0, 3]], WEIGHTS[[1, 2]]]
        pairs = zip((MEANS[[0, 3]], MEANS[[1, 2]]), self.shares, strict=True)
        self.mixtures = torch.nn.ModuleList(MixturePrior(m, w, SPREAD) for m, w in pairs)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log p(c) p(x | c) with noise of levels sigma: (B, 2)."""
        logs = [p.log_prob(x, sigma) + w.sum().log() for p, w in zip(self.mixtures, self.shares, strict=True)]
        return torch.stack(logs, 1)


def class_problem(seed: int = 0) -> Problem:
    """One class of the mixture, 0 for even seeds."""
    net = Pairs()
    exact = net.mixtures[seed % 2]
    assert isinstance(exact, MixturePrior), "Pairs keeps mixtures"
    prior = MixturePrior(MEANS, WEIGHTS, SPREAD)
    return Problem(prior, Classifier(net, seed % 2), exact, float(prior.covariance.diagonal().mean()))


def _problem(prior: GaussianPrior | MixturePrior, table: Tensor, sigma_y: float, seed: int) -> Problem:
    operator = operators.matrix(table)
    clean = operator.A(prior.sample(1, seed))
    noise = Noise(seed, "measurement", 1, (len(table),), dtype=clean.dtype)() * (clean != 0)
    likelihood = Gaussian(clean + sigma_y * noise, operator, sigma_y)
    variance = float(prior.covariance.diagonal().mean())
    return Problem(prior, likelihood, exact_posterior(prior, likelihood), variance)


def _covariance(side: int) -> Tensor:
    """Exponential in the distance on a side x side torus, and a little white noise."""
    i = torch.arange(side, dtype=torch.float64)
    gap = (i[:, None] - i[None]).abs()
    gap = torch.minimum(gap, side - gap)
    distance = (gap[:, None, :, None] ** 2 + gap[None, :, None, :] ** 2).sqrt().reshape(side**2, side**2)
    return VARIANCE * torch.exp(-distance / 1.5) + 1e-4 * torch.eye(side**2, dtype=torch.float64)


def _uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _masking(side: int) -> Tensor:
    return torch.eye(side**2, dtype=torch.float64) * (_uniform((side**2,), 4) < 0.4)


def _blurring(side: int) -> Tensor:
    eye = torch.eye(side**2, dtype=torch.float64).reshape(-1, side, side)
    taps = {(-1, 0): 0.15, (1, 0): 0.15, (0, -1): 0.15, (0, 1): 0.15, (0, 0): 0.4}
    blurred = torch.stack([weight * eye.roll(shift, (1, 2)) for shift, weight in taps.items()]).sum(0)
    return blurred.reshape(side**2, -1).mT


def _projections(side: int) -> Tensor:
    shape = (side**2 // 2, side**2)
    return (_uniform(shape, 3) - 0.5) * math.sqrt(12) / side  # entries of variance 1 / side^2


GAUSSIAN: dict[str, Callable[[int], Tensor]] = {
    "inpaint": _masking,
    "blur": _blurring,
    "matrix": _projections,
}
