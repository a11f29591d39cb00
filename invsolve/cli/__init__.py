"""The command line: `invsolve run`, list, check, sample, calibrate, train, bench.

A command reads flags, calls one library function and prints; it lives in cli/<name>.py as <name>_command and
imports what is heavy inside its body, so that --help waits for no torch. `run`, `sample` and `calibrate` also
take the options of the parts chosen: typer leaves these in ctx.args (cli/flags.py), and --help is such a
command's own flag.

Exit codes: 0 ok; 1 internal bug; 2 wrong usage or input; 3 finished with failed units; 4 out of memory;
5 output or disk; 6 download; 7 plugin or failed check; 130 interrupted (143 by SIGTERM). An error is one or
two lines on stderr.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from invsolve.cli.interrupt import interruptible
from invsolve.errors import InvsolveError
from invsolve.heap import keep_freed_memory

__all__ = ["build_app", "main"]

_COMMANDS = ("run", "list", "check", "sample", "calibrate", "train", "bench")
_OPEN = ("run", "sample", "calibrate")  # these take the options of the chosen parts
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
_INTERRUPTED, _PIPE_CLOSED, _OUT_OF_MEMORY = 130, 141, 4


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"invsolve {version('invsolve')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Solve imaging inverse problems with score-based priors."""


def build_app(names: Sequence[str] = _COMMANDS) -> typer.Typer:
    """Make the app with these commands, as far as their module is there."""
    app = typer.Typer(
        name="invsolve",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name in names:
        module = f"invsolve.cli.{name}"
        if importlib.util.find_spec(module) is not None:
            command = interruptible(name, getattr(importlib.import_module(module), f"{name}_command"))
            settings = _EXTRA if name in _OPEN else None
            app.command(name, context_settings=settings, add_help_option=name not in _OPEN)(command)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    keep_freed_memory()
    for name in ("stdout", "stderr"):  # closed, as by 2>&-: Python has None for it
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  open as long as the process
    given = [*(sys.argv[1:] if argv is None else argv)]  # not list(): that is a module of this package
    end = given.index("--") if "--" in given else len(given)
    names = [f"./{word}" if word.startswith("-") else word for word in given[end + 1 :]]  # files, not flags
    words = [word for word in given[:end] if word != "--debug"] + names
    sys.exit(_run(words or ["--help"], debug="--debug" in given[:end]))


def _run(words: list[str], *, debug: bool) -> int:
    """Run one command; every way it can end becomes an exit code and at most two lines on stderr."""
    try:
        names = words[:1] if words[0] in _COMMANDS else _COMMANDS  # import one command, not all
        code = build_app(names)(words, prog_name="invsolve", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return _silenced() if isinstance(end.__context__, BrokenPipeError) else _code(end)
    except BrokenPipeError:
        return _silenced()
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:  # the last line of defence: whatever is left becomes a line and a code
        if debug:
            raise
        return _report(error)


def _code(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _silenced() -> int:
    """Nobody reads stdout any more: keep the interpreter from complaining when it closes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED


def _report(error: Exception) -> int:
    """Print an error on stderr and return its exit code."""
    if isinstance(error, InvsolveError):
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if hasattr(error, "format_message"):  # typer's usage errors, whose class it keeps to itself
        said = error.format_message()
        stop = "" if said.endswith((".", "?")) else "."
        print(f"error: {said}{stop} See `invsolve --help`.", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    kind = type(error).__name__
    if kind == "OutOfMemoryError" or isinstance(error, MemoryError):
        print(
            "error: out of memory. Smaller images or batches need less; so does --device cpu.",
            file=sys.stderr,
        )
        return _OUT_OF_MEMORY
    first = (str(error) or "no message").splitlines()[0]
    print(
        f"error: internal bug, please report it: {kind}: {first}\nRun `invsolve --debug ...`", file=sys.stderr
    )
    return 1
