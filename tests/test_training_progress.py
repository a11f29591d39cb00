"""What a training says while it runs: images a second and time left, as soon as there are two to compare."""

from invsolve.training import progress
from invsolve.training.loop import Report


def report(step, seconds, share):
    return Report(step=step, images=32 * step, seconds=seconds, share=share, rate=1e-3, loss=0.5)


def test_a_line_has_the_rate_and_the_time_left_by_the_share_spent():
    said = progress.line(report(11, 100.0, 0.3), report(1, 90.0, 0.1), 0.25)
    # 320 images in 10 s; 0.2 of the budget in 10 s leaves 0.7 in 35 s
    assert said == "352 images, 32 images/s, 0:00:35 left, loss 0.250, rate 1.0e-03"
    assert "2:46:30 left" in progress.line(report(2, 100.0, 1e-3), report(1, 90.0, 0.0), 0.25)  # 9990 s


def test_the_first_step_promises_nothing():
    first = report(1, 90.0, 0.1)
    assert progress.line(first, first, 0.25) == "32 images, loss 0.250, rate 1.0e-03"


def test_a_short_run_ends_with_its_rate(capsys):
    rows = [report(k, 90.0 + k, 0.1 * k - 0.1) for k in range(1, 11)]  # shares before each step
    assert list(progress.plain(rows)) == rows
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("320 images, 32 images/s, 0:00:00 left")


def test_lines_come_as_often_as_asked_and_none_twice(capsys):
    rows = [report(k, 90.0 + k, 0.1 * k) for k in range(1, 4)]
    list(progress.plain(rows, every=0.0))
    assert len(capsys.readouterr().err.splitlines()) == 3
