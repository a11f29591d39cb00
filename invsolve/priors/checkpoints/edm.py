"""EDM .pkl (Karras et al. 2022, arXiv:2206.00364): {"ema": network, "loss_fn": ..., "augment_pipe": ...}.

The pickled objects carry their class's source code and its arguments. The source is never run: the class
name and the arguments say which network and which preconditioning it is, so no hint is needed.

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)          images in [-1, 1]; table 1 of the paper

                c_skip             c_out                    c_in              c_noise
    EDM         sd^2/(s^2+sd^2)    s sd/sqrt(s^2+sd^2)      1/sqrt(s^2+sd^2)  ln(s)/4
    VE          1                  s                        1                 ln(s/2)
    VP          1                  -s                       1/sqrt(s^2+1)     (M-1) t(s)
    iDDPM       1                  -s                       1/sqrt(s^2+1)     M-1 - index of the nearest level

with s = sigma and sd the standard deviation of the data. A class-conditional network is given no class
(zeros) unless the hint class_labels names one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invsolve.errors import InputError
from invsolve.linalg import expand
from invsolve.priors.checkpoints.dhariwal_unet import DhariwalLayout, DhariwalUNet
from invsolve.priors.checkpoints.fit import fit
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior, trained_range
from invsolve.priors.checkpoints.hints import Hints
from invsolve.priors.checkpoints.layers import unfilled
from invsolve.priors.checkpoints.song_unet import SongLayout, SongUNet
from invsolve.priors.checkpoints.unpickle import Record, tensors_of

__all__ = ["Preconditioned", "load_edm"]

KIND = "an EDM network"
NETWORKS = {"SongUNet": (SongUNet, SongLayout), "DhariwalUNet": (DhariwalUNet, DhariwalLayout)}
IN_TRAINING = {"dropout", "label_dropout"}  # arguments that change nothing afterwards
DEPTH = 8  # of modules within modules
Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


def load_edm(path: Path, content: object, hints: Hints) -> CheckpointPrior:
    """Build the network its record tells of, and fill it."""
    record = _network(path, content)
    inner = record.state.get("_modules", {}).get("model")
    if not isinstance(inner, Record) or inner.kind not in NETWORKS or record.kind not in PRECONDITIONINGS:
        raise InputError(
            f"{path} holds {record.kind or 'a network'} around {getattr(inner, 'kind', 'nothing')}; known "
            f"are {', '.join(PRECONDITIONINGS)} around {' or '.join(NETWORKS)}. EDM2 is not supported."
        )
    label_dim = _int(path, record.state, "label_dim")
    takes = {"sigma_min", "sigma_max"} | ({"class_labels"} if label_dim else set())
    hints.only(path, KIND, takes)
    build, layout = _layout(path, inner)
    if layout.label_dim != label_dim:
        raise InputError(
            f"the {record.kind} in {path} has {label_dim} classes, but its network {layout.label_dim}."
        )
    network = unfilled(path, build, layout)
    fit(path, f"the {inner.kind} it describes", network, tensors_of(path, dict(_weights(path, inner))))
    coefficients, (low, high) = _preconditioning(path, record)
    label = _one_hot(path, label_dim, hints.class_labels)
    size = (layout.in_channels, layout.img_resolution, layout.img_resolution)
    card = {"format": "EDM", "preconditioning": record.kind, "network": inner.kind, **vars(layout)}
    sigmas = trained_range(path, hints, (low / 2, high / 2))
    denoiser = Preconditioned(network, coefficients, label)
    return CheckpointPrior(denoiser, size, sigmas, name=path.stem, card=card)


class Preconditioned(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise); a learned variance behind F's image is cut off."""

    label: Tensor | None

    def __init__(
        self, network: nn.Module, coefficients: Callable[[Tensor], Coefficients], label: Tensor | None = None
    ) -> None:
        """coefficients(sigma) -> c_skip, c_out, c_in, c_noise; label is one-hot, (label_dim,)."""
        super().__init__()
        self.network, self.coefficients = network, coefficients
        self.register_buffer("label", label, persistent=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma): x (B, C, H, W), sigma (B,) float64."""
        skip, out, scale, noise = self.coefficients(sigma)
        label = None if self.label is None else self.label.expand(len(x), -1)
        raw: Tensor = self.network(expand(scale, x) * x, noise, label)
        return expand(skip, x) * x + expand(out, x) * raw[:, : x.shape[1]]


def _log(sigma: Tensor) -> Tensor:
    return sigma.clamp_min(1e-12).log()  # at 0 the network's answer has no weight, but must be finite


def _positive(state: dict[str, Any], name: str) -> float:
    """Give a constant of a formula that divides by it, or takes its root."""
    value = float(state[name])
    if not 0 < value < math.inf:
        raise ValueError(f"{name} = {value}, but it must be a number > 0")
    return value


def _edm(state: dict[str, Any]) -> tuple[Callable[[Tensor], Coefficients], tuple[float, float]]:
    """Unit variance in and out; trained on 0.002 to 80 unless the file limits it."""
    sd = _positive(state, "sigma_data")

    def coefficients(s: Tensor) -> Coefficients:
        total = s**2 + sd**2
        return sd**2 / total, s * sd * total.rsqrt(), total.rsqrt(), _log(s) / 4

    return coefficients, (max(float(state["sigma_min"]), 0.002), min(float(state["sigma_max"]), 80.0))


def _ve(state: dict[str, Any]) -> tuple[Callable[[Tensor], Coefficients], tuple[float, float]]:
    """Song's variance exploding nets; sigma is twice that of images in [0, 1]."""

    def coefficients(s: Tensor) -> Coefficients:
        one = torch.ones_like(s)
        return one, s, one, _log(s / 2)

    return coefficients, (float(state["sigma_min"]), float(state["sigma_max"]))


