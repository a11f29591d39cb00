"""An order in which neighbours are alike: systematic resampling keeps to it.

A comb laid on cumulated weights takes floor or ceil of n W from every run of neighbours of weight W. Where
the particles of a mode stand together, each mode so gets its share of the draws to within one; in random
order the shares scatter nearly as those of independent draws. Each particle's expected number is n w in any
order (Gerber, Chopin and Whiteley 2019, arXiv:1707.01845, with a space-filling curve in place of this tree).

The tree halves the particles at the median along the principal direction in which they differ most, and
halves the halves.
"""

import torch
from torch import Tensor

__all__ = ["neighbours"]

_DIRECTIONS = 8  # principal directions that tell particles apart
_ROWS = 1024  # particles that the directions are taken from
_LEAF = 2  # particles that are not ordered further


def neighbours(x: Tensor) -> Tensor:
    """Return an order of the rows of x (P, *event) that puts like beside like: indices (P,)."""
    scores = _scores(x.flatten(1))
    return _halved(scores, torch.arange(len(x), device=x.device))


def _scores(x: Tensor) -> Tensor:
    """Principal scores (P, directions), float64 on the CPU; the directions are those of a thousand rows."""
    off = x - x.mean(0)
    some = off[:: -(-len(off) // _ROWS)]
    if some.shape[1] < len(some):
        directions = torch.linalg.eigh((some.mT @ some).double())[1][:, -_DIRECTIONS:]
    else:
        values, vectors = torch.linalg.eigh((some @ some.mT).double())
        lengths = values[-_DIRECTIONS:].clamp_min(0).sqrt()
        lengths = lengths.clamp_min(max(1e-3 * float(lengths[-1]), 1e-30))  # rows may span fewer directions
        directions = some.mT @ (vectors[:, -_DIRECTIONS:] / lengths).to(some)
    scores: Tensor = (off @ directions.to(off)).double().cpu()
    return scores


def _halved(scores: Tensor, rows: Tensor) -> Tensor:
    """Order the rows by halving them along the direction of the largest variance, again and again."""
    if len(rows) <= _LEAF:
        return rows
    own = scores[rows.cpu()]
    along = own[:, int(own.var(0).argmax())]
    rows = rows[along.argsort(stable=True).to(rows.device)]
    half = len(rows) // 2
    return torch.cat([_halved(scores, rows[:half]), _halved(scores, rows[half:])])
