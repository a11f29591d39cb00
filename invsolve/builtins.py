"""The parts that come with invsolve, offered through the same hooks as any plugin's.

Each is named as "package.module:attribute", so that listing them imports nothing.
"""

from typing import TYPE_CHECKING

from invsolve.hookspecs import Parts, hookimpl

if TYPE_CHECKING:
    from invsolve.prior import Prior


@hookimpl
def invsolve_operators() -> Parts:
    """Offer the built-in forward maps."""
    names = ("inpaint", "deblur", "superres", "colorize", "denoise")
    return {name: f"invsolve.operators.{name}:{name}" for name in names}


@hookimpl
def invsolve_likelihoods() -> Parts:
    """Offer the built-in noise models, and the class of an image."""
    return {
        "gaussian": "invsolve.likelihood:Gaussian",
        "poisson": "invsolve.likelihood:Poisson",
        "classifier": "invsolve.classifiers.guide:classifier",
    }


@hookimpl
def invsolve_sdes() -> Parts:
    """Offer Song's three SDEs."""
    return {"ve": "invsolve.sde:VE", "vp": "invsolve.sde:VP", "subvp": "invsolve.sde:SubVP"}


@hookimpl
def invsolve_priors() -> Parts:
    """Offer the learned priors whose weights are in the package."""
    return {name: f"invsolve.builtins:{name}" for name in ("photo", "digits", "ellipses")}


def photo() -> "Prior":
    """Colour photographs of any size, learned: a local prior, textures and edges but no objects."""
    from invsolve.priors.catalogue import load_prior

    return load_prior("photo")


def digits() -> "Prior":
    """Handwritten digits, 32 x 32 pixels, learned from MNIST; --likelihood classifier asks for one of ten."""
    from invsolve.priors.catalogue import load_prior

    return load_prior("digits")


def ellipses() -> "Prior":
    """Grey phantoms of any size, learned: ellipses, rims and smooth fields, as in slices of a body."""
    from invsolve.priors.catalogue import load_prior

    return load_prior("ellipses")


@hookimpl
def invsolve_guidances() -> Parts:
    """Offer the built-in approximations of grad log p(y | x_t)."""
    return {
        "exact": "invsolve.guidance:Exact",
        "moment-matching": "invsolve.guidance:MomentMatching",
        "pigdm": "invsolve.guidance:PiGDM",
        "dps": "invsolve.guidance:DPS",
        "replace": "invsolve.guidances.replace:Replace",
        "classifier": "invsolve.guidance:ClassifierGuidance",
        "tmpd": "invsolve.guidances.tmpd:TMPD",
        "score-ald": "invsolve.guidances.score_ald:ScoreALD",
        "ilvr": "invsolve.guidances.ilvr:ILVR",
        "ddnm": "invsolve.guidances.ddnm:DDNM",
        "ddnm-plus": "invsolve.guidances.ddnm:DDNMPlus",
        "diffpir": "invsolve.guidances.diffpir:DiffPIR",
        "ddrm": "invsolve.guidances.ddrm:DDRM",
    }


@hookimpl
def invsolve_predictors() -> Parts:
    """Offer the built-in steps back in time."""
    return {
        "euler-maruyama": "invsolve.samplers.predictors:EulerMaruyama",
        "reverse-diffusion": "invsolve.samplers.predictors:ReverseDiffusion",
        "ancestral": "invsolve.samplers.predictors:Ancestral",
        "heun": "invsolve.samplers.predictors:Heun",
        "dpmpp": "invsolve.samplers.predictors:DPMpp",
        "renoise": "invsolve.samplers.renoise:Renoise",
        "none": "invsolve.samplers.predictors:NoPredictor",
    }


@hookimpl
def invsolve_correctors() -> Parts:
    """Offer the built-in moves at fixed time."""
    return {
        "langevin": "invsolve.samplers.correctors:Langevin",
        "annealed-langevin": "invsolve.samplers.correctors:AnnealedLangevin",
        "none": "invsolve.samplers.correctors:NoCorrector",
    }


@hookimpl
def invsolve_samplers() -> Parts:
    """Offer the built-in samplers."""
    return {
        "pc": "invsolve.samplers.pc:PC",
        "smc": "invsolve.samplers.smc:TwistedSMC",
        "ode": "invsolve.samplers.ode:ProbabilityFlow",
        "daps": "invsolve.samplers.daps:DAPS",
        "pnp-dm": "invsolve.samplers.pnp_dm:PnPDM",
        "red-diff": "invsolve.samplers.red_diff:REDDiff",
        "enkg": "invsolve.samplers.enkg:EnKG",
    }
