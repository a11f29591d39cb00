"""Denoising PSNR per noise level, on fixed crops with fixed noise, so that two checkpoints compare."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SIGMAS", "denoising_psnr"]

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@torch.no_grad()
def denoising_psnr(
    denoise: Callable[[Tensor, Tensor], Tensor], images: Tensor, sigma: float, chunk: int = 4
) -> Tensor:
    """PSNR in dB of each image (n, C, H, W) in [-1, 1] at one noise level of that scale; shape (n,)."""
    rng = torch.Generator().manual_seed(round(1e6 * sigma))
    noise = torch.randn(images.shape, generator=rng)
    errors = []
    for x0, n in zip(torch.split(images, chunk), torch.split(noise, chunk), strict=True):
        level = torch.full((len(x0),), sigma, dtype=torch.float64)
        errors.append((denoise(x0 + sigma * n, level).clamp(-1, 1) - x0).square().mean((1, 2, 3)))
    return 10 * torch.log10(4 / torch.cat(errors))
