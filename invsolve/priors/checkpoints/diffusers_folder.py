"""Folders of diffusers: unet/config.json and weights, scheduler/scheduler_config.json, model_index.json.

The JSON files are read here, and only the network class UNet2DModel is built (by the package diffusers, an
extra), from the fields of its own signature. No pipeline, no code named by a file, no download.

    prediction_type     epsilon, v_prediction or sample, of images in [-1, 1]; D by the formulas of denoisers
    beta_schedule       linear, scaled_linear (linear in the root), squaredcos_cap_v2, sigmoid; or
    trained_betas       the betas themselves; rescale_betas_zero_snr ends in pure noise: that step is left out
    ScoreSdeVe          a network with Fourier embedding takes sigma, and its output is the score
                        (images in [0, 1] if it centres them itself)

clip_sample and the like belong to sampling and are ignored: D is never clipped.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from invsolve.errors import InputError
from invsolve.priors.checkpoints.denoisers import Image, Noise, Score, Velocity
from invsolve.priors.checkpoints.diffusers_betas import Table, levels_of_scheduler, number
from invsolve.priors.checkpoints.fit import fit
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior, trained_range
from invsolve.priors.checkpoints.hints import Hints
from invsolve.priors.checkpoints.layers import BUILDING, unfilled
from invsolve.priors.checkpoints.schedules import Steps
from invsolve.priors.checkpoints.unpickle import read_torch, tensors_of
from invsolve.priors.weight_file import contents, header

__all__ = ["is_diffusers", "load_diffusers"]

KIND = "a folder of diffusers"
WEIGHTS = "diffusion_pytorch_model"
PREDICTIONS: dict[str, type[Noise]] = {"epsilon": Noise, "v_prediction": Velocity, "sample": Image}


def is_diffusers(path: Path) -> bool:
    """Whether a folder holds a network of diffusers."""
    return (path / "unet" / "config.json").is_file() or (path / "config.json").is_file()


def load_diffusers(path: Path, hints: Hints) -> CheckpointPrior:
    """Read the two JSON files, build the network, fill it."""
    folder = path / "unet" if (path / "unet").is_dir() else path
    config, schedule = _network_config(path, folder), _schedule(path)
    size, classes = config.get("sample_size"), config.get("num_class_embeds") or 0
    takes = {"sigma_min", "sigma_max"} | ({"class_labels"} if classes else set())
    hints.only(path, KIND, takes if size else takes | {"image_size"})
    if not size:
        hints.need(path, KIND, ["image_size"])
        size = hints.image_size
    label = _class(path, classes, hints)
    height, width = _sides(path, size)
    network, content = _filled(path, folder, config, (height, width))
    inner = Called(network, label)
    denoiser, data_range, sigmas = (
        _exploding(path, inner, config, schedule)
        if schedule.get("_class_name") == "ScoreSdeVeScheduler"
        else _preserving(path, inner, config, schedule)
    )
    card: Table = {"format": "diffusers", "network": config, "schedule": schedule}
    return CheckpointPrior(
        denoiser,
        (config["in_channels"], height, width),
        trained_range(path, hints, sigmas),
        data_range=data_range,
        name=path.resolve().name,
        card=card,
    ).identified(_digest(content, config, schedule), hints)


class Called(nn.Module):
    """A network of diffusers as a function (x, label): one class, float32 labels, the bare tensor out."""

    def __init__(self, network: nn.Module, label: int | None) -> None:
        """label: index of the class, of a class-conditional network."""
        super().__init__()
        self.network, self.index = network, label

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """x (B, C, H, W), label (B,)."""
        told = None if self.index is None else torch.full((len(x),), self.index, device=x.device)
        out: Tensor = self.network(x, label.to(x.dtype), class_labels=told, return_dict=False)[0]
        return out


def _json(path: Path) -> Table:
    """Read a JSON object."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except FileNotFoundError:
        raise InputError(f"there is no {path}, which a folder of diffusers needs.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from None
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}, but must hold a JSON object.")
    return table


def _refused(constant: str) -> None:
    """Refuse NaN and Infinity, which JSON has not and Python reads all the same."""
    raise ValueError(f"{constant} is no number")


def _sides(path: Path, size: object) -> tuple[int, int]:
    """Height and width of the images, from one number or two."""
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= 8192 for side in sides):
        raise InputError(f"{path} has sample_size = {size!r}; it must be one or two numbers of pixels.")
    return int(sides[0]), int(sides[1])


def _network_config(path: Path, folder: Path) -> Table:
    """Fields of the network, if it is one of pixels."""
    config = _json(folder / "config.json")
    name = config.get("_class_name")
    index = _json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    if name != "UNet2DModel" or {"vae", "vqvae", "text_encoder"} & set(index):
        raise InputError(
            f"{path} holds a {name} of {index.get('_class_name', 'no pipeline')}; only a UNet2DModel that "
            "works on pixels is a prior of images."
        )
    channels, out = config.get("in_channels"), config.get("out_channels")
    if not isinstance(channels, int) or not 1 <= channels <= 4 or out not in (channels, 2 * channels):
        raise InputError(
            f"{path} takes {channels} channels and gives {out}; a denoiser gives as many, or twice as many."
        )
    if config.get("class_embed_type"):
        raise InputError(f"{path} embeds classes as {config['class_embed_type']}, which is not known here.")
    return config


