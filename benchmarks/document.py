"""Put the tables of a finished `invsolve bench posterior` into a section of docs/benchmark.md.

    invsolve bench posterior --dx 80 --images none --methods smc --seeds 20 --out smc
    python benchmarks/document.py smc smc

puts the tables of the folder smc between <!-- smc --> and <!-- /smc -->, and below them with what they were
computed and where they were written.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from distances import between_markers
from figures import place

from invsolve.errors import InputError, InvsolveError
from invsolve.files import write_whole

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmark.md"


def tables_of(folder: Path) -> str:
    """Tables of a finished benchmark, and the settings they were computed with."""
    shown, summary = folder / "posterior.md", folder / "summary.json"
    if missing := [str(path) for path in (shown, summary) if not path.exists()]:
        raise InputError(f"there is no {', '.join(missing)}: let the benchmark finish first.")
    known = json.loads(summary.read_text(encoding="utf-8"))
    steps = "each method's own steps" if known["steps"] is None else f"{known['steps']} steps"
    settings = f"{known['samples']:,} samples, {steps}, invsolve {known['version']}, {known['machine']}"
    return f"{shown.read_text(encoding='utf-8').strip()}\n\nBy {settings}; written at {place()}."


def main(argv: Sequence[str] | None = None) -> None:
    """Write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", help="name of the markers")
    parser.add_argument("folders", type=Path, nargs="+", help="what --out of the benchmarks was")
    options = parser.parse_args(argv)
    tables = "\n\n".join(tables_of(folder) for folder in options.folders)
    whole = between_markers(PAGE.read_text(encoding="utf-8"), options.section, tables)
    write_whole(PAGE, whole.encode())


if __name__ == "__main__":
    try:
        main()
    except InvsolveError as error:
        sys.exit(f"error: {error}")
