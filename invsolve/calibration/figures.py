"""What one problem tells: S + 1 numbers a figure, the truth's first and then those of the samples.

    quantities   the image's mean, some of its values, some random projections, and the residual of a few
                 measured entries: for SBC
    distance     |x_j - r| to a random reference r that knows nothing of the truth: for TARP
    inside       share of the values of x_j inside the interval that the others' mean and sd make
    square       mean square of x_j - m, m the mean of all S + 1
    chi2         |A x_j - y|^2 / (m sigma_y^2), m the measured entries

inside of the truth is the coverage of metrics.coverage90: with the mean m_j and the sd s_j of the other S, a
value of x_j is inside where |x_j - m_j| <= t_{S-1} sqrt(1 + 1/S) s_j. Leaving one out needs no second pass,

    x_j - m_j = (S+1)/S (x_j - m),    (S-1) s_j^2 = sum_i (x_i - m)^2 - (S+1)/S (x_j - m)^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from invsolve.arrays import array
from invsolve.forward import Forward
from invsolve.likelihood import Operator
from invsolve.rng import seed_of

__all__ = ["SHARES", "Figures", "Quantities", "Table", "choose_quantities", "figures_of"]

SHARES = (0.5, 0.9, 0.95)
Table = NDArray[np.float64]
_EACH = 2  # values of each kind, and projections
_ENTRIES = 4  # the residual of all of them would show the smallest error of the noise level, as chi2 does


@dataclass(frozen=True)
class Figures:
    """Rows of S + 1 numbers, the truth's first: by the name of the quantity, and inside by SHARES."""

    quantities: Mapping[str, Table]
    distance: Table
    inside: Table
    square: Table
    chi2: Table


@dataclass(frozen=True)
class Quantities:
    """Numbers of an image that are ranked: its mean, values at flat indices, projections (P, d)."""

    values: Mapping[str, int]
    directions: Table
    seed: int = 0

    def of(self, draws: Table) -> dict[str, Table]:
        """Evaluate draws (n, d): (n,) each."""
        found = {"mean": draws.mean(1)}
        found |= {name: draws[:, i] for name, i in self.values.items()}
        projected = draws @ self.directions.T
        return found | {f"projection {i}": column for i, column in enumerate(projected.T)}

    def entries(self, m: int) -> NDArray[np.int64]:
        """Choose the few of m measured entries whose residual is ranked."""
        return np.random.default_rng(self.seed).choice(m, min(_ENTRIES, m), replace=False)


@torch.no_grad()
def choose_quantities(operator: Operator, like: Tensor, seed: int) -> Quantities:
    """Choose values at random, seen ones and hidden ones where the operator hides any, and directions.

    like (*event) has the shape and the type of an image.
    """
    shape, rng = tuple(like.shape), np.random.default_rng(seed_of("calibration quantities", seed))
    probe = torch.from_numpy(rng.standard_normal((1, *shape))).to(like)
    forward = Forward(operator, shape, like)
    y = forward(probe)
    if forward.transposes or forward.differentiable:
        seen = array(forward.back(y, probe)).reshape(-1) != 0
    else:  # a black box does not tell
        seen = np.ones(probe.numel(), dtype=bool)
    values = {}
    for word, which in (("seen", seen), ("hidden", ~seen)):
        indices = np.flatnonzero(which)
        for i in rng.choice(indices, min(_EACH, len(indices)), replace=False) if len(indices) else ():
            values[f"{word} {','.join(map(str, np.unravel_index(i, shape)))}"] = int(i)
    directions = rng.standard_normal((_EACH, seen.size))
    return Quantities(values, directions / np.linalg.norm(directions, axis=1, keepdims=True), seed)


def figures_of(draws: Tensor, gaps: Tensor, residual: Tensor, quantities: Quantities) -> Figures:
    """Figures of draws (S + 1, *event), truth first.

    gaps are draws minus the reference; residual (S + 1, m) is over the measured entries, in units of sigma_y.
    """
    x, squares = array(draws.flatten(1).double()), np.square(array(residual.double()))
    few = squares[:, quantities.entries(squares.shape[1])].sum(1)
    return Figures(
        quantities.of(x) | {"residual": few},
        array(gaps.flatten(1).double().norm(dim=1)),
        inside(x),
        np.square(x - x.mean(0)).mean(1),
        squares.mean(1),
    )


def inside(x: Table) -> Table:
    """Share of the values of each of x (S + 1, d) inside the interval of the others, by SHARES: (3, S +
    1)."""
    n = len(x)
    squares = np.square(x - x.mean(0))
    gap = squares * (n / (n - 1)) ** 2
    variance = (squares.sum(0) - squares * n / (n - 1)).clip(0) / (n - 2)
    widths = t.ppf((1 + np.array(SHARES)) / 2, n - 2) ** 2 * (1 + 1 / (n - 1))
    return np.array([(gap <= width * variance).mean(1) for width in widths])
