"""From what a network predicts to the denoiser D(x, sigma) = E[x_0 | x_0 + sigma n = x].

A network of the forward process x_t = s (x_0 + sigma n) sees x_t = s x, with nu = s sigma:

    it predicts          D(x, sigma)                 trained as
    noise                x - sigma F(s x)            DDPM, ADM; Song's VP and sub-VP nets (score = -F/nu)
    velocity s n - nu x_0    s^2 x - nu F(s x)       Salimans and Ho 2022 (arXiv:2202.00512)
    image                F(s x)
    score of VE (s = 1)  x + sigma^2 F(x)

    VP: s = 1/sqrt(1 + sigma^2)       sub-VP: nu = 1 - s^2, so s = (sqrt(sigma^2 + 4) - sigma)/2
                                              (Song et al. 2021, arXiv:2011.13456, equations 33 and 34)

Each F also takes a label of the noise level, which `label` computes from sigma. Everything here is in the
network's own units; nothing is clipped.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from invsolve.linalg import expand

__all__ = ["Image", "Noise", "Score", "Velocity", "subvp_signal", "vp_signal"]

Levels = Callable[[Tensor], Tensor]  # (B,) float64 to (B,)


def vp_signal(sigma: Tensor) -> Tensor:
    """s of VP."""
    return (1 + sigma**2).rsqrt()


def subvp_signal(sigma: Tensor) -> Tensor:
    """s of sub-VP, written without the difference of large numbers."""
    return 2 / ((sigma**2 + 4).sqrt() + sigma)


class Noise(nn.Module):
    """D of a network that predicts noise."""

    def __init__(self, network: nn.Module, label: Levels, signal: Levels = vp_signal) -> None:
        """network(s x, label) -> noise; outputs beyond the image's channels (variances) are cut off."""
        super().__init__()
        self.network, self.label, self.signal = network, label, signal

    def predicted(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F(s x, label)."""
        out: Tensor = self.network(expand(self.signal(sigma), x) * x, self.label(sigma))
        return out[:, : x.shape[1]]

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma): x (B, C, H, W), sigma (B,) float64."""
        return x - expand(sigma, x) * self.predicted(x, sigma)


class Velocity(Noise):
    """D of a network that predicts v = s n - nu x_0; needs s^2 + nu^2 = 1."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma)."""
        s = self.signal(sigma)
        return expand(s**2, x) * x - expand(s * sigma, x) * self.predicted(x, sigma)


class Image(Noise):
    """D of a network that predicts the image."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma)."""
        return self.predicted(x, sigma)


class Score(Noise):
    """D of a VE network whose output is the score."""

    def __init__(self, network: nn.Module, label: Levels) -> None:
        """network(x, label) -> score."""
        super().__init__(network, label, torch.ones_like)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma)."""
        return x + expand(sigma**2, x) * self.predicted(x, sigma)
