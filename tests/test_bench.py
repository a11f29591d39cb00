"""The posterior benchmark: its problems, its figures, its record, and the command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from invsolve import cli
from invsolve.bench.command import bench_posterior
from invsolve.bench.figures import over
from invsolve.bench.images import IMAGES, image_problem
from invsolve.bench.methods import builtin_methods, method
from invsolve.bench.mixtures import mixture_problem
from invsolve.bench.posterior import FLOOR, Plan, Unit, measure, rows_of
from invsolve.bench.record import Record
from invsolve.bench.summary import cells, tables
from invsolve.diagnostics import sliced_wasserstein
from invsolve.errors import Divergence, InputError, UnknownName
from invsolve.guidance import Guidance
from invsolve.solve import solve


def plan(**changes):
    own = {"mixtures": ((8, 2),), "images": (), "side": 12, "methods": ("exact",), "asked": True}
    return Plan(**(own | {"seeds": 2, "samples": 100, "steps": 5} | changes))


# ---- problems


def test_the_mixture_is_the_published_one():
    posed = mixture_problem(8, 2, 0)
    means = posed.prior.means
    assert means.shape == (25, 8)
    assert torch.equal(means[:, :2], means[:, 6:])  # one pair, repeated
    assert {tuple(m.tolist()) for m in means[:, :2] / 8} == {
        (i, j) for i in range(-2, 3) for j in range(-2, 3)
    }
    assert torch.equal(posed.prior.covariances[3], torch.eye(8, dtype=torch.float64))
    d = torch.linalg.svdvals(posed.likelihood.operator.table)
    assert float(d.max()) < 1
    assert 0 < posed.likelihood.finest < float(d.max())


def test_a_mixture_belongs_to_its_seed_and_dimensions():
    same, other = mixture_problem(8, 2, 0), mixture_problem(8, 2, 1)
    assert torch.equal(mixture_problem(8, 2, 0).likelihood.y, same.likelihood.y)
    assert not torch.equal(other.likelihood.y, same.likelihood.y)
    assert torch.equal(mixture_problem(8, 4, 0).prior.log_weights, same.prior.log_weights)
    assert not torch.equal(other.prior.log_weights, same.prior.log_weights)


@pytest.mark.slow
def test_the_noise_and_the_exact_posterior_are_those_of_the_likelihood():
    """Over seeds, the rank of the truth's first coordinate among exact samples is uniform: mean 1/2."""
    ranks = []
    for seed in range(60):
        posed = image_problem("inpaint", 12, seed)
        truth = posed.likelihood.y  # the operator shows the truth, with noise, where it shows it at all
        drawn = posed.likelihood.operator.A(posed.exact.sample(50, seed))
        shown = (drawn != 0).all(0)
        again = drawn + 0.05 * torch.randn(drawn.shape, generator=torch.Generator().manual_seed(seed))
        ranks.append(float((again < truth)[:, shown].float().mean()))
    assert abs(sum(ranks) / 60 - 0.5) < 4 * 0.29 / (60 * 4) ** 0.5  # at least four free pixels a seed


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_problem_measures_a_draw_of_its_prior(kind):
    posed = image_problem(kind, 12, 0)
    assert posed.prior.dtype == torch.float32
    z = posed.likelihood.residual(posed.exact.sample(200, 1)) / 0.05
    known = posed.likelihood.operator.A(torch.rand(1, *posed.prior.event))[0] != 0
    assert 0.5 < float(z[:, known].square().mean()) < 2.0  # 1, with the spread of 20 or more entries


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        (lambda: mixture_problem(7, 1, 0), "even"),
        (lambda: mixture_problem(8, 9, 0), "d_y"),
        (lambda: image_problem("inpaintt", 12, 0), "Did you mean 'inpaint'"),
        (lambda: image_problem("inpaint", 128, 0), "side"),
        (lambda: plan(seeds=0), "seeds"),
        (lambda: plan(mixtures=()), "no problem"),
        (lambda: plan(methods=("pigd",)), "Did you mean 'pigdm'"),
        (lambda: plan(mixtures=((8, 1), (7, 1))), "they are 7 and 1"),  # before the first unit is computed
        (lambda: plan(images=("inpaint", "blurr")), "no image problem named 'blurr'"),
        (lambda: plan(images=("inpaint",), side=13), "side must be even"),
    ],
)
def test_what_is_no_problem_is_refused(pose, words):
    with pytest.raises((InputError, UnknownName), match=words):
        pose()


# ---- methods


def test_every_builtin_guidance_and_sampler_is_a_row():
    assert {"exact", "moment-matching", "pigdm", "dps", "replace", "smc"} <= set(builtin_methods())
    assert (method("smc").sampler, method("smc").guidance) == ("smc", "moment-matching")
    assert (method("dps").sampler, method("dps").guidance) == ("auto", "dps")
    assert (method("smc/pigdm").sampler, method("smc/pigdm").guidance) == ("smc", "pigdm")


