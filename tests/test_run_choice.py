"""`invsolve run` says what auto took and why; particle sets are whole units; operators without an adjoint."""

import json
from pathlib import Path

import pytest
from running import invsolve, run, simulate, world  # noqa: F401  a fixture

from invsolve.plugins import load
from invsolve.result import Result

FORWARD = '''
import torch

class _Map:
    def __init__(self, shape, map):
        self.shape, self.map = shape, map
    def A(self, x):
        return self.map(x)

def bent(shape):
    """Brighten what is bright."""
    return _Map(shape, lambda x: x + 0.5 * x**2)

def closed(shape):
    """Double, outside of torch."""
    return _Map(shape, lambda x: torch.from_numpy(2 * x.cpu().numpy()).to(x))
'''


@pytest.fixture
def forward(world):  # noqa: F811  the fixture
    (world / "forward.py").write_text(FORWARD)
    return world


def metrics(directory):
    return json.loads(Path(directory, "metrics.json").read_text())


def test_a_run_says_what_auto_took_and_why(world):  # noqa: F811
    code, out, err = simulate("--out", "a")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("  auto ")]
    sentence = "pc with moment-matching: the operator is linear and has its adjoint"
    assert line.split(maxsplit=1)[1] == sentence
    assert metrics("a")["chosen"] == sentence
    assert Path("a/run.toml").read_text().startswith(f"# auto took {sentence}\n")
    assert Result.load("a/posterior.h5").chosen == sentence
    again = simulate("--out", "a", "--json")
    assert json.loads(again[1])["chosen"] == sentence
    assert "this run is finished already" in again[2]


def test_where_all_is_named_nothing_was_chosen(world):  # noqa: F811
    code, out, err = simulate("--sampler", "pc", "--guidance", "moment-matching", "--out", "a")
    assert code == 0, err
    assert "  auto " not in out
    assert "chosen" not in metrics("a")


def test_nothing_is_chosen_for_a_sampler_that_uses_no_guidance(forward):
    code, out, err = simulate("--operator", "forward.py:bent", "--sampler", "daps", "--out", "a")
    assert code == 0, err
    assert "guidance" not in out + err
    assert "chosen" not in metrics("a")
    named = simulate("--sampler", "daps", "--guidance", "dps", "--out", "b")
    assert "the sampler uses no guidance: DPS is left out" in named[2]


def test_a_nonlinear_operator_takes_dps(forward):
    code, out, err = simulate("--operator", "./forward.py:bent", "--out", "a")
    assert code == 0, err
    assert "auto       pc with dps: the operator is not linear, but differentiable" in out


def test_a_black_box_takes_the_derivative_free_sampler_or_is_refused(forward):
    code, out, err = simulate("--operator", "./forward.py:closed", "--out", "a")
    if "enkg" in load().names("sampler"):
        assert (code, "auto       enkg: " in out) == (0, True), err
        return
    assert code == 2
    assert err.startswith(
        "error: the operator has neither an adjoint nor derivatives, so it takes a derivative"
    )
    assert "none named 'enkg' is installed" in err
    assert not Path("a/run.toml").exists()


def test_options_of_what_auto_does_not_take_are_not_lost(forward):
    code, _, err = simulate("--operator", "./forward.py:bent", "--cg-steps", 3, "--out", "a")
    assert code == 2
    assert "cg_steps of the guidance belongs to moment-matching, but auto takes pc with dps" in err


def test_particle_sets_are_whole_units_and_tell_their_size_and_evidence(world):  # noqa: F811
    smc = ("--sampler", "smc", "--particles", 8, "--draws", 2)
    code, out, err = run(
        "photo.png", "--simulate", "--operator", "superres", "--factor", 8, "--sigma-y", 0.1, *smc,
        "--out", "a", samples=5, steps=3,
    )  # fmt: skip
    assert code == 0, err
    result, found = Result.load("a/posterior.h5"), metrics("a")
    assert (result.ess.shape, result.log_evidence.shape, result.units) == ((3, 4), (3,), 3)
    assert found["ess"]["least"] == pytest.approx(float(result.ess.amin(1).mean()), rel=1e-6)
    assert found["ess"]["last"] == pytest.approx(float(result.ess[:, -1].mean()), rel=1e-6)
    each = result.log_evidence.double()
    assert found["log_evidence"] == pytest.approx(float(each.exp().mean().log()), rel=1e-5)
    assert "log evidence" in out
    assert "effective particles" in out


@pytest.mark.parametrize("sampler", ["ode", "daps", "pnp-dm", "smc"])
def test_a_single_unit_says_how_far_it_is_at_every_tenth(sampler, world):  # noqa: F811
    """A set of particles and an adaptive walk take long, and a silent run looks like one that hangs."""
    sets = ("--particles", 8, "--draws", 2) if sampler == "smc" else ()
    few = ("--operator", "superres", "--factor", 8, "--sigma-y", 0.1)
    code, _, err = simulate(*few, "--sampler", sampler, *sets, samples=2, steps=20)
    assert code == 0, err
    lines = [line for line in err.splitlines() if line[:4].strip().endswith("%")]
    assert len(lines) >= 7, err  # steps of unequal length may skip a tenth
    assert all("chi2" in line for line in lines)


def test_a_second_start_in_other_units_finds_the_same_particles(world):  # noqa: F811
    words = (
        "photo.png", "--simulate", "--operator", "superres", "--factor", 8, "--sigma-y", 0.1,
        "--sampler", "smc", "--particles", 6, "--draws", 2,
    )  # fmt: skip
    assert run(*words, "--out", "a", samples=2, steps=2)[0] == 0
    assert run(*words, "--out", "b", samples=4, steps=2)[0] == 0
    few, more = (Result.load(f"{d}/posterior.h5").samples for d in ("a", "b"))
    assert (few == more[:2]).all()
    assert invsolve("run", "--config", "b/run.toml", "--out", "c")[0] == 0
    assert (Result.load("c/posterior.h5").samples == more).all()
