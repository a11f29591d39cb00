"""From names in tables to objects: the prior, the operator and the sampler that the settings mean."""

import contextlib
import hashlib
import inspect
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from invsolve import choice
from invsolve.device import keep_float32
from invsolve.errors import InputError, PluginError
from invsolve.gamma import parse_gamma
from invsolve.guidance import Guidance, MomentMatching
from invsolve.hookspecs import GROUP
from invsolve.likelihood import Gaussian, Likelihood, measured_entries
from invsolve.option_values import check_table
from invsolve.plugins import Registry, load
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.priors.tiled import overhead, why_whole
from invsolve.run.settings import NAMES, STAND_INS, Tables, defaults_of, is_weight_file
from invsolve.run.tile import AUTO, chosen
from invsolve.samplers.correctors import Corrector
from invsolve.samplers.predictors import Predictor
from invsolve.sde import SDE

if TYPE_CHECKING:
    from invsolve.run.problem import Problem

__all__ = [
    "Parts",
    "build",
    "build_operator",
    "build_prior",
    "build_sampler",
    "is_own",
    "load_prior",
    "prior_sha256",
    "registry",
    "settled",
    "tile_notes",
    "tiled",
]

_CLASSES: dict[str, type] = {
    "prior": Prior,
    "sde": SDE,
    "guidance": Guidance,
    "predictor": Predictor,
    "corrector": Corrector,
}


@dataclass(frozen=True)
class Parts:
    """What a problem's units are computed with; in the tables nothing is left to be chosen."""

    posterior: Posterior
    likelihood: Gaussian
    sampler: Any  # any callable (posterior, n, seed, first) -> samples
    steps: int
    known: Tensor
    tables: Tables
    chosen: str

    @classmethod
    def of(cls, problem: "Problem") -> "Parts":
        """Build them; the same problem gives the same parts in every process."""
        tables, device = problem.tables, problem.device
        prior = build_prior(tables, problem.shape, device)
        operator = build_operator(tables, problem.shape, device, problem.alpha)
        y = torch.from_numpy(problem.y).to(prior.device, prior.dtype)
        likelihood = Gaussian(y, operator, problem.sigma_y)
        tables, chosen = settled(tables, prior, likelihood)
        sde, guidance = (build(kind, tables) for kind in ("sde", "guidance"))
        gamma = parse_gamma(str(tables["run"]["gamma"]))
        posterior = Posterior(prior, likelihood, sde=sde, guidance=guidance, gamma=gamma)
        known = measured_entries(operator, problem.shape, y)
        sampler, steps = build_sampler(tables), tables["run"]["steps"]
        return cls(posterior, likelihood, sampler, steps, known, tables, chosen)

    @torch.no_grad()
    def chi2(self, x: Tensor) -> Tensor:
        """|A x - y|^2 / (m sigma_y^2) over the m measured entries, (n,); such calls are not counted."""
        residual = (self.likelihood.operator.A(x) - self.likelihood.y) / self.likelihood.sigma_y
        return residual[:, self.known].square().mean(1)

    def notes(self) -> list[str]:
        """What the user should know of the walk; raises where the parts do not go together."""
        posterior = self.posterior
        if hasattr(self.sampler, "times"):
            self.sampler.times(posterior)
        notes: list[str] = [*getattr(self.sampler, "notes", list)(), *tile_notes(posterior)]
        if not getattr(self.sampler, "uses_guidance", True) and posterior.guidance != MomentMatching():
            notes.append(f"the sampler uses no guidance: {type(posterior.guidance).__name__} is left out")
        start, top = posterior.span()[0], float(posterior.sde.ratio(1.0))
        if start < top:
            notes.append(
                f"the grid starts at noise level {start:.4g}, the prior's limit, not at the SDE's {top:.4g}"
            )
        return notes


def tile_notes(posterior: Posterior) -> list[str]:
    """What tiles cost, where the prior goes by tiles."""
    prior = posterior.prior
    if not prior.tile:
        return []
    times = overhead(prior, *posterior.shape[-2:])
    return [
        f"tiles of {prior.tile} pixels with a halo of {prior.halo}: the network sees {times:.2g} times the "
        "pixels, and sees them again for each vjp"
    ]


@lru_cache(maxsize=1)
def registry() -> Registry:
    """Every part on offer; the command itself has warned of broken plugins already."""
    with contextlib.redirect_stderr(io.StringIO()):
        return load()


def is_own(kind: str, name: str) -> bool:
    """Whether a part comes with invsolve itself."""
    return registry().part(kind, name).distribution == GROUP


def build(kind: str, tables: Tables, *args: object, more: dict[str, object] | None = None) -> Any:  # noqa: ANN401  any kind of part
    """Build the chosen part of a kind with the options of its table."""
    table = dict(tables[kind])
    name = str(table.pop("name"))
    options = check_table(kind, registry().options(kind, name), table)  # lists become tuples, texts paths
    made = registry().build(kind, name, *args, options=options | (more or {}))
    wanted = _CLASSES.get(kind, object)
    if not isinstance(made, wanted):
        raise PluginError(
            f"{kind} {name!r} made a {type(made).__name__}, but a {kind} is an invsolve {wanted.__name__}."
        )
    return made


