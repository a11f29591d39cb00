"""How a command ends at Ctrl-C or SIGTERM: a line on stderr that says how to go on, and 130 or 143."""

import functools
import sys
from collections.abc import Callable

import typer

from invsolve.signals import Terminated, terminable

__all__ = ["interruptible"]

_GOES_ON = {
    "run": ": finished units are kept, and the same command{} goes on",
    "bench": ": finished units are kept, and the same command{} goes on",
    "calibrate": ": with --out, solved problems are kept, and the same command{} goes on",
    "train": ": the same command{} goes on from the last checkpoint",
}


def interruptible(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Wrap the command of that name; typer alone would end it without a word."""

    @functools.wraps(command)
    def heard(*args: object, **options: object) -> None:
        try:
            with terminable():
                command(*args, **options)
        except KeyboardInterrupt as error:
            but = ", without --overwrite," if options.get("overwrite") else ""
            print(f"interrupted{_GOES_ON.get(name, '').format(but)}.", file=sys.stderr)
            raise typer.Exit(143 if isinstance(error, Terminated) else 130) from None

    return heard
