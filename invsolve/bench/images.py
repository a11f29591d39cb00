"""Gaussian images whose posterior is known: the operators of the command line on side x side pixels.

The prior has a mean that is nowhere zero and a stationary covariance on the torus, 0.06 exp(-distance / 1.5):
about what small patches of photographs have. Colour images, which colorize needs, have correlation 0.8
between any two colours. sigma_y = 0.05.
"""

import torch
from torch import Tensor

from invsolve import operators
from invsolve.bench.mixtures import Problem
from invsolve.errors import InputError, UnknownName
from invsolve.exact import GaussianPrior, exact_posterior
from invsolve.likelihood import Gaussian, measured_entries
from invsolve.operators.interface import Operator
from invsolve.rng import Noise, seed_of

__all__ = ["IMAGES", "check_image", "image_problem"]

IMAGES = ("inpaint", "deblur", "superres", "colorize")
SIGMA_Y, VARIANCE, LENGTH, COLOURS = 0.05, 0.06, 1.5, 0.8
LARGEST = 64  # the posterior's covariance is formed: (3 side^2)^2 numbers


def image_problem(kind: str, side: int, seed: int) -> Problem:
    """Pose the problem of one seed, which draws truth, mask and noise."""
    check_image(kind, side)
    channels = 3 if kind == "colorize" else 1
    prior, operator = _prior(channels, side), _operator(kind, (channels, side, side), seed)
    clean = operator.A(prior.sample(1, seed_of("truth", kind, side, seed)))
    known = measured_entries(operator, (channels, side, side), clean)
    noise = Noise(seed_of("noise", kind, side, seed), "", 1, tuple(clean.shape[1:]))() * known
    likelihood = Gaussian(clean + SIGMA_Y * noise, operator, SIGMA_Y)
    return Problem(prior, likelihood, exact_posterior(prior, likelihood))


def check_image(kind: str, side: int) -> None:
    """Refuse a kind and a size of which there is no problem."""
    if kind not in IMAGES:
        raise UnknownName("image problem", kind, IMAGES)
    if not 12 <= side <= LARGEST or side % 2:
        raise InputError(f"side must be even and from 12 to {LARGEST}, but it is {side}.")


def _operator(kind: str, shape: tuple[int, int, int], seed: int) -> Operator:
    if kind == "inpaint":
        return operators.inpaint(shape, keep=0.3, mask_seed=seed)
    if kind == "deblur":
        return operators.deblur(shape, std=1.0)
    return operators.superres(shape, factor=2) if kind == "superres" else operators.colorize(shape)


def _prior(channels: int, side: int) -> GaussianPrior:
    i = torch.arange(side, dtype=torch.float64)
    gap = (i[:, None] - i[None]).abs()
    gap = torch.minimum(gap, side - gap)
    distance = (gap[:, None, :, None] ** 2 + gap[None, :, None, :] ** 2).sqrt().reshape(side**2, side**2)
    pixels = VARIANCE * torch.exp(-distance / LENGTH) + 1e-4 * torch.eye(side**2, dtype=torch.float64)
    colours: Tensor = torch.eye(channels, dtype=torch.float64) * (1 - COLOURS) + COLOURS
    wave = torch.sin(torch.arange(channels * side**2, dtype=torch.float64))
    mean = (0.5 + 0.3 * wave).reshape(channels, side, side).float()
    return GaussianPrior(mean, torch.kron(colours, pixels))
