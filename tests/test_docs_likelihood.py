"""The code in docs/likelihood.md runs as it stands, and prints what the text says."""

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "likelihood.md").read_text()


def test_the_likelihood_example_runs_and_keeps_its_promises(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(code.strip().splitlines()) <= 13  # twelve lines and a blank one
    exec(compile(code, "docs/likelihood.md", "exec"), {})
    errors = [float(e) for e in re.findall(r"^tensor\((\d[\d.e-]*), ", capsys.readouterr().out, re.M)]
    assert len(errors) == 2
    assert max(errors) < 1e-3
