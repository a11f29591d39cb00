"""Methods beside ours on photographs: one measurement, their own failures, fair means, honest verdicts."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve.errors import InputError, UnknownName
from invsolve.linalg import expand
from invsolve.prior import Prior
from invsolve.result import Result

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import photos_methods
import photos_peers
import tasks
from photos_methods import DEFAULT, METHODS, Drawn

SIZE = 32


class White(Prior):
    """Every pixel N(1/2, 1/16), independent."""

    sigma_min, sigma_max, sha256 = 0.0, math.inf, "white"
    shape = (3, SIZE, SIZE)

    def denoise(self, x, sigma):
        assert (sigma > 0).all()  # a network has the logarithm of it
        gain = expand(1 / (1 + 16 * sigma**2), x)
        return 0.5 + gain * (x - 0.5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two noisy pictures, and a prior for which they are typical."""
    made = tmp_path / "images"
    made.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).normal(127.5, 64, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(made / f"{i}.png")
    monkeypatch.setattr(photos_methods, "prior", White)
    monkeypatch.setattr(photos_peers, "prior", White)
    monkeypatch.setattr(photos_peers, "SIZE", SIZE)
    return made


def run(folder, *more):
    photos_peers.main([str(folder), "--out", str(folder.parent / "p.json"), *more])
    return json.loads((folder.parent / "p.json").read_text())["rows"]


# ---- methods


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("name", ["ddrm", "ddrm-linear", "diffpir", "moment-matching", "dpir"])
def test_a_method_of_deepinv_gets_the_photo_and_its_calls_are_counted(folder, task, name):
    posed = tasks.pose(task, folder / "0.png", SIZE, 0.02, 0)
    before = torch.get_rng_state()
    result = photos_methods.of_deepinv(name, 8, posed, 2, 0).result
    draws = 1 if name == "dpir" else 2
    assert result.samples.shape == (draws, 3, SIZE, SIZE)
    assert torch.isfinite(result.samples).all()
    assert 7 <= result.nfe["forward"] <= 10  # the steps, and perhaps a last mean
    assert (result.nfe["vjp"] > 0) == (name == "moment-matching")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_moment_matching_of_deepinv_finds_the_mean_of_ours(folder):
    """Both are exact for this prior, so a wrong unit, operator or noise level on the way would show."""
    posed = tasks.pose("inpaint", folder / "0.png", SIZE, 0.02, 0)
    theirs = photos_methods.of_deepinv("moment-matching", 100, posed, 8, 0).result.samples
    ours = METHODS[DEFAULT](posed, 8, 0).result.samples
    seen = posed.operator.mask[0, 0].bool()
    hidden_sd = [drawn[:, :, ~seen].std(0).mean() for drawn in (theirs, ours)]
    assert float(theirs.mean(0)[:, seen].sub(ours.mean(0)[:, seen]).abs().mean()) < 0.01  # sd 0.02, 8 draws
    assert float(theirs.mean(0)[:, ~seen].mean() - 0.5) == pytest.approx(
        0, abs=0.01
    )  # sd 0.25, 17,000 values
    assert float(hidden_sd[0] / hidden_sd[1]) == pytest.approx(1, abs=0.1)  # Euler's steps, pairs


# ---- figures


def test_the_mean_of_infinitely_many_draws_is_told_from_a_few():
    rng, truth = torch.Generator().manual_seed(0), torch.zeros(3, 200, 200)
    draws = 0.1 + 0.3 * torch.randn(4, 3, 200, 200, generator=rng)
    row = photos_peers.expected(Drawn(Result(draws)), truth, 0.0)
    assert row["psnr_limit"] == pytest.approx(20, abs=0.1)  # an error of 0.1; 120,000 pixels
    assert row["psnr_of_8"] == pytest.approx(-10 * math.log10(0.01 + 0.09 / 8), abs=0.1)


def test_pairs_of_opposite_noise_lose_nothing_to_chance():
    rng, truth = torch.Generator().manual_seed(0), torch.zeros(3, 50, 50)
    noise = torch.randn(4, 3, 50, 50, generator=rng)
    draws = torch.stack([noise, -noise], 1).flatten(0, 1) + 0.1
    row = photos_peers.expected(Drawn(Result(draws), True), truth, 0.0)
    assert (row["psnr_limit"], row["psnr_of_8"]) == pytest.approx((20, 20), abs=1e-3)


def test_the_mean_of_eight_is_what_eight_draws_have(folder):
    row = next(iter(run(folder, "--images", "1", "--tasks", "inpaint", "--methods", "diffpir").values()))
    assert row["psnr_of_8"] == pytest.approx(row["psnr_mean"], abs=1e-6)
    assert row["psnr_limit"] > row["psnr_of_8"]


# ---- the report


def row(psnr, **more):
    names = ("psnr_limit", "psnr_sample", "chi2", "coverage90", "dispersion", "forward", "vjp", "seconds")
    return {"psnr_of_8": psnr, "samples": 8, "commit": "abc", **dict.fromkeys(names, 1.0), **more}


def test_methods_are_compared_on_the_crops_that_both_have():
    rows = {
        f"{DEFAULT} inpaint a.png": row(30.0),
        f"{DEFAULT} inpaint b.png": row(20.0),
        "deepinv/diffpir inpaint b.png": row(20.2),
        "ddrm inpaint b.png": {"error": "it diverged"},
    }
    lines = photos_peers.report(rows).splitlines()
    assert next(line for line in lines if "diffpir |" in line).split(" | ")[3] == "-0.20"
    assert "0 of 1 |  | failed: it diverged" in next(line for line in lines if line.startswith("| ddrm"))
    assert lines[-1].startswith("- FAIL: inpaint")
    rows["deepinv/diffpir inpaint b.png"]["psnr_of_8"] = 20.05
    assert photos_peers.report(rows).splitlines()[-1].startswith("- pass: inpaint")


def test_a_method_that_raises_is_a_row_that_says_so(folder, monkeypatch):
    def explode(posed, n, seed):
        raise RuntimeError("mat1 and mat2\nand a trace")

    monkeypatch.setitem(METHODS, "ddrm", explode)
    found = run(folder, "--images", "1", "--tasks", "deblur", "--methods", "ddrm")
    assert next(iter(found.values()))["error"] == "RuntimeError: mat1 and mat2"


def test_a_second_start_computes_only_what_is_missing(folder, monkeypatch):
    done = []
    monkeypatch.setattr(photos_peers, "compute", lambda unit: done.append(unit.name) or row(1.0))
    for images in ("1", "1", "2"):
        run(folder, "--images", images, "--tasks", "deblur", "--methods", DEFAULT)
    assert len(done) == len(set(done)) == 2


def test_a_method_that_there_is_not_is_named(folder):
    with pytest.raises(UnknownName, match="Did you mean 'deepinv/diffpir'"):
        run(folder, "--methods", "deepinv/difpir")


def test_the_page_gets_its_tables(folder, tmp_path, monkeypatch):
    page = tmp_path / "photos.md"
    page.write_text("before\n<!-- photos -->\n<!-- /photos -->\nafter\n")
    monkeypatch.setattr(photos_peers, "PAGE", page)
    monkeypatch.setattr(photos_peers, "compute", lambda unit: row(25.0))
    run(folder, "--images", "2", "--tasks", "deblur", "--methods", DEFAULT, "--write")
    assert "| moment-matching | 2 | 8 |  | 25.00 ± 0.00 |" in page.read_text()


def test_rows_of_photos_stand_for_the_default(folder, capsys, monkeypatch):
    monkeypatch.setattr(photos_peers, "compute", lambda unit: row(25.0))
    same = {"size": SIZE, "seed": 0, "prior_sha256": "white", "sigma_y": 0.02, "samples": 8}
    path = folder.parent / "photos.json"
    theirs = row(0.0) | {"psnr_mean": 24.0}
    stored = {
        "identity": same | {"guidance": DEFAULT},
        "rows": {"deblur 0.png": theirs, "deblur x.png": theirs},
    }
    path.write_text(json.dumps(stored))
    few = ("--images", "2", "--tasks", "deblur", "--methods", "ddrm", "--default", str(path))
    run(folder, *few)
    assert "FAIL: deblur, default less the best other mean (ddrm): -1.00 dB on 1" in capsys.readouterr().out
    path.write_text(json.dumps(stored | {"identity": same | {"guidance": "dps"}}))
    with pytest.raises(InputError, match="another guidance"):
        run(folder, *few)
