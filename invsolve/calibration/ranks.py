"""Is the truth's rank among the samples uniform on 0 .. S?

SBC (Talts et al. 2018, arXiv:1804.06788) asks it of a number of the image, over problems: a histogram that is
U-shaped means samples too narrow, one like a hill too wide, a slope biased. TARP (Lemos et al. 2023,
arXiv:2302.03026) asks it of the distance to a random reference point, which sees all values at once, and
reads the ranks as a curve: the share of truths among the nearest i of S + 1 against i / (S + 1).

The samples are independent, so nothing is thinned. Bins divide S + 1, so each is as likely as any other. Ties
are broken at random.

p-values are simulated, not taken from a limit law: few problems have a right one too. They are the largest of
four: for uniform ranks, and for those of a posterior that is just good enough, its mean wrong by MEAN
standard deviations and its sd by the factor 1 - SD, 1 or 1 + SD. For a Gaussian such ranks have the law

    P(rank = i) = E_z[ Binomial(i; S, Phi((z - MEAN) / factor)) ],   z ~ N(0, 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.stats import binom, norm  # type: ignore[import-untyped]  # scipy ships no types

from invsolve.calibration.figures import Table

__all__ = ["MEAN", "SD", "Curve", "Histogram", "Ranks", "curve", "histogram", "rank_law", "ranks_of"]

MEAN, SD = 0.1, 0.05
Ranks = NDArray[np.int64]
_DRAWS = 20_000  # simulated histograms a null law is made of: p-values have a floor of 1 / 20,001
_MOST = 20  # bins
_FULL = 5  # problems a bin should have on average
_NODES = 61  # of the quadrature over z


@dataclass(frozen=True)
class Histogram:
    """Counts of ranks; band is where each bin lies for uniform ranks, all bins together with 1 - level."""

    counts: tuple[int, ...]
    band: tuple[int, int]
    chi2: float
    p: float


@dataclass(frozen=True)
class Curve:
    """Share of truths inside against the share expected; band is how far a curve of uniform ranks strays with
    1 - level."""

    expected: tuple[float, ...]
    covered: tuple[float, ...]
    band: float
    deviation: float
    p: float


def ranks_of(table: Table, seed: int) -> Ranks:
    """Count the samples below the truth, which is column 0 of (N, S + 1): (N,) in 0 .. S."""
    truth, samples = table[:, :1], table[:, 1:]
    ties = (samples == truth).sum(1)
    among = np.floor(np.random.default_rng(seed).random(len(table)) * (ties + 1)).astype(np.int64)
    below: Ranks = (samples < truth).sum(1) + among
    return below


def histogram(ranks: Ranks, samples: int, level: float) -> Histogram:
    """Count ranks in equal bins, and compare with what uniform ranks give."""
    n, bins = len(ranks), _bins(samples + 1, len(ranks))
    counts = np.bincount(ranks * bins // (samples + 1), minlength=bins)
    found = float(_chi2(counts[None], n)[0])
    tail = level / bins / 2
    band = binom.ppf([tail, 1 - tail], n, 1 / bins)
    p = _p(found, _nulls(_chi2, n, samples, bins))
    return Histogram(tuple(counts.tolist()), (int(band[0]), int(band[1])), found, p)


def curve(ranks: Ranks, samples: int, level: float) -> Curve:
    """Cumulate ranks into the coverage of balls around the reference."""
    n, cells = len(ranks), samples + 1
    counts = np.bincount(ranks, minlength=cells)
    nulls = _nulls(_deviation, n, samples, cells)
    found = float(_deviation(counts[None], n)[0])
    expected = np.arange(cells + 1) / cells
    covered = np.concatenate([[0.0], counts.cumsum() / n])
    band = float(np.quantile(nulls[0], 1 - level, method="higher"))
    return Curve(tuple(expected.tolist()), tuple(covered.tolist()), band, found, _p(found, nulls))


def rank_law(samples: int, mean: float, factor: float) -> Table:
    """Law of the rank of z ~ N(0, 1) among samples of N(mean, factor^2), (S + 1,)."""
    nodes, weights = hermegauss(_NODES)
    below = norm.cdf((nodes[:, None] - mean) / factor)
    law: Table = (weights[:, None] * binom.pmf(np.arange(samples + 1), samples, below)).sum(0)
    law /= law.sum()
    return law


def _bins(cells: int, n: int) -> int:
    """Choose the most bins that divide the S + 1 ranks and have enough problems each; else the fewest."""
    divisors = [d for d in range(2, cells + 1) if cells % d == 0]
    return max((d for d in divisors if d <= min(_MOST, n // _FULL)), default=divisors[0])


@lru_cache(maxsize=8)
def _nulls(statistic: Callable[[Ranks, int], Table], n: int, samples: int, bins: int) -> list[Table]:
    """Law of a statistic of n ranks, as sorted draws: of uniform ranks, and of posteriors just good
    enough."""
    laws = [np.full(samples + 1, 1 / (samples + 1))]
    laws += [rank_law(samples, MEAN, factor) for factor in (1 - SD, 1.0, 1 + SD)]
    rng = np.random.default_rng(n)
    drawn = (rng.multinomial(n, law.reshape(bins, -1).sum(1), _DRAWS) for law in laws)
    return [np.sort(statistic(counts, n)) for counts in drawn]


def _chi2(counts: Ranks, n: int) -> Table:
    expected = n / counts.shape[1]
    found: Table = (np.square(counts - expected) / expected).sum(1)
    return found


def _deviation(counts: Ranks, n: int) -> Table:
    """Largest distance of the cumulated shares (draws, cells) from the diagonal."""
    cells = counts.shape[1]
    found: Table = np.abs(counts.cumsum(1) / n - np.arange(1, cells + 1) / cells).max(1)
    return found


def _p(found: float, nulls: Sequence[Table]) -> float:
    """Largest p-value of a statistic that is large when something is wrong; rounding makes no difference."""
    above = max(len(null) - int(np.searchsorted(null, found - 1e-9)) for null in nulls)
    return (above + 1) / (_DRAWS + 1)
