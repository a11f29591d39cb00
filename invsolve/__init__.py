"""Imaging inverse problems with score-based priors, and a posterior that is measured against the truth.

    posterior = Posterior(prior, Gaussian(y, operator, sigma_y=0.05), sde=VE(), guidance=MomentMatching())
    samples = PC(steps=50)(posterior, n=16, seed=0)

Every public name can be imported from here; its module is imported at the first use and not before.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invsolve import operators as operators
    from invsolve.calibration import Calibration as Calibration
    from invsolve.calibration import calibrate as calibrate
    from invsolve.classifiers.formats import load_classifier as load_classifier
    from invsolve.errors import InvsolveError as InvsolveError
    from invsolve.exact import GaussianPrior as GaussianPrior
    from invsolve.exact import MixturePrior as MixturePrior
    from invsolve.exact import exact_posterior as exact_posterior
    from invsolve.gamma import Ramp as Ramp
    from invsolve.guidance import DPS as DPS
    from invsolve.guidance import ClassifierGuidance as ClassifierGuidance
    from invsolve.guidance import Exact as Exact
    from invsolve.guidance import Guidance as Guidance
    from invsolve.guidance import MomentMatching as MomentMatching
    from invsolve.guidance import PiGDM as PiGDM
    from invsolve.guidances import DDNM as DDNM
    from invsolve.guidances import DDRM as DDRM
    from invsolve.guidances import ILVR as ILVR
    from invsolve.guidances import TMPD as TMPD
    from invsolve.guidances import DDNMPlus as DDNMPlus
    from invsolve.guidances import DiffPIR as DiffPIR
    from invsolve.guidances import Replace as Replace
    from invsolve.guidances import ScoreALD as ScoreALD
    from invsolve.hookspecs import hookimpl as hookimpl
    from invsolve.likelihood import Classifier as Classifier
    from invsolve.likelihood import Gaussian as Gaussian
    from invsolve.likelihood import Likelihood as Likelihood
    from invsolve.likelihood import Poisson as Poisson
    from invsolve.posterior import Posterior as Posterior
    from invsolve.prior import Denoised as Denoised
    from invsolve.prior import EnergyPrior as EnergyPrior
    from invsolve.prior import Prior as Prior
    from invsolve.priors.catalogue import load_prior as load_prior
    from invsolve.result import Result as Result
    from invsolve.samplers.correctors import AnnealedLangevin as AnnealedLangevin
    from invsolve.samplers.correctors import Corrector as Corrector
    from invsolve.samplers.correctors import Langevin as Langevin
    from invsolve.samplers.correctors import NoCorrector as NoCorrector
    from invsolve.samplers.daps import DAPS as DAPS
    from invsolve.samplers.density import LogProb as LogProb
    from invsolve.samplers.density import bits_per_dim as bits_per_dim
    from invsolve.samplers.density import dequantise as dequantise
    from invsolve.samplers.density import estimate_log_prob as estimate_log_prob
    from invsolve.samplers.density import log_prob as log_prob
    from invsolve.samplers.enkg import EnKG as EnKG
    from invsolve.samplers.flow import decode as decode
    from invsolve.samplers.flow import encode as encode
    from invsolve.samplers.ode import ProbabilityFlow as ProbabilityFlow
    from invsolve.samplers.pc import PC as PC
    from invsolve.samplers.pc import Step as Step
    from invsolve.samplers.pnp_dm import PnPDM as PnPDM
    from invsolve.samplers.predictors import Ancestral as Ancestral
    from invsolve.samplers.predictors import DPMpp as DPMpp
    from invsolve.samplers.predictors import EulerMaruyama as EulerMaruyama
    from invsolve.samplers.predictors import Heun as Heun
    from invsolve.samplers.predictors import NoPredictor as NoPredictor
    from invsolve.samplers.predictors import Predictor as Predictor
    from invsolve.samplers.predictors import ReverseDiffusion as ReverseDiffusion
    from invsolve.samplers.red_diff import REDDiff as REDDiff
    from invsolve.samplers.renoise import Renoise as Renoise
    from invsolve.samplers.smc import TwistedSMC as TwistedSMC
    from invsolve.sde import SDE as SDE
    from invsolve.sde import VE as VE
    from invsolve.sde import VP as VP
    from invsolve.sde import SubVP as SubVP
    from invsolve.solve import solve as solve

    from . import testing as testing

    __version__: str

_MODULES = {  # module: its public names
    "calibration": ("Calibration", "calibrate"),
    "classifiers.formats": ("load_classifier",),
    "errors": ("InvsolveError",),
    "exact": ("GaussianPrior", "MixturePrior", "exact_posterior"),
    "gamma": ("Ramp",),
    "guidance": ("ClassifierGuidance", "DPS", "Exact", "Guidance", "MomentMatching", "PiGDM"),
    "guidances": ("DDNM", "DDRM", "ILVR", "TMPD", "DDNMPlus", "DiffPIR", "Replace", "ScoreALD"),
    "hookspecs": ("hookimpl",),
    "likelihood": ("Classifier", "Gaussian", "Likelihood", "Poisson"),
    "posterior": ("Posterior",),
    "prior": ("Denoised", "EnergyPrior", "Prior"),
    "priors.catalogue": ("load_prior",),
    "result": ("Result",),
    "samplers.correctors": ("AnnealedLangevin", "Corrector", "Langevin", "NoCorrector"),
    "samplers.density": ("LogProb", "bits_per_dim", "dequantise", "estimate_log_prob", "log_prob"),
    "samplers.flow": ("decode", "encode"),
    "samplers.ode": ("ProbabilityFlow",),
    "samplers.daps": ("DAPS",),
    "samplers.enkg": ("EnKG",),
    "samplers.pc": ("PC", "Step"),
    "samplers.pnp_dm": ("PnPDM",),
    "samplers.predictors": (
        "Ancestral",
        "DPMpp",
        "EulerMaruyama",
        "Heun",
        "NoPredictor",
        "Predictor",
        "ReverseDiffusion",
    ),
    "samplers.renoise": ("Renoise",),
    "samplers.red_diff": ("REDDiff",),
    "samplers.smc": ("TwistedSMC",),
    "sde": ("SDE", "VE", "VP", "SubVP"),
    "solve": ("solve",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_PACKAGES = ("operators", "testing")

__all__ = [*_HOME, *_PACKAGES, "__version__"]


class _Package(ModuleType):
    """The package, where the function solve has the name that the import system gives its module."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:  # a checker takes the imports above, and so sees a misspelt name

    def __getattr__(name: str) -> object:
        """Import a public name at its first use."""
        if name in _HOME:
            value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        elif name in _PACKAGES:
            value = importlib.import_module(f"{__name__}.{name}")
        elif name == "__version__":
            value = importlib.import_module("importlib.metadata").version(__name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """List the public names, imported or not."""
        return sorted({*globals(), *__all__})
