"""Rows of other libraries on the same problems, in the same process: `deepinv/dps`, `azula/mmps`.

A peer is given the exact prior as its denoiser and the operator of the problem. Peers suppose data in a fixed
range, [0, 1] or [-1, 1], and some clip to it, so a problem is posed to them in units u = (x - low) / width in
which every coordinate has 4 standard deviations of the data inside the range. A linear problem stays linear,

    y = A x + sigma_y n     is     (y - low A 1) / width = A u + (sigma_y / width) n,

and what comes back is put into the problem's own units. Every method has its library's defaults, save where
its docstring says otherwise. Forward calls and vector-Jacobian products of the prior are counted here, a row
of a batch each, as they are for our own methods. Peers draw from the global generator of torch: it is seeded
before, and put back after.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, util
from typing import Any

import torch
from torch import Tensor

from invsolve.bench.mixtures import Problem
from invsolve.errors import InputError, InvsolveError, UnknownName
from invsolve.result import Result
from invsolve.rng import seed_of

__all__ = ["LIBRARIES", "Draw", "Peer", "PeerFailed", "Scaled", "counting", "peer", "peers_of"]

LIBRARIES = {"deepinv": "invsolve.bench.peers_deepinv", "azula": "invsolve.bench.peers_azula"}
_SPREAD = 4.0  # standard deviations of the data that fit into a peer's range on either side


class PeerFailed(InvsolveError):
    """A peer could not run on a problem: its exception in one line."""


class Scaled:
    """A problem in units of a peer's range: u = low' + (x - low) (high' - low') / (high - low)."""

    def __init__(self, posed: Problem, bottom: float, top: float) -> None:
        """Fit the data, its means and 4 standard deviations, into [bottom, top]."""
        prior, self._likelihood = posed.prior, posed.likelihood
        sds = prior.spectra.max(1).values.sqrt()[:, None]  # at least that of any coordinate
        low = float((prior.means - _SPREAD * sds).min())
        self._width = (float((prior.means + _SPREAD * sds).max()) - low) / (top - bottom)
        self._low = low - bottom * self._width
        self._prior, self.event, self.calls = prior, prior.event, Counter[str]()

    @property
    def sigma_y(self) -> float:
        """Standard deviation of the noise."""
        return float(self._likelihood.sigma_y) / self._width

    @cached_property
    def y(self) -> Tensor:
        """Measurement, (m,), float64."""
        likelihood = self._likelihood
        ones = torch.ones(1, *self.event, dtype=torch.float64)
        y = likelihood.y.double()[None] - self._low * likelihood.A(ones)
        return y.flatten() / self._width

    @cached_property
    def table(self) -> Tensor:
        """Matrix of the operator, (m, d), float64."""
        return self._likelihood.matrix(self.event).double()

    @property
    def spread(self) -> float:
        """Standard deviation of the data along its widest direction."""
        return self._prior.extent / self._width

    def A(self, u: Tensor) -> Tensor:
        """Measure u (B, ...) -> (B, m)."""
        return self._likelihood.A(u.reshape(-1, *self.event)).flatten(1)

    def At(self, v: Tensor, like: Tensor) -> Tensor:
        """Apply the transpose: (B, m) -> the shape of like."""
        measured = v.reshape(-1, *self._likelihood.y.shape)
        return self._likelihood.At(measured, measured.new_empty(len(v), *self.event)).reshape(like.shape)

    def denoise(self, u: Tensor, sigma: Tensor | float) -> Tensor:
        """E[u_0 | u_0 + sigma n = u] in the type of u (B, ...); sigma is () or has B values."""
        levels = torch.as_tensor(sigma, dtype=torch.float64).flatten().expand(len(u)) * self._width
        x = (u.reshape(-1, *self.event).double() * self._width + self._low).to(self._prior.dtype)
        self.calls["forward"] += len(u)
        mean = (self._prior.denoise(x, levels).double() - self._low) / self._width
        return counting(mean.reshape(u.shape).to(u), self.calls)

    def restore(self, u: Tensor) -> Tensor:
        """Samples (n, ...) in the problem's own units, (n, *event)."""
        return (u.reshape(-1, *self.event).double() * self._width + self._low).to(self._prior.dtype)


def counting(mean: Tensor, calls: Counter[str]) -> Tensor:
    """Return the mean of a prior (B, ...), counting the vector-Jacobian products that go through it."""
    counted: Tensor = _CountBackward.apply(mean, calls)
    return counted


class _CountBackward(torch.autograd.Function):
    """The identity; counts the vector-Jacobian products that go through it, under torch.func too."""

    @staticmethod
    def forward(x: Tensor, calls: Counter[str]) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Counter[str]], output: Tensor) -> None:  # noqa: ANN401
        ctx.calls = inputs[1]  # Any: torch gives its context no type

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        ctx.calls["vjp"] += len(grad)
        return grad, None


@dataclass(frozen=True)
class Draw:
    """A peer's method: its range, and samples u (n, ...) of a problem, in that many steps or its own."""

    bottom: float
    top: float
    samples: Callable[[Scaled, int, int | None, int], Tensor]  # scaled, n, steps, seed


@dataclass(frozen=True)
class Peer:
    """A method of another library, by the name `library/method`."""

    name: str
    method: Draw

    def draw(self, posed: Problem, n: int, seed: int, steps: int | None) -> Result:
        """Draw n samples of the problem's posterior; PeerFailed where the library raises."""
        scaled = Scaled(posed, self.method.bottom, self.method.top)
        own, started = seed_of(self.name, seed), time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(own)
            try:
                samples = self.method.samples(scaled, n, steps, own)
            except InvsolveError:
                raise
            except Exception as error:  # a stranger's code may raise anything: the cell says what
                line = (str(error).strip().splitlines() or [""])[0]
                raise PeerFailed(f"{type(error).__name__}: {line}") from error
        seconds = time.perf_counter() - started
        nfe = {name: scaled.calls[name] / n for name in ("forward", "vjp")}
        return Result(scaled.restore(samples.detach()), nfe=nfe, seconds=seconds, seed=seed)


def peers_of(library: str) -> list[str]:
    """Names of the rows of a library; InputError where it is not installed."""
    return [f"{library}/{name}" for name in _methods(library)]


def peer(name: str) -> Peer:
    """Find the row of a name; UnknownName where there is none, InputError where it is not installed."""
    library, _, rest = name.partition("/")
    methods = _methods(library)
    if rest not in methods:
        raise UnknownName(f"method of {library}", rest, methods)
    return Peer(name, methods[rest])


def _methods(library: str) -> Mapping[str, Draw]:
    if library not in LIBRARIES:
        raise UnknownName("library of peers", library, LIBRARIES)
    if util.find_spec(library) is None:
        raise InputError(f'{library} is not installed: pip install "invsolve[bench]" brings the peers.')
    methods: Mapping[str, Draw] = import_module(LIBRARIES[library]).METHODS
    return methods
