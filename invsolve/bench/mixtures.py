"""The Gaussian-mixture benchmark of Cardoso et al. 2023 (arXiv:2308.07983), seeded.

    prior      25 Gaussians of covariance I; means (-8 i, -8 j), i, j in -2 .. 2, repeated d_x / 2 times;
               weights the squares of standard normals, normalised
    operator   A = U diag(d) V^T from the SVD of a d_y x d_x matrix of standard normals, with d sorted U[0, 1]
    noise      sigma_y = max(d) U[0, 1]
    y          A x + sigma_y n of a draw x from the prior

as in the published code (gabrielvc/mcg_diff); the weights, unseeded there, belong to d_x and the seed here.
The modes lie 8 sqrt(d_x / 2) apart, so what a method gets wrong is the weights of the modes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve import operators
from invsolve.errors import InputError
from invsolve.exact import GaussianPrior, MixturePrior, exact_posterior
from invsolve.likelihood import Gaussian
from invsolve.rng import seed_of

__all__ = ["Problem", "check_mixture", "mixture_problem"]


@dataclass(frozen=True)
class Problem:
    """A prior, a measurement of a draw from it, and the posterior."""

    prior: GaussianPrior | MixturePrior
    likelihood: Gaussian
    exact: GaussianPrior | MixturePrior


def mixture_problem(dx: int, dy: int, seed: int, dtype: torch.dtype = torch.float64) -> Problem:
    """Pose the problem of one seed: weights, operator, noise level, truth and noise all follow from it."""
    check_mixture(dx, dy)
    prior = _prior(dx, torch.Generator().manual_seed(seed_of("mixture prior", dx, seed)), dtype)
    rng = torch.Generator().manual_seed(seed_of("mixture measurement", dx, dy, seed))
    u, _, vt = torch.linalg.svd(torch.randn(dy, dx, generator=rng, dtype=torch.float64), full_matrices=False)
    d = torch.rand(dy, generator=rng, dtype=torch.float64).sort(descending=True).values
    operator = operators.matrix((u * d @ vt).to(dtype))
    sigma_y = float(torch.rand((), generator=rng, dtype=torch.float64) * d.max())
    clean = operator.A(prior.sample(1, seed_of("truth", dx, dy, seed)))
    noise = torch.randn(clean.shape, generator=rng, dtype=torch.float64).to(clean)
    likelihood = Gaussian(clean + sigma_y * noise, operator, sigma_y)
    return Problem(prior, likelihood, exact_posterior(prior, likelihood))


def check_mixture(dx: int, dy: int) -> None:
    """Refuse dimensions of which there is no problem."""
    if dx < 2 or dx % 2 or not 1 <= dy <= dx:
        raise InputError(f"d_x must be even and d_y in 1 .. d_x, but they are {dx} and {dy}.")


def _prior(dx: int, rng: torch.Generator, dtype: torch.dtype) -> MixturePrior:
    steps = torch.arange(-2, 3, dtype=dtype)
    means = -8.0 * torch.cartesian_prod(steps, steps).repeat(1, dx // 2)
    weights: Tensor = torch.randn(len(means), generator=rng, dtype=torch.float64) ** 2
    return MixturePrior(means, weights, 1.0)
