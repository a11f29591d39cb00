"""The command line around the parts: list, check, exit codes, and what --help must not import."""

import json
import re
import subprocess
import sys

import pytest

import invsolve
from invsolve import cli
from invsolve.errors import Divergence, InputError, OutputError, PluginError
from invsolve.signals import Terminated

BAD_OPERATOR = """
import torch
class Doubled:
    def __init__(self, shape): self.shape = shape
    def A(self, x): return x
    def A_adjoint(self, y): return 2 * y
    def A_dagger(self, y): return y
def doubled(shape):
    "Forget a factor."
    return Doubled(shape)
def crash(shape):
    import os, signal
    os.kill(os.getpid(), signal.SIGSEGV)
def endless(shape):
    while True: pass
"""


@pytest.fixture
def run(capsys):
    """Run the command line in this process: exit code, stdout, stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return call


def in_a_process(*words):
    code = f"import sys; from invsolve.cli import main\ntry: main({list(words)})\nexcept SystemExit: pass\n"
    report = "print([m for m in ('torch', 'deepinv') if m in sys.modules], file=sys.stderr)"
    return subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["list", "--json"], ["run", "--help"], ["check", "--help"]])
def test_help_and_list_import_neither_torch_nor_deepinv(words):
    done = in_a_process(*words)
    assert done.stdout
    assert done.stderr.splitlines()[-1] == "[]"


def test_list_has_a_row_for_each_part(run):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["kind", "name", "from", "description", "measured", "options"]
    (row,) = [row for row in rows if row.startswith("operator") and " inpaint " in row]
    assert f"invsolve {invsolve.__version__}" in row
    assert row.endswith("--keep --box --mask --mask-seed")


@pytest.mark.parametrize("word", ["sde", "sdes", "SDEs"])
def test_list_takes_a_kind_in_singular_and_plural(run, word):
    rows = run("list", word)[1].splitlines()[1:]
    assert {row.split()[0] for row in rows} == {"sde"}


def test_list_tells_what_the_weights_of_a_prior_say_of_themselves(run):
    row = next(line for line in run("list", "priors")[1].splitlines() if " photo " in line)
    assert "[3 x any x any in [0, 1], sigma 0.001 to 160, 5.7 MB, CC BY-SA 4.0" in row


def test_list_as_json_tells_the_same_of_weights_as_the_table(run):
    rows = {row["name"]: row for row in json.loads(run("list", "priors", "--json")[1])}
    assert rows["digits"]["weights"]["shape"] == [1, 32, 32]
    photo = rows["photo"]["weights"]
    assert (photo["shape"], photo["range"]) == ([3, None, None], [0, 1])
    assert (photo["sigma_min"], photo["sigma_max"]) == (0.001, 160.0)
    assert 5e6 < photo["bytes"] < 8e6
    assert photo["licence"].startswith("CC BY-SA 4.0")


def test_list_as_json_has_the_options(run):
    rows = json.loads(run("list", "predictors", "--json")[1])
    (row,) = [row for row in rows if row["name"] == "heun"]
    assert row["distribution"] == "invsolve"
    (option,) = row["options"]
    assert (option["name"], option["type"], option["default"]) == ("churn", "a number", 0.0)


@pytest.mark.parametrize("kind", ["guidances", "samplers"])
def test_each_method_says_its_paper_its_needs_and_its_distance(run, kind):
    rows = json.loads(run("list", kind, "--json")[1])
    shown = run("list", kind)[1]
    for row in (row for row in rows if row["distribution"] == "invsolve"):
        assert " Needs " in row["description"], row
        assert row["name"] == "exact" or re.search(r"\b(19|20)\d\d\b", row["description"]), row
        if row["name"] != "classifier":  # whose figures are those of digits, in docs/classifiers.md
            assert row["measured"].startswith("W2 "), row
            assert f"[{row['measured']}]" in shown


def test_an_unknown_kind_is_wrong_usage(run):
    code, out, err = run("list", "operatr")
    assert (code, out) == (2, "")
    assert err.startswith("error: no kind of part named 'operatr'. Did you mean 'operator'?")


@pytest.mark.parametrize("words", [["lst"], ["list", "--jsn"], ["list", "a", "b"], ["check"]])
def test_wrong_usage_is_one_line_and_exit_code_2(run, words):
    code, out, err = run(*words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_version(run):
    assert run("--version") == (0, f"invsolve {invsolve.__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_no_command_shows_the_commands(run, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in ("run", "list", "check", "train"))


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


ENDS = [
    (InputError("keep is 3."), 2, "error: keep is 3.\n"),
    (Divergence("it diverged."), 3, "error: it diverged.\n"),
    (OutputError("disk full."), 5, "error: disk full.\n"),
    (PluginError("it is broken."), 7, "error: it is broken.\n"),
    (OutOfMemoryError("CUDA"), 4, "error: out of memory."),
    (MemoryError(), 4, "error: out of memory."),
    (KeyError("x"), 1, "error: internal bug, please report it: KeyError: 'x'\n"),
    (KeyboardInterrupt(), 130, "interrupted.\n"),
    (Terminated(), 143, "interrupted.\n"),
    (BrokenPipeError(), 141, ""),
]


@pytest.mark.parametrize(("raised", "code", "sentence"), ENDS, ids=lambda v: type(v).__name__)
def test_each_way_to_end_has_its_exit_code(run, monkeypatch, raised, code, sentence):
    def fail(environ=None):
        raise raised

    monkeypatch.setattr("invsolve.cli.list.load", fail)
    monkeypatch.setattr("invsolve.cli._silenced", lambda: 141)  # the real one closes this process's stdout
    got, out, err = run("list")
    assert (got, out) == (code, "")
    assert err.startswith(sentence)
    assert len(err.splitlines()) <= 2


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr("invsolve.cli.list.load", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["list", "--debug"])


@pytest.mark.slow
def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -c 'from invsolve.cli import main; main([\"list\"])' | true"
    done = subprocess.run(
        ["bash", "-c", f"for i in 1 2 3; do {command}; done"], capture_output=True, text=True
    )
    assert done.stderr == ""


# ---- check


@pytest.mark.slow
def test_check_passes_a_built_in_part(run):
    code, out, err = run("check", "sde:vp")
    assert (code, err) == (0, "")
    assert "pass  sde vp: inverts its ratio" in out
    assert out.endswith("8 of 8 checks passed.\n")


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.py").write_text(BAD_OPERATOR)
    return f"{tmp_path}/bad.py"


@pytest.mark.slow
def test_check_fails_with_exit_code_7_and_the_number(run, bad):
    code, out, _ = run("check", f"{bad}:doubled", "--json")
    report = json.loads(out)
    assert (code, report["passed"]) == (7, False)
    failed = {line["check"].split(" (")[0]: line["said"] for line in report["checks"] if not line["passed"]}
    assert set(failed) == {"has its adjoint", "has a gradient"}
    assert failed["has its adjoint"].startswith("A_adjoint is not the transpose of A: <Ax, v> and <x, A'v>")


@pytest.mark.slow
def test_check_survives_a_crash(run, bad):
    code, out, _ = run("check", f"{bad}:crash")
    assert code == 7
    assert "killed by signal 11" in out


@pytest.mark.slow
def test_check_does_not_wait_for_ever(run, bad):
    code, out, _ = run("check", f"{bad}:endless", "--timeout", "3")
    assert code == 7
    assert "did not end within 3 s" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "code", "sentence"),
    [
        ("nothing-here", 2, "error: no part or plugin named 'nothing-here'."),
        ("none", 2, "error: 'none' is a part of 2 kinds: write predictor:none or corrector:none."),
        ("gone.pt", 2, "error: there is no file gone.pt, and no part or plugin of that name."),
        ("./gone.py:x", 2, "error: there is no file 'gone.py' to take x from."),
    ],
)
def test_check_of_what_is_not_there_is_wrong_usage(run, target, code, sentence):
    got, out, err = run("check", target)
    assert (got, out) == (code, "")
    assert err.startswith(sentence)


@pytest.mark.slow
def test_check_takes_the_folder_of_a_plugin_that_is_not_installed(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "odd-kit"\nversion = "2"\n[project.entry-points.invsolve]\nodd = "odd_kit"\n'
    )
    source = "from invsolve import VE, hookimpl\n@hookimpl\ndef invsolve_sdes(): return {'odd-ve': VE}\n"
    (tmp_path / "odd_kit.py").write_text(source)
    code, out, _ = run("check", str(tmp_path))
    assert code == 0
    assert "pass  sde odd-ve: inverts its ratio" in out
