"""JSON as its standard has it: without NaN and infinity, for which Python writes words that few readers take.

null stands for both: the PSNR of equal images, the interval of a single problem.
"""

import json
import math
from typing import Any

__all__ = ["finite", "json_text"]


def json_text(value: object, indent: int | None = None) -> str:
    """Text of a value made of dicts, lists, numbers and words."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:  # noqa: ANN401  JSON
    """The value with None in place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
