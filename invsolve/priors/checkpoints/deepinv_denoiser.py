"""Any denoiser object of deepinv as a Prior: called as denoiser(x, sigma) on images in [0, 1].

What it was trained on is not told by the object: its noise levels have to be. A denoiser that clips its
answer is no conditional mean any more, and its derivative is zero where it clips, so it is refused where
that can be seen. Channels are those it says it has, else those of which it takes an image and gives one
back. deepinv itself is not imported.
"""

import hashlib

import torch
from torch import Tensor, nn

from invsolve.errors import InputError, Refused
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior, Size, trained_range
from invsolve.priors.checkpoints.hints import Hints

__all__ = ["wrap_denoiser"]

KIND = "a denoiser object"


def wrap_denoiser(denoiser: nn.Module, hints: Hints) -> CheckpointPrior:
    """Put a denoiser behind the interface of Prior; its weights are frozen."""
    name = type(denoiser).__name__
    hints.only(name, KIND, ("sigma_min", "sigma_max", "image_size"))
    hints.need(name, KIND, ["sigma_min", "sigma_max"])
    if getattr(denoiser, "clip_output", False):
        raise Refused(f"{name} clips its output, which is then no mean. Build it with clip_output=False.")
    if name == "DiffUNet":
        raise Refused("DiffUNet clips its output. Give load_prior the weight file (.pt) it was made from.")
    size: Size = (_channels(denoiser.eval(), hints.image_size or 64), hints.image_size, hints.image_size)
    sigmas = trained_range(name, hints, (0.0, 0.0))
    prior = CheckpointPrior(Plain(denoiser), size, sigmas, data_range=(0.0, 1.0), name=name, card={})
    return prior.identified(_digest(denoiser), hints)


def _channels(denoiser: nn.Module, side: int) -> int:
    """Channels that the object states, or those of which it denoises an image."""
    name, stated = type(denoiser).__name__, getattr(denoiser, "in_channels", None)
    if isinstance(stated, int):
        if not 1 <= stated <= 4:
            raise InputError(f"{name} takes {stated} channels, but images have 1 to 4.")
        return stated
    device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    said = ""
    for channels in (3, 1, 2, 4):
        x = torch.zeros(1, channels, side, side, device=device)
        try:
            with torch.no_grad():
                if denoiser(x, torch.full((1,), 0.1, device=device)).shape == x.shape:
                    return channels
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            said = said or f": {str(error).splitlines()[0][:100]}"
    raise InputError(
        f"{name} gives no image of the same shape for any of {side} x {side} with 1 to 4 channels{said}"
    )


class Plain(nn.Module):
    """A denoiser that takes one noise level a row, in the dtype of the image.

    Some take the logarithm of the level, so 0 goes in as 1e-12.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        """Keep the denoiser."""
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x (B, C, H, W), sigma (B,)."""
        out: Tensor = self.denoiser(x, sigma.clamp_min(1e-12).to(x.dtype))
        return out


def _digest(denoiser: nn.Module) -> str:
    """SHA-256 of the weights by name."""
    digest = hashlib.sha256(type(denoiser).__name__.encode())
    for name, value in sorted(denoiser.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
