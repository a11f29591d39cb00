"""Progress of a training run on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from invsolve.training.loop import Report

__all__ = ["shown"]


def line(report: Report, first: Report, loss: float) -> str:
    """Say images, images a second and time left, once there is something to count, and the smoothed loss."""
    seconds = report.seconds - first.seconds
    pace = ""
    if report.images > first.images and seconds > 0:
        left = round(seconds * (1 - report.share) / max(report.share - first.share, 1e-9))
        hours, rest = divmod(left, 3600)
        rate = (report.images - first.images) / seconds
        pace = f"{rate:.3g} images/s, {hours}:{rest // 60:02}:{rest % 60:02} left, "
    return f"{report.images} images, {pace}loss {loss:.3f}, rate {report.rate:.1e}"


def smoothed(reports: Iterable[Report]) -> Iterator[tuple[Report, float]]:
    """Pair each report with the running mean of about the last hundred losses."""
    mean = 0.0
    for count, report in enumerate(reports, start=1):
        mean += (report.loss - mean) / min(count, 100)
        yield report, mean


def plain(reports: Iterable[Report], every: float = 30.0) -> Iterator[Report]:
    """Print a line after a few seconds, every half minute, and at the end."""
    first, due, last = None, time.monotonic() + every / 6, ""
    for report, mean in smoothed(reports):
        first, last = first or report, ""
        if time.monotonic() >= due:
            print(line(report, first, mean), file=sys.stderr, flush=True)
            due = time.monotonic() + every
        else:
            last = line(dataclasses.replace(report, share=1.0), first, mean)  # if it is the last
        yield report
    if last:
        print(last, file=sys.stderr, flush=True)


def barred(reports: Iterable[Report]) -> Iterator[Report]:
    """Draw a bar."""
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task, first = bar.add_task("starting", total=1.0), None
        for report, mean in smoothed(reports):
            first = first or report
            bar.update(task, completed=report.share, description=line(report, first, mean))
            yield report


def shown(reports: Iterable[Report]) -> Iterator[Report]:
    """Pass the reports on and show them."""
    return barred(reports) if sys.stderr.isatty() else plain(reports)
