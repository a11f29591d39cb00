"""Three ways to ask a classifier about a noisy image: log p(c | x_t) as a likelihood without an operator.

    noise-aware   p(c | x_t) of a network trained on noisy images: right at every noise level, one forward and
                  one backward pass of the classifier a step. It has to be trained for that.
    denoised      p(c | E[x_0 | x_t]) of a classifier of clean images: any will do, but the mean of many
                  digits is no digit, so it is too sure too early; and the derivative goes through the prior.
    averaged      the mean of p(c | x_0) over x_0 ~ N(E[x_0 | x_t], Cov[x_0 | x_t]), by a few probes

                      log 1/K sum_k p(c | D + C^1/2 n_k),

                  which is what p(c | x_t) is, but for the Gaussian. C^1/2 n by Lanczos steps, each one
                  vector-Jacobian product of the prior: C = (sigma^2/alpha) dD/dx_t.

The probes come in pairs +n, -n and are the same for every sample and step, so the answer for a sample depends
on nothing else. Their spread is held fixed while the gradient is taken: it would need second derivatives.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from invsolve.classifiers.formats import NoiseAware, load_classifier
from invsolve.errors import InputError
from invsolve.likelihood import Classifier, Likelihood
from invsolve.linalg import dot, expand
from invsolve.prior import Denoised
from invsolve.rng import Noise

__all__ = ["AveragedClassifier", "DenoisedClassifier", "classifier", "root_times"]


class DenoisedClassifier(Classifier):
    """p(label | D(x_t)) of a classifier of clean images: net(x, sigma) -> logits, asked at sigma = 0."""

    def log_classes_at(self, at: Denoised) -> Tensor:
        """Log probability of every class for the denoised mean: (B, classes)."""
        return self.log_classes(at.mean)


class AveragedClassifier(Classifier):
    """p(label | x_0) of a classifier of clean images, averaged over N(E[x_0 | x_t], Cov[x_0 | x_t])."""

    def __init__(self, net: torch.nn.Module, label: int = 0, *, probes: int = 4, rank: int = 4) -> None:
        """Keep the classifier; probes is even, rank the Lanczos steps of each pair of probes."""
        super().__init__(net, label)
        if probes < 2 or probes % 2 or rank < 1:
            raise InputError(f"probes must be even and at least 2, rank at least 1: {probes} and {rank}.")
        self.probes, self.rank = probes, rank

    def log_classes_at(self, at: Denoised) -> Tensor:
        """Log of the mean over the probes, differentiable through the mean: (B, classes)."""
        noise = Noise(0, "probes", self.probes // 2, tuple(at.mean.shape[1:]))().to(at.mean)
        logs = []
        for n in noise:
            spread = root_times(at, n.expand_as(at.mean), self.rank)
            logs += [self.log_classes(at.mean + spread), self.log_classes(at.mean - spread)]
        return torch.stack(logs).logsumexp(0) - math.log(self.probes)


@torch.no_grad()
def root_times(at: Denoised, n: Tensor, rank: int) -> Tensor:
    """C^1/2 n for C = Cov[x_0 | x_t], by Lanczos: |n| V T^1/2 e_1 with V^T C V = T tridiagonal.

    n (B, *event); exact once rank reaches the number of distinct eigenvalues. A learned C is not quite
    symmetric nor positive: T is symmetrised, and its negative eigenvalues count as zero.
    """
    norm = dot(n, n).sqrt()
    basis = [n / expand(norm.clamp_min(_tiny(n)), n)]
    rows = []
    for _ in range(rank):
        w = at.covariance(basis[-1])
        rows.append(torch.stack([dot(v, w) for v in basis], 1))
        for v in basis * 2:  # twice: once leaves what rounding puts back
            w = w - expand(dot(v, w), v) * v
        basis.append(w / expand(dot(w, w).sqrt().clamp_min(_tiny(w)), w))
    t = torch.zeros(len(n), rank, rank, dtype=n.dtype, device=n.device)
    for j, column in enumerate(rows):
        t[:, : j + 1, j] = column
        t[:, j, : j + 1] = column
    values, vectors = torch.linalg.eigh(t)
    first = vectors[:, 0, :] * values.clamp_min(0).sqrt() * norm[:, None]
    weights = torch.einsum("bij,bj->bi", vectors, first)
    return sum((expand(weights[:, i], n) * basis[i] for i in range(rank)), torch.zeros_like(n))


def _tiny(x: Tensor) -> float:
    return math.sqrt(torch.finfo(x.dtype).tiny)


def classifier(
    label: Annotated[int, "class to draw, from 0"] = 0,
    weights: Annotated[str, "classifier: name of its prior, or a file of invsolve train"] = "digits",
    way: Annotated[Literal["noise-aware", "denoised", "averaged"], "what is classified"] = "noise-aware",
    probes: Annotated[int, "images that `averaged` classifies, an even number"] = 4,
) -> Likelihood:
    """The class of an image: p(c | x_t) of a trained classifier, with no operator."""
    net = load_classifier(weights)
    _check_label(net, label)
    if way == "averaged":
        return AveragedClassifier(net, label, probes=probes)
    return Classifier(net, label) if way == "noise-aware" else DenoisedClassifier(net, label)


def _check_label(net: NoiseAware, label: int) -> None:
    if not 0 <= label < net.classes:
        raise InputError(f"--label must be from 0 to {net.classes - 1}, but it is {label}.")
