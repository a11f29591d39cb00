"""The input files of a run, and the directory that each gets.

An INPUT is a file, a directory (its image files, not those further down) or a pattern. One file has its
results in DIR itself, several in DIR/<stem>; where two files share a stem their parent directory goes in
front, and a hash where that is not enough.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from invsolve.errors import InputError
from invsolve.images import LoadedImage, load_image
from invsolve.run.settings import Tables

__all__ = ["SUFFIXES", "Input", "directories", "expand", "read"]

_MARGIN = 0.5  # how far a measured value may lie outside [0, 1]: it carries noise
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".npy"}


@dataclass(frozen=True)
class Input:
    """One image file and the directory of its results."""

    path: Path
    directory: Path


def expand(given: Sequence[str]) -> list[Path]:
    """Absolute paths of all files meant, each once, in the order given."""
    found = [path for item in given for path in _files(item)]
    return list(dict.fromkeys(path.absolute() for path in found))


def _files(item: str) -> list[Path]:
    path = Path(item)
    if path.is_dir():
        files = sorted(
            p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        )
        if not files:
            raise InputError(
                f"the directory {item} has no image files; expected {', '.join(sorted(SUFFIXES))}."
            )
        return files
    if has_magic(item) and not path.exists():
        files = sorted(Path(name) for name in glob(item) if Path(name).is_file())
        if not files:
            raise InputError(f"no file matches {item!r}.")
        return files
    return [path]


def directories(paths: Sequence[Path], out: Path) -> list[Input]:
    """Give each file its directory: `out` itself for one, a name of its own inside `out` for several."""
    if len(paths) == 1:
        return [Input(paths[0], out)]
    names = [path.stem for path in paths]
    for longer in (lambda p: f"{p.parent.name}-{p.stem}", lambda p: f"{p.parent.name}-{p.name}", _hashed):
        shared = Counter(name.lower() for name in names)  # some file systems do not tell A from a
        names = [longer(p) if shared[n.lower()] > 1 else n for p, n in zip(paths, names, strict=True)]
    return [Input(path, out / name) for path, name in zip(paths, names, strict=True)]


def _hashed(path: Path) -> str:
    return f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def read(tables: Tables, path: Path) -> LoadedImage:
    """Read an INPUT: the truth when simulating, else the measurement; refuse what can be refused without an
    operator."""
    if tables["run"]["simulate"]:
        return load_image(path)
    image = load_image(path, min_side=4, margin=_MARGIN)  # superres makes it larger
    if tables["operator"]["name"] == "inpaint":
        _check_mask(tables["operator"], image, path)
    return image


def _check_mask(table: Mapping[str, object], image: LoadedImage, path: Path) -> None:
    """Refuse a measured photo that does not say which of its pixels are lost."""
    if "keep" in table:
        raise InputError(
            "--keep draws the lost pixels, so it is for --simulate. For a photo that has lost pixels give "
            "--mask FILE or --box Y,X,H,W."
        )
    if not {"mask", "box"} & set(table) and image.alpha is None:
        raise InputError(
            f"which pixels of {path} are lost? Give --mask FILE (white is seen), --box Y,X,H,W, or a photo "
            "with an alpha channel. To try inpainting on a clean photo, add --simulate."
        )
