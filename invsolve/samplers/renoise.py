"""A step that swaps a fixed share of the noise for fresh noise: DDIM's with its noise stated as a share."""

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from invsolve.errors import InputError
from invsolve.posterior import Posterior
from invsolve.rng import Noise
from invsolve.samplers.predictors import Memory, Predictor
from invsolve.sde import SDE

__all__ = ["Renoise"]


@dataclass(frozen=True)
class Renoise(Predictor):
    """Step to the mean D and put noise back: a share of it fresh, the rest the noise x_t has (DiffPIR, DDRM).

    xh_s = D + lambda_s (sqrt(1 - share) (xh_t - D) / lambda_t + sqrt(share) z), D = E[x_0 | x_t, y]. Zhu et
    al. 2023 (arXiv:2305.08995), algorithm 1, share = zeta; Kawar et al. 2022 (arXiv:2201.11793) in unmeasured
    components, share = eta^2; at 0 it is DDIM, Euler's step on the probability-flow ODE. The chain's own
    posterior has share 1 - (lambda_s / lambda_t)^2, which is predictor ancestral. A fixed share is a Langevin
    step that does not shrink with the grid: samples are too narrow however many steps are taken, the more so
    the larger the share.
    """

    share: Annotated[float, "share of the noise variance drawn afresh at each step, in [0, 1]"] = 0.1

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        if not 0 <= self.share <= 1:
            raise InputError(f"share must be in [0, 1], but it is {self.share}.")

    def step(
        self, posterior: Posterior, x: Tensor, t: Tensor, s: Tensor, noise: Noise, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Return alpha_s xh_s as above."""
        mean, std = self.kernel(posterior.sde, x, t, s, posterior.mean(x, t))
        return mean + std * noise(), None

    def kernel(self, sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean: Tensor) -> tuple[Tensor, float]:
        """Mean and standard deviation of that step."""
        kept = math.sqrt(1 - self.share) * float(sde.ratio(s) / sde.ratio(t))
        xh = x / float(sde.alpha(t))
        return float(sde.alpha(s)) * (mean + kept * (xh - mean)), float(sde.sigma(s)) * math.sqrt(self.share)
