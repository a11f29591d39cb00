"""From a prior and a likelihood to a result, in one call: what `invsolve run` does with files, for a
notebook.

    result = solve(load_prior("photo"), Gaussian(y, operator, sigma_y=0.02), n=8, seed=0)
    result.mean, result.std, result.samples

Each part is an object, or the name under which it is registered, which stands for it with its defaults.
Sampler and guidance are "auto" unless they are named: choice.py has the rules, and result.chosen what they
came to.
"""

import inspect
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from invsolve.choice import AUTO, Choice, choose
from invsolve.errors import Refused
from invsolve.gamma import Gamma
from invsolve.guidance import Guidance, MomentMatching
from invsolve.likelihood import Likelihood
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.result import Result
from invsolve.samplers.correctors import Corrector
from invsolve.samplers.predictors import Predictor
from invsolve.sde import SDE

__all__ = ["Sampler", "build_part", "solve"]

Sampler = Callable[[Posterior, int, int], Tensor]


def solve(
    prior: Prior,
    likelihood: Likelihood | None,
    *,
    sde: SDE | str = "ve",
    guidance: Guidance | str = AUTO,
    sampler: Sampler | str = AUTO,
    predictor: Predictor | str | None = None,
    corrector: Corrector | str | None = None,
    gamma: Gamma = 1.0,
    steps: int | None = None,
    n: int = 8,
    seed: int = 0,
) -> Result:
    """Draw n samples of the posterior; without a likelihood, of the prior.

    For a linear operator "auto" is PC, that is DPM-Solver++ in its SDE form on a geometric grid, with moment
    matching. predictor, corrector and steps are the sampler's, by default its own; one given as an object has
    them already.
    """
    parts = {"predictor": predictor, "corrector": corrector, "steps": steps}
    sampler, guidance, choice = _settled(prior, likelihood, sampler, guidance, parts)
    posterior = Posterior(
        prior, likelihood, sde=build_part("sde", sde), guidance=build_part("guidance", guidance), gamma=gamma
    )
    draw = _sampler(sampler, parts)
    if choice and choice.guidance and not getattr(draw, "uses_guidance", True):
        choice = None  # the sampler was named, and takes no guidance
    before, started = Counter(getattr(likelihood, "calls", {})), time.perf_counter()
    samples, ess, log_evidence = _drawn(draw, posterior, n, seed)
    calls = posterior.calls + (Counter(getattr(likelihood, "calls", {})) - before)
    return Result(
        samples=samples,
        ess=ess,
        log_evidence=log_evidence,
        nfe={name: calls[name] / n for name in ("forward", "vjp", "A", "At")},
        seconds=time.perf_counter() - started,
        measurement=getattr(likelihood, "y", None),
        config=_config(posterior, draw, gamma, n),
        seed=seed,
        prior_sha256=str(getattr(prior, "sha256", "")),
        chosen=str(choice or ""),
    )


def _config(posterior: Posterior, draw: Sampler, gamma: Gamma, n: int) -> dict[str, object]:
    """What the samples were drawn with, for their file."""
    return {
        "gamma": gamma if isinstance(gamma, float | int) else repr(gamma),
        "guidance": repr(posterior.guidance),
        "samples": n,
        "sampler": repr(draw),
        "sde": repr(posterior.sde),
    }


def _settled(
    prior: Prior,
    likelihood: Likelihood | None,
    sampler: Sampler | str,
    guidance: Guidance | str,
    parts: dict[str, Any],  # Any: parts of any kind, or their names
) -> tuple[Sampler | str, Guidance | str, Choice | None]:
    """Sampler and guidance with what "auto" takes in its place, and that choice: None without it."""
    if AUTO not in (sampler, guidance):
        return sampler, guidance, None
    chosen = _chosen(prior, likelihood, sampler, guidance, parts)
    sampler = chosen.sampler if sampler == AUTO else sampler
    guidance = chosen.guidance or MomentMatching() if guidance == AUTO else guidance
    return sampler, guidance, chosen


def _chosen(
    prior: Prior,
    likelihood: Likelihood | None,
    sampler: Sampler | str,
    guidance: Guidance | str,
    parts: dict[str, Any],  # Any: parts of any kind, or their names
) -> Choice:
    """Fill in what is to be chosen; what is given as an object stands as its class."""
    from invsolve.plugins import load

    names = [part if isinstance(part, str) else type(part).__name__ for part in (sampler, guidance)]
    given = [kind for kind in ("predictor", "corrector") if parts[kind] is not None]
    offered = load().names("sampler")
    return choose(prior, likelihood, offered, sampler=names[0], guidance=names[1], parts=given)


def _drawn(
    draw: Any,  # noqa: ANN401  any callable sampler
    posterior: Posterior,
    n: int,
    seed: int,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Draw samples; of a sampler of particle sets, their effective sizes and evidences, too."""
    if hasattr(draw, "weighed"):
        samples, ess, log_evidence = draw.weighed(posterior, n, seed)
        return samples, ess, log_evidence
    return draw(posterior, n, seed), None, None


def build_part(kind: str, part: Any) -> Any:  # noqa: ANN401  an object of any kind, or its name
    """Build a part from its name; objects are themselves."""
    if not isinstance(part, str):
        return part
    from invsolve.plugins import load

    return load().build(kind, part)


def _sampler(sampler: Sampler | str, given: dict[str, Any]) -> Any:  # noqa: ANN401  any callable sampler
    """Build the sampler with the parts that were given; Refused for those it does not take."""
    parts = {kind: build_part(kind, part) for kind, part in given.items() if part is not None}
    if not isinstance(sampler, str):
        if parts:
            raise Refused(
                f"{', '.join(parts)} are parts of PC: give them to the sampler that is passed, {sampler!r}."
            )
        return sampler
    from invsolve.plugins import load

    registry = load()
    foreign = set(parts) - set(inspect.signature(registry.get("sampler", sampler)).parameters)
    if foreign:
        raise Refused(f"sampler {sampler} takes no {' and no '.join(sorted(foreign))}.")
    return registry.build("sampler", sampler, options=parts)
