"""What a unit of work says while it runs: ticks, then that it is done or that it failed."""

from dataclasses import dataclass

from invsolve.run.units import Unit

__all__ = ["Done", "Event", "Failed", "Tick"]


@dataclass(frozen=True)
class Tick:
    """A step was made: the share of the unit that is done, 0 to 1, and the mean chi2 of its samples'
    states, where there is a measurement."""

    unit: Unit
    share: float
    chi2: float | None


@dataclass(frozen=True)
class Done:
    """The unit's shard is on disk."""

    unit: Unit


@dataclass(frozen=True)
class Failed:
    """The unit has no shard: exit_code says what kind of fault, trace is the traceback of an unexpected
    one."""

    unit: Unit
    message: str
    exit_code: int = 3
    trace: str = ""


Event = Tick | Done | Failed