def build_operator(tables: Tables, shape: tuple[int, ...], device: str, alpha: object = None) -> Any:  # noqa: ANN401  a physics
    """Build the operator for images of that shape; alpha is the mask that came with the photo, if it is to be
    used."""
    operator = build("operator", tables, shape, more={} if alpha is None else {"mask": alpha})
    return operator.to(device) if hasattr(operator, "to") else operator


def build_prior(tables: Tables, shape: tuple[int, ...], device: str) -> Prior:
    """Load the prior and fit it to images of that shape; a colour prior serves grey images too."""
    prior = load_prior(tables, device)
    grey = getattr(prior, "grey", None)
    if grey and prior.shape and prior.shape[0] == 3 and shape[0] == 1:
        prior = grey()
    wanted = prior.shape or shape
    if len(wanted) != len(shape) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True)):
        sides = " x ".join("any" if w is None else str(w) for w in wanted)
        raise InputError(
            f"prior {tables['prior']['name']} makes images of {sides} (channels x height x width), "
            f"but this one is {' x '.join(map(str, shape))}. Choose another with --prior."
        )
    return tiled(prior, tables, shape)


def tiled(prior: Prior, tables: Tables, shape: Sequence[int]) -> Prior:
    """Tile the prior for images of that shape where the settings ask for it; auto leaves whole what cannot
    be tiled."""
    tile = tables["run"]["tile"]
    size = chosen(tile, shape)
    if not size or (tile == AUTO and why_whole(prior)):
        return prior
    return prior.tiled(size)


def prior_sha256(tables: Tables, device: str) -> str:
    """SHA-256 of the prior's file, or of its weights where it has none."""
    prior = load_prior(tables, device)
    digest = hashlib.sha256()
    for name, value in sorted(prior.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return str(getattr(prior, "sha256", "") or digest.hexdigest())


def load_prior(tables: Tables, device: str) -> Prior:
    """Load the prior, once in each process."""
    keep_float32(device)
    return _loaded(json.dumps(tables["prior"]), device)


@lru_cache(maxsize=1)
def _loaded(table: str, device: str) -> Prior:
    tables = {"prior": json.loads(table)}
    name = str(tables["prior"]["name"])
    if is_weight_file(name, registry()):
        from invsolve.priors import catalogue

        hints = {key: value for key, value in tables["prior"].items() if key != "name"}
        return catalogue.load_prior(name, **hints).to(device)
    prior: Prior = build("prior", tables).to(device)
    return prior


def build_sampler(tables: Tables) -> Any:  # noqa: ANN401  any callable (posterior, n, seed, first)
    """Build the sampler; predictor, corrector and steps go in where it takes them."""
    table = dict(tables["sampler"])
    name = str(table.pop("name"))
    takes = inspect.signature(registry().get("sampler", name)).parameters
    for kind in ("predictor", "corrector"):
        if kind in takes:
            table[kind] = build(kind, tables)
    if "steps" in takes:
        table["steps"] = tables["run"]["steps"]
    return registry().build("sampler", name, options=table)


def settled(tables: Tables, prior: Prior, likelihood: Likelihood | None) -> tuple[Tables, str]:
    """Put what "auto" takes in its place, and say what and why: empty where everything was named."""
    names = {kind: str(tables.get(kind, {}).get("name", choice.AUTO)) for kind in STAND_INS}
    if choice.AUTO not in names.values():
        return tables, ""
    given = [kind for kind in ("predictor", "corrector") if tables[kind]["name"] != NAMES[kind]]
    found = choice.choose(prior, likelihood, registry().names("sampler"), parts=given, **names)
    if not getattr(registry().get("sampler", found.sampler), "uses_guidance", True):
        found = replace(found, guidance=None)
    taken = {"sampler": found.sampler, "guidance": found.guidance or STAND_INS["guidance"]}
    own = {
        kind: _taken(kind, tables.get(kind, {}), found, taken[kind])
        for kind, name in names.items()
        if name == choice.AUTO
    }
    nothing = found.guidance is None and names["sampler"] != choice.AUTO
    return {**tables, **own}, "" if nothing else str(found)


def _taken(
    kind: str, table: dict[str, Any], found: choice.Choice, name: str
) -> dict[str, Any]:  # Any: see Tables
    """Table of the part that "auto" takes; options belong to its stand-in and must not go lost."""
    own = STAND_INS[kind]
    if name == own:
        return {**table, "name": name}
    usual = defaults_of(kind, own, registry()) | {"name": choice.AUTO}
    usual["antithetic"] = table.get("antithetic")  # true by default in a run; other samplers have no pairs
    changed = [key for key, value in table.items() if value != usual.get(key)]
    if changed:
        raise InputError(
            f"{', '.join(changed)} of the {kind} belongs to {own}, but auto takes {found}. "
            f"Leave it out, or name a --{kind}."
        )
    return defaults_of(kind, name, registry()) | {"name": name}