def _schedule(path: Path) -> Table:
    """Fields of the scheduler."""
    place = path / "scheduler" / "scheduler_config.json"
    schedule = _json(place if place.is_file() else path / "scheduler_config.json")
    known = schedule.get("_class_name") == "ScoreSdeVeScheduler" or "beta_schedule" in schedule
    if not known:
        raise InputError(f"{path} has the scheduler {schedule.get('_class_name')}, whose noise is not known.")
    return schedule


def _class(path: Path, classes: int, hints: Hints) -> int | None:
    """Index of the class that a class-conditional network is asked for."""
    if classes:
        hints.need(path, KIND, ["class_labels"])
        if (hints.class_labels or 0) >= classes:
            raise InputError(f"class_labels is {hints.class_labels}, but {path} has {classes} classes.")
    return hints.class_labels


def _filled(path: Path, folder: Path, config: Table, sides: tuple[int, int]) -> tuple[nn.Module, bytes]:
    """The network with its weights, and the content of the weight file."""
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise InputError(
            f"{path} is {KIND}, which needs that package: pip install 'invsolve[diffusers]'."
        ) from None
    known = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    fields = {name: value for name, value in config.items() if not name.startswith("_")}
    extra = sorted(fields.keys() - known)
    if extra:
        raise InputError(f"{folder / 'config.json'} has fields that UNet2DModel has not: {', '.join(extra)}.")
    network = unfilled(path, lambda given: _built(UNet2DModel, given), fields)
    _called(path, network, config, sides)
    state, content = _weights(path, folder)
    fit(path, "the UNet2DModel of its config.json", network, {_modern(k): v for k, v in state.items()})
    return network, content


def _built(kind: Any, fields: Mapping[str, Any]) -> nn.Module:  # noqa: ANN401 - a class of diffusers
    network: nn.Module = kind(**fields)
    return network


def _called(path: Path, network: nn.Module, config: Table, sides: tuple[int, int]) -> None:
    """Call the network without weights and memory: fields may build and still not work together."""
    with torch.device("meta"):
        x, label = torch.empty(1, config["in_channels"], *sides), torch.zeros(1)
        told = torch.zeros(1, dtype=torch.long) if config.get("num_class_embeds") else None
        try:
            out: Tensor = network(x, label, class_labels=told, return_dict=False)[0]
        except BUILDING as error:
            said = (str(error).splitlines() or [""])[0][:150]
            raise InputError(
                f"{path} describes a network that cannot be called ({type(error).__name__}: {said})."
            ) from None
    if out.shape != (1, config["out_channels"], *sides):
        raise InputError(f"{path} describes a network that gives {tuple(out.shape)} for {tuple(x.shape)}.")


def _weights(path: Path, folder: Path) -> tuple[dict[str, Tensor], bytes]:
    """Weights from safetensors, else from the older .bin."""
    found = sorted(folder.glob(f"{WEIGHTS}*.safetensors"))
    whole = [f for f in found if f.name == f"{WEIGHTS}.safetensors"] or found
    if len(whole) == 1:
        content = contents(whole[0])
        header(whole[0], content)
        return load_tensors(content), content
    if len(whole) > 1:
        raise InputError(f"{folder} holds {len(whole)} weight files, which one is meant? Leave one there.")
    old = folder / f"{WEIGHTS}.bin"
    if not old.is_file():
        raise InputError(f"{folder} holds no weights: no {WEIGHTS}.safetensors and no {old.name}.")
    return tensors_of(old, read_torch(old)), contents(old)


def _modern(name: str) -> str:
    """Name of an attention weight as the package has called it since 0.15."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        if ".attentions." in name:
            name = name.replace(f".{old}.", f".{new}.")
    return name


def _exploding(
    path: Path, network: nn.Module, config: Table, schedule: Table
) -> tuple[nn.Module, tuple[float, float], tuple[float, float]]:
    """Song's VE: the network takes sigma and gives the score."""
    if config.get("time_embedding_type") != "fourier":
        raise InputError(f"{path} has a scheduler of VE, but its network does not embed sigma by Fourier.")
    low, high = (number(path, schedule, name) for name in ("sigma_min", "sigma_max"))
    denoiser = Score(network, lambda sigma: sigma.clamp_min(1e-12))
    if config.get("center_input_sample"):
        return denoiser, (0.0, 1.0), (low, high)
    return denoiser, (-1.0, 1.0), (low / 2, high / 2)


def _preserving(
    path: Path, network: nn.Module, config: Table, schedule: Table
) -> tuple[nn.Module, tuple[float, float], tuple[float, float]]:
    """Discrete steps of VP, by what is predicted."""
    kind = schedule.get("prediction_type", "epsilon")
    if (
        not isinstance(kind, str)
        or kind not in PREDICTIONS
        or config.get("time_embedding_type", "positional") != "positional"
    ):
        raise InputError(
            f"{path} predicts {kind} with a {config.get('time_embedding_type')} embedding; known are "
            f"{', '.join(PREDICTIONS)} with a positional one."
        )
    levels = levels_of_scheduler(path, schedule)
    denoiser = PREDICTIONS[kind](network, Steps(levels))
    return denoiser, (-1.0, 1.0), (float(levels[0]) / 2, float(levels[-1]) / 2)


def _digest(content: bytes, *tables: Table) -> str:
    """SHA-256 of everything that decides what the network computes."""
    told = json.dumps(tables, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(content).digest() + told).hexdigest()
