"""Dormand and Prince's Runge-Kutta pair 5(4), with a step size of its own for every row.

    y_new = y + h sum b_i k_i, of order five;      e = h sum (b_i - b*_i) k_i, its difference to order four

A step whose error is within what is allowed is taken, another is tried again; either way the next h follows
from h (allowed / e)^(1/5). Seven slopes a step, but the last is the next step's first: six calls. Rows never
meet: one that has arrived costs nothing, and its steps are the same whatever runs beside it. Dormand and
Prince 1980 (J. Comput. Appl. Math. 6, 19-26); Hairer, Norsett and Wanner 1993, section II.4.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invsolve.errors import Divergence

__all__ = ["DormandPrince", "Error", "Slope"]

_C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0  # of the next step

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]  # u (A,), y (A, n), numbers of the rows (A,) -> (A, n)
Error = Callable[[Tensor, Tensor], Tensor]  # u (A,), e (A, n) -> error over the one allowed, (A,)


@dataclass(frozen=True)
class DormandPrince:
    """Integrator of rows y (B, n) in u, a log noise level: float64 on the CPU."""

    first: float = 0.1  # length of the first step
    longest: float = float("inf")
    tries: int = 1000  # steps tried for a row at most

    def __call__(self, slope: Slope, y: Tensor, start: float, stop: float, error: Error) -> Tensor:
        """Carry y from u = start to stop; Divergence where a row does not arrive, or is not finite."""
        for _, state in self.walk(slope, y, start, stop, error):
            y = state
        return y

    def walk(
        self, slope: Slope, y: Tensor, start: float, stop: float, error: Error
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield how far each row has to go in u, (B,), and its state, after each step tried."""
        side, y = 1.0 if stop > start else -1.0, y.clone()
        left = torch.full((len(y),), abs(stop - start), dtype=torch.float64)
        h = torch.full_like(left, min(self.first, self.longest))
        k = slope(stop - side * left, y, torch.arange(len(y)))
        for _ in range(self.tries):
            rows = left.nonzero()[:, 0]
            step = torch.minimum(h[rows], left[rows])
            u = stop - side * left[rows]
            new, last, e = _step(slope, u, y[rows], k[rows], side * step, rows)
            size = _finite(error(u + side * step, e).double().cpu(), u)
            taken = size <= 1
            y[rows[taken]], k[rows[taken]] = new[taken], last[taken]
            left[rows[taken]] -= step[taken]
            factor = (_SAFETY * size.clamp_min(1e-12) ** -0.2).clamp(_SHRINK, _GROW)
            h[rows] = (step * factor).clamp_max(self.longest)
            yield left, y
            if not left.any():
                return
        raise Divergence(self._stuck(left, float((stop - side * left.max()).exp())))

    def _stuck(self, left: Tensor, level: float) -> str:
        return (
            f"the probability flow of {int((left > 0).sum())} of {len(left)} samples has not arrived after "
            f"{self.tries} steps; the last is at noise level {level:.3g}. The network, or the guidance, is "
            "less smooth than rtol and atol ask for: raise them."
        )


def _step(
    slope: Slope, u: Tensor, y: Tensor, k: Tensor, step: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """State after a step, the slope there, and the difference between the orders."""
    h, slopes, new = step.to(y)[:, None], [k], y
    for c, weights in zip(_C, _A, strict=True):
        new = y + h * _sum(weights, slopes)
        slopes.append(slope(u + c * step, new, rows))
    return new, slopes[-1], h * _sum(_E, slopes)


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = torch.zeros_like(slopes[0])
    for weight, k in zip(weights, slopes, strict=True):
        total = total.add(k, alpha=weight)
    return total


def _finite(size: Tensor, u: Tensor) -> Tensor:
    if not torch.isfinite(size).all():
        level = float(u[~torch.isfinite(size)][0].exp())
        raise Divergence(f"the probability flow became NaN or infinite at noise level {level:.4g}.")
    return size
