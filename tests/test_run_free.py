"""`invsolve run` with a likelihood that has no operator."""

import json
from pathlib import Path

import pytest
import torch
from running import invsolve

from invsolve.images import load_image
from invsolve.plugins import load
from invsolve.result import Result
from invsolve.run import conditional, free

PARTS = '''
from typing import Annotated

import torch

from invsolve.exact import GaussianPrior
from invsolve.likelihood import Likelihood

def prior():
    return GaussianPrior(torch.full((1, 8, 8), 0.5), 0.04)

class _Near(Likelihood):
    def __init__(self, aim):
        self.aim = aim
    def log_prob(self, x0):
        return -(x0 - self.aim).square().flatten(1).sum(1) / (2 * 0.04)

def near(aim: Annotated[float, "brightness"] = 0.9):
    """Images near one brightness."""
    return _Near(aim)
'''


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """Working directory with parts.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PARTS)


def run(*words, samples=6):
    chosen = ("--prior", "parts.py:prior", "--likelihood", "./parts.py:near", "--device", "cpu")
    return invsolve("run", *chosen, "--steps", 20, "--samples", samples, *words)


def test_samples_are_drawn_and_every_file_is_written():
    code, out, err = run("--aim", 0.9, "--out", "a", "--json")
    assert code == 0, err
    samples = Result.load("a/posterior.h5").samples
    assert samples.shape == (6, 1, 8, 8)
    # the prior is N(0.5, 0.04), the likelihood N(0.9, 0.04) taken at E[x_0 | x_t]: somewhere in between
    assert 0.6 < samples.mean() < 0.9
    metrics = json.loads(Path("a/metrics.json").read_text())
    assert {"log_likelihood", "nfe", "seconds", "samples", "chosen"} == set(metrics)
    assert json.loads(out)["samples"] == 6
    assert load_image("a/sheet.png").pixels.shape[1:] == (16, 24)
    assert len(list(Path("a/samples").iterdir())) == 6


def test_progress_is_told_step_by_step():
    _, _, err = run("--out", "a", samples=1)
    assert len([line for line in err.splitlines() if "%" in line]) >= 9, err


def test_one_thread_computes_so_that_the_machine_s_number_of_them_changes_no_bit(monkeypatch):
    seen, kept = list[int](), conditional._drawn
    monkeypatch.setattr(
        conditional, "_drawn", lambda *args: seen.append(torch.get_num_threads()) or kept(*args)
    )
    torch.set_num_threads(2)
    try:
        assert run("--out", "a", samples=1)[0] == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [1]


def test_the_same_command_again_is_finished_and_another_is_refused():
    run("--out", "a")
    before = Path("a/posterior.h5").stat().st_mtime_ns
    code, _, err = run("--out", "a")
    assert (code, "finished already" in err) == (0, True)
    assert Path("a/posterior.h5").stat().st_mtime_ns == before
    code, _, err = run("--out", "a", "--aim", 0.1)
    assert (code, "likelihood.aim: 0.9 -> 0.1" in err) == (2, True)
    assert run("--out", "a", "--aim", 0.1, "--overwrite")[0] == 0


def test_a_lost_unit_is_computed_again_as_it_was():
    run("--out", "a")
    samples = Result.load("a/posterior.h5").samples
    sorted(Path("a/units").glob("*.h5"))[0].write_bytes(b"damaged")
    Path("a/finished.json").unlink()
    assert run("--out", "a")[0] == 0
    assert torch.equal(Result.load("a/posterior.h5").samples, samples)


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    run("--out", "a", samples=5)
    run("--out", "b", samples=2)
    a, b = (Result.load(f"{name}/posterior.h5").samples for name in "ab")
    torch.testing.assert_close(a[:2], b, rtol=1e-5, atol=1e-6)  # units of another size


def test_run_toml_repeats_the_run():
    run("--out", "a", "--gamma", "2:1")
    assert invsolve("run", "--config", "a/run.toml", "--out", "b")[0] == 0
    assert torch.equal(*(Result.load(f"{name}/posterior.h5").samples for name in "ab"))


def test_a_classifier_has_a_weight_of_its_own_unless_one_is_given():
    classifier = {"likelihood": {"name": "classifier"}}
    assert free.implied(classifier)["run"]["gamma"] == 4
    assert free.implied(classifier | {"run": {"gamma": 1.0}})["run"]["gamma"] == 1
    assert "run" not in free.implied({"likelihood": {"name": "./parts.py:near"}})


def test_gamma_zero_is_the_prior_alone():
    run("--gamma", 0, "--steps", 20, "--out", "a", samples=8)
    z = (Result.load("a/posterior.h5").samples - 0.5) / 0.2
    assert abs(float(z.mean())) < 4 / z.numel() ** 0.5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photo.png"], "leave out INPUT"),
        (["--operator", "inpaint"], "leave out --operator"),
        (["--sigma-y", "0.1", "--simulate"], "leave out --simulate and --sigma-y"),
        (["--gamma", "a:b"], "HIGH:LOW"),
        (["--guidance", "dps"], "needs a likelihood with an operator"),
        (["--prior", "photo"], "images of any size"),
        (["--keep", "0.3"], "--keep"),
    ],
)
def test_what_belongs_to_a_measurement_is_refused_and_leaves_nothing(words, told):
    code, _, err = run(*words, "--out", "a")
    assert (code, told in err) == (2, True), err
    assert not Path("a").exists()


def test_help_shows_the_likelihood_s_options():
    code, out, _ = invsolve("run", "--likelihood", "classifier", "--help")
    assert code == 0
    assert "--label" in out


def test_the_output_folder_is_named_after_the_parts():
    run()
    assert Path("prior-near/posterior.h5").exists()


def test_a_likelihood_with_neither_measurement_nor_operator_is_told_from_its_source():
    registry = load({"INVSOLVE_DISABLE_PLUGINS": "all"})
    assert registry.needs("likelihood", "gaussian") == ["y", "operator", "sigma_y"]
    assert registry.needs("likelihood", "poisson") == ["y", "operator"]
    assert registry.needs("likelihood", "classifier") == []
    assert registry.needs("operator", "inpaint") == ["shape"]
    assert registry.needs("predictor", "dpmpp") == []