def test_a_method_takes_the_sde_that_is_named():
    assert (method("dps").sde, method("smc/pigdm@vp").sde, method("dps@subvp").guidance) == (
        "ve",
        "vp",
        "dps",
    )
    with pytest.raises(UnknownName, match="Did you mean 'subvp'"):
        method("dps@sub-vp")
    posed = image_problem("inpaint", 12, 0)
    drawn = {name: method(name).draw(posed, 2, 0, 4).samples for name in ("exact", "exact@ve", "exact@vp")}
    assert torch.equal(drawn["exact"], drawn["exact@ve"])
    assert not torch.allclose(drawn["exact"], drawn["exact@vp"])


def test_a_method_is_given_a_start_that_loses_no_mode():
    """With Exact guidance all is right but the start."""
    posed = mixture_problem(80, 1, 0)
    samples = method("exact").draw(posed, 500, 0, 60).samples
    assert sliced_wasserstein(samples, posed.exact.sample(500, 9), slices=100) < 2.0


def test_solve_draws_what_the_benchmark_measures():
    """In 80 dimensions the modes reach beyond the start of the default SDE: both start above them."""
    posed = mixture_problem(80, 2, 0)
    benched = method("smc").draw(posed, 5, 0, 3)
    solved = solve(posed.prior, posed.likelihood, sampler="smc", steps=3, n=5, seed=0)
    torch.testing.assert_close(solved.samples, benched.samples, rtol=1e-9, atol=1e-9)
    assert solved.nfe == benched.nfe


# ---- measuring


def run(tmp_path, planned, name="r.json"):
    record = Record(tmp_path / name, {}, overwrite=False)
    done = [unit.key for unit in measure(planned, record)]
    return record, done


@pytest.mark.slow
def test_the_floor_is_what_exact_samples_give(tmp_path):
    record, _ = run(tmp_path, plan(methods=(), seeds=3, samples=400))
    posed = mixture_problem(8, 2, 1)
    floor = record.rows[f"mixture 8/2, seed 1, {FLOOR}"]["sw1"]
    pairs = [(posed.exact.sample(400, 2 * i), posed.exact.sample(400, 2 * i + 1)) for i in range(10)]
    others = torch.tensor([sliced_wasserstein(a, b, slices=200) for a, b in pairs])
    assert abs(floor - float(others.mean())) < 5 * float(others.std())


def test_a_stopped_benchmark_goes_on_and_a_finished_one_is_not_run_again(tmp_path):
    _, first = run(tmp_path, plan(seeds=1))
    record, rest = run(tmp_path, plan(seeds=2))
    assert (len(first), len(rest)) == (2, 2)
    assert [key for key in rest if "seed 1" not in key] == []
    assert run(tmp_path, plan(seeds=2))[1] == []
    assert [len(rows) for rows in rows_of(record, plan(seeds=2)).values()] == [2, 2]


def test_a_method_that_diverges_is_counted_and_one_that_refuses_says_so(tmp_path, monkeypatch):
    def diverge(self, posed, n, seed, steps):
        if seed == 1:
            raise Divergence("step 3 of 5: NaN.")
        return original(self, posed, n, seed, steps)

    kind = type(method("exact"))
    original = kind.draw
    monkeypatch.setattr(kind, "draw", diverge)
    planned = plan(methods=("exact", "replace"), seeds=3)
    record, _ = run(tmp_path, planned)
    exact, replace = cells(rows_of(record, planned))
    assert (exact["diverged"], exact["seeds"]) == (1, 3)
    assert "orthogonal rows" in replace["why"]
    shown = tables([exact, replace]).splitlines()
    assert shown[2].endswith("| 3 | 1 diverged |")
    assert shown[3].endswith("| - | 3 | 1 diverged, 2 refused |")
    assert shown[5] == "- exact on mixture 8/2: step 3 of 5: NaN."
    assert "orthogonal rows" in shown[6]


def test_a_distance_is_set_against_the_floor_of_the_seeds_that_have_it():
    """A seed without samples has a floor all the same: it must not count."""
    floors = [{"seed": seed, "sw1": floor, "sw2": 1.0} for seed, floor in enumerate((1.0, 2.0, 40.0))]
    cost = {"forward": 1, "vjp": 1, "seconds": 1.0, "sw2": 1.0}
    own = [cost | {"seed": seed, "sw1": value} for seed, value in enumerate((2.0, 4.5))]
    rows = {("mixture 8/1", FLOOR): floors, ("mixture 8/1", "smc"): [*own, {"seed": 2, "diverged": "so."}]}
    (cell,) = cells(rows)
    assert (cell["sw1"]["floor"], cell["sw1"]["ratio"]) == (1.5, pytest.approx(6.5 / 3))
    # 2 - 6.5/3 and 4.5 - 13/3 are -1/6 and 1/6: half is t (0.975, 1 degree) / 6 / 1.5
    assert cell["sw1"]["ratio_half"] == pytest.approx(12.7062 / 6 / 1.5, rel=1e-4)
    assert "| 2.17 ± 1.41 |" in tables([cell])


