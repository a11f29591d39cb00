"""The shipped priors by name, and any prior file by path.

load_prior("photo")            weights/photo.safetensors in the package; its model card is photo.md
load_prior("my.safetensors")   a file written by `invsolve train`
"""

from pathlib import Path

from invsolve.errors import UnknownName
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.formats import load_safetensors_prior

__all__ = ["load_prior", "shipped"]


def shipped() -> dict[str, Path]:
    """Name and file of each prior inside the package."""
    return {f.stem: f for f in sorted((Path(__file__).parent / "weights").glob("*.safetensors"))}


def load_prior(name_or_path: str | Path) -> DenoiserPrior:
    """Load a shipped prior by its name, or a prior file by its path (with a suffix or a folder in it)."""
    known, path = shipped(), Path(name_or_path)
    if str(name_or_path) in known:
        return load_safetensors_prior(known[str(name_or_path)])
    if path.suffix or len(path.parts) != 1 or path.exists():
        return load_safetensors_prior(path)
    raise UnknownName("prior", str(name_or_path), known)
