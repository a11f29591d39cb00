"""The objective that a config names, for a denoiser D of images in [-1, 1] at noise levels sigma.

    edm                 ln sigma normal and uniform, |D - x_0|^2 by (sigma^2 + sd^2) / (sigma sd)^2 (loss)

and denoising score matching (objectives), 1/2 w |sigma s + z|^2:

    song                t uniform, lambda = sigma^2
    likelihood          lambda = g^2, t by importance: ln sigma uniform
    uniform-likelihood  lambda = g^2, t uniform
    ladder              `levels` levels, a geometric sequence: NCSN

and what is without a kernel (implicit):

    sliced, sliced-vr   v^T grad(v^T s) + 1/2 (v^T s)^2, or 1/2 |s|^2
    exact               tr(grad s) + 1/2 |s|^2

A network that sees x_t / alpha and sigma / alpha is trained for every linear SDE at once: |sigma s + z| is
|D - x_0| over that level, so an SDE enters through its law of t alone. Times run over the noise levels from
sigma_min to sigma_max. What is without a kernel needs only noisy images, s = (D - x) / sigma^2, counts
sigma^2 J and draws its levels as edm does. Losses are means over pixels, half of the square: the best
denoiser of white data of variance v has 1/2 E[w v / (v + sigma^2)] with a kernel, -1/2 E[sigma^2 / (v +
sigma^2)] without, and 1 with edm.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.linalg import expand
from invsolve.training.config import TrainingConfig
from invsolve.training.implicit import (
    Field,
    exact_score_matching,
    rademacher,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from invsolve.training.loss import denoising_loss, draw_sigma
from invsolve.training.objectives import Ladder, Likelihood, Objective, Song, UniformLikelihood

__all__ = ["Denoise", "chosen_loss", "timed"]

Denoise = Callable[[Tensor, Tensor], Tensor]  # D(x, sigma): (B, C, H, W), (B,) -> (B, C, H, W)
Loss = Callable[[TrainingConfig, Denoise, Tensor, torch.Generator], Tensor]
MOST = 1024  # entries of an image that the exact trace is taken of, a backward pass each
LAWS: dict[str, Callable[[float, float], Objective]] = {
    "song": Song,
    "likelihood": Likelihood,
    "uniform-likelihood": UniformLikelihood,
}


def chosen_loss(config: TrainingConfig, denoise: Denoise, x0: Tensor, rng: torch.Generator) -> Tensor:
    """Loss of a batch x0 (B, C, H, W) by the config's objective: ()."""
    return LOSSES[config.objective](config, denoise, x0, rng)


def timed(config: TrainingConfig) -> Objective:
    """The law of t between the times of sigma_min and sigma_max, or the ladder between them."""
    if config.objective == "ladder":
        return Ladder(config.sigma_max, config.sigma_min, config.levels)
    sde = config.process()
    end, start = (float(sde.time(s)) for s in (config.sigma_min, config.sigma_max))
    return LAWS[config.objective](end, start)


def _noise(x0: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal noise, drawn on the CPU: the same on every device."""
    return torch.randn(x0.shape, generator=rng).to(x0)


def _edm(config: TrainingConfig, denoise: Denoise, x0: Tensor, rng: torch.Generator) -> Tensor:
    sigma = draw_sigma(len(x0), config, rng)
    return denoising_loss(denoise, x0, sigma, _noise(x0, rng), config.architecture.sigma_data)


def _denoising(config: TrainingConfig, denoise: Denoise, x0: Tensor, rng: torch.Generator) -> Tensor:
    sde = config.process()
    t, weight = timed(config).draw(len(x0), sde, rng)
    sigma = sde.ratio(t)
    level = expand(sigma, x0)
    error = (denoise(x0 + level * _noise(x0, rng), sigma) - x0) / level
    return 0.5 * (expand(weight, x0) * error.square()).mean()


def _sliced(config: TrainingConfig, denoise: Denoise, x0: Tensor, rng: torch.Generator) -> Tensor:
    v = rademacher(x0, rng)
    return _implicit(lambda s, x: sliced_score_matching(s, x, v), config, denoise, x0, rng)


def _sliced_vr(config: TrainingConfig, denoise: Denoise, x0: Tensor, rng: torch.Generator) -> Tensor:
    v = rademacher(x0, rng)
    return _implicit(lambda s, x: sliced_score_matching_vr(s, x, v), config, denoise, x0, rng)


def _exact(config: TrainingConfig, denoise: Denoise, x0: Tensor, rng: torch.Generator) -> Tensor:
    entries = int(np.prod(x0.shape[1:]))
    if entries > MOST:
        raise InputError(
            f"exact score matching takes a backward pass for each of {entries} entries of an image; "
            f"at most {MOST} are allowed. Take objective = 'sliced-vr', one pass in all, or a smaller crop."
        )
    return _implicit(exact_score_matching, config, denoise, x0, rng)


def _implicit(
    rows: Callable[[Field, Tensor], Tensor],
    config: TrainingConfig,
    denoise: Denoise,
    x0: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """sigma^2 J a pixel, of noisy images and the score of the denoiser; J's rows are (B,)."""
    sigma = draw_sigma(len(x0), config, rng)
    level = expand(sigma, x0)

    def score(x: Tensor) -> Tensor:
        return (denoise(x, sigma) - x) / level**2

    with torch.autocast(x0.device.type, enabled=False):  # a second derivative has no digits to lose
        j = rows(score, x0 + level * _noise(x0, rng))
        return (sigma.to(j) ** 2 * j).mean() / x0[0].numel()


LOSSES: dict[str, Loss] = {
    "edm": _edm,
    **dict.fromkeys((*LAWS, "ladder"), _denoising),
    "sliced": _sliced,
    "sliced-vr": _sliced_vr,
    "exact": _exact,
}
