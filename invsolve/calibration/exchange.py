"""Does the truth's number stand out from those of the samples?

Under a right posterior the truth is one more draw of it. So a figure T, made of the truth's number u_k0 and
those of the samples in each problem k, is compared with what it would be had another of the S + 1 draws been
the truth, drawn at random in each problem. That law is exact whatever the posterior's shape, however the
pixels of an image hang together, and however few the problems. It gives each figure a value that is expected
of it, a band and a p-value.

    coverage         u = share of values inside the interval of the others; T = mean of u_k0
    chi2             u = squared residual per entry; T = mean of the samples' u; expected, that of the truths
    variance_ratio   u = squared distance to the mean of all; T = (1 + 1/S) times the samples' variance over
                     the squared error of their mean: below 1 too narrow, above 1 too wide

The error of the mean of S samples has the variance (1 + 1/S) v under a right posterior: hence the factor. A
figure fails when it is told to be further from its expected value than TOLERANCE, which is what a standard
deviation wrong by 5 % brings; the band is that much wider on each side. The interval beside each figure is
Student's, 95 %, over problems.
"""

from dataclasses import dataclass

import numpy as np

from invsolve.bench.figures import interval
from invsolve.calibration.figures import Table

__all__ = ["TOLERANCE", "Check", "check_chi2", "check_coverage", "check_variance"]

TOLERANCE = {"coverage": 0.02, "chi2": 0.1, "variance_ratio": 0.1}
_DRAWS = 20_000


@dataclass(frozen=True)
class Check:
    """A figure, its 95 % interval over problems, and what a right posterior gives: value, band, p-value."""

    value: float
    interval: tuple[float, float]
    expected: float
    band: tuple[float, float]
    p: float


def check_coverage(table: Table, level: float, seed: int) -> Check:
    """Check the share of the truth's values that is inside, from (N, S + 1)."""
    value, half = interval(table[:, 0].tolist())
    null, expected = _exchanged(table, seed), float(table.mean())
    return _check(value, half, expected, null - expected, TOLERANCE["coverage"], level)


def check_chi2(table: Table, level: float, seed: int) -> Check:
    """Check the residuals of the samples against those of the truths, from (N, S + 1)."""
    cells = table.shape[1]
    value, half = interval(table[:, 1:].mean(1).tolist())
    chosen = _exchanged(table, seed)
    gaps = (cells * table.mean() - chosen) / (cells - 1) - chosen
    return _check(value, half, float(table[:, 0].mean()), gaps, TOLERANCE["chi2"], level)


def check_variance(table: Table, level: float, seed: int) -> Check:
    """Check the samples' variance against the error of their mean, from squares (N, S + 1)."""
    total, truth, cells = table.sum(1), table[:, 0], table.shape[1]
    value = float(_ratio(total.mean(), truth.mean(), cells))
    null = _ratio(total.mean(), _exchanged(table, seed), cells)
    half = _half_width(total, truth, cells)
    return _check(value, half, 1.0, null - 1, TOLERANCE["variance_ratio"], level)


def _check(value: float, half: float, expected: float, gaps: Table, tolerance: float, level: float) -> Check:
    """Compare value - expected with the gaps that a right posterior would show, (draws,)."""
    low, high = np.quantile(gaps, [level / 2, 1 - level / 2])
    band = (expected + float(low) - tolerance, expected + float(high) + tolerance)
    gap = value - expected
    tails = (np.count_nonzero(gaps + tolerance >= gap), np.count_nonzero(gaps - tolerance <= gap))
    p = min(1.0, 2 * (int(min(tails)) + 1) / (len(gaps) + 1))
    return Check(value, (value - half, value + half), expected, band, p)


def _ratio(total: float, truth: Table | float, cells: int) -> Table:
    """(1 + 1/S) variance over squared error, S + 1 cells, from sums of squares about the mean of all S +
    1."""
    variance, error = _parts(total, truth, cells)
    return variance / error


def _parts(total: Table | float, truth: Table | float, cells: int) -> tuple[Table, Table]:
    samples = cells - 1
    variance = (total - cells / samples * np.asarray(truth)) / (samples - 1)
    return (1 + 1 / samples) * variance, (cells / samples) ** 2 * np.asarray(truth)


def _half_width(total: Table, truth: Table, cells: int) -> float:
    """Half the 95 % interval of a ratio of means: that of the mean of (a - ratio b) / mean(b)."""
    variance, error = _parts(total, truth, cells)
    gaps = (variance - variance.mean() / error.mean() * error) / error.mean()
    return interval(gaps.tolist())[1]


def _exchanged(table: Table, seed: int) -> Table:
    """Means over problems of a draw chosen at random in each, (draws,)."""
    rng, total = np.random.default_rng(seed), np.zeros(_DRAWS)
    for row in table:
        total += row[rng.integers(0, len(row), _DRAWS)]
    return total / len(table)
