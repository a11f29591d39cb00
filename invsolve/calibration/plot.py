"""The picture of a calibration: coverage and TARP curves above, rank histograms below."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from invsolve.calibration.figures import SHARES
from invsolve.calibration.report import Calibration
from invsolve.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]

_COLUMNS = 4


def plot(found: Calibration, path: Path) -> None:
    """Draw what was found beside what uniform ranks and a right posterior give, in grey."""
    from matplotlib.figure import Figure

    rows = 1 + -(-len(found.sbc) // _COLUMNS)
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, _COLUMNS, 1 + i) for i in range(_COLUMNS + len(found.sbc))]
    _coverage(axes[0], found)
    _tarp(axes[1], found)
    for place, name in zip(axes[2:_COLUMNS], ("chi2", "variance_ratio"), strict=True):
        _figure(place, found, name)
    for place, name in zip(axes[_COLUMNS:], found.sbc, strict=True):
        _histogram(place, found, name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_whole(path, buffer.getvalue())


def _title(axes: "Axes", found: Calibration, name: str, shown: str) -> None:
    fails = found.p_values[name] < found.threshold
    axes.set_title(f"{shown}: FAIL" if fails else shown, fontsize=9, color="tab:red" if fails else "black")
    axes.tick_params(labelsize=7)


def _coverage(axes: "Axes", found: Calibration) -> None:
    checks = [check for name, check in found.checks.items() if name.startswith("coverage")]
    low, high = zip(*(check.band for check in checks), strict=True)
    axes.fill_between(SHARES, low, high, color="lightgrey")
    axes.plot((0.4, 1), (0.4, 1), color="black", linewidth=0.8)
    axes.plot(SHARES, [check.value for check in checks], "o-")
    worst = min(
        (name for name in found.checks if name.startswith("coverage")), key=found.p_values.__getitem__
    )
    _title(axes, found, worst, "coverage of 50, 90, 95 %")


def _tarp(axes: "Axes", found: Calibration) -> None:
    expected, band = found.tarp.expected, found.tarp.band
    axes.fill_between(expected, [e - band for e in expected], [e + band for e in expected], color="lightgrey")
    axes.plot((0, 1), (0, 1), color="black", linewidth=0.8)
    axes.plot(expected, found.tarp.covered)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _title(axes, found, "tarp", "TARP coverage")


def _figure(axes: "Axes", found: Calibration, name: str) -> None:
    check = found.checks[name]
    axes.axhspan(*check.band, color="lightgrey")
    axes.axhline(check.expected, color="black", linewidth=0.8)
    half = check.value - check.interval[0]
    axes.errorbar([0], [check.value], yerr=[half], fmt="o", capsize=4)
    axes.set_xticks([])
    _title(axes, found, name, name.replace("_", " "))


def _histogram(axes: "Axes", found: Calibration, name: str) -> None:
    item = found.sbc[name]
    axes.axhspan(*item.band, color="lightgrey")
    axes.bar(range(len(item.counts)), item.counts, width=0.9)
    axes.axhline(sum(item.counts) / len(item.counts), color="black", linewidth=0.8)
    axes.set_xticks([])
    _title(axes, found, f"sbc {name}", name)
