"""Run other people's code so that its faults stay its own.

An import or a hook of a plugin may raise anything, call sys.exit or print. Inside `guarded` what it prints
goes to stderr, since stdout carries results, and what it raises becomes one PluginError that names it.
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from invsolve.errors import InvsolveError, PluginError

__all__ = ["guarded", "reason"]


@contextlib.contextmanager
def guarded(subject: str) -> Iterator[None]:
    """Turn what is raised into a PluginError "subject is broken: reason": all but ours, Ctrl-C and lack of
    memory."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (KeyboardInterrupt, InvsolveError, MemoryError):  # for lack of memory nobody is to blame
        raise
    except BaseException as error:  # whatever a plugin raised, sys.exit too, is what this is for
        raise PluginError(f"{subject} is broken: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Say what went wrong and where, on one line: ImportError: no module named 'x' (plugin.py:3)."""
    first = (str(error).strip() or "no message").splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{where}"
