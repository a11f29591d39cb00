"""What a classifier of noisy images is worth: its values log p(c | x_t), its slopes, and what is drawn by it.

    accuracy, nats, calibration error, shares     of p(c | x_t) on images whose class is known
    gained, best multiple                         of g = grad log p(c | x_t): E[x_0 | x_t, c] = D + sigma^2 g
    recognised, its interval, spread              of samples, by a judge

A right g lowers the squared error of the prior's mean D by (|D - x_0|^2 - |D + sigma^2 g - x_0|^2) / sigma^2
nats an e-fold of noise; over all levels the exact one gains the entropy of the class (the I-MMSE relation,
invsolve/training/slopes.py).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invsolve.likelihood import Classifier
from invsolve.linalg import dot, expand
from invsolve.prior import Denoised, Prior
from invsolve.sde import VE

__all__ = ["Known", "Way", "calibration", "evaluations", "slopes", "spread", "values", "wilson"]

Way = Callable[[int], Classifier]


@dataclass(frozen=True)
class Known:
    """Noisy images of which the truth is known."""

    truth: Tensor
    labels: Tensor
    at: Denoised


def evaluations(prior: Prior, images: Tensor, labels: Tensor, level: float) -> Iterator[Known]:
    """Images with noise of one level, a hundred at a time, with the prior's evaluation of each."""
    sde, rng = VE(), torch.Generator().manual_seed(1)
    for x0, label in zip(images.split(100), labels.split(100), strict=True):
        x = x0 + level * torch.randn(x0.shape, generator=rng, dtype=x0.dtype)
        yield Known(x0, label, Denoised(prior, sde, x, sde.time(level), graph=True))


def values(way: Way, known: Iterable[Known]) -> tuple[float, ...]:
    """Figures of p(c | x_t) at one level: those of `calibration`."""
    pairs = [(way(0).log_classes_at(k.at).detach(), k.labels) for k in known]
    return calibration(*(torch.cat(each) for each in zip(*pairs, strict=True)))


def calibration(log_p: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Accuracy, negative log-likelihood in nats, calibration error over ten bins, and that of the shares.

    The last is the largest difference between the mean of p(c) and the share of class c.
    """
    sure, chosen = log_p.exp().max(1)
    right = (chosen == labels).to(log_p)
    bins = (sure * 10).long().clamp(max=9)
    errors = [
        float((bins == b).to(log_p).mean() * (sure[bins == b].mean() - right[bins == b].mean()).abs())
        for b in bins.unique()
    ]
    shares = log_p.exp().mean(0) - labels.bincount(minlength=log_p.shape[1]) / len(labels)
    return float(right.mean()), float(F.nll_loss(log_p, labels)), sum(errors), float(shares.abs().max())


def slopes(way: Way, known: Iterable[Known]) -> tuple[float, float]:
    """What grad log p(c | x_t) gains at one level, nats an e-fold, and the multiple that gains most."""
    square, overlap, n = 0.0, 0.0, 0
    for k in known:
        shift = expand(k.at.level**2, k.truth) * gradient(way, k)
        scale = k.at.level.square().to(shift)
        square += float((dot(shift, shift) / scale).sum())
        overlap += float((dot(shift, k.truth - k.at.mean) / scale).sum())
        n += len(shift)
    return (2 * overlap - square) / n, overlap / square


def gradient(way: Way, known: Known) -> Tensor:
    """grad log p(c | x_t) of each image's own class c."""
    right = known.labels[:, None]
    return known.at.gradient(lambda at: way(0).log_classes_at(at).gather(1, right)[:, 0])


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Interval of 95 % for a share of n trials (Wilson 1927)."""
    z, share = 1.96, hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


def spread(samples: Tensor) -> float:
    """Root mean variance of a class's pixels, (classes, n, ...)."""
    return float(samples.clamp(0, 1).var(1).mean().sqrt())
