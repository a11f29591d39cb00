"""Calibration: are the samples of a solver draws of the posterior? Read off simulated problems.

Draw a truth from the prior, measure it, solve, and do so again and again. Under a right solver truth and
samples are then S + 1 draws of one posterior, which nothing can tell apart; every test here asks whether
something can.

    simulate    the truths, the measurements, and the solver's samples
    figures     what one problem tells: a table of numbers, the truth's beside those of the samples
    ranks       SBC and TARP: is the truth's rank among the samples uniform?
    exchange    coverage, chi2 and variance: does the truth's number stand out from the samples'?
    report      all of it, with intervals, bands and verdicts
"""

from invsolve.calibration.report import Calibration
from invsolve.calibration.study import calibrate

__all__ = ["Calibration", "calibrate"]
