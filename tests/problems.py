"""Small problems whose posterior is known, shared by the tests."""

import torch

from invsolve import operators
from invsolve.exact import GaussianPrior, MixturePrior, exact_posterior
from invsolve.likelihood import Gaussian
from invsolve.sde import VE, VP, SubVP

SDES = [VE(), VP(), SubVP()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_covariance(side, length=1.5, variance=0.06):
    """Stationary covariance on a side x side torus: exponential in the distance, over pixels of variance
    0.06."""
    i = torch.arange(side, dtype=torch.float64)
    gap = (i[:, None] - i[None]).abs()
    gap = torch.minimum(gap, side - gap)
    rows = (gap[:, None, :, None] ** 2 + gap[None, :, None, :] ** 2).sqrt()
    return variance * torch.exp(-rows.reshape(side**2, side**2) / length) + 1e-4 * torch.eye(
        side**2, dtype=torch.float64
    )


def gaussian_prior(side):
    """Images of side x side pixels with a mean that is nowhere zero."""
    mean = 0.5 + 0.3 * torch.sin(torch.arange(side**2, dtype=torch.float64)).reshape(1, side, side)
    return GaussianPrior(mean, smooth_covariance(side))


def random_matrix(side, m):
    return operators.matrix(torch.randn(m, side**2, generator=generator(3), dtype=torch.float64) / side)


def masking(side, share=0.4):
    keep = torch.rand(side**2, generator=generator(4)) < share
    return operators.matrix(torch.eye(side**2, dtype=torch.float64) * keep)


def blurring(side):
    """Circular 3 x 3 blur as a dense matrix."""
    eye = torch.eye(side**2, dtype=torch.float64).reshape(-1, side, side)
    taps = {(-1, 0): 0.15, (1, 0): 0.15, (0, -1): 0.15, (0, 1): 0.15, (0, 0): 0.4}
    blurred = sum(w * eye.roll(shift, (1, 2)) for shift, w in taps.items())
    return operators.matrix(blurred.reshape(side**2, -1).T)


def measured(prior, operator, sigma_y=0.05, seed=5):
    """Likelihood of a measurement of a draw from the prior."""
    truth = prior.sample(1, seed)
    clean = operator.A(truth)
    noise = torch.randn(clean.shape, generator=generator(seed), dtype=clean.dtype) * (clean != 0)
    return Gaussian(clean + sigma_y * noise, operator, sigma_y)


def gaussian_problem(kind, side):
    """(prior, likelihood, exact posterior) of one of the three operators."""
    prior = gaussian_prior(side)
    operator = {"inpaint": masking, "blur": blurring, "matrix": lambda s: random_matrix(s, s**2 // 2)}[kind](
        side
    )
    likelihood = measured(prior, operator)
    return prior, likelihood, exact_posterior(prior, likelihood)


def plane_mixture():
    """Four Gaussians in the plane, of unequal weights."""
    means = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    return MixturePrior(means, torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.04)
