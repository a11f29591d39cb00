"""The file of a classifier: safetensors of fp16 weights that says everything about itself.

As every weight file (priors/weight_file.py), with `format` invsolve-classifier-1 and the fields of
ClassifierArchitecture. In memory it becomes a NoiseAware: images in [0, 1] and noise of that scale in, logits
out. Below the lowest noise level it was trained on the image counts as having that level, so a clean image
(sigma = 0) has logits too.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from invsolve.classifiers.network import ClassifierArchitecture, NoisyClassifier, build_classifier
from invsolve.errors import InputError, UnknownName
from invsolve.priors.formats import side_of
from invsolve.priors.weight_file import contents, filled, metadata_of, stated_sha256, write_weights

__all__ = ["NoiseAware", "load_classifier", "save_classifier", "shipped_classifiers"]

FORMAT = "invsolve-classifier-1"
ADVICE = "Expected a safetensors file written by invsolve train --kind classifier."


class NoiseAware(nn.Module):
    """p(c | x_0 + sigma n = x) in physical units: net(x, sigma) -> logits (B, classes)."""

    def __init__(
        self, network: nn.Module, classes: int, sigma_min: float, sigma_max: float, span: float = 2.0
    ) -> None:
        """Freeze the network, which was trained on [-1, 1] (span 2); noise levels in physical units."""
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.classes, self.sigma_min, self.sigma_max, self.span = classes, sigma_min, sigma_max, span
        self.shape: tuple[int | None, ...] | None = None  # of the images it knows
        self.metadata: dict[str, str] = {}
        self.sha256 = ""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logits of images (B, C, H, W) in [0, 1] with noise of levels sigma (B,)."""
        level = sigma.clamp(self.sigma_min, self.sigma_max)
        logits: Tensor = self.network(self.span * (x - 0.5), self.span * level)
        return logits


def shipped_classifiers() -> dict[str, Path]:
    """Name and file of each classifier inside the package: that of the prior it belongs to."""
    return {f.stem: f for f in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}


def load_classifier(name_or_path: str | Path) -> NoiseAware:
    """Load a shipped classifier by the name of its prior, or a file by its path."""
    known, path = shipped_classifiers(), Path(name_or_path)
    if str(name_or_path) not in known and not path.suffix and len(path.parts) == 1 and not path.exists():
        raise UnknownName("classifier", str(name_or_path), known)
    return _load(known.get(str(name_or_path), path))


def _load(path: Path) -> NoiseAware:
    content = contents(path)
    metadata = metadata_of(path, content, FORMAT, ADVICE)
    architecture, low, high = _described(path, metadata)
    sha256 = stated_sha256(path, content, metadata)
    network = filled(path, content, build_classifier, architecture)
    classifier = NoiseAware(network, architecture.classes, low, high)
    side = side_of(path, metadata)
    classifier.shape = (architecture.in_channels, side, side)
    classifier.metadata, classifier.sha256 = metadata, sha256
    return classifier


def _described(path: Path, metadata: Mapping[str, str]) -> tuple[ClassifierArchitecture, float, float]:
    """Turn the metadata into architecture, sigma_min and sigma_max."""
    try:
        architecture = ClassifierArchitecture(**json.loads(metadata["architecture"]))
        low, high = float(metadata["sigma_min"]), float(metadata["sigma_max"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"the metadata of {path} cannot be used ({error}). {ADVICE}") from None
    if not 0 < low < high < math.inf:
        raise InputError(f"{path} says sigma {low} to {high}: not finite and increasing.")
    return architecture, low, high


def save_classifier(
    path: Path,
    network: NoisyClassifier,
    *,
    name: str,
    licence: str,
    sigma_min: float,
    sigma_max: float,
    about: Mapping[str, str],
) -> None:
    """Write a classifier in fp16; sigma_min and sigma_max in physical units; about: more metadata."""
    metadata = {
        **about,
        "format": FORMAT,
        "name": name,
        "licence": licence,
        "architecture": json.dumps(dataclasses.asdict(network.architecture)),
        "sigma_min": repr(sigma_min),
        "sigma_max": repr(sigma_max),
    }
    write_weights(path, network, metadata)
