"""How good is a set of posterior samples x_1 .. x_n? Numbers with a known value for a right posterior.

    chi2         about 1    mean over samples of |A x_k - y|^2 / (m sigma_y^2), m the measured entries
    coverage90   0.90       share of truth values inside mean +- t_{n-1, 0.95} sqrt(1 + 1/n) sd
    dispersion   1          mean of |x_k - x0|^2 over |mean - x0|^2, divided by 2 / (1 + r), r = 1/n
    crps         small      mean of |x_k - x0| minus half the mean distance of two samples, per value
    psnr, ssim   large      distance to the truth in decibel, likeness of structure

coverage90: if truth and samples are draws of one Gaussian, truth - mean has variance (1 + 1/n) sigma^2 and sd
is estimated from n - 1 degrees of freedom, so Student's t gives exactly 0.90 at every n; plain quantiles of 8
samples would hold 0.72. (For samples in antithetic pairs, whose mean is better and whose sd has fewer degrees
of freedom, the same interval holds between 0.90 and 0.91 from n = 4 on.) dispersion: for independent draws
|x_k - x0|^2 has expectation 2 v and |mean - x0|^2 (1 + 1/n) v, whatever their law; a collapsed posterior is
below 1, and noise added to each sample drives it above. For antithetic pairs r = Var(mean) / v comes from
the samples. crps is the fair form (distance over pairs of different samples), unbiased for the score of the
underlying law.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from invsolve.arrays import array

if TYPE_CHECKING:
    from torch import Tensor

    from invsolve.operators import Operator

__all__ = ["chi2", "coverage90", "crps", "dispersion", "psnr", "ssim", "summary"]

_CHUNK = 1 << 16  # pixels at a time, so that memory stays at a few times n * 64 Ki values
_SSIM_WINDOW = 7
Values = Any  # a tensor or an array: what images.array takes


def psnr(image: Values, truth: Values) -> float:
    """Peak signal-to-noise ratio in dB for a range of 1; clips nothing; infinite for equal images."""
    from skimage.metrics import peak_signal_noise_ratio as ratio

    with np.errstate(divide="ignore"):
        return float(ratio(_double(truth), _double(image), data_range=1.0))  # type: ignore[no-untyped-call]  # theirs


def ssim(image: Values, truth: Values) -> float:
    """Structural similarity of (C, H, W) images for a range of 1, with scikit-image's flat 7 x 7 window."""
    from skimage.metrics import structural_similarity as likeness

    pair, rules = (
        (_double(truth), _double(image)),
        {"data_range": 1.0, "channel_axis": 0, "win_size": _SSIM_WINDOW},
    )
    return float(likeness(*pair, **rules))  # type: ignore[no-untyped-call]  # theirs


def chi2(samples: "Tensor", y: "Tensor", operator: "Operator", sigma_y: "float | Tensor") -> float:
    """Mean over samples (n, *event) of the squared residual in units of sigma_y, per measured entry of y."""
    import torch

    from invsolve.likelihood import measured_entries

    known = measured_entries(operator, tuple(samples.shape[1:]), y)
    target, scale = y.reshape(known.shape), torch.as_tensor(sigma_y, dtype=y.dtype, device=y.device)
    scale = scale.reshape(known.shape) if scale.ndim else scale
    total = 0.0
    for sample in samples:
        residual = (operator.A(sample[None].to(y))[0] - target) / scale
        total += float(residual[known].double().square().mean())
    return total / len(samples)


def coverage90(samples: Values, truth: Values, where: Values = None) -> float | None:
    """Share of truth values inside the interval that should hold 0.90 of them; None for a single sample.

    where (C, H, W), boolean, restricts the count, to hidden pixels for instance.
    """
    from scipy.stats import t  # type: ignore[import-untyped]  # scipy ships no types

    draws, x0 = array(samples), array(truth)
    n = len(draws)
    if n == 1:
        return None
    mean, sd = draws.mean(0, dtype=np.float64), draws.std(0, ddof=1, dtype=np.float64)
    inside = np.abs(x0 - mean) <= float(t.ppf(0.95, n - 1)) * math.sqrt(1 + 1 / n) * sd
    return float(
        inside.mean() if where is None else inside[np.broadcast_to(array(where), inside.shape)].mean()
    )


