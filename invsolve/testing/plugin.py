"""Check the parts of a plugin, whatever their kind, and find what `invsolve check` is asked to check.

A target is a part (stripes, or operator:stripes where two kinds share a name), a file (./mine.py:stripes), a
plugin by its entry point or distribution (invsolve-stripes), a file of weights, or the folder of a plugin's
project, whose pyproject.toml names its modules; it need not be installed.
"""

import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import torch

from invsolve.errors import CheckFailed, InputError, PluginError, UnknownName
from invsolve.file_part import is_file_part
from invsolve.hookspecs import GROUP, KINDS
from invsolve.isolation import guarded
from invsolve.plugins import Part, Registry, load, parts_of
from invsolve.prior import Prior
from invsolve.priors.catalogue import is_weights, load_prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.samplers.correctors import Corrector
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import NoPredictor, Predictor
from invsolve.testing import guidance, likelihood, operator, prior, sampler, sde
from invsolve.testing.common import Outcome, outcomes

__all__ = ["Line", "check_plugin", "examine", "find"]

_CROPS, _SIDE = 4, 64  # images of a folder that a prior is checked on, and their side if it takes any


class Line(NamedTuple):
    """A line of the pass table: which part, which check, whether it passed, what it measured."""

    part: str
    check: str
    passed: bool
    said: str


def _operator(factory: Callable[..., Any]) -> Iterator[Outcome]:
    for case in operator.cases(factory):
        for found in outcomes(operator.CHECKS, case):
            yield found._replace(check=f"{found.check} {case.shape}")


def _predictor(factory: Callable[[], Predictor]) -> Iterator[Outcome]:
    predictor = factory()
    if isinstance(predictor, NoPredictor):
        yield Outcome("is built", True, "it leaves the work to a corrector: nothing to measure")
    else:
        yield from outcomes(sampler.CHECKS, sampler.SamplerCase(PC(predictor=predictor)))


def _corrector(factory: Callable[[], Corrector]) -> Iterator[Outcome]:
    yield from outcomes(sampler.CHECKS, sampler.SamplerCase(PC(corrector=factory())))


def _prior(factory: Callable[[], Any], folder: Path | None = None, device: str = "cpu") -> Iterator[Outcome]:
    """Check a prior there, on crops of the images of a folder where one is given."""
    made = factory()
    case = prior.prior_case(made.to(device) if isinstance(made, Prior) else made)
    if folder is not None:
        images = _crops(folder, tuple(case.prior.shape or ())).to(case.device, case.dtype)
        case = prior.PriorCase(case.prior, images)
    yield from outcomes(prior.CHECKS, case)


