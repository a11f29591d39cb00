"""One way to any prior: the shipped ones by name, weight files and folders by path, denoisers as objects.

load_prior("photo")                                weights/photo.safetensors in the package; card: photo.md
load_prior("my.safetensors")                       a file written by `invsolve train`
load_prior("ffhq_10m.pt", num_head_channels=64)    a file of another toolkit, with what it does not tell
load_prior("hf:owner/name")                        a repository of the Hugging Face hub
load_prior(denoiser, sigma_min=..., sigma_max=...) an object of deepinv
"""

from pathlib import Path

from torch import nn

from invsolve.errors import UnknownName
from invsolve.priors.checkpoints.deepinv_denoiser import wrap_denoiser
from invsolve.priors.checkpoints.detect import load_checkpoint
from invsolve.priors.checkpoints.diffusers_folder import is_diffusers
from invsolve.priors.checkpoints.hints import Hints, gather
from invsolve.priors.checkpoints.hub import PREFIX, fetch
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.formats import load_safetensors_prior

__all__ = ["is_weights", "load_prior", "shipped"]


def shipped() -> dict[str, Path]:
    """Name and file of each prior inside the package."""
    return {f.stem: f for f in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}


def is_weights(name: str) -> bool:
    """Whether a name means weights on disk: a file that is no source code, or a folder of diffusers."""
    path = Path(name)
    return (path.is_file() and path.suffix not in (".py", ".toml")) or is_diffusers(path)


def load_prior(source: str | Path | nn.Module, **hints: object) -> DenoiserPrior:
    """Load a shipped prior by its name, or weights by their path (with a suffix or a folder in it).

    hints: what the weights of another toolkit do not tell, by the names of `checkpoints.hints.Hints`.
    """
    if isinstance(source, nn.Module):
        return wrap_denoiser(source, gather(None, hints))
    if str(source).startswith(PREFIX):
        return load_checkpoint(fetch(str(source)), hints)
    known, path = shipped(), Path(source)
    if str(source) in known:
        Hints(**hints).only(source, "a shipped prior", ())  # type: ignore[arg-type]  # Hints checks its types
        return load_safetensors_prior(known[str(source)])
    if path.suffix or len(path.parts) != 1 or path.exists():
        return load_checkpoint(path, hints)
    raise UnknownName("prior", str(source), known)
