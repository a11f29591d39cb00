"""What every benchmark prints: an interval for a mean, one for a ratio of means, and a table."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t  # type: ignore[import-untyped]  # scipy ships no types

__all__ = ["interval", "over", "table"]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; NaN for a single value."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)) if n else float("nan"), float("nan")
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return float(np.mean(values)), half


def over(values: Sequence[float], floors: Sequence[float]) -> tuple[float, float]:
    """Mean of the values over that of their floors, and half the width of the ratio's 95 % interval.

    The two are paired, a seed each: to first order the ratio R errs by mean(v - R f) / mean(f), whose spread
    is that of v - R f. NaN for no values, and half of it for a single one.
    """
    if not values:
        return float("nan"), float("nan")
    level = float(np.mean(floors))
    ratio = float(np.mean(values)) / level
    _, half = interval([v - ratio * f for v, f in zip(values, floors, strict=True)])
    return ratio, half / level


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
