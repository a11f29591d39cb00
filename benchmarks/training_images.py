r"""Make the JPEG folders that the prior `photo` was trained on from the public collections.

    python benchmarks/training_images.py CODEC_CORPUS/CID22-512/training cid22
    python benchmarks/training_images.py BUDGIE_BACKGROUNDS/backgrounds budgie_cc0 \
        --side 1024 --quality 90 --budgie

Pictures are shrunk to a longest side, never enlarged, and saved without chroma subsampling under their own
names, by which the configs of photo leave some out.
"""

import argparse
from pathlib import Path

from PIL import Image

from invsolve.training.data import image_files, open_image

__all__ = ["BUDGIE", "convert"]

BUDGIE = [  # the photographs that photo has seen
    "beacon-street-sunset",
    "blue-periwinkle",
    "canyon-wren",
    "casa-mila",
    "extreme-desert-hike",
    "high-trestle-trail",
    "lake-sherburne",
    "oakland-zoo-otters",
    "ocean-waves",
    "perched-osprey",
    "piazza-gae-aulenti",
    "roman-colosseum",
    "saturnian-profile",
    "singaporean-cityscape",
    "tea-gardens",
    "the-spices-of-life",
]


def convert(source: Path, target: Path, side: int, quality: int, names: list[str] | None = None) -> int:
    """Save every picture of source, or those named, as target/<name>.jpg; returns how many."""
    target.mkdir(parents=True, exist_ok=True)
    files = [f for f in image_files([source]) if names is None or f.stem in names]
    for file in files:
        picture = open_image(file, 3)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        picture.save(target / f"{file.stem}.jpg", quality=quality, subsampling=0)
    return len(files)


def main() -> None:
    """Convert one folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--side", type=int, default=512, help="longest side, pixels")
    parser.add_argument("--quality", type=int, default=88, help="of the JPEG files")
    parser.add_argument("--budgie", action="store_true", help="only the 16 photographs of photo")
    given = parser.parse_args()
    names = BUDGIE if given.budgie else None
    print(f"{convert(given.source, given.target, given.side, given.quality, names)} images in {given.target}")


if __name__ == "__main__":
    main()
