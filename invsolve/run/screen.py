"""What a run says while it works, on stderr: a bar on a terminal, a line now and then elsewhere, nothing when
quiet.

The unit of progress is one step of one sample. chi2, |A x - y|^2 / (m sigma_y^2), is that of the samples
finished since this start, near 1 for a right posterior. Until there is one it is that of the states of the
unit furthest on, marked as on its way: those are noise at first, so it begins high and falls. Units at
different noise levels are never averaged.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invsolve.run.events import Done, Event, Failed, Tick

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Screen", "screen"]

_LINES = 10  # progress lines of a run without a terminal


class Screen:
    """Says nothing but notes and failures; the base of the two that show progress."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Start the clock; a quiet screen keeps to failures."""
        self.quiet, self.total, self.started = quiet, 1.0, 0.0
        self.already = 0.0
        self._samples: dict[str, float] = {}
        self._states: dict[str, Tick] = {}  # the last of each unit in hand
        self._finished: list[tuple[int, float]] = []  # samples of each unit that is done, and their chi2

    def note(self, text: str) -> None:
        """Say something once."""
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Say something even when quiet."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def done_already(self, samples: int) -> None:
        """Count samples that an earlier start made."""
        self.already += samples

    def show(self, event: Event) -> None:
        """Take in what a unit says."""
        unit = event.unit
        if isinstance(event, Tick):
            self.started = self.started or time.monotonic()
            self._samples[unit.id] = unit.n * event.share
            self._states[unit.id] = event
        elif isinstance(event, Done | Failed):
            self._samples[unit.id] = unit.n
            last = self._states.pop(unit.id, None)
            if isinstance(event, Done) and last and last.chi2 is not None:
                self._finished.append((unit.n, last.chi2))
        if not self.quiet and not isinstance(event, Failed):  # which is said in words of its own
            self.update()

    @property
    def share(self) -> float:
        """Share of all sample paths that is done, 0 to 1."""
        return min(1.0, (self.already + sum(self._samples.values())) / self.total)

    def chi2(self) -> str:
        """Say the chi2 of the finished samples or, before there are any, of the unit furthest on."""
        over = [(s.unit.n, s.chi2) for s in self._states.values() if s.share >= 1 and s.chi2 is not None]
        finished = self._finished + over  # whose shards are being written
        if finished:
            return f"chi2 {sum(n * chi2 for n, chi2 in finished) / sum(n for n, _ in finished):.3g}"
        furthest = max(self._states.values(), key=lambda tick: tick.share, default=None)
        if furthest is None or furthest.chi2 is None:
            return ""
        return f"chi2 {furthest.chi2:.3g} on its way down"

    def left(self) -> float | None:
        """Seconds left, at the rate since the first step of this start."""
        made = sum(self._samples.values())
        rest = self.total - self.already - made
        return (time.monotonic() - self.started) * rest / made if made and self.started else None

    @contextmanager
    def sampling(self, total: float) -> Iterator[None]:
        """Show progress of so many samples."""
        self.total = total
        yield

    def update(self) -> None:
        """Redraw."""


class Lines(Screen):
    """A line at each tenth of the way: for logs and pipes."""

    _next = 1 / _LINES

    def update(self) -> None:
        """Print a line once another tenth is done."""
        if self.share >= self._next - 1e-9:
            self._next = (int(self.share * _LINES + 1e-9) + 1) / _LINES
            self._print(f"{self.share:4.0%}{_numbers(self)}")


class Bar(Screen):
    """A bar that redraws itself on a terminal."""

    _progress: "Progress"
    _task: "TaskID"

    @contextmanager
    def sampling(self, total: float) -> Iterator[None]:
        """Show the bar while units run."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("sampling"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%{task.fields[numbers]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        with super().sampling(total), self._progress:
            self._task = self._progress.add_task("", total=1.0, numbers="")
            yield

    def _print(self, text: str) -> None:
        if hasattr(self, "_progress"):
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            super()._print(text)

    def update(self) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=self.share, numbers=_numbers(self))


def _numbers(screen: Screen) -> str:
    left, chi2 = screen.left(), screen.chi2()
    return (f"  {chi2}" if chi2 else "") + ("" if left is None else f"  {_clock(left)} left")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def screen(*, quiet: bool) -> Screen:
    """Choose how to show progress: nothing, a bar on a terminal, lines elsewhere."""
    if quiet:
        return Screen(quiet=True)
    return Bar() if sys.stderr.isatty() else Lines()