def test_the_interval_of_a_ratio_covers_it():
    """Values that follow their floors: 95 % of the intervals hold the true ratio 1.2, and are narrow."""
    rng = np.random.default_rng(0)
    held, halves = 0, []
    for _ in range(400):
        floors = rng.uniform(0.5, 1.5, 20)
        ratio, half = over(list(1.2 * floors + rng.normal(0, 0.05, 20)), list(floors))
        held, halves = held + (abs(ratio - 1.2) < half), [*halves, half]
    assert abs(held / 400 - 0.95) < 3 * (0.95 * 0.05 / 400) ** 0.5
    assert np.mean(halves) == pytest.approx(2.09 * 0.05 / 20**0.5, rel=0.1)  # the floors' own spread is out


def test_samples_that_are_nan_are_a_divergence(tmp_path, monkeypatch):
    class Result:
        samples = torch.full((100, 8), torch.nan)

    monkeypatch.setattr(type(method("exact")), "draw", lambda *_: Result)
    record, _ = run(tmp_path, plan(seeds=1))
    assert "diverged" in record.rows["mixture 8/2, seed 0, exact"]


def test_images_are_measured_by_moments_coverage_and_chi2(tmp_path):
    planned = plan(mixtures=(), images=("inpaint",), methods=("exact",), seeds=1, samples=400, steps=40)
    record, _ = run(tmp_path, planned)
    (cell,) = cells(rows_of(record, planned))
    for figure, near in {"sd_ratio": 0.06, "coverage90": 0.03, "chi2": 0.3, "mean_error": 0.06}.items():
        assert abs(cell[figure]["mean"] - cell[figure]["floor"]) < near  # 400 samples, 40 steps


def test_smc_is_left_out_on_images_unless_it_is_asked_for():
    images = {"mixtures": (), "images": ("inpaint",), "methods": ("smc", "exact")}
    asked = {unit.method for unit in plan(**images).units()}
    assert asked - {unit.method for unit in plan(**images, asked=False).units()} == {"smc"}
    assert Unit("mixture 8/2", 0, "smc", (8, 2)) in set(plan(methods=("smc",), asked=False).units())


# ---- the command


@pytest.mark.slow
def test_the_command_writes_tables_json_and_a_picture(tmp_path, capsys):
    words = ["bench", "posterior", "--dx", "8", "--dy", "1", "--images", "none", "--methods", "exact,pigdm"]
    more = ["--seeds", "1", "--samples", "60", "--steps", "8", "--out", str(tmp_path)]  # one has no interval
    for flags in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, *more, *flags])
        assert end.value.code == 0
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert json.loads(printed[printed.index("{") :]) == summary
    assert "NaN" not in printed + (tmp_path / "summary.json").read_text()
    assert [cell["method"] for cell in summary["cells"]] == ["exact", "pigdm"]
    assert (tmp_path / "posterior.md").read_text().strip() in printed
    assert (tmp_path / "posterior.png").read_bytes().startswith(b"\x89PNG")


def test_a_record_of_other_settings_is_refused(tmp_path):
    given = ("8", "1", "none", 12, "exact", "none", 1)
    bench_posterior(*given, 20, 3, tmp_path)
    with pytest.raises(InputError, match="samples 20 -> 30"):
        bench_posterior(*given, 30, 3, tmp_path)


def test_a_mixture_of_more_measurements_than_dimensions_is_left_out_aloud(tmp_path, capsys):
    summary, _ = bench_posterior("2", "1,4", "none", 12, "exact", "none", 1, 20, 3, tmp_path)
    assert [cell["problem"] for cell in summary["cells"]] == ["mixture 2/1"]
    assert "mixture 2/4 is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["posteriors"], "Did you mean 'posterior'"), (["posterior", "--dx", "8,x"], "--dx must be whole")],
)
def test_wrong_words_are_one_line_and_exit_code_2(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_help_of_bench_imports_no_torch():
    code = (
        "import sys; from invsolve.cli import main\ntry: main(['bench', '--help'])\nexcept SystemExit: pass\n"
    )
    report = "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    assert "--methods" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


class Named(Guidance):
    """Nothing."""


def test_a_plugins_method_is_a_row_when_it_is_named(monkeypatch):
    from invsolve.bench import methods
    from invsolve.plugins import Part, Registry, load

    extra = Part("guidance", "named", Named, "kit", "1")
    whole = Registry((*load().parts, extra))
    monkeypatch.setattr(methods, "load", lambda: whole)
    assert "named" not in builtin_methods()
    assert method("named").guidance == "named"
