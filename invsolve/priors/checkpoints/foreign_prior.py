"""A checkpoint of another toolkit as a Prior: images of the size it was trained on, in full precision."""

import hashlib
import json

from torch import nn

from invsolve.errors import InputError
from invsolve.priors.checkpoints.hints import Hints
from invsolve.priors.denoiser import DenoiserPrior, GreyPrior

__all__ = ["CheckpointPrior", "trained_range"]

Size = tuple[int, int | None, int | None]


class CheckpointPrior(DenoiserPrior):
    """A network in its own units behind the range change of DenoiserPrior; float32, nothing clipped."""

    def __init__(
        self,
        network: nn.Module,
        shape: Size,
        sigmas: tuple[float, float],
        *,
        data_range: tuple[float, float] = (-1.0, 1.0),
        name: str,
        card: dict[str, object],
    ) -> None:
        """sigmas: trained noise levels in physical units; card: what was found, and what was told."""
        low, high = sigmas
        super().__init__(
            network, channels=shape[0], sigma_min=low, sigma_max=high, data_range=data_range, name=name
        )
        self.shape = shape
        self.fast = False  # exact in float32 is the promise
        self.metadata = {key: str(value) for key, value in card.items()}

    def identified(self, content: str, hints: Hints) -> "CheckpointPrior":
        """Set sha256 from that of the file, and of the hints where there are any: both decide the samples."""
        told = json.dumps(hints.given, sort_keys=True)
        self.sha256 = hashlib.sha256(f"{content} {told}".encode()).hexdigest() if hints.given else content
        self.metadata |= {f"hint {name}": str(value) for name, value in hints.given.items()}
        return self

    def grey(self) -> GreyPrior:
        """Give the prior of grey images that a colour prior implies, of the same size."""
        grey = GreyPrior(self)
        grey.shape = (1, *(self.shape or ())[1:])
        return grey


def trained_range(source: object, hints: Hints, found: tuple[float, float]) -> tuple[float, float]:
    """Noise levels of a file in physical units, unless a hint narrows or replaces them."""
    low = found[0] if hints.sigma_min is None else hints.sigma_min
    high = found[1] if hints.sigma_max is None else hints.sigma_max
    if not low < high:
        raise InputError(f"{source} would have noise levels from {low:.4g} to {high:.4g}: not increasing.")
    return low, high
