"""A stationary Gaussian as the covariance of photographs where a network's own derivative is of no use.

At high noise a learned denoiser is right on average while its Jacobian is not: the residual of the solve for
(A C A^T + V)^-1 does not fall at all. There C = Cov[x_0 | x_t] is taken from a Gaussian with the second
moments of photographs: a covariance M between colours and the power spectrum of natural images,

    P(f) = c / (f^2 + f_0^2)^1.25,   f in cycles per pixel,       C(f) = lambda^2 P M (P M + lambda^2)^-1,

applied by the Fourier transform on a torus. M and c were fitted to 240 crops of 256 pixels from the training
pictures of the prior `photo` (`benchmarks/spectrum.py`): their spectrum falls as f^-2.5 from 1/100 to 1/6 of
a cycle per pixel. f_0 is set to 1/40, above the measured 1/500: coarser scales are known from y anyway, and
the solve is far better conditioned.
"""

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["StationaryCovariance"]

COLOURS = ((0.0946, 0.0752, 0.0630), (0.0752, 0.0824, 0.0790), (0.0630, 0.0790, 0.0906))
SCALE, CORNER, FALL = 0.00258, 0.025, 1.25


@lru_cache(maxsize=4)
def _spectrum(height: int, width: int) -> Tensor:
    """P(f) on the half plane of a real transform, (H, W // 2 + 1)."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
    power: Tensor = SCALE * (rows**2 + columns**2 + CORNER**2) ** -FALL
    return power


@lru_cache(maxsize=4)
def _gain(
    variances: tuple[float, ...], levels: tuple[float, ...], height: int, width: int, dtype: torch.dtype
) -> Tensor:
    """C(f) for each level and principal colour: (levels, C, H, W // 2 + 1)."""
    power = _spectrum(height, width).to(dtype) * torch.tensor(variances, dtype=dtype)[:, None, None]
    noise = (torch.tensor(levels, dtype=dtype) ** 2).reshape(-1, 1, 1, 1)
    return power / (power / noise + 1)


class StationaryCovariance:
    """Cov[x_0 | x_t] of the Gaussian above, used at noise levels beyond `above` (physical units)."""

    def __init__(self, above: float, channels: int = 3) -> None:
        """Diagonalise the colours; a grey image is their mean."""
        self.above = above
        colours = torch.tensor(COLOURS, dtype=torch.float64)
        if channels == 1:
            colours = colours.mean().reshape(1, 1)
        self.variances, self.axes = torch.linalg.eigh(colours)

    def covariance(self, v: Tensor, level: Tensor) -> Tensor:
        """Apply C to v (B, C, H, W) at noise levels (B,), in the dtype of v."""
        return self._filtered(v, self._gain(v, level, (v.shape[-2], v.shape[-1])))

    def divide(self, v: Tensor, level: Tensor, power: Tensor, variance: Tensor) -> Tensor:
        """Apply (K C K^T + variance)^-1, K the circular convolution of spectrum power = |k^|^2, (H, W // 2 +
        1).

        v has every n-th pixel, n = H / height of v: its correlations are every n-th of those of K x.
        """
        n = power.shape[-2] // v.shape[-2]
        size = (n * v.shape[-2], n * v.shape[-1])
        spectrum = power.to(v) * self._gain(v, level, size)
        if n > 1:
            spectrum = torch.fft.rfft2(torch.fft.irfft2(spectrum, s=size)[..., ::n, ::n]).real
        return self._filtered(v, 1 / (spectrum + variance.to(v)))

    def _gain(self, v: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:
        levels = level.tolist()
        levels = levels[:1] if min(levels) == max(levels) else levels  # one table serves a whole batch
        return _gain(tuple(self.variances.tolist()), tuple(levels), *size, v.dtype).to(v.device)

    def _filtered(self, v: Tensor, gain: Tensor) -> Tensor:
        """Multiply the Fourier transform of each principal colour by its gain (levels, C, H, W // 2 + 1)."""
        axes = self.axes.to(v)
        turned = (axes.mT @ v.flatten(2)).reshape(v.shape)
        filtered = torch.fft.irfft2(torch.fft.rfft2(turned).mul_(gain), s=v.shape[-2:])
        back: Tensor = axes @ filtered.flatten(2)
        return back.reshape(v.shape)
