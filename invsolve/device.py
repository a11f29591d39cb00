"""Which device computes: the command line's choice, and the GPU of each of several processes."""

from functools import lru_cache

import torch

from invsolve.errors import InputError

__all__ = ["bfloat16_pays", "choose_device", "keep_float32", "mixed_precision", "share_device"]


_AMPERE = 8  # compute capability of the first GPUs that multiply in bfloat16


def choose_device(name: str) -> str:
    """Device for auto, cpu, cuda or cuda:i; InputError where it is not there."""
    count = _count()
    if name == "auto":
        return "cuda:0" if count else "cpu"
    kind, _, index = name.partition(":")
    if name == "cpu":
        return name
    if kind != "cuda" or not (index or "0").isdigit():
        raise InputError(f"--device {name} is unknown: auto, cpu, cuda or cuda:0, cuda:1, ...")
    if int(index or 0) >= count:
        there = f"it has {count}: cuda:0 to cuda:{count - 1}" if count else "it has none that torch can use"
        raise InputError(
            f"--device {name}: this machine has no such GPU ({there}). Take --device cpu or auto."
        )
    return f"cuda:{index or 0}"


def keep_float32(device: str) -> None:
    """Compute float32 in float32 on a GPU, where torch's default keeps 11 of 24 bits in convolutions.

    Only processes of our own do so, those of the commands; a program that uses the library decides for
    itself (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32).
    """
    if device != "cpu":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def share_device(name: str, process: int) -> str:
    """Device of one of this machine's processes: auto and cuda go round the GPUs, cuda:i is for all."""
    device = choose_device(name)
    return f"cuda:{process % _count()}" if device != "cpu" and name in ("auto", "cuda") else device


def mixed_precision(device: torch.device, *, wanted: bool = True) -> torch.autocast:
    """Multiply in bfloat16 inside this context, if it is wanted and pays."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and bfloat16_pays(device))


@lru_cache
def bfloat16_pays(device: torch.device) -> bool:
    """Tell whether the device multiplies in bfloat16; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= _AMPERE
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and bool(capability and capability())


def _count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
