"""From a prior and a likelihood to a result, in one call: what `invsolve run` does with files, for a
notebook.

    result = solve(load_prior("photo"), Gaussian(y, operator, sigma_y=0.02), n=8, seed=0)
    result.mean, result.std, result.samples

Each part is an object, or the name under which it is registered, which stands for it with its defaults.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from invsolve.errors import Refused
from invsolve.gamma import Gamma
from invsolve.guidance import Guidance
from invsolve.likelihood import Likelihood
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.result import Result
from invsolve.samplers.correctors import Corrector
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import Predictor
from invsolve.sde import SDE

__all__ = ["Sampler", "build_part", "solve"]

Sampler = Callable[[Posterior, int, int], Tensor]


def solve(
    prior: Prior,
    likelihood: Likelihood | None,
    *,
    sde: SDE | str = "ve",
    guidance: Guidance | str = "moment-matching",
    sampler: Sampler | str = "auto",
    predictor: Predictor | str | None = None,
    corrector: Corrector | str | None = None,
    gamma: Gamma = 1.0,
    steps: int | None = None,
    n: int = 8,
    seed: int = 0,
) -> Result:
    """Draw n samples of the posterior; without a likelihood, of the prior.

    sampler "auto" is PC with DPM-Solver++ in its SDE form on a Karras grid. predictor, corrector and steps
    are PC's, by default its own; a sampler given as an object has its own.
    """
    posterior = Posterior(
        prior, likelihood, sde=build_part("sde", sde), guidance=build_part("guidance", guidance), gamma=gamma
    )
    draw = _sampler(sampler, {"predictor": predictor, "corrector": corrector, "steps": steps})
    before, started = Counter(getattr(likelihood, "calls", {})), time.perf_counter()
    samples = draw(posterior, n, seed)
    calls = posterior.calls + (Counter(getattr(likelihood, "calls", {})) - before)
    return Result(
        samples=samples,
        nfe={name: calls[name] / n for name in ("forward", "vjp", "A", "At")},
        seconds=time.perf_counter() - started,
        measurement=getattr(likelihood, "y", None),
        config={
            "gamma": gamma if isinstance(gamma, float | int) else repr(gamma),
            "samples": n,
            "sampler": repr(draw),
            "sde": repr(posterior.sde),
        },
        seed=seed,
        prior_sha256=str(getattr(prior, "sha256", "")),
    )


def build_part(kind: str, part: Any) -> Any:  # noqa: ANN401  an object of any kind, or its name
    """Build a part from its name; objects are themselves."""
    if not isinstance(part, str):
        return part
    from invsolve.plugins import load

    return load().build(kind, part)


def _sampler(sampler: Sampler | str, given: dict[str, Any]) -> Any:  # noqa: ANN401  any callable sampler
    """Build the sampler with the parts of PC that were given."""
    parts = {kind: build_part(kind, part) for kind, part in given.items() if part is not None}
    if sampler in ("auto", "pc"):
        return PC(**parts)
    if not parts:
        return build_part("sampler", sampler)
    if isinstance(sampler, str):
        from invsolve.plugins import load

        return load().build("sampler", sampler, options=parts)
    raise Refused(
        f"{', '.join(parts)} are parts of PC: give them to the sampler that is passed, {sampler!r}."
    )
