"""Tables of a run of several images: summary.csv, a row an image, and failures.csv, a row a failure."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from invsolve.files import write_whole

__all__ = ["row_of", "write_table"]


def row_of(report: Mapping[str, Any]) -> dict[str, object]:  # Any: JSON
    """Flatten the report of an image: psnr.mean and so on become columns."""
    row: dict[str, object] = {"input": report["input"], "out": report["out"]}
    for key, value in report["metrics"].items():
        row |= {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return row


def write_table(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as CSV; the columns are all keys, in the order they appear."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode())
