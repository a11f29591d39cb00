"""Guidances from the literature, beside the ones that invsolve.guidance explains.

Most say how to correct the mean D = E[x_0 | x_t] rather than the score. With r = y - A D, lambda =
sigma/alpha, and A = U diag(s) V^T where singular values are named, each puts D' in place of D:

    TMPD        D' = D + C A^T r / (V + A C A^T 1),  C = Cov[x_0 | x_t]
    DiffPIR     D' = D + r2 A^T (r2 A A^T + V)^-1 r,  r2 = lambda^2 / weight
    DDNM        D' = D + A^+ r
    DDNMPlus    D' = D + V (w / s) U^T r,  w = min(1, lambda s / sigma_y)
    DDRM        the same, w = eta_b where lambda s >= sigma_y, else sqrt(1 - eta^2) lambda s / sigma_y

and the term of the score is (alpha / sigma^2)(D' - D), so that every SDE, grid, predictor, corrector and
gamma goes with it. ScoreALD is a term of the score, at x_t itself; ILVR and Replace project x_t. Only
TMPD takes derivatives of the prior. None knows Cov[x_0 | x_t] whole, so none is exact beyond the cases
its docstring names; how far each is from the posterior is measured by benchmarks/distances.py.
"""

from invsolve.guidances.ddnm import DDNM, DDNMPlus
from invsolve.guidances.ddrm import DDRM
from invsolve.guidances.diffpir import DiffPIR
from invsolve.guidances.ilvr import ILVR
from invsolve.guidances.replace import Replace
from invsolve.guidances.score_ald import ScoreALD
from invsolve.guidances.tmpd import TMPD

__all__ = ["DDNM", "DDRM", "ILVR", "TMPD", "DDNMPlus", "DiffPIR", "Replace", "ScoreALD"]
