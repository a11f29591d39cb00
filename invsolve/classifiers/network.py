"""The noise-aware classifier: logits of p(c | x) for x = x_0 + sigma n, at every noise level.

A class is a function of the clean image, so p(c | x_t) is the mean of p(c | x_0) over x_0 given x_t: sure of
itself at low noise, p(c) at high noise. Cross-entropy on noisy images learns exactly that (Song et al. 2021,
arXiv:2011.13456, appendix I.1; Dhariwal and Nichol 2021, arXiv:2105.05233, section 4), and a classifier of
clean images does not: noise is outside of all it saw.

The network is the encoder of the denoiser with a mean over space on top: input scaled to unit variance, one
halving of the resolution per width, residual blocks that know sigma. Images of any size, [-1, 1] inside.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invsolve.linalg import expand
from invsolve.priors.network import NoiseEmbedding, Stage, check_sizes, mirror, rms_norm

__all__ = ["ClassifierArchitecture", "NoisyClassifier", "build_classifier"]


@dataclass(frozen=True)
class ClassifierArchitecture:
    """Everything needed to build the network before its weights are loaded."""

    in_channels: int = 1
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 1
    classes: int = 10
    sigma_data: float = 0.6

    def __post_init__(self) -> None:
        """Accept a list of widths (TOML, JSON) and refuse sizes that build nothing."""
        object.__setattr__(self, "widths", tuple(self.widths))
        check_sizes(self, (self.in_channels, self.blocks, self.classes - 1, *self.widths))

    @property
    def least(self) -> int:
        """Weights of the entry, of the two convolutions in each block, and of the head."""
        blocks = self.blocks * sum(width**2 for width in self.widths)
        return 9 * self.in_channels * self.widths[0] + 18 * blocks + self.classes * self.widths[-1]


class NoisyClassifier(nn.Module):
    """Logits (B, classes) of images (B, C, H, W) in [-1, 1] with noise of levels sigma (B,)."""

    def __init__(self, architecture: ClassifierArchitecture) -> None:
        """Random weights; all classes are equally likely at first because the head starts at zero."""
        super().__init__()
        a = self.architecture = architecture
        self.embedding = NoiseEmbedding()
        entry = nn.Conv2d(a.in_channels + 1, a.widths[0], 4, stride=2, padding=1)
        later = [nn.Conv2d(m, n, 2, stride=2) for m, n in pairwise(a.widths)]
        self.down = nn.ModuleList([entry, *later])
        self.stages = nn.ModuleList(Stage(w, a.blocks) for w in a.widths)
        self.head = nn.Linear(a.widths[-1], a.classes)
        for zero in self.head.parameters():
            nn.init.zeros_(zero)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Scale to unit variance, encode, average over space."""
        scale = (sigma.double() ** 2 + self.architecture.sigma_data**2).rsqrt()
        x = mirror(x * expand(scale, x), 2 ** len(self.down))
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1).contiguous(memory_format=torch.channels_last)
        features = self.embedding(sigma.double())
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(down(x), features)
        logits: Tensor = self.head(F.silu(rms_norm(x)).mean((2, 3)))
        return logits


def build_classifier(architecture: ClassifierArchitecture, seed: int = 0) -> NoisyClassifier:
    """Make a network whose first weights are a function of the seed; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's layers know no other generator when they are made
        return NoisyClassifier(architecture)
