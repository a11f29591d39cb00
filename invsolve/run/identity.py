"""What decides the samples of a start without a photo: another start with the same goes on with its files."""

from importlib.metadata import version
from typing import Any

from invsolve.run import parts
from invsolve.run.record import files_of, hashes
from invsolve.run.settings import Tables, flat

__all__ = ["identity"]


def identity(tables: Tables, device: str) -> dict[str, Any]:  # Any: JSON
    """Everything that decides the samples: where files lie is left out, what is in them is in."""
    settings = {key: value for key, value in flat(tables).items() if key != "run.device"}
    named = files_of(tables)
    return {
        **settings,
        "files": list(hashes(named.values()).values()),
        "prior sha256": parts.prior_sha256(tables, device),
        "device": device.split(":")[0],
        "invsolve": version("invsolve"),
    }
