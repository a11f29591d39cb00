"""TMPD: the covariance of x_0 | x_t as y sees it, by its row sums."""

from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.guidance import Guidance, linear_of
from invsolve.likelihood import Likelihood, LinearLikelihood
from invsolve.linalg import dot, expand
from invsolve.prior import Denoised, Prior
from invsolve.twist import diagonal

__all__ = ["TMPD"]


@dataclass(frozen=True)
class TMPD(Guidance):
    """Match mean and row sums of the covariance of y given x_t (TMPD, Boys et al. 2023). Needs A^T and
    derivatives of the prior: two vector-Jacobian products a call.

    A C A^T, C = Cov[x_0 | x_t], is replaced by the diagonal matrix of its row sums A C A^T 1, so the solve of
    moment matching becomes a division. Exact for Gaussian priors where A C A^T is diagonal: of independent
    pixels seen through a mask. Where neighbours vary together a row sum is more than the row's variance, and
    the term too weak. Boys et al. 2023 (arXiv:2310.06721), the row-sum approximation; Cov[x_0 | x_t] is
    symmetric, so the vector-Jacobian product stands for the product the paper takes. Their sampler is
    predictor euler-maruyama.

    Row sums bound A C A^T while its entries are not negative. Where they are, as with random projections, the
    published term goes far beyond the measurement; so sums below zero count as zero, and a shift too long is
    cut at the minimum, along its own direction, of the quadratic that moment matching minimises. Where no
    entry is negative that never shortens the published term.
    """

    def needs_graph_at(self, prior: Prior, level: Tensor) -> bool:
        """Unless the prior's surrogate stands in for its derivative, as large as ever, at each level."""
        return prior.differentiated(level)

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of the shift C A^T (y - A D) / (V + A C A^T 1) of the mean."""
        return self._term(at, linear_of(likelihood, "TMPD"))[0]

    def log_twist(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return log N(y; A D, V + diag(A C A^T 1))."""
        return self.twist(at, likelihood)[0]

    def twist(self, at: Denoised, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
        """Return both from the same row sums."""
        linear = linear_of(likelihood, "TMPD")
        term, off, variance = self._term(at, linear)
        return diagonal(linear, tuple(at.x.shape[1:]), off, variance), term

    def _term(self, at: Denoised, linear: LinearLikelihood) -> tuple[Tensor, Tensor, Tensor]:
        """Term of the score, y - A D, and its variance entry by entry."""
        predicted = linear.A(at.mean)
        noise = linear.noise_variance(predicted)
        ones = linear.At(predicted.new_ones(predicted.shape), at.mean)
        variance = noise + linear.A(at.covariance(ones)).clamp_min(0)
        off = linear.y.to(predicted) - predicted
        u = off / variance
        shift = at.covariance(linear.At(u, at.mean))
        least, curvature = dot(u, off), dot(u, noise * u + linear.A(shift))
        cut = torch.where(curvature > least, least / curvature, 1.0)
        return at.shift_to_score(expand(cut, shift) * shift), off, variance
