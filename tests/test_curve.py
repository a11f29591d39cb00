"""The curve of distance against calls: budgets are what is called, units resume, sections are replaced."""

import json
import sys
from pathlib import Path

import pytest

from invsolve.bench.mixtures import mixture_problem
from invsolve.bench.record import Record
from invsolve.errors import InputError
from invsolve.samplers.smc import TwistedSMC

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import curve
import document


@pytest.mark.parametrize("calls", curve.SETTINGS)
def test_a_budget_is_what_is_called(calls):
    """Each set is used up: 1,000 samples come of whole sets, and a walk evaluates at its start too."""
    ratio, steps = curve.SETTINGS[calls]
    sampler = TwistedSMC(steps=steps, particles=curve.N, draws=curve.N // ratio)
    assert curve.N % sampler.draws == 0
    assert sampler.particles // sampler.draws * (steps + 1) == calls


@pytest.mark.slow
def test_a_row_counts_the_calls(monkeypatch):
    monkeypatch.setattr(curve, "N", 40)
    row = curve.draw(mixture_problem(8, 2, 0), 25, 0)
    assert (row["forward"], row["vjp"]) == (25, 50)
    assert row["sw1"] > 0


def test_the_curve_resumes_and_its_table_is_over_the_floor(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(curve, "draw", lambda posed, calls, seed: done.append(calls) or {"sw1": 0.3 + seed})
    monkeypatch.setattr(curve, "floor_figures", lambda *_: {"sw1": 0.2})
    record = Record(tmp_path / "c.json", {}, overwrite=False)
    two = curve.Curve(8, 1, seeds=2)
    curve.fill(record, [curve.Curve(8, 1, seeds=1)], [25])
    curve.fill(record, [two], [25, 50])
    assert done == [25, 50, 25, 50]
    assert curve.line(record, two, [25])[:3] == ["8 / 1", "2", "0.200 ± 0.000"]
    ratio, half = 4.0, 12.7062 * 0.5 / 0.2  # (0.3 + 1.3) / 2 over 0.2; t quantile of one degree
    assert curve.line(record, two, [25])[3] == f"0.800 ({ratio:.2f} ± {half:.2f})"
    assert curve.plot(record, [two], [25, 50]).startswith(b"\x89PNG")


def test_each_dimension_has_its_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(curve, "draw", lambda posed, calls, seed: {"sw1": 0.3})
    monkeypatch.setattr(curve, "floor_figures", lambda *_: {"sw1": 0.2})
    flags = ["--dy", "1,2", "--calls", "25", "--out", str(tmp_path / "c.json")]
    curve.main(["--dx", "8,10", "--seeds", "3,2", *flags])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:6]]
    assert rows == [["| 8 / 1", "3"], ["| 8 / 2", "3"], ["| 10 / 1", "2"], ["| 10 / 2", "2"]]
    with pytest.raises(SystemExit):
        curve.main(["--dx", "8,10", "--seeds", "3,2,1", *flags])
    assert "one for each --dx of [8, 10]" in capsys.readouterr().err


def test_a_section_of_the_page_is_replaced_by_the_tables(tmp_path, monkeypatch):
    page = tmp_path / "benchmark.md"
    page.write_text("a\n<!-- smc -->\nold\n<!-- /smc -->\nz\n")
    monkeypatch.setattr(document, "PAGE", page)
    with pytest.raises(InputError, match="let the benchmark finish"):
        document.main(["smc", str(tmp_path)])
    (tmp_path / "posterior.md").write_text("| new |\n")
    settings = {"samples": 1000, "steps": None, "version": "9", "machine": "an abacus"}
    (tmp_path / "summary.json").write_text(json.dumps(settings))
    document.main(["smc", str(tmp_path)])
    shown = page.read_text()
    assert shown.startswith(
        "a\n<!-- smc -->\n\n| new |\n\nBy 1,000 samples, each method's own steps, invsolve 9, "
    )
    assert "an abacus; written at commit" in shown
    assert shown.endswith(".\n\n<!-- /smc -->\nz\n")
