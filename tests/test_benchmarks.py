"""The benchmarks measure what they say: their baselines, clocks, intervals, records and tables."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve import operators
from invsolve.errors import InputError
from invsolve.guidance import DPS, Exact, MomentMatching, PiGDM
from invsolve.likelihood import Gaussian
from invsolve.metrics import psnr
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.samplers.correctors import Langevin
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import Ancestral, DPMpp, Heun

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import compared
import distances
import distances_of_samplers
import exact_problems
import figures
import overhead
import photos
import short_tables
import tasks


@pytest.fixture(autouse=True)
def _few_problems_are_kept():
    yield
    compared.problem.cache_clear()
    compared.floor_of.cache_clear()


def test_an_interval_is_students():
    mean, half = figures.interval([1.0, 2.0, 3.0])
    assert (mean, half) == pytest.approx((2.0, 4.302653 / 3**0.5), rel=1e-6)  # t quantile 0.975, 2 degrees


def test_a_single_value_has_no_interval():
    assert figures.interval([1.5])[0] == 1.5
    assert math.isnan(figures.interval([1.5])[1])


# ---- baselines


def ramp(side):
    line = torch.linspace(0, 1, side, dtype=torch.float64)
    return (0.2 + 0.3 * line[:, None] + 0.4 * line[None]).expand(3, side, side).numpy()


def test_linear_interpolation_is_exact_on_a_plane():
    mask = (torch.rand(24, 24, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = 1  # corners known: everything lies inside the hull
    operator, truth = operators.inpaint((3, 24, 24), mask=mask), ramp(24)
    y = np.where(mask.numpy() == 1, truth, 0.0)
    assert tasks.linear_interpolation(y, operator, truth) == pytest.approx(truth, abs=1e-9)


def test_beyond_the_hull_the_nearest_known_pixel_is_taken():
    mask = torch.zeros(16, 16)
    mask[4:8, 4:8] = 1
    operator = operators.inpaint((3, 16, 16), mask=mask)
    y = np.full((3, 16, 16), 0.5) * mask.numpy()
    assert tasks.linear_interpolation(y, operator, y) == pytest.approx(0.5, abs=1e-9)


def test_splines_put_a_ramp_back_where_it_was():
    truth = ramp(128)
    operator = operators.superres((3, 128, 128), factor=4, filter="box")
    y = operator.A(torch.from_numpy(truth)[None])[0].numpy()
    inside = np.s_[:, 48:80, 48:80]  # 12 coarse pixels off the edge, whose kink decays by 0.27 each
    assert tasks.spline(y, operator, truth)[inside] == pytest.approx(truth[inside], abs=1e-6)


def test_splines_are_cubic():
    line = torch.linspace(0, 2 * torch.pi, 65, dtype=torch.float64)[:-1].cos() / 2 + 0.5
    truth = (line[:, None] * line).expand(3, 64, 64)
    y = operators.superres((3, 64, 64), factor=4, filter="box").A(truth[None])
    lines = torch.nn.functional.interpolate(y, scale_factor=4, mode="bilinear")[0]
    assert (
        psnr(tasks.spline(y[0].numpy(), None, truth.numpy()), truth) > psnr(lines, truth) + 3
    )  # measured +7


def test_wiener_is_the_best_of_five_circular_filters():
    rng = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 32, 32, generator=rng, dtype=torch.float64)
    operator = operators.deblur((3, 32, 32), std=1.0)
    y = operator.A(truth[None])[0] + 0.02 * torch.randn(3, 32, 32, generator=rng, dtype=torch.float64)
    x = np.minimum(np.arange(32), 32 - np.arange(32))
    line = np.exp(-(x**2) / 2) * (x <= 4)
    laplacian = np.zeros((32, 32))
    laplacian[[0, 1, -1, 0, 0], [0, 0, 0, 1, -1]] = 4, -1, -1, -1, -1
    H, L, Y = (np.fft.fft2(a) for a in (np.outer(line, line) / line.sum() ** 2, laplacian, y.numpy()))
    tries = [
        np.fft.ifft2(H.conj() * Y / (abs(H) ** 2 + b * abs(L) ** 2)).real
        for b in (0.003, 0.003 * 10**0.5, 0.03, 0.03 * 10**0.5, 0.3)
    ]
    best = max(psnr(image, truth) for image in tries)
    found = tasks.best_wiener(y.numpy(), operator, truth.numpy())
    assert psnr(found, truth) == pytest.approx(best, abs=0.02)  # the operator's kernel is float32
    assert best > psnr(y, truth)


def test_the_measurement_has_noise_where_it_is_measured_and_nowhere_else():
    truth = torch.full((3, 64, 64), 0.5)
    operator = tasks.TASKS["inpaint"].operator((3, 64, 64), 7)
    y = tasks.measure(operator, truth, 0.02, 7)
    known = operator.mask[0].expand(3, -1, -1) == 1
    assert (y[~known] == 0).all()
    n = int(known.sum())
    assert float((y[known] - 0.5).std()) == pytest.approx(0.02, rel=4 / (2 * n) ** 0.5)  # 4 errors of an sd
    assert known.float().mean() == pytest.approx(0.3, abs=1e-3)


def test_the_crop_is_the_middle(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[12:28, 22:38] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (tasks.centre_crop(tmp_path / "a.png", 16) == 1).all()
    with pytest.raises(InputError, match="40 x 60 pixels, too small for 41"):
        tasks.centre_crop(tmp_path / "a.png", 41)


# ---- photos


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "images"
    made.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{i}.png")
    return made


ROW = dict.fromkeys(photos.FIGURES, 1.0)


def run_photos(folder, *more):
    common = [
        "--size",
        "32",
        "--tasks",
        "inpaint",
        "--processes",
        "1",
        "--out",
        str(folder.parent / "p.json"),
    ]
    photos.main([str(folder), *common, *more])


@pytest.fixture
def done(monkeypatch):
    """Names of the units that were computed, by a stand-in."""
    names = []
    monkeypatch.setattr(photos, "compute", lambda unit: names.append(unit.name) or ROW)
    return names


def test_a_second_start_computes_only_what_is_missing(folder, done):
    run_photos(folder, "--images", "1")
    run_photos(folder, "--images", "1")
    first = list(done)
    assert len(first) == 1
    run_photos(folder, "--images", "3")
    assert len(done) == len(set(done)) == 3


def test_an_interrupted_benchmark_keeps_what_was_done(folder, monkeypatch):
    def second_fails(unit, seen=[]):  # noqa: B006  counts the calls
        seen.append(unit)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return ROW

    monkeypatch.setattr(photos, "compute", second_fails)
    with pytest.raises(KeyboardInterrupt):
        run_photos(folder)
    assert len(json.loads((folder.parent / "p.json").read_text())["rows"]) == 1


def test_other_settings_do_not_mix_with_the_record(folder, done):
    run_photos(folder, "--images", "1", "--steps", "5")
    with pytest.raises(InputError, match="steps 5 -> 6"):
        run_photos(folder, "--images", "1", "--steps", "6")
    run_photos(folder, "--images", "1", "--steps", "6", "--overwrite")
    assert len(done) == 2


def test_the_gates_are_those_of_the_issue():
    lines = photos.gates(
        "inpaint", [ROW | {"gain": 1.4, "coverage90": 0.9}, ROW | {"gain": 1.7, "coverage90": 0.7}]
    )
    assert lines[0].startswith("pass  inpaint gain 1.55 (at least 1.5)")
    assert photos.gates("deblur", [ROW | {"gain": 0.99}])[0].startswith("FAIL")
    assert [line.split()[0] for line in photos.gates("superres", [ROW | {"chi2": 1.21}])] == [
        "pass",
        "FAIL",
        "FAIL",
        "pass",
    ]


def test_a_failed_unit_is_in_the_report():
    text = photos.report({"inpaint": [ROW, {"error": "it diverged."}]})
    assert "FAIL  inpaint: it diverged." in text
    assert "inpaint (1)" in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--guidance", "pigdm", "--guidance-steps", "3"], "no option of the guidance named 'cg_steps'"),
        (["--predictor", "dmpp"], "Did you mean 'dpmpp'"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_computed(flags, words, folder, done):
    with pytest.raises(InputError, match=words):
        run_photos(folder, *flags)
    assert done == []


@pytest.mark.slow
def test_photos_are_restored_in_two_processes_as_in_one(folder):
    few = ["--images", "1", "--tasks", "superres", "--samples", "2", "--steps", "3"]
    rows = []
    for processes in ("1", "2"):
        run_photos(folder, *few, "--processes", processes, "--overwrite")
        rows.append(next(iter(json.loads((folder.parent / "p.json").read_text())["rows"].values())))
        rows[-1].pop("seconds")
    assert rows[0] == rows[1]
    assert rows[0]["forward"] == 4  # three steps and the last mean
    assert rows[0]["gain"] == rows[0]["psnr_mean"] - rows[0]["psnr_baseline"]


# ---- overhead


class Counted(torch.autograd.Function):
    """The identity, counting rows on the way."""

    calls = {"forward": 0, "vjp": 0}  # noqa: RUF012  torch wants a class, so the counts live on it

    @staticmethod
    def forward(ctx, x):
        Counted.calls["forward"] += len(x)
        return x.clone()

    @staticmethod
    def backward(ctx, v):
        Counted.calls["vjp"] += len(v)
        return v


class Shrinking(Prior):
    """A denoiser of Gaussians of variance 0.06."""

    shape, sigma_max = (3, 8, 8), 10.0

    def denoise(self, x, sigma):
        return Counted.apply(x) * (0.06 / (0.06 + sigma**2)).to(x).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("guidance", [None, PiGDM(), MomentMatching()], ids=str)
@pytest.mark.parametrize("sampler", [PC(DPMpp(), steps=3), PC(Heun(), Langevin(), steps=2)], ids=str)
def test_the_bare_network_is_called_as_often_as_the_sampler_calls_it(sampler, guidance):
    operator = operators.inpaint((3, 8, 8))
    likelihood = Gaussian(torch.zeros(3, 8, 8), operator, 0.02) if guidance else None
    posterior = Posterior(Shrinking(), likelihood, guidance=guidance)
    Counted.calls.update(forward=0, vjp=0)
    overhead.clocks(posterior, sampler, 2)
    assert Counted.calls == {name: 2 * posterior.calls[name] for name in ("forward", "vjp")}


def test_products_that_do_not_divide_are_all_made():
    Counted.calls.update(forward=0, vjp=0)
    overhead.Bare(Shrinking(), torch.zeros(1, 3, 8, 8))(0.1, forward=2, vjp=5)
    assert Counted.calls == {"forward": 2, "vjp": 5}


def test_the_small_network_has_about_fifty_thousand_parameters():
    parameters = sum(p.numel() for p in overhead.small_posterior(None).prior.parameters())
    assert 45_000 < parameters < 55_000


def test_a_right_guidance_reaches_the_mean_and_no_guidance_never_does(monkeypatch):
    monkeypatch.setattr(overhead, "STEPS", (5, 20))
    problem = exact_problems.gaussian_problem("inpaint", 4)
    right = overhead.reach(problem, Exact(), Ancestral(), 200)
    none = overhead.reach(problem, DPS(zeta=0.0), Ancestral(), 200)
    assert right.steps == 5
    assert right.calls == 6  # five steps and the last mean, no derivative
    assert none.steps is None
    assert none.calls == 42
    assert none.error > 1


def test_replace_has_no_row_where_it_is_refused(monkeypatch):
    monkeypatch.setattr(overhead, "STEPS", (1,))
    rows = list(overhead.calls_rows(4, 4))
    assert {row[1] for row in rows if row[0] == "blur"} == {"moment-matching", "pigdm", "dps"}
    assert len(rows) == (4 + 3) * len(overhead.PREDICTORS)


# ---- distances


@pytest.fixture
def fewer_seeds(monkeypatch):
    """As many seeds in the plane as elsewhere."""
    monkeypatch.setattr(compared, "MORE", 1)
    compared.floor_of.cache_clear()
    yield
    compared.floor_of.cache_clear()


@pytest.mark.usefixtures("fewer_seeds")
def test_exact_samples_are_at_the_floor():
    for name in (*compared.PROBLEMS, "class"):
        samples = compared.problem(name, 0).exact.sample(1000, 99)
        # the floor is a mean of four sets; one set of 2 or 64 dimensions scatters around it by under a half
        assert compared.compared(name, 0, samples).distance < 1.5 * compared.floor_of(name, 1000, 1)


@pytest.mark.usefixtures("fewer_seeds")
def test_samples_of_the_prior_are_far_from_the_posterior():
    for name in (*compared.PROBLEMS, "class"):
        samples = compared.problem(name, 0).prior.sample(1000, 99)
        assert compared.compared(name, 0, samples).distance > 3 * compared.floor_of(name, 1000, 1)


def test_a_refused_guidance_has_no_row():
    runs = distances.guidance_runs(["replace"], n=4, steps=2, seeds=1)
    assert {problem for _, problem in runs} == {"inpaint", "mixture"}


def test_the_exact_classifier_of_the_mixture_agrees_with_its_responsibilities():
    posed = compared.problem("class", 1)
    x = posed.prior.sample(50, 0)
    for sigma in (0.1, 1.0):
        joint = torch.stack(
            [
                math.log(w) - (x - m).square().sum(1) / (2 * (exact_problems.SPREAD + sigma**2))
                for m, w in zip(exact_problems.MEANS, exact_problems.WEIGHTS.tolist(), strict=True)
            ]
        )
        expected = joint.softmax(0)[[1, 2]].sum(0)  # class 1: the second and third Gaussian
        levels = torch.full((50,), sigma, dtype=torch.float64)
        found = posed.likelihood.log_classes(x, levels)[:, 1].exp()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("fewer_seeds")
def test_a_guidance_without_an_operator_draws_a_class():
    runs = distances.guidance_runs(["classifier"], n=500, steps=50, seeds=2)
    assert set(runs) == {("classifier", "class")}
    found = distances.guidance_summaries(runs, 500, 2)["classifier"]
    # binomial scatter of two sets of 500: the share of a mode, 2.8 apart, is off by 0.02 on average
    assert found["sw1"] < found["floor"] + 3 * 0.02
    assert found["summary"].startswith(f"SW1 {found['sw1']:.3f} to the exact class")
    assert short_tables.short_guidances(runs, 500, 2).count("\n") == 1  # no column has its problem


def test_a_sampler_has_its_figures_beside_their_floor():
    runs = distances_of_samplers.sampler_runs(["pc"], n=100, seeds=1)
    assert {problem for _, problem in runs} == set(compared.PROBLEMS)
    table = distances_of_samplers.sampler_table(runs, 100, 1).splitlines()
    assert len(table) == 2 + len(runs)
    found = distances_of_samplers.sampler_summaries(runs, 100, 1)["pc"]
    # moment matching is exact on the Gaussian problems, 40 steps leave 1 %: at the floor within its scatter
    assert found["w2"] < 1.3 * found["floor"]
    assert found["summary"].startswith(f"W2 {found['w2']:.3f} to the exact posterior (exact samples ")
    assert "SW1" in found["summary"]


def test_the_short_table_has_each_distance_over_its_floor():
    far = compared.Run(None, 3 * compared.floor_of("blur", 100, 1, side=4), calls=5.0)
    near = compared.Run(None, compared.floor_of("matrix", 100, 1, side=4), calls=7.0)
    runs = {("a", "blur"): [far, near], ("a", "matrix"): [near]}
    both = (far.distance + near.distance) / 2 / compared.floor_of("blur", 100, 1, side=4)
    row = short_tables.short_samplers(runs, 100, 1).splitlines()[2]
    assert row == f"| a | refused | {both:.2f} | 1.00 | refused | 6 to 7 |"


def test_markers_hold_the_new_content_and_nothing_of_the_old():
    text = "a\n<!-- distances -->\nold\n<!-- /distances -->\nb\n"
    once = distances.between_markers(text, "distances", r"| \1 new |")
    assert once == "a\n<!-- distances -->\n\n| \\1 new |\n\n<!-- /distances -->\nb\n"
    assert distances.between_markers(once, "distances", r"| \1 new |") == once
    with pytest.raises(InputError, match="once each"):
        distances.between_markers("no markers", "distances", "new")


@pytest.mark.slow
def test_tables_and_summaries_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distances, "ROOT", tmp_path)
    monkeypatch.setattr(distances, "PREDICTOR_STEPS", (2, 3))
    (tmp_path / "invsolve").mkdir()
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/distances.md"):
        (tmp_path / page).write_text("<!-- distances -->\n<!-- /distances -->\n")
    few = ["--n", "50", "--steps", "4", "--seeds", "1", "--samplers", "pc"]
    distances.main([*few, "--guidances", "exact", "dps", "--write"])
    readme, summary = (
        (tmp_path / "README.md").read_text(),
        json.loads((tmp_path / "invsolve/distances.json").read_text()),
    )
    page = (tmp_path / "docs/distances.md").read_text()
    assert "| exact | blur |" in page
    assert re.search(r"^\| exact \| \d", readme, re.M)
    assert set(summary["guidances"]) == {"exact", "dps"}
    assert set(summary["predictors"]["heun"]["sd_ratio"]) == {"2", "3"}
    assert summary["guidances"]["dps"]["summary"].startswith("W2 ")
    assert set(summary["samplers"]) == {"pc"}
    assert "| pc | mixture |" in page
    assert re.search(r"^\| pc \| \d", readme, re.M)
    distances.main(["--n", "40", "--seeds", "1", "--only", "samplers", "--samplers", "pc", "--write"])
    assert (tmp_path / "README.md").read_text() == readme
    again = json.loads((tmp_path / "invsolve/distances.json").read_text())
    assert again["guidances"] == summary["guidances"]
    assert again["samplers"] != summary["samplers"]
