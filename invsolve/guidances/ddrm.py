"""DDRM: each singular component by itself, from y or from the prior, whichever has less noise."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from invsolve.errors import InputError
from invsolve.guidance import Guidance
from invsolve.guidances.spectral import spectral
from invsolve.likelihood import Likelihood
from invsolve.prior import Denoised

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(Guidance):
    """Blend mean and measurement in each singular component by which has less noise (DDRM, Kawar et al.
    2022). Needs the SVD and one sigma_y: one A, one U^T and one V a call, no derivative of the prior.

    With yb_i = (U^T y)_i / s_i, of noise sigma_y / s_i, the mean of component i becomes

        (1 - eta_b) D_i + eta_b yb_i                                         where lambda s_i >= sigma_y
        D_i + sqrt(1 - eta^2) (lambda s_i / sigma_y) (yb_i - D_i)            elsewhere
        D_i                                                                  where s_i = 0

    which are the means of Kawar et al. 2022 (arXiv:2201.11793), section 3.2, at the level x_t has. The rest
    of theirs is the transition: a measured component forgets x_t, and where lambda s_i >= sigma_y the fresh
    noise leaves room for that of y. Here x_t stays and each predictor draws its own noise; predictor renoise
    with share eta^2 is theirs in unmeasured components and has their mean, with more noise, in the others.
    Exact for a prior of covariance v I as sigma_y goes to 0, and no further: below sigma_y / s_i noise is
    fitted.
    """

    needs_graph = False

    eta: Annotated[float, "share of fresh noise where y has more noise than x_t, in [0, 1]"] = 0.85
    eta_b: Annotated[float, "weight of the measurement where it has less noise than x_t, in [0, 1]"] = 1.0

    def __post_init__(self) -> None:
        """Refuse shares out of range."""
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise InputError(f"eta and eta_b must be in [0, 1], but they are {self.eta} and {self.eta_b}.")

    def __call__(self, at: Denoised, likelihood: Likelihood) -> Tensor:
        """Return the score of the shift V (w / s) U^T (y - A D), w as above."""
        found = spectral(likelihood, "DDRM")
        sigma_y = found.sigma_y("DDRM")
        fitted = math.sqrt(1 - self.eta**2) / sigma_y

        def gain(s: Tensor, level: Tensor) -> Tensor:
            return torch.where(level * s.abs() >= sigma_y, self.eta_b / s, s.sign() * fitted * level)

        return at.shift_to_score(found.shift(at.mean, at.level, gain))
