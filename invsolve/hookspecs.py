"""The hooks by which a plugin, and invsolve itself, offers its parts: one hook per kind of part.

Each hook takes no argument and returns {name: factory} or {name: "package.module:attribute"}; names are
kebab-case. A string is imported only when its part is chosen, and is described from its source without
importing it, so that `invsolve list` stays fast. A factory's parameters that have a default and
Annotated[type, "help"] are its options.

    from invsolve import hookimpl

    @hookimpl
    def invsolve_operators():
        return {"stripes": stripes}

The distribution names the module under the entry-point group `invsolve`; installing it is all it takes.
"""

# mypy: disable-error-code=empty-body
# pluggy reads the signatures below; nobody calls the functions

from collections.abc import Callable, Mapping
from typing import Any

import pluggy

__all__ = ["GROUP", "KINDS", "Factory", "Parts", "hook_name", "hookimpl", "hookspec"]

GROUP = "invsolve"
KINDS = (
    "operator",
    "likelihood",
    "sde",
    "prior",
    "guidance",
    "predictor",
    "corrector",
    "sampler",
    "metric",
)

Factory = Callable[..., Any]  # Any: a part is whatever its kind's contract says; hooks only carry it
Parts = Mapping[str, Factory | str]

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


def hook_name(kind: str) -> str:
    """Name the hook of a kind of part: operator -> invsolve_operators."""
    return f"{GROUP}_{kind}s"


@hookspec
def invsolve_operators() -> Parts:
    """Offer operators: factory(shape, **options) -> a physics with A, A_adjoint, A_dagger and shape."""


@hookspec
def invsolve_likelihoods() -> Parts:
    """Offer likelihoods: factory(y, operator, ...) -> an object with log_prob(x0) -> (B,)."""


@hookspec
def invsolve_sdes() -> Parts:
    """Offer SDEs: factory(**options) -> an object with alpha(t) and sigma(t)."""


@hookspec
def invsolve_priors() -> Parts:
    """Offer priors: factory(**options) -> a Prior, that is denoise(x, sigma), sigma_min, sigma_max, shape."""


@hookspec
def invsolve_guidances() -> Parts:
    """Offer guidances: factory(**options) -> a callable (at, likelihood) -> grad log p(y | x_t)."""


@hookspec
def invsolve_predictors() -> Parts:
    """Offer predictors: factory(**options) -> an object with step(posterior, x, t, s, noise, memory)."""


@hookspec
def invsolve_correctors() -> Parts:
    """Offer correctors: factory(**options) -> an object with correct(posterior, x, t, noise)."""


@hookspec
def invsolve_samplers() -> Parts:
    """Offer samplers: factory(**options) -> a callable (posterior, n, seed, first=0) -> (n, *event)."""


@hookspec
def invsolve_metrics() -> Parts:
    """Offer metrics: factory(**options) -> a callable (samples, truth) -> number."""