def _crops(folder: Path, shape: tuple[int | None, ...]) -> torch.Tensor:
    """Square crops (n, C, H, W) in [0, 1], grey or in colours as the prior is."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"images are for priors of square images or any, but this one's shape is {shape}.")
    from invsolve.training.data import centre_crops

    return centre_crops(folder, shape[1] or _SIDE, _CROPS, shape[0] or 3) / 2 + 0.5


def _metric(factory: Callable[[], object]) -> Iterator[Outcome]:
    yield Outcome("is built", callable(factory()), "a callable (samples, truth)")


_CHECKERS: dict[str, Callable[[Callable[..., Any]], Iterator[Outcome]]] = {
    "operator": _operator,
    "likelihood": lambda f: outcomes(likelihood.CHECKS, likelihood.likelihood_case(f)),
    "sde": lambda f: outcomes(sde.CHECKS, f()),
    "prior": _prior,
    "guidance": lambda f: outcomes(guidance.CHECKS, guidance.GuidanceCase(f())),
    "predictor": _predictor,
    "corrector": _corrector,
    "sampler": lambda f: outcomes(sampler.CHECKS, sampler.SamplerCase(f())),
    "metric": _metric,
}


def examine(part: Part, images: Path | None = None, device: str = "cpu") -> Iterator[Line]:
    """Run every check of a part's kind, with the default options; what cannot be built is a failed line.

    images: folder of clean images that a prior should know; device: where a prior computes.
    """
    label, checker = f"{part.kind} {part.name}", _CHECKERS[part.kind]
    if part.kind == "prior":
        checker = partial(_prior, folder=images, device=device)
    try:
        with guarded(label):
            part.describe()
            found = list(checker(part.load()))
        yield from (Line(label, *outcome) for outcome in found)
    except (PluginError, CheckFailed, InputError) as error:
        yield Line(label, "can be built with its defaults", False, str(error))


def find(target: str) -> list[Part]:
    """Find the parts that a target names; UnknownName, or InputError where it must say which kind."""
    kind, _, rest = target.partition(":")
    kind, name = (kind, rest) if kind in KINDS else ("", target)
    registry = load()
    if is_file_part(name):
        return [registry.part(kind or _guessed(registry.part("operator", name)), name)]
    named = [k for k in KINDS if name in registry.names(k) and kind in ("", k)]
    if len(named) > 1:
        choices = " or ".join(f"{k}:{name}" for k in named)
        raise InputError(f"{name!r} is a part of {len(named)} kinds: write {choices}.")
    if named:
        return [registry.part(named[0], name)]
    if kind in ("", "prior") and is_weights(name):
        return [_of_weights(name)]
    if Path(name).suffix and not Path(name).exists():
        raise InputError(f"there is no file {name}, and no part or plugin of that name.")
    return _of_project(Path(name)) if Path(name).is_dir() else _of_plugin(registry, name)


def _of_weights(name: str) -> Part:
    """Weights as a part; what they do not tell stands in prior.toml beside them."""

    def weights() -> DenoiserPrior:
        """Weights of a file."""
        return load_prior(name)

    return Part("prior", name, weights, "file", "")


def _guessed(part: Part) -> str:
    """Take a factory of a file for an operator if its first parameter is shape."""
    import inspect

    first = next(iter(inspect.signature(part.load()).parameters), "")
    if first != "shape":
        raise InputError(f"which kind of part is {part.name}? Write sde:{part.name}, prior:{part.name}, ...")
    return "operator"


def _of_plugin(registry: Registry, name: str) -> list[Part]:
    found = [part for part in registry.parts if name == part.distribution and name != GROUP]
    broken = [b for b in registry.broken if name in (b.name, b.distribution)]
    if broken:
        raise PluginError(
            f"plugin {broken[0].name!r} of {broken[0].distribution} is broken: {broken[0].reason}."
        )
    if not found:
        known = {part.name for part in registry.parts} | {part.distribution for part in registry.parts}
        raise UnknownName("part or plugin", name, known - {GROUP})
    return found


def _of_project(folder: Path) -> list[Part]:
    """Parts of a plugin's project, from its source: what pyproject.toml names in the group invsolve."""
    settings = folder / "pyproject.toml"
    if not settings.is_file():
        raise InputError(f"{folder} is no plugin's project: it has no pyproject.toml.")
    project = tomllib.loads(settings.read_text(encoding="utf-8")).get("project", {})
    points = project.get("entry-points", {}).get(GROUP, {})
    if not points:
        raise InputError(f"{settings} has no table [project.entry-points.{GROUP}], so it offers no part.")
    sys.path[:0] = [str(folder.resolve() / "src"), str(folder.resolve())]
    found: list[Part] = []
    for name, value in points.items():
        with guarded(f"plugin {name!r} of {folder}"):
            plugin = EntryPoint(name, value, GROUP).load()
            found += parts_of(plugin, str(project.get("name", name)), str(project.get("version", "")))
    return found


def check_plugin(name: str) -> None:
    """Check every part of an installed plugin, by distribution, or of a plugin's folder."""
    for part in find(name):
        for line in examine(part):
            if not line.passed:
                raise CheckFailed(f"{line.part}: {line.check}: {line.said}")