def _vp(state: dict[str, Any]) -> tuple[Callable[[Tensor], Coefficients], tuple[float, float]]:
    """Song's variance preserving nets: ln(1 + sigma^2) = beta_d t^2/2 + beta_min t."""
    d, low, steps = (_positive(state, name) for name in ("beta_d", "beta_min", "M"))

    def time(s: Tensor) -> Tensor:
        return ((low**2 + 2 * d * torch.log1p(s**2)).sqrt() - low) / d

    def coefficients(s: Tensor) -> Coefficients:
        return torch.ones_like(s), -s, (1 + s**2).rsqrt(), (steps - 1) * time(s)

    ends = [math.sqrt(math.expm1(0.5 * d * t**2 + low * t)) for t in (float(state["epsilon_t"]), 1.0)]
    return coefficients, (ends[0], ends[1])


def _iddpm(state: dict[str, Any]) -> tuple[Callable[[Tensor], Coefficients], tuple[float, float]]:
    """Nets of improved DDPM, trained at the falling levels u_0 .. u_{M-1}; u_M = 0."""
    table: Tensor = state["_buffers"]["u"]
    if table.ndim != 1 or not table.is_contiguous():  # strides of zero would claim any size
        raise ValueError("u is no list of levels")
    levels, steps = table.double(), len(table) - 1
    if not bool((levels[:-1] > levels[1:]).all()):
        raise ValueError("the levels u do not fall")

    def coefficients(s: Tensor) -> Coefficients:
        nearest = (s[:, None] - levels.to(s.device)).abs().argmin(1)
        return torch.ones_like(s), -s, (1 + s**2).rsqrt(), (steps - 1 - nearest).to(s)

    return coefficients, (float(levels[steps - 1]), float(levels[0]))


PRECONDITIONINGS = {"EDMPrecond": _edm, "VEPrecond": _ve, "VPPrecond": _vp, "iDDPMPrecond": _iddpm}


def _preconditioning(
    path: Path, record: Record
) -> tuple[Callable[[Tensor], Coefficients], tuple[float, float]]:
    """Coefficients and noise levels of a record."""
    try:
        return PRECONDITIONINGS[record.kind](record.state)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"the {record.kind} in {path} lacks usable constants ({error!r}).") from None


def _network(path: Path, content: object) -> Record:
    """The averaged network, which is what EDM samples with."""
    network = content.get("ema") if isinstance(content, dict) else content
    if not isinstance(network, Record):
        keys = f" with {', '.join(sorted(map(str, content))[:5])}" if isinstance(content, dict) else ""
        raise InputError(
            f"{path} is a pickle of a {type(content).__name__}{keys}, not of EDM: it has no 'ema'."
        )
    return network


def _layout(path: Path, inner: Record) -> tuple[Any, Any]:  # Any: one of two pairs
    """Class and layout of a network's record, from the arguments it was made with."""
    build, kind = NETWORKS[inner.kind]
    given: dict[str, Any] | None = inner.state.get("_init_kwargs")
    names = {field.name for field in fields(kind)}
    extra = sorted(map(str, set(given) - names - IN_TRAINING)) if isinstance(given, dict) else ["nothing"]
    if extra or given is None:
        raise InputError(
            f"the {inner.kind} in {path} was made with {', '.join(extra)}, which is not known here."
        )
    try:
        layout = kind(**{name: value for name, value in given.items() if name in names})
        sizes = [len(layout.channel_mult), layout.num_blocks]
        if max(sizes) > 20 or not 1 <= layout.in_channels <= 4:
            raise ValueError(f"{sizes[0]} levels of {sizes[1]} blocks, {layout.in_channels} channels")
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the {inner.kind} in {path} has impossible arguments ({error}).") from None
    return build, layout


def _weights(path: Path, record: Record, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and tensors of a record and the records within it, as state_dict would give them."""
    if prefix.count(".") > DEPTH:
        raise InputError(f"{path} holds modules within modules, more than {DEPTH} deep. It is refused.")
    if record.walked:
        raise InputError(f"{path} holds one module in two places, {prefix[:-1]!r} again. It is refused.")
    record.walked = True
    for group in ("_parameters", "_buffers"):
        for name, value in _table(record, group):
            if value is not None:
                yield f"{prefix}{name}", value
    for name, value in _table(record, "_modules"):
        if isinstance(value, Record):
            yield from _weights(path, value, f"{prefix}{name}.")


def _table(record: Record, group: str) -> list[tuple[str, object]]:
    found = record.state.get(group)
    return list(found.items()) if isinstance(found, dict) else []


def _int(path: Path, state: dict[str, Any], name: str) -> int:
    value = state.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{name} in {path} is {value!r}, but it must be a whole number >= 0.")
    return value


def _one_hot(path: Path, label_dim: int, label: int | None) -> Tensor | None:
    """What a class-conditional network is told: one class, or zeros."""
    if not label_dim:
        return None
    if label is not None and label >= label_dim:
        raise InputError(f"class_labels is {label}, but {path} has {label_dim} classes.")
    found = torch.zeros(label_dim)
    if label is not None:
        found[label] = 1
    return found
