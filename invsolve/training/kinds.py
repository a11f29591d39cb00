"""What is learned: a prior (a denoiser) or a classifier p(c | x_t). The loop is the same for both.

A Task turns a batch into a loss and measures the averaged weights; a Kind says which network, which task and
which file belong together. Where batches come from is a Source, chosen by the config's `data`:

    crops      of pictures in folders (invsolve.training.data)
    whole      images of one size, with labels or not (invsolve.training.whole)
    phantoms   drawn on the fly, no data at all (invsolve.training.phantoms)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.classifiers.formats import load_classifier, save_classifier
from invsolve.classifiers.network import build_classifier
from invsolve.errors import InputError
from invsolve.linalg import expand
from invsolve.prior import Prior
from invsolve.priors.catalogue import load_prior
from invsolve.priors.formats import load_safetensors_prior, save_safetensors_prior
from invsolve.priors.network import build
from invsolve.training.choice import chosen_loss
from invsolve.training.config import TrainingConfig
from invsolve.training.data import centre_crops, load_bank
from invsolve.training.loss import draw_sigma
from invsolve.training.phantoms import Phantoms
from invsolve.training.slopes import denoised, slope_loss
from invsolve.training.validate import SIGMAS, accuracy, denoising_psnr
from invsolve.training.whole import Whole, load_whole

__all__ = ["KINDS", "SOURCES", "Classifying", "Denoising", "Kind", "Source", "Task", "load_source"]

Measured = dict[str, dict[str, float]]


class Source(Protocol):
    """Where training images come from."""

    def batch(self, config: TrainingConfig, step: int, rng: np.random.Generator) -> Tensor:
        """Draw one batch, (B, C, H, W) in [-1, 1]."""

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) never trained on, n perhaps 0, and their classes (n,), -1 for none."""


class Task(Protocol):
    """One thing to learn from a source."""

    def loss(self, network: nn.Module, step: int, rng: np.random.Generator) -> Tensor:
        """Loss of one batch, a function of the weights and the generator alone."""

    def measured(self, network: nn.Module, folder: Path | None) -> Measured:
        """Figures per noise level on images not trained on: those of a folder, or the source's own."""


@dataclass(frozen=True)
class Denoising:
    """Learn E[x_0 | x_t], by the objective that the config names."""

    config: TrainingConfig
    source: Source

    def loss(self, network: nn.Module, step: int, rng: np.random.Generator) -> Tensor:
        """Loss of a batch by that objective (invsolve.training.choice)."""
        x0 = self.source.batch(self.config, step, rng).to(_device(network))
        x0 = x0.contiguous(memory_format=torch.channels_last)
        return chosen_loss(self.config, network, x0, _generator(rng))

    def measured(self, network: nn.Module, folder: Path | None) -> Measured:
        """Denoising PSNR, dB."""
        channels = self.config.architecture.in_channels
        images = centre_crops(folder, 128, 16, channels) if folder else self.source.held_out()[0][:64]
        images = images.to(_device(network))
        return {"psnr": {str(s): denoising_psnr(network, images, s).mean().item() for s in SIGMAS}}


@dataclass(frozen=True)
class Classifying:
    """Learn p(c | x_t)."""

    config: TrainingConfig
    source: Whole
    prior: Prior | None = None  # that it is to guide, where its slopes are learned too

    def loss(self, network: nn.Module, step: int, rng: np.random.Generator) -> Tensor:
        """Cross-entropy of the classes of noisy images, nats, and the misfit of its slopes if asked for."""
        drawn = self.source.draw(self.config.batch, rng)
        x0, labels = (tensor.to(_device(network)) for tensor in drawn)
        x0, sigma, noise = _noised(self.config, x0, rng)
        x = (x0 + expand(sigma, x0) * noise).requires_grad_(self.prior is not None)
        logits: Tensor = network(x, sigma)
        right = F.log_softmax(logits.float(), 1).gather(1, labels[:, None])[:, 0]
        if self.prior is None:
            return -right.mean()
        misfit = slope_loss(right, x, sigma, x0, denoised(self.prior.to(x.device), x, sigma))
        return self.config.slopes * misfit - right.mean()

    def measured(self, network: nn.Module, folder: Path | None) -> Measured:
        """Share of the held-out images whose class is recognised."""
        images, labels = (tensor.to(_device(network)) for tensor in self.source.held_out())
        return {"accuracy": {str(s): accuracy(network, images, labels, s) for s in SIGMAS}}


def _noised(config: TrainingConfig, x0: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The batch, a noise level for each image and standard normal noise."""
    x0 = x0.contiguous(memory_format=torch.channels_last)
    rng = _generator(draw)
    sigma = draw_sigma(len(x0), config, rng)
    return x0, sigma, torch.randn(x0.shape, generator=rng).to(x0)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _generator(draw: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(draw.integers(2**62)))


def classifying(config: TrainingConfig, source: Source) -> Classifying:
    """Make the task of a classifier; its source must know classes."""
    if not isinstance(source, Whole) or source.labels is None:
        raise InputError('a classifier needs labels: data = "whole", with a label for each image.')
    classes = int(source.labels.max()) + 1
    if classes > getattr(config.architecture, "classes", 0) or int(source.labels.min()) < 0:
        raise InputError(f"labels go from {source.labels.min()} to {classes - 1}: classes is too small.")
    return Classifying(config, source, load_prior(config.beside) if config.beside else None)


@dataclass(frozen=True)
class Kind:
    """Network, task and file of one kind of training."""

    build: Callable[..., nn.Module]
    task: Callable[[TrainingConfig, Any], Task]  # Any: each task says which source it takes
    save: Callable[..., None]
    load: Callable[[Path], Any]  # Any: a prior or a classifier, both with a network


KINDS = {
    "prior": Kind(build, Denoising, save_safetensors_prior, load_safetensors_prior),
    "classifier": Kind(build_classifier, classifying, save_classifier, load_classifier),
}
SOURCES: dict[str, Callable[[Sequence[Path], TrainingConfig], Source]] = {
    "crops": load_bank,
    "whole": load_whole,
    "phantoms": Phantoms.of,
}


def load_source(folders: Sequence[Path], config: TrainingConfig) -> Source:
    """Read, or prepare to draw, the images that the config asks for."""
    return SOURCES[config.data](folders, config)
