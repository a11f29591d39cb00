"""The denoising loss of Karras et al. 2022 (arXiv:2206.00364), equation 2 with the weight of table 1.

    L = E  w(sigma) |D(x0 + sigma n, sigma) - x0|^2 / d        w = (sigma^2 + sd^2) / (sigma sd)^2

The weight makes every noise level count alike: for white Gaussian data of standard deviation sd the best
denoiser has L = 1 at every sigma, because its error is sigma^2 sd^2 / (sigma^2 + sd^2) a pixel.

ln sigma is drawn from a normal law where the last steps of a sampler act (around sigma 0.25), mixed with a
uniform one over the whole range, so that no level a sampler may ask for is unseen.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from invsolve.training.config import TrainingConfig

__all__ = ["denoising_loss", "draw_sigma"]


def draw_sigma(n: int, config: TrainingConfig, rng: torch.Generator) -> Tensor:
    """Draw n training noise levels, (n,) float64, within [sigma_min, sigma_max]."""
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    normal = config.log_mean + config.log_std * torch.randn(n, generator=rng, dtype=torch.float64)
    uniform = low + (high - low) * torch.rand(n, generator=rng, dtype=torch.float64)
    choose = torch.rand(n, generator=rng) < config.uniform_share
    return torch.where(choose, uniform, normal).clamp(low, high).exp()


def denoising_loss(
    denoise: Callable[[Tensor, Tensor], Tensor], x0: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float
) -> Tensor:
    """Mean over rows and pixels of the weighted squared error; x0, noise (B, C, H, W), sigma (B,)."""
    s = sigma.to(x0).reshape(-1, 1, 1, 1)
    weight = (s**2 + sigma_data**2) / (s * sigma_data) ** 2
    error = denoise(x0 + s * noise, sigma) - x0
    return (weight * error**2).mean()
