"""The exceptions of invsolve, each with the exit code the command line gives it.

    InvsolveError                 1   anything below
      InputError      ValueError  2   a file, an option or an argument is wrong
        UnknownName   LookupError 2   no part of that name; names the nearest
        Refused                   2   a combination that is mathematically wrong
      Divergence      Arithmetic  3   a sample became NaN or infinite
      OutputError     OSError     5   the results cannot be written
      DownloadError   OSError     6   weights cannot be fetched
      PluginError                 7   a plugin is broken or two plugins clash
      CheckFailed     Assertion   7   a conformance check failed
      Interrupted               130   a process of several is gone; the same command resumes

A message is one or two lines: what is wrong with the offending value, what was expected, what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckFailed",
    "Divergence",
    "DownloadError",
    "InputError",
    "Interrupted",
    "InvsolveError",
    "OutputError",
    "PluginError",
    "Refused",
    "UnknownName",
]


class InvsolveError(Exception):
    """Root of every error that invsolve raises on purpose."""

    exit_code = 1


class InputError(InvsolveError, ValueError):
    """A file, an option or an argument is wrong."""

    exit_code = 2


class UnknownName(InputError, LookupError):
    """No part of that name is installed."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Name the kind, the wrong name, its nearest neighbours and all that is installed."""
        names = sorted(known)
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {kind} named {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


class Refused(InputError):
    """A combination that is mathematically wrong, with the reason."""


class Divergence(InvsolveError, ArithmeticError):
    """A sample became NaN or infinite: names the time and the term."""

    exit_code = 3


class OutputError(InvsolveError, OSError):
    """The results cannot be written."""

    exit_code = 5


class DownloadError(InvsolveError, OSError):
    """Weights that were asked for by name cannot be fetched."""

    exit_code = 6


class PluginError(InvsolveError):
    """A plugin is broken, or two plugins offer one name."""

    exit_code = 7


class CheckFailed(InvsolveError, AssertionError):
    """A conformance check of invsolve.testing failed."""

    exit_code = 7


class Interrupted(InvsolveError):
    """A process of several was killed or lost; the same command goes on."""

    exit_code = 130
