"""PSNR or accuracy per noise level, on fixed images with fixed noise, so that two checkpoints compare."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SIGMAS", "accuracy", "denoising_psnr"]

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@torch.no_grad()
def denoising_psnr(
    denoise: Callable[[Tensor, Tensor], Tensor], images: Tensor, sigma: float, chunk: int = 4
) -> Tensor:
    """PSNR in dB of each image (n, C, H, W) in [-1, 1] at one noise level of that scale; shape (n,)."""
    rng = torch.Generator().manual_seed(round(1e6 * sigma))
    noise = torch.randn(images.shape, generator=rng).to(images)
    errors = []
    for x0, n in zip(torch.split(images, chunk), torch.split(noise, chunk), strict=True):
        level = torch.full((len(x0),), sigma, dtype=torch.float64)
        errors.append((denoise(x0 + sigma * n, level).clamp(-1, 1) - x0).square().mean((1, 2, 3)))
    return 10 * torch.log10(4 / torch.cat(errors))


@torch.no_grad()
def accuracy(
    classify: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    sigma: float,
    chunk: int = 500,
) -> float:
    """Share of images (n, C, H, W) in [-1, 1] recognised at one noise level of that scale."""
    rng = torch.Generator().manual_seed(round(1e6 * sigma))
    right = 0
    for x0, label in zip(torch.split(images, chunk), torch.split(labels, chunk), strict=True):
        level = torch.full((len(x0),), sigma, dtype=torch.float64)
        noisy = x0 + sigma * torch.randn(x0.shape, generator=rng).to(x0)
        right += int((classify(noisy, level).argmax(1) == label).sum())
    return right / len(images)
