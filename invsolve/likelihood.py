"""What the measurement says: log p(y | x_0), and the one primitive that most guidances are made of.

Conditioning a Gaussian N(c, r^2 I) on y = A x + e, e ~ N(0, V), moves its mean to

    P(c, r^2) = c + r^2 A^T (r^2 A A^T + V)^-1 (y - A c).

The inverse is taken in the singular basis where the operator has one and V is constant, by conjugate
gradients otherwise. sigma_y is in the units of the measurement, always.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.forward import BlackBox, Forward, Operator, measured_entries
from invsolve.linalg import dot, expand, robust_cg
from invsolve.prior import Denoised

__all__ = [
    "BlackBox",
    "Classifier",
    "Gaussian",
    "Likelihood",
    "LinearLikelihood",
    "Operator",
    "Poisson",
    "measured_entries",
]


class Likelihood(ABC):
    """log p(y | x_0) for one measurement y; samplers and guidances see nothing else of the data."""

    @abstractmethod
    def log_prob(self, x0: Tensor) -> Tensor:
        """Log density of y given each image, summed per sample: (B, *event) -> (B,), nats."""

    def log_prob_at(self, at: Denoised) -> Tensor:
        """Approximate log p(y | x_t), (B,): by default at the denoised mean."""
        return self.log_prob(at.mean)

    @property
    def finest(self) -> float:
        """Smallest noise level a run must resolve, in pixel units."""
        return math.inf

    @property
    def content(self) -> str:
        """Hash of what was measured, so that two problems of one seed have noise of their own."""
        return ""


class LinearLikelihood(Likelihood):
    """A measurement through an operator with noise of variance noise_variance(A x), Gaussian or nearly so.

    An operator without A_adjoint is a black box: all that needs its transpose is refused.
    """

    noise_is_gaussian = False  # with a variance that does not depend on x

    def __init__(self, y: Tensor, operator: Operator | BlackBox) -> None:
        """Check y against the operator's own output; a leading axis of 1 is dropped."""
        y = torch.as_tensor(y)
        y = y if y.is_floating_point() else y.to(torch.get_default_dtype())
        self.operator = operator
        self.calls: Counter[str] = Counter()
        self.shape: tuple[int, ...] | None = getattr(operator, "shape", None)
        self.forward = Forward(operator, self.shape, y)
        if not torch.isfinite(y).all():
            raise InputError(
                f"the measurement has {int((~torch.isfinite(y)).sum())} values that are NaN or infinite."
            )
        self.y = self._without_batch(y)

    def _without_batch(self, y: Tensor) -> Tensor:
        if self.shape is None:
            return y
        gives = tuple(self.forward(torch.zeros(1, *self.shape, dtype=y.dtype, device=y.device)).shape)
        if tuple(y.shape) not in (gives, gives[1:]):
            name = getattr(self.operator, "name", type(self.operator).__name__)
            raise InputError(
                f"the measurement has shape {tuple(y.shape)}, "
                f"but {name} of a {self.shape} image gives {gives}."
            )
        return y.reshape(gives[1:])

    def _apply(self, fn: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return self.forward.cast(fn, v)

    def A(self, x: Tensor) -> Tensor:
        """Measure x: (B, *event) -> (B, *m), in the dtype of x."""
        self.calls["A"] += len(x)
        return self.forward(x)

    def At(self, v: Tensor, like: Tensor) -> Tensor:
        """Apply the transpose, or that of the derivative at like (B, *event), to v (B, *m): (B, *event)."""
        self.calls["At"] += len(v)
        return self.forward.back(v, like)

    def along(self, v: Tensor, x: Tensor) -> Tensor:
        """Change of A by a small step v at x, both (B, *event), to first order: A v where A is linear."""
        self.calls["A"] += len(x)
        return self.forward.along(v, x)

    @property
    def linear(self) -> bool:
        """Whether the operator is linear and its transpose to be had, from itself or by autograd."""
        return self.forward.linear

    def residual(self, x0: Tensor) -> Tensor:
        """What the measurement has beyond A x0: y - A x0, (B, *m)."""
        return self.y.to(x0) - self.A(x0)

    def matrix(self, shape: tuple[int, ...]) -> Tensor:
        """Matrix (m, d) of the operator on events of that shape, column by column."""
        if not self.linear:
            raise self.forward.refusal("its matrix")
        d = math.prod(shape)
        eye = torch.eye(d, dtype=self.y.dtype, device=self.y.device).reshape(d, *shape)
        return self.forward(eye).reshape(d, -1).mT

    @abstractmethod
    def noise_variance(self, predicted: Tensor) -> Tensor:
        """Variance of each entry of y given A x0, shaped to broadcast with (B, *m)."""

    def solve(self, r2: Tensor, residual: Tensor, predicted: Tensor) -> Tensor:
        """Return (r^2 A A^T + V)^-1 residual; r2 is (B,), residual and predicted (B, *m)."""
        variance = torch.as_tensor(self.noise_variance(predicted)).to(residual)
        if variance.numel() == 1 and hasattr(self.operator, "U_adjoint"):
            return self._solve_spectral(r2, residual, variance)
        return self._solve_cg(r2, residual, variance)

    def _solve_spectral(self, r2: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
        """In the singular basis A = U diag(s) V^T: scale the range of U, divide its complement by the
        variance."""
        op: Any = self.operator  # Any: an optional ability, found by hasattr
        inside = self._apply(op.U_adjoint, residual)
        s2 = torch.as_tensor(op.mask).to(residual).abs() ** 2
        excess = 1 / (expand(r2, inside) * s2 + variance) - 1 / variance
        return residual / variance + self._apply(op.U, excess * inside)

    def _solve_cg(self, r2: Tensor, residual: Tensor, variance: Tensor) -> Tensor:
        def apply(p: Tensor) -> tuple[Tensor, Tensor]:
            self.calls["At"] += len(p)
            product = expand(r2, p) * self.A(self.forward.back(p)) + variance * p
            return product, p

        return robust_cg(apply, residual, steps=200, tolerance=1e-5)

    def condition(self, c: Tensor, r2: Tensor) -> Tensor:
        """Mean P(c, r^2) of N(c, r^2 I) conditioned on y: c (B, *event), r2 (B,)."""
        predicted = self.A(c)
        u = self.solve(r2, self.y.to(c) - predicted, predicted)
        return c + expand(r2, c) * self.At(u, c)

    @property
    def content(self) -> str:
        """SHA-256 of the measurement's float32 bytes."""
        return hashlib.sha256(
            self.y.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        ).hexdigest()


class Gaussian(LinearLikelihood):
    """Gaussian noise: y = A x_0 + sigma_y n, n ~ N(0, I).

    y is (*m) or (1, *m); sigma_y > 0 is a number or a tensor of y's shape.
    """

    noise_is_gaussian = True

    def __init__(
        self,
        y: Tensor,
        operator: Operator | BlackBox,
        sigma_y: Annotated[float | Tensor, "standard deviation of the noise, in units of the measurement"],
    ) -> None:
        """Refuse a noise level that is not a positive number."""
        super().__init__(y, operator)
        given = torch.as_tensor(sigma_y).numel()
        if given not in (1, self.y.numel()):
            raise InputError(f"sigma_y has {given} values; it must have one, or y's {self.y.numel()}.")
        self.sigma_y = torch.as_tensor(sigma_y, dtype=self.y.dtype, device=self.y.device)
        if self.sigma_y.numel() > 1:
            self.sigma_y = self.sigma_y.reshape(self.y.shape)
        if not (torch.isfinite(self.sigma_y) & (self.sigma_y > 0)).all():
            raise InputError(f"sigma_y must be a number > 0, but it is {sigma_y}.")

    @property
    def finest(self) -> float:
        """Smallest sigma_y."""
        return float(self.sigma_y.min())

    def noise_variance(self, predicted: Tensor) -> Tensor:
        """sigma_y^2, whatever x is."""
        return self.sigma_y.to(predicted) ** 2

    def log_prob(self, x0: Tensor) -> Tensor:
        """-1/2 |(y - A x0) / sigma_y|^2 and its normaliser over the measured entries: (B,)."""
        z = self.residual(x0) / self.sigma_y.to(x0)
        known = measured_entries(self.operator, tuple(x0.shape[1:]), self.y)
        scale = (self.sigma_y.expand_as(self.y)[known].log() + math.log(2 * math.pi) / 2).sum()
        return -dot(z, z) / 2 - scale.to(x0)


class Poisson(LinearLikelihood):
    """Counts: y / gain ~ Poisson(A x_0 / gain), so var(y) = gain A x_0. y >= 0 in the units of A x_0."""

    def __init__(
        self,
        y: Tensor,
        operator: Operator | BlackBox,
        gain: Annotated[float, "value of y that one count adds, > 0"] = 1.0,
    ) -> None:
        """Refuse negative counts and gains."""
        super().__init__(y, operator)
        if not gain > 0:
            raise InputError(f"gain must be > 0, but it is {gain}.")
        if float(self.y.min()) < 0:
            raise InputError(
                f"a Poisson likelihood needs y >= 0, but y has minimum {float(self.y.min()):.3g}."
            )
        self.gain = gain

    @property
    def finest(self) -> float:
        """Noise of a single count."""
        return self.gain

    def noise_variance(self, predicted: Tensor) -> Tensor:
        """Gain times the expected value, at least that of one count: what a Gaussian surrogate needs."""
        return self.gain * predicted.clamp_min(self.gain)

    def log_prob(self, x0: Tensor) -> Tensor:
        """Log probability of the counts: (B,); minus infinity where A x0 < 0 and counts were seen."""
        counts, rate = self.y.to(x0) / self.gain, self.A(x0) / self.gain
        return (torch.xlogy(counts, rate) - rate - torch.lgamma(counts + 1)).flatten(1).sum(1)


class Classifier(Likelihood):
    """p(label | x_t) of a noise-aware classifier: net(x, sigma) -> logits (B, classes), x = x_t / alpha."""

    def __init__(self, net: torch.nn.Module, label: Annotated[int, "class to draw, from 0"] = 0) -> None:
        """Keep the network and the class; the images' shape, where the network tells it."""
        self.net, self.label = net, label
        self.shape: tuple[int | None, ...] | None = getattr(net, "shape", None)

    def log_classes(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Log probability of every class for images with noise of levels sigma, clean if left out."""
        level = torch.zeros(len(x), dtype=torch.float64, device=x.device) if sigma is None else sigma
        logits: Tensor = self.net(x, level)
        if not 0 <= self.label < logits.shape[1]:
            raise InputError(f"no class {self.label} of {logits.shape[1]} classes, counted from 0.")
        return logits.log_softmax(1)

    def log_classes_at(self, at: Denoised) -> Tensor:
        """Log probability of every class for the noisy image itself: (B, classes)."""
        return self.log_classes(at.x / expand(at.alpha, at.x), at.level.to(at.x.device))

    def log_prob(self, x0: Tensor) -> Tensor:
        """Log probability of the label for a clean image: (B,)."""
        return self.log_classes(x0)[:, self.label]

    def log_prob_at(self, at: Denoised) -> Tensor:
        """Log probability of the label given x_t: (B,)."""
        return self.log_classes_at(at)[:, self.label]

    @property
    def content(self) -> str:
        """The label."""
        return f"label {self.label}"