def dispersion(samples: Values, truth: Values, antithetic: bool = False) -> float | None:
    """Error of a sample over that of the mean, 1 for a right posterior; None for one sample.

    antithetic says that samples 2k and 2k + 1 are a pair of opposite noise.
    """
    draws, x0 = array(samples), _double(truth)
    n = len(draws)
    of_mean = float(np.square(draws.mean(0, dtype=np.float64) - x0).mean())
    if n == 1 or of_mean == 0:
        return None
    of_sample = float(np.mean([np.square(draw - x0).mean() for draw in draws]))
    return of_sample / of_mean * (1 + (_mean_share(draws) if antithetic else 1 / n)) / 2


def _mean_share(draws: NDArray[Any]) -> float:  # Any: of the samples' dtype
    """Variance of the mean of antithetic pairs over that of one sample, both from the samples.

    The pairs are independent: their means m_j give Var(mean) = Var(m_j) / (n/2), and the samples scatter
    about their mean by v - Var(mean). One pair tells nothing of Var(mean), which is then taken for 0.
    """
    pairs = len(draws) // 2
    draws = draws[: 2 * pairs].astype(np.float64)
    middle = (draws[0::2] + draws[1::2]) / 2
    of_mean = float(middle.var(0, ddof=1).mean()) / pairs if pairs > 1 else 0.0
    return of_mean / (float(draws.var(0).mean()) + of_mean)


def crps(samples: Values, truth: Values) -> float:
    """Continuous ranked probability score per value, fair form; the absolute error for a single sample.

    The sum of |x_j - x_k| over pairs j < k is that of (2k - n - 1) x_(k) over the sorted samples, k = 1 .. n.
    """
    draws, x0 = array(samples), array(truth).reshape(-1)
    n = len(draws)
    rows = draws.reshape(n, -1)
    weights = (2 * np.arange(1, n + 1) - n - 1) / max(n * (n - 1), 1)
    total = 0.0
    for first in range(0, x0.size, _CHUNK):
        part = rows[:, first : first + _CHUNK].astype(np.float64)
        error = np.abs(part - x0[first : first + _CHUNK]).mean(0)
        total += float((error - weights @ np.sort(part, axis=0)).sum())
    return total / x0.size


def summary(
    samples: "Tensor",
    y: "Tensor",
    operator: "Operator",
    sigma_y: "float | Tensor",
    *,
    picture: Values = None,
    truth: Values = None,
    mask: Values = None,
    antithetic: bool = False,
) -> dict[str, Any]:
    """Collect the metrics of a run; what needs a truth, or two samples, is left out where there is none.

    samples (n, C, H, W); picture (C, H, W) shows the measurement (operators.picture) and is clipped to [0,
    1], or left out where it is of another shape than the truth; mask (1 or C, H, W) is 1 where a pixel was
    seen; antithetic as in dispersion. psnr and ssim of "sample" are means over the samples.
    """
    result: dict[str, Any] = {"chi2": chi2(samples, y, operator, sigma_y)}
    if truth is None:
        return result
    draws, x0 = array(samples), array(truth)
    fits = picture is not None and array(picture).shape == x0.shape
    shown = {"measurement": [array(picture).clip(0, 1)]} if fits else {}
    shown |= {"mean": [draws.mean(0, dtype=np.float64)], "sample": list(draws)}
    for name, score in (("psnr", psnr), ("ssim", ssim)):
        if score is psnr or (x0.ndim == 3 and min(x0.shape[1:]) >= _SSIM_WINDOW):
            result[name] = {
                key: float(np.mean([score(i, x0) for i in images])) for key, images in shown.items()
            }
    hidden = None if mask is None else array(mask) == 0
    result |= {
        "coverage90": coverage90(draws, x0),
        "dispersion": dispersion(draws, x0, antithetic),
        "crps": crps(draws, x0),
    }
    if hidden is not None and hidden.any():
        result["coverage90_hidden"] = coverage90(draws, x0, hidden)
    return {key: value for key, value in result.items() if value is not None}


def _double(image: Values) -> NDArray[np.float64]:
    return array(image).astype(np.float64)
