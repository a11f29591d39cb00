"""score_sde .pth (Song et al. 2021, arXiv:2011.13456): {"model", "ema", "optimizer", "step"}.

Networks are NCSN++, DDPM++ and DDPM: layers numbered all_modules.0, 1, ... without names, so the layout is
read by walking along them. The averaged weights are a list without names: one for each trained parameter, in
order (the frequencies of a Fourier embedding are frozen, so not among them). What the file does not tell: the
SDE, and the image size. Noise levels of VE are in the file; betas are 0.1 and 20 unless hinted.

    VE            images in [0, 1], which the network doubles; D(x, s) = x + s F(2x - 1, label)
                  continuous (Fourier): label ln(s); discrete: index of s, the largest level has index 0
    VP, sub-VP    images in [-1, 1]; D(x, s) = x - s F(alpha x, 999 t), t from s by equations 33 and 34
                  VP trained at discrete steps says noise_schedule linear: label is the step

Fixed in all published configurations, so taken for granted: sums are divided by sqrt(2) except in DDPM; the
filter is (1, 3, 3, 1) where the input is fed in as a pyramid and (1, 1) where not.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from invsolve.errors import InputError
from invsolve.linalg import expand
from invsolve.priors.checkpoints.ddpm_unet import DDPMUNet, is_ddpm, read_ddpm_layout
from invsolve.priors.checkpoints.denoisers import Noise, subvp_signal, vp_signal
from invsolve.priors.checkpoints.fit import bare, fit
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior, trained_range
from invsolve.priors.checkpoints.hints import Hints
from invsolve.priors.checkpoints.layers import unfilled
from invsolve.priors.checkpoints.schedules import Steps, levels_of, linear_betas
from invsolve.priors.checkpoints.score_sde_names import read_layout, renamed
from invsolve.priors.checkpoints.song_unet import SongUNet
from invsolve.priors.checkpoints.unpickle import tensors_of

__all__ = ["is_score_sde", "load_score_sde"]

KIND = "a network of score_sde"
FIRST_TIME = 1e-5  # smallest t of training
Levels = Callable[[Tensor], Tensor]
Network = SongUNet | DDPMUNet


def is_score_sde(content: object) -> bool:
    """Whether it is a checkpoint of score_sde, or the bare weights of one."""
    if not isinstance(content, dict):
        return False
    names = content.get("model", content)
    return isinstance(names, dict) and any("all_modules." in str(name) for name in names)


def load_score_sde(path: Path, content: dict[str, Any], hints: Hints) -> CheckpointPrior:
    """Read the layout, take the averaged weights, and put the SDE's formula around the network."""
    state = bare(tensors_of(path, content.get("model", content)))
    levels = state.pop("sigmas", torch.zeros(0))
    state = averaged(path, state, content["ema"]) if "ema" in content else state
    takes = {"sde", "image_size"} | _takes(hints)
    hints.need(path, KIND, ["sde", "image_size"])
    hints.only(path, f"{KIND} under {hints.sde}", takes)
    network = _network(path, state, hints.image_size or 0)
    layout = network.layout
    build = _ve if hints.sde == "ve" else _vp
    denoiser, data_range, sigmas = build(path, network, levels, hints)
    size = (layout.in_channels, layout.img_resolution, layout.img_resolution)
    card = {"format": "score_sde", "averaged": "ema" in content, **vars(layout)}
    return CheckpointPrior(denoiser, size, sigmas, data_range=data_range, name=path.stem, card=card)


def _network(path: Path, state: dict[str, Tensor], image_size: int) -> Network:
    """The network the layers tell of, filled."""
    if is_ddpm(path, state):
        ddpm = unfilled(path, DDPMUNet, read_ddpm_layout(path, state, image_size))
        fit(path, "the DDPM network it seems to be", ddpm, state)
        return ddpm
    network = unfilled(path, SongUNet, read_layout(path, state, image_size))
    fit(path, "the NCSN++ it seems to be", network, renamed(path, network, state))
    return network


def _takes(hints: Hints) -> set[str]:
    """Hints that the SDE has a use for."""
    shared = {"sigma_min", "sigma_max"}
    betas = {"beta_min", "beta_max"}
    return {"ve": shared, "vp": shared | betas | {"noise_schedule"}}.get(hints.sde or "", shared | betas)


