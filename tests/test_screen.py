"""What a run says while it works: chi2 of what is finished, and how far it is."""

from pathlib import Path

from invsolve.run.events import Done, Failed, Tick
from invsolve.run.screen import Lines
from invsolve.run.units import Unit


def units(count, n=1):
    """That many units of n samples."""
    return [Unit(Path("units"), k * n, n, str(k)) for k in range(count)]


def said(events, total, capsys):
    """Lines that a run without a terminal prints for these events."""
    shown = Lines()
    with shown.sampling(total):
        for event in events:
            shown.show(event)
    return capsys.readouterr().err.splitlines()


def test_units_at_different_noise_levels_are_not_averaged(capsys):
    a, b = units(2)
    lines = said([Tick(a, 0.9, 5.0), Tick(b, 0.1, 4e5), Tick(a, 0.95, 2.0)], 2, capsys)
    assert all("chi2 5 on its way down" in line for line in lines)


def test_once_a_sample_is_finished_chi2_is_of_finished_samples_alone(capsys):
    a, b = units(2)
    lines = said([Tick(a, 1.0, 1.03), Done(a), *(Tick(b, k / 10, 4e5) for k in range(9))], 2, capsys)
    assert len(lines) >= 5
    assert all("chi2 1.03  " in line for line in lines[1:])


def test_chi2_of_finished_units_is_weighed_by_their_samples():
    a, b, shown = Unit(Path("units"), 0, 3, "a"), Unit(Path("units"), 3, 1, "b"), Lines()
    for event in (Tick(a, 1.0, 1.0), Done(a), Tick(b, 1.0, 2.0), Done(b)):
        shown.show(event)
    assert shown.chi2() == "chi2 1.25"


def test_the_last_line_is_of_all_samples_though_a_shard_is_still_being_written(capsys):
    a, b = units(2)
    lines = said([Tick(a, 1.0, 1.0), Done(a), Tick(b, 1.0, 3.0)], 2, capsys)
    assert lines[-1].startswith("100%")
    assert "chi2 2  " in lines[-1]


def test_a_failed_unit_is_over_and_has_no_chi2(capsys):
    a, b = units(2)
    lines = said([Tick(a, 0.5, 7e9), Failed(a, "NaN"), Tick(b, 1.0, 1.0), Done(b)], 2, capsys)
    assert lines[-1].startswith("100%")
    assert "7e+09" not in lines[-1]
    assert "chi2 1" in lines[-1]


def test_the_last_state_of_a_walk_is_on_no_way(capsys):
    (a,) = units(1)
    lines = said([Tick(a, 0.5, 300.0), Tick(a, 1.0, 1.02), Done(a)], 1, capsys)
    assert "chi2 300 on its way down" in lines[0]
    assert "chi2 1.02  " in lines[-1]


def test_a_run_without_a_measurement_has_no_chi2(capsys):
    (a,) = units(1)
    assert "chi2" not in " ".join(said([Tick(a, 0.5, None), Done(a)], 1, capsys))
