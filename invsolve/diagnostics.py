"""How far samples are from a posterior that is known exactly, and how far exact samples would be.

Every figure is computed twice: for the samples, and for sets of the same size drawn from the posterior
itself. The second is the Monte-Carlo floor: nothing can be told to be wrong below it, and tolerances are
derived from it.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from invsolve.exact import GaussianPrior, MixturePrior
from invsolve.rng import Noise

__all__ = ["Distance", "distance", "floor", "sliced_wasserstein"]


@dataclass(frozen=True)
class Distance:
    """Distances of a set of samples to an exact posterior; 0, 1, 0.90, 0 and 0 are perfect.

    mean_error    root mean square over coordinates of the mean's error, in posterior standard deviations
    sd_ratio      standard deviation over the posterior's, averaged over coordinates coverage90    posterior
    mass inside the samples' central 90 % interval, averaged over coordinates covariance    |C^-1/2 S C^-1/2 -
    I|_F / sqrt(d): relative error of the covariance, small directions included w2            Wasserstein-2
    distance of the Gaussians with both sets of moments, over sqrt(tr C)
    """

    mean_error: float
    sd_ratio: float
    coverage90: float
    covariance: float
    w2: float

    def items(self) -> dict[str, float]:
        """Figures by name."""
        return asdict(self)


def distance(samples: Tensor, exact: GaussianPrior | MixturePrior) -> Distance:
    """Compare samples (n, *event) with the exact posterior."""
    x, m, C = samples.flatten(1).double(), exact.mean.flatten().double(), exact.covariance.double()
    sd, S = C.diagonal().sqrt(), torch.cov(x.T).reshape(C.shape)
    whiten, root = _power(C, -0.5), _power(C, 0.5)
    cross = _power(root @ S @ root, 0.5)
    squared = (x.mean(0) - m).square().sum() + (S + C - 2 * cross).trace()
    return Distance(
        float(((x.mean(0) - m) / sd).square().mean().sqrt()),
        float((x.std(0) / sd).mean()),
        _coverage(x, exact),
        float((whiten @ S @ whiten - torch.eye(len(C), dtype=C.dtype)).norm() / len(C) ** 0.5),
        float((squared.clamp_min(0) / C.trace()).sqrt()),
    )


def floor(exact: GaussianPrior | MixturePrior, n: int, repeats: int = 20, seed: int = 0) -> list[Distance]:
    """Distances of `repeats` exact sets of n samples each: the Monte-Carlo floor."""
    return [distance(exact.sample(n, seed + 1 + i), exact) for i in range(repeats)]


def sliced_wasserstein(a: Tensor, b: Tensor, order: int = 1, slices: int = 1000, seed: int = 0) -> float:
    """Sliced Wasserstein distance of order 1 or 2 between two sets of equal size, (n, *event) each."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    directions = Noise(seed, "slices", slices, (a.shape[1],), dtype=a.dtype)()
    directions = directions / directions.norm(dim=1, keepdim=True)
    gap = ((a @ directions.T).sort(0).values - (b @ directions.T).sort(0).values).abs()
    return float((gap**order).mean() ** (1 / order))


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    smallest = values.max() * torch.finfo(values.dtype).eps
    powers: Tensor = values.clamp_min(smallest) ** exponent
    result: Tensor = vectors @ powers.diag() @ vectors.T
    return result


def _coverage(x: Tensor, exact: GaussianPrior | MixturePrior) -> float:
    """Mass of each coordinate's exact marginal between the samples' 5 % and 95 % quantiles, averaged."""
    low, high = torch.quantile(x, torch.tensor([0.05, 0.95], dtype=x.dtype), dim=0)
    means = exact.means.double()
    sds = exact.covariances.diagonal(dim1=1, dim2=2).double().sqrt()
    inside = torch.special.ndtr((high - means) / sds) - torch.special.ndtr((low - means) / sds)
    return float((exact.log_weights.double().exp() @ inside).mean())
