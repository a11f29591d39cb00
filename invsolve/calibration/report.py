"""All figures of a calibration, and the verdict.

A test fails where a posterior is told to be wrong by more than is tolerated: its mean by 0.1
standard deviations, its sd by 5 %, its coverage by 0.02 (ranks.py, exchange.py). LEVEL is the chance that a
posterior good enough fails any of the T tests: each fails at a p-value below LEVEL / T (Bonferroni), and
bands are drawn at that level.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from invsolve.bench.figures import table
from invsolve.calibration.exchange import Check, check_chi2, check_coverage, check_variance
from invsolve.calibration.figures import SHARES, Figures
from invsolve.calibration.ranks import Curve, Histogram, curve, histogram, ranks_of
from invsolve.calibration.simulate import Outcome
from invsolve.errors import Divergence, InputError
from invsolve.rng import seed_of

__all__ = ["LEVEL", "Calibration", "conclude"]

LEVEL = 0.01
_OTHER_TESTS = 3 + len(SHARES)  # TARP, chi2, the variance ratio, and a coverage each


@dataclass(frozen=True)
class Calibration:
    """SBC histograms by quantity, the TARP curve, checks by figure; nfe and seconds are a sample's.

    chosen is what "auto" took, and why; empty where sampler and guidance were named.
    """

    problems: int
    samples: int
    seed: int
    sbc: Mapping[str, Histogram]
    tarp: Curve
    checks: Mapping[str, Check]
    diverged: int
    nfe: Mapping[str, float]
    seconds: float
    chosen: str = ""

    @property
    def threshold(self) -> float:
        """p-value below which one test fails."""
        return LEVEL / (len(self.sbc) + _OTHER_TESTS)

    @cached_property
    def p_values(self) -> dict[str, float]:
        """p-value of each test by its name."""
        found = {f"sbc {name}": item.p for name, item in self.sbc.items()}
        return found | {"tarp": self.tarp.p} | {name: check.p for name, check in self.checks.items()}

    @property
    def failed(self) -> list[str]:
        """Names of the tests that failed, and "diverged" where a solve did."""
        low = [name for name, p in self.p_values.items() if p < self.threshold]
        return low + ["diverged"] * bool(self.diverged)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def coverage(self) -> dict[str, float]:
        """Share of truth values inside the central 50, 90 and 95 % intervals."""
        return {f"{100 * share:.0f}": self.checks[_coverage(share)].value for share in SHARES}

    @property
    def chi2(self) -> float:
        """Mean squared residual of the samples per measured entry, in units of sigma_y: about 1."""
        return self.checks["chi2"].value

    @property
    def variance_ratio(self) -> float:
        """Variance that the samples claim over the squared error of their mean: 1; below, too narrow."""
        return self.checks["variance_ratio"].value

    @property
    def dispersion(self) -> float:
        """metrics.dispersion of all problems together: ((S + 1) + (S - 1) variance_ratio) / 2 S."""
        s = self.samples
        return ((s + 1) + (s - 1) * self.variance_ratio) / (2 * s)

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """All of it as plain data."""
        sbc = {name: asdict(item) | self._verdict(f"sbc {name}") for name, item in self.sbc.items()}
        checks = {name: asdict(check) | self._verdict(name) for name, check in self.checks.items()}
        own = {"passed": self.passed, "failed": self.failed, "level": LEVEL, "threshold": self.threshold}
        counts = {name: getattr(self, name) for name in ("problems", "samples", "seed", "diverged")}
        figures = {name: getattr(self, name) for name in ("coverage", "chi2", "variance_ratio", "dispersion")}
        tests = {"sbc": sbc, "tarp": asdict(self.tarp) | self._verdict("tarp")}
        cost = {"nfe": dict(self.nfe), "seconds": self.seconds}
        cost |= {"chosen": self.chosen} if self.chosen else {}
        return tests | figures | {"checks": checks} | own | counts | cost

    def _verdict(self, name: str) -> dict[str, bool]:
        return {"passed": self.p_values[name] >= self.threshold}

    def text(self) -> str:
        """Tables for the screen."""
        head = ["figure", "value", "95 % interval", "right posterior", "p", "verdict"]
        checks = table(head, [self._line(name, check) for name, check in self.checks.items()])
        ranks = {"tarp": self.tarp.p} | {f"sbc {name}": item.p for name, item in self.sbc.items()}
        ranked = table(["ranks", "p", "verdict"], [[n, f"{p:.4f}", self._word(n)] for n, p in ranks.items()])
        told = "passed" if self.passed else f"FAILED: {', '.join(self.failed)}"
        solved = f"{self.problems} problems x {self.samples} samples"
        lost = f", {self.diverged} diverged" if self.diverged else ""
        last = f"{told} ({solved}{lost}; a right posterior fails with a chance of {LEVEL:.0%})"
        return f"{checks}\n\n{ranked}\n\n{last}"

    def _line(self, name: str, check: Check) -> list[str]:
        low, high = (f"{end:.3f}" for end in check.interval)
        right = f"{check.expected:.3f} ({check.band[0]:.3f} to {check.band[1]:.3f})"
        shown = name.replace("_", " ")
        return [shown, f"{check.value:.3f}", f"{low} to {high}", right, f"{check.p:.4f}", self._word(name)]

    def _word(self, name: str) -> str:
        return "pass" if self.p_values[name] >= self.threshold else "FAIL"


def conclude(outcomes: Sequence[Outcome], samples: int, seed: int) -> Calibration:
    """Put the problems together; those that diverged are counted and make the verdict."""
    found = [outcome.figures for outcome in outcomes if outcome.figures is not None]
    if len(outcomes) < 2:
        raise InputError(f"problems must be at least 2, to have a spread, but it is {len(outcomes)}.")
    if len(found) < 2:
        raise Divergence(f"{len(outcomes) - len(found)} of {len(outcomes)} problems diverged.")
    names = list(found[0].quantities)
    level = LEVEL / (len(names) + _OTHER_TESTS)
    sbc = {
        name: histogram(ranks_of(_stack(found, name), seed_of("ties", name, seed)), samples, level)
        for name in names
    }
    distances = np.stack([each.distance for each in found])
    tarp = curve(ranks_of(distances, seed_of("ties", "tarp", seed)), samples, level)
    costs = [outcome.nfe for outcome in outcomes if outcome.figures is not None]
    seconds = sum(outcome.seconds for outcome in outcomes)
    solved = len(found)
    return Calibration(
        problems=len(outcomes),
        samples=samples,
        seed=seed,
        sbc=sbc,
        tarp=tarp,
        checks=_checks(found, level, seed),
        diverged=len(outcomes) - solved,
        nfe={name: sum(cost[name] for cost in costs) / solved for name in costs[0]},
        seconds=round(seconds / solved / samples, 4),
        chosen=next((outcome.chosen for outcome in outcomes if outcome.chosen), ""),
    )


def _stack(found: Sequence[Figures], name: str) -> Any:  # noqa: ANN401  an array (N, S + 1)
    return np.stack([each.quantities[name] for each in found])


def _checks(found: Sequence[Figures], level: float, seed: int) -> dict[str, Check]:
    inside = np.stack([each.inside for each in found], 1)
    own = seed_of("exchange", seed)
    checks = {_coverage(s): check_coverage(rows, level, own) for s, rows in zip(SHARES, inside, strict=True)}
    checks["chi2"] = check_chi2(np.stack([each.chi2 for each in found]), level, own)
    checks["variance_ratio"] = check_variance(np.stack([each.square for each in found]), level, own)
    return {name: _finite(name, check) for name, check in checks.items()}


def _coverage(share: float) -> str:
    return f"coverage {100 * share:.0f}"


def _finite(name: str, check: Check) -> Check:
    """Refuse a figure that has no value: the samples have no spread and no error."""
    if not math.isfinite(check.value):
        raise InputError(f"{name} is {check.value}: the samples equal the truth. Is sigma_y far too small?")
    return check
