"""The command `invsolve check`: the conformance kit, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from invsolve.errors import InputError, InvsolveError, PluginError
from invsolve.signals import deaf

__all__ = ["check_command"]

_FAILED = 7


def check_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="A part (stripes, operator:stripes), ./file.py:NAME, a plugin, or its folder.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of clean images that a prior should know: is noise in them removed?"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where a prior computes: auto, cpu, cuda or cuda:i.")] = "auto",
    timeout: Annotated[float, typer.Option(help="Seconds the checks may take.", min=1)] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check that a part does what its kind promises; exit code 7 if it does not."""
    if images is not None and not images.is_dir():
        raise InputError(f"--images must be a folder of images, but {images} is none.")
    lines = _run(target, timeout, images, device)
    passed = bool(lines) and all(line["passed"] for line in lines)
    typer.echo(json.dumps({"passed": passed, "checks": lines}, indent=2) if as_json else _table(lines))
    if not passed:
        raise typer.Exit(_FAILED)


def _run(target: str, timeout: float, images: Path | None, device: str) -> list[dict[str, object]]:
    """Run the kit in a child process and read the lines it wrote, however it ended."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.jsonl"
        command = [sys.executable, "-m", "invsolve.testing", target, str(path), str(images or ""), device]
        with deaf():
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            ended = _ending(child.wait(timeout))
        except subprocess.TimeoutExpired:
            ended = f"the checks did not end within {timeout:g} s"
        finally:
            child.kill()
            child.wait()
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        if "error" in line:
            raise _error(line["error"], line["exit_code"])
    if ended:
        lines.append({"part": target, "check": "ends by itself", "passed": False, "said": ended})
    return lines


def _ending(code: int) -> str:
    if code < 0:
        return f"the process was killed by signal {-code} during the check after these"
    return f"the process ended with exit code {code}" if code else ""


def _error(sentence: str, code: int) -> InvsolveError:
    return PluginError(sentence) if code == _FAILED else InputError(sentence)


def _table(lines: list[dict[str, object]]) -> str:
    width = max((len(f"{line['part']}: {line['check']}") for line in lines), default=0)
    rows = [
        f"{'pass' if line['passed'] else 'FAIL'}  {line['part']}: {line['check']}".ljust(width + 8)
        + str(line["said"])
        for line in lines
    ]
    failed = sum(not line["passed"] for line in lines)
    return "\n".join([*rows, f"{len(lines) - failed} of {len(lines)} checks passed."])
