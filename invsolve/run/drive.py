"""The run, in order: read, start the workers, prepare each image, compute its units, write its files.

Images are prepared only when a process is free for their units, and written as soon as their last unit is
done, so that a folder of any length needs the memory of a few. One bad image never stops the others; a run of
a single image fails with its own error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invsolve.errors import InputError, InvsolveError, OutputError
from invsolve.files import write_whole
from invsolve.images import SAMPLE
from invsolve.lock import locked
from invsolve.run import record
from invsolve.run.events import Done, Event, Failed
from invsolve.run.executor import Workers, cores, here
from invsolve.run.inputs import Input, directories, expand, read
from invsolve.run.screen import Screen
from invsolve.run.settings import Tables, resolve, to_toml
from invsolve.run.tables import row_of, write_table
from invsolve.run.units import Unit, chunk_size, cost

if TYPE_CHECKING:
    from invsolve.images import LoadedImage
    from invsolve.run.prepare import Case

__all__ = ["Outcome", "resolve", "run"]

_WORTH = 256 * 256 * 50 // 2  # pixels x steps x samples that take longer than it takes to start processes
_GPU = Path("/dev/nvidiactl")  # there may be a GPU: asking torch would take seconds


@dataclass
class Outcome:
    """What a run has to say: a report per finished image, a row per failure, and the exit code."""

    out: Path
    several: bool = False
    images: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON
    failures: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON

    @property
    def exit_code(self) -> int:
        """0; 4 for lack of memory; 2 where there was nothing but bad input; else 3."""
        codes = {failure["exit_code"] for failure in self.failures}
        if not codes:
            return 0
        if 4 in codes:
            return 4
        return 2 if codes == {2} and not self.images else 3


def run(tables: Tables, out: Path | None, screen: Screen, *, overwrite: bool = False) -> Outcome:
    """Do the run, or what is left of it; a run of one image raises what is wrong with it."""
    paths = expand(tables["run"].get("input", []))
    if paths:
        tables["run"]["input"] = [str(path) for path in paths]
    else:
        screen.note("no INPUT: a bundled photo is degraded and reconstructed, as with --simulate")
        paths = [SAMPLE]
    out = out or Path(f"{_stem(paths)}-{_operator(tables)}")
    inputs = directories(paths, out)
    work = _Work(tables, inputs, screen, Outcome(out, several=len(inputs) > 1))
    reports = None if overwrite else record.finished(out, tables, inputs)
    if reports is None:
        work.start(overwrite=overwrite)
    else:
        screen.note("this run is finished already; --overwrite starts it anew")
        work.outcome.images = reports
    return work.outcome


def _stem(paths: Sequence[Path]) -> str:
    return paths[0].stem if len(paths) == 1 else paths[0].parent.name


def _operator(tables: Tables) -> str:
    """Name of the operator for a directory: that of ./mine.py:stripes is stripes."""
    name = str(tables["operator"]["name"])
    return Path(name.rpartition(":")[2]).stem


@dataclass
class _Work:
    """A run in progress."""

    tables: Tables
    inputs: list[Input]
    screen: Screen
    outcome: Outcome
    cases: "dict[Path, Case]" = field(default_factory=dict)  # by the directory of their units
    went_in: dict[str, str] = field(default_factory=dict)  # what each INPUT was when it was read

    def start(self, *, overwrite: bool) -> None:
        """Check all that can be checked without torch, take hold of the directory, and go."""
        self.went_in |= record.contents(self.tables, [])
        out, first = self.outcome.out, self.read(self.inputs[0])
        if not overwrite:
            record.check_settings(out, self.tables)
        with locked(out):
            (out / record.FINISHED).unlink(missing_ok=True)
            for directory in {out, *(given.directory for given in self.inputs)} if overwrite else ():
                record.forget(directory)
            try:
                self.go(first)
            except InputError:
                record.withdraw(out)
                raise

    def go(self, first: "LoadedImage | None") -> None:
        """Compute what is missing and write all files."""
        if self.outcome.several:
            write_whole(self.outcome.out / "run.toml", to_toml(self.tables).encode())
        workers = Workers(self._processes(first))
        try:
            from invsolve.device import choose_device  # imports torch, while the workers do

            device = choose_device(str(self.tables["run"]["device"]))
            compute = workers if len(workers) and device == "cpu" else here
            with self.screen.sampling(len(self.inputs) * self.tables["run"]["samples"]):
                for event in compute(self._units(first, device)):
                    self._take(event)
        finally:
            workers.close()
        self._close()

    def _processes(self, first: "LoadedImage | None") -> int:
        """How many processes are worth their start; 0 where this one does it."""
        run = self.tables["run"]
        if run["device"].startswith("cuda") or (run["device"] == "auto" and _GPU.exists()):
            return 0
        pixels = first.pixels[0].size if first else _WORTH
        units = len(self.inputs) * -(-run["samples"] // chunk_size(self.tables, pixels, "cpu"))
        work = len(self.inputs) * run["samples"] * cost(self.tables) * pixels
        count = min(cores(), units)
        return count if count > 1 and work >= _WORTH else 0

    def read(self, given: Input) -> "LoadedImage | None":
        """Read an image; a bad one among several becomes a failure."""
        try:
            image = read(self.tables, given.path)
        except InvsolveError as error:
            self._refuse(given, error)
            return None
        self.went_in[str(given.path)] = image.sha256
        return image

    def _refuse(self, given: Input, error: InvsolveError) -> None:
        if not self.outcome.several or isinstance(error, OutputError):
            raise error
        self._fail(given, "", str(error), error.exit_code)

    def _fail(self, given: Input, samples: str, message: str, exit_code: int) -> None:
        self.screen.warn(f"{given.path.name}{samples and f', samples {samples}'}: {message}")
        row = {"input": str(given.path), "samples": samples, "exit_code": exit_code, "message": message}
        self.outcome.failures.append(row)

    def _units(self, first: "LoadedImage | None", device: str) -> Iterator[Unit]:
        """Missing units, image by image."""
        from invsolve.run.prepare import prepare

        for i, given in enumerate(self.inputs):
            image = first if i == 0 else self.read(given)
            if image is None:
                continue
            try:
                case = prepare(self.tables, given, image, device)
            except InvsolveError as error:
                self._refuse(given, error)
                continue
            for note in case.notes:
                self.screen.note(f"{given.path.name}: {note}")
            self.screen.done_already(sum(unit.n for unit in case.done))
            self.cases[case.folder] = case
            missing = case.missing
            yield from missing
            if not missing:
                self._write(case)

    def _take(self, event: Event) -> None:
        """Note what a unit says, and write its image with the last one."""
        self.screen.show(event)
        case = self.cases[event.unit.directory]
        if isinstance(event, Done):
            case.done.append(event.unit)
        elif isinstance(event, Failed):
            self._note_failure(case, event)
        else:
            return
        if not case.missing:
            self._write(case)

    def _note_failure(self, case: "Case", event: Failed) -> None:
        unit = event.unit
        if event.exit_code == InputError.exit_code and not self.outcome.several:
            raise InputError(event.message)
        if event.exit_code == OutputError.exit_code:  # the disk is full: the next unit would find it so
            raise OutputError(event.message)
        if event.trace:
            write_whole(unit.shard.with_suffix(".txt"), event.trace.encode())
        case.failed.append(event)
        self._fail(case.input, f"{unit.first}-{unit.first + unit.n - 1}", event.message, event.exit_code)

    def _write(self, case: "Case") -> None:
        """Write the files of an image whose units are over, and let go of it."""
        from invsolve.run.outputs import write

        del self.cases[case.folder]
        if case.done:
            self.outcome.images.append(write(case))

    def _close(self) -> None:
        """Write the tables of the run, and that it is finished."""
        out, images, failures = self.outcome.out, self.outcome.images, self.outcome.failures
        order = [str(given.path) for given in self.inputs]
        images.sort(key=lambda report: order.index(report["input"]))
        if self.outcome.several:
            write_table(out / "summary.csv", map(row_of, images))
        if failures:
            write_table(out / "failures.csv", failures)
            return
        (out / "failures.csv").unlink(missing_ok=True)
        record.finish(out, self.tables, self.inputs, images, self.went_in)
