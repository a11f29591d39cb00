"""Rows of the benchmark: a method is a guidance, a sampler, or a sampler with a guidance.

    moment-matching     that guidance with the default sampler
    smc                 that sampler with the default guidance
    smc/pigdm           both
    smc/pigdm@vp        with that SDE; without @ it is VE
    deepinv/dps         another library's (bench/peers.py)

Every guidance and sampler that comes with invsolve is a row; a plugin's is one when it is named. Each has its
own defaults, except that a guidance which asks for the variance of the data is told it, and that VE starts
from 5 standard deviations of the data at least, lest modes be lost.
"""

from dataclasses import dataclass
from typing import Any

from invsolve.bench.mixtures import Problem
from invsolve.bench.peers import LIBRARIES, Peer, peer
from invsolve.errors import UnknownName
from invsolve.plugins import load
from invsolve.result import Result
from invsolve.sde import VE
from invsolve.solve import solve

__all__ = ["Method", "builtin_methods", "method"]

_OTHER = {"classifier", "pc", "auto"}  # for likelihoods without an operator; what every guidance runs with


@dataclass(frozen=True)
class Method:
    """A sampler, a guidance and an SDE by name."""

    name: str
    sampler: str
    guidance: str
    sde: str

    def draw(self, posed: Problem, n: int, seed: int, steps: int | None) -> Result:
        """Draw n samples of the problem's posterior."""
        variance = float(posed.prior.covariance.diagonal().mean())
        return solve(
            posed.prior,
            posed.likelihood,
            sde=VE(sigma_max=max(VE.sigma_max, 5 * posed.prior.extent)) if self.sde == "ve" else self.sde,
            sampler=self.sampler,
            guidance=_guidance(self.guidance, variance),
            steps=steps,
            n=n,
            seed=seed,
        )


def builtin_methods() -> list[str]:
    """Names of the methods that come with invsolve: guidances first, then samplers."""
    parts = [part for part in load().parts if part.distribution == "invsolve"]
    found = [part.name for kind in ("guidance", "sampler") for part in parts if part.kind == kind]
    return [name for name in found if name not in _OTHER]


def method(name: str) -> Method | Peer:
    """Find the method of a name; UnknownName where there is none."""
    if name.partition("/")[0] in LIBRARIES:
        return peer(name)
    registry = load()
    guidances, samplers = registry.names("guidance"), [*registry.names("sampler"), "auto"]
    parts, at, sde = name.partition("@")
    if at and sde not in registry.names("sde"):
        raise UnknownName("sde", sde, registry.names("sde"))
    sampler, slash, guidance = parts.partition("/")
    if slash and sampler in samplers and guidance in guidances:
        return Method(name, sampler, guidance, sde or "ve")
    if parts in guidances:
        return Method(name, "auto", parts, sde or "ve")
    if parts in samplers:
        return Method(name, parts, "moment-matching", sde or "ve")
    raise UnknownName("method", parts, [*guidances, *samplers])


def _guidance(name: str, variance: float) -> Any:  # noqa: ANN401  a guidance of a plugin, perhaps
    registry = load()
    wants = any(option.key == "data_variance" for option in registry.options("guidance", name))
    return registry.build("guidance", name, options={"data_variance": variance} if wants else {})
