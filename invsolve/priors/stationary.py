"""A stationary Gaussian as the covariance of photographs where a network's own derivative is of no use.

At high noise a learned denoiser is right on average while its Jacobian is not: the residual of the solve for
(A C A^T + V)^-1 does not fall at all. There C = Cov[x_0 | x_t] is taken from a Gaussian with the second
moments of photographs: a covariance M between colours and the power spectrum of natural images,

    P(f) = a c / (f^2 + f_0^2)^1.25,   f in cycles per pixel,     C(f) = lambda^2 P M (P M + lambda^2)^-1,

applied by the Fourier transform on a torus. M and c were fitted to 240 crops of 256 pixels from the training
pictures of the prior `photo` (`benchmarks/spectrum.py`): their spectrum falls as f^-2.5 from 1/100 to 1/6 of
a cycle per pixel. f_0 is set to 1/40, above the measured 1/500: coarser scales are known from y anyway, and
the solve is far better conditioned.

The amplitude a is each picture's own: that at which C has the trace of the network's derivative, which tells
how far a denoised picture is off even where its entries tell nothing (`benchmarks/traces.py`). One probe
measures it. It tells ever less as the noise grows and nothing beyond lambda = 10, where all pictures look
alike; beyond FITTED a is 1. The trace depends on a / lambda^2 and lambda^2 alone, so one table serves all.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from invsolve.linalg import expand

__all__ = ["StationaryCovariance"]

COLOURS = ((0.0946, 0.0752, 0.0630), (0.0752, 0.0824, 0.0790), (0.0630, 0.0790, 0.0906))
SCALE, CORNER, FALL = 0.00258, 0.025, 1.25
FITTED = 2.0  # noise level up to which the amplitude is the picture's own
LEAST, MOST = 1e-4, 1e3  # amplitudes
FINEST = 128  # frequencies a side that a trace is summed over: of more pixels, an integral


@lru_cache(maxsize=4)
def _spectrum(height: int, width: int) -> Tensor:
    """P(f) of amplitude 1 on the half plane of a real transform, (H, W // 2 + 1)."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
    power: Tensor = SCALE * (rows**2 + columns**2 + CORNER**2) ** -FALL
    return power


@lru_cache(maxsize=2)
def _flat(shape: tuple[int, ...]) -> Tensor:
    """A field of random phases and of modulus 1 at every frequency, (C, H, W)."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    field: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise).sgn(), s=shape[-2:], norm="ortho")
    return field


@lru_cache(maxsize=4)
def _shares(variances: tuple[float, ...], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Log of a / lambda^2, and of the mean variance of an entry of x_0 | x_t in units of lambda^2."""
    power = _spectrum(height, width) * torch.tensor(variances, dtype=torch.float64)[:, None, None]
    twice = torch.full(power.shape[-1:], 2.0, dtype=torch.float64)  # for the half that is not kept
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    logs = np.linspace(np.log(1e-6), np.log(1e7), 1600)
    shares = [(b * power / (b * power + 1) * twice).sum() / (height * width) for b in np.exp(logs)]
    return logs, (torch.stack(shares) / len(variances)).log().numpy()


class StationaryCovariance:
    """Cov[x_0 | x_t] of the Gaussian above, used at noise levels beyond `above` (physical units).

    level (B,) are noise levels lambda, amplitude (B,) the a of each row.
    """

    fitted = FITTED

    def __init__(self, above: float, channels: int = 3) -> None:
        """Diagonalise the colours; a grey image is their mean."""
        self.above = above
        colours = torch.tensor(COLOURS, dtype=torch.float64)
        if channels == 1:
            colours = colours.mean().reshape(1, 1)
        self.variances, self.axes = torch.linalg.eigh(colours)

    def probe(self, shape: tuple[int, ...]) -> Tensor:
        """Field z (C, H, W) of unit power whose z^T C z is the trace of C, exact for a C of this kind."""
        field: Tensor = self.axes.float() @ _flat(shape).flatten(1)
        return field.reshape(shape)

    def amplitude(self, variance: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:
        """Amplitude at which an entry of x_0 | x_t has this variance (B,) in the mean; 1 beyond `fitted`."""
        height, width = (min(side, FINEST) for side in size)
        logs, shares = _shares(tuple(self.variances.tolist()), height, width)
        asked = (variance.double() / level**2).clamp_min(torch.finfo(torch.float64).tiny)
        found = torch.as_tensor(np.interp(asked.log().numpy(), shares, logs)).exp() * level**2
        return torch.where(level > self.fitted, 1.0, found.clamp(LEAST, MOST))

    def covariance(self, v: Tensor, level: Tensor, amplitude: Tensor) -> Tensor:
        """Apply C to v (B, C, H, W), in the dtype of v."""
        return self._filtered(v, self._gain(v, level, amplitude, (v.shape[-2], v.shape[-1])))

    def divide(self, v: Tensor, level: Tensor, amplitude: Tensor, power: Tensor, variance: Tensor) -> Tensor:
        """Apply (K C K^T + variance)^-1, K the circular convolution of spectrum power = |k^|^2, (H, W // 2 +
        1).

        v has every n-th pixel, n = H / height of v: its correlations are every n-th of those of K x.
        """
        n = power.shape[-2] // v.shape[-2]
        size = (n * v.shape[-2], n * v.shape[-1])
        spectrum = power.to(v) * self._gain(v, level, amplitude, size)
        if n > 1:
            spectrum = torch.fft.rfft2(torch.fft.irfft2(spectrum, s=size)[..., ::n, ::n]).real
        return self._filtered(v, 1 / (spectrum + variance.to(v)))

    def _gain(self, v: Tensor, level: Tensor, amplitude: Tensor, size: tuple[int, int]) -> Tensor:
        """C(f) for each row and principal colour, (B, C, H, W // 2 + 1)."""
        power = expand(amplitude, v) * self.variances.to(v)[:, None, None] * _spectrum(*size).to(v)
        gain: Tensor = power / (power / expand(level**2, v) + 1)
        return gain

    def _filtered(self, v: Tensor, gain: Tensor) -> Tensor:
        """Multiply the Fourier transform of each principal colour by its gain (levels, C, H, W // 2 + 1)."""
        axes = self.axes.to(v)
        turned = (axes.mT @ v.flatten(2)).reshape(v.shape)
        filtered = torch.fft.irfft2(torch.fft.rfft2(turned).mul_(gain), s=v.shape[-2:])
        back: Tensor = axes @ filtered.flatten(2)
        return back.reshape(v.shape)