def averaged(path: Path, state: dict[str, Tensor], ema: object) -> dict[str, Tensor]:
    """The weights with the averages in place of what was trained, by position."""
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    trained = [name for name in state if not name.endswith("all_modules.0.W")]
    if not isinstance(shadow, list) or len(shadow) != len(trained):
        count = len(shadow) if isinstance(shadow, list) else 0
        raise InputError(f"{path} has {count} averaged weights (ema) for {len(trained)} trained ones.")
    table = tensors_of(path, dict(zip(trained, shadow, strict=True)))
    wrong = [name for name in trained if table[name].shape != state[name].shape]
    if wrong:
        raise InputError(
            f"{len(wrong)} averaged weights (ema) in {path} differ in shape from those trained, "
            f"{wrong[0]!r} first."
        )
    return state | table


class Exploding(nn.Module):
    """D(x, s) = x + s F(2x - 1, label) on images in [0, 1]."""

    def __init__(self, network: nn.Module, label: Levels) -> None:
        """F is the network before its output is divided by sigma."""
        super().__init__()
        self.network, self.label = network, label

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x (B, C, H, W), sigma (B,) float64."""
        out: Tensor = self.network(2 * x - 1, self.label(sigma))
        return x + expand(sigma, x) * out


def _ve(
    path: Path, network: Network, levels: Tensor, hints: Hints
) -> tuple[nn.Module, tuple[float, float], tuple[float, float]]:
    """Variance exploding: noise levels from the file, unless hinted."""
    if not len(levels):
        hints.need(path, f"{KIND} without its table of levels", ["sigma_min", "sigma_max"])
    ends = (float(levels.min()), float(levels.max())) if len(levels) else (0.0, 0.0)
    low, high = trained_range(path, hints, ends)
    if network.layout.embedding_type == "fourier":
        return Exploding(network, _log), (0.0, 1.0), (low, high)
    if not len(levels):
        raise InputError(f"{path} was trained at discrete levels of VE, but their table (sigmas) is missing.")
    steps = Steps(levels.double().sort().values)
    return Exploding(network, lambda s: len(levels) - 1 - steps(s)), (0.0, 1.0), (low, high)


def _vp(
    path: Path, network: Network, levels: Tensor, hints: Hints
) -> tuple[nn.Module, tuple[float, float], tuple[float, float]]:
    """Variance preserving, or its sub-VP kin: betas are Song's unless hinted."""
    first = 0.1 if hints.beta_min is None else hints.beta_min
    last = 20.0 if hints.beta_max is None else hints.beta_max
    if not first < last:
        raise InputError(f"beta_min {first:g} must be less than beta_max {last:g}, of {path}.")
    signal = vp_signal if hints.sde == "vp" else subvp_signal
    ends = tuple(_level(hints.sde or "", first, last, t) for t in (FIRST_TIME, 1.0))
    label = _times(signal, first, last)
    if hints.noise_schedule == "cosine":
        raise InputError("no score_sde network has the noise_schedule cosine; linear means discrete steps.")
    if hints.noise_schedule == "linear":
        table = levels_of(linear_betas(first / 1000, last / 1000))
        label, ends = Steps(table), (float(table[0]), float(table[-1]))
    if network.layout.embedding_type == "fourier":
        label = _logged(label)
    low, high = trained_range(path, hints, (ends[0] / 2, ends[1] / 2))
    return Noise(network, label, signal), (-1.0, 1.0), (low, high)


def _log(sigma: Tensor) -> Tensor:
    return sigma.clamp_min(1e-12).log()


def _logged(label: Levels) -> Levels:
    return lambda sigma: _log(label(sigma))


def _times(signal: Levels, first: float, last: float) -> Levels:
    """Label 999 t of a level: -ln(alpha) = (last - first) t^2/4 + first t/2."""

    def label(sigma: Tensor) -> Tensor:
        decay = -4 * (last - first) * signal(sigma).log()
        return 999 * ((first**2 + decay).sqrt() - first) / (last - first)

    return label


def _level(sde: str, first: float, last: float, t: float) -> float:
    """Noise level sigma = nu/alpha at time t."""
    decay = (last - first) * t**2 / 2 + first * t  # -2 ln(alpha)
    variance_kept = -math.expm1(-decay)  # 1 - alpha^2
    nu = math.sqrt(variance_kept) if sde == "vp" else variance_kept
    return nu * math.exp(decay / 2)
