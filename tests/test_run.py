"""`invsolve run` end to end on a prior whose posterior is known: files, modes, inputs, imports."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from running import VARIANCE, invsolve, picture, run, save, simulate, world  # noqa: F401  world is a fixture

from invsolve.result import Result

pytestmark = pytest.mark.usefixtures("world")


def metrics(directory):
    return json.loads(Path(directory, "metrics.json").read_text())


def settings(directory):
    return tomllib.loads(Path(directory, "run.toml").read_text())


def samples(directory):
    return Result.load(f"{directory}/posterior.h5").samples


def test_a_run_leaves_every_file_of_the_contract():
    code, _, err = simulate("--out", "a")
    assert code == 0, err
    names = {str(path.relative_to("a")) for path in Path("a").rglob("*") if path.is_file()}
    wanted = {"run.toml", "posterior.h5", "metrics.json", "measurement.png", "mean.png", "std.png"}
    assert wanted | {"samples/000.png", "samples/001.png"} <= names
    assert not [name for name in names if name.endswith(".part")]


def test_posterior_h5_holds_what_the_contract_says():
    simulate("--out", "a")
    with h5py.File("a/posterior.h5") as file:
        shapes = {
            name: file[name].shape for name in ("samples", "mean", "std", "measurement", "truth", "mask")
        }
        event = (3, 16, 24)
        assert shapes == {
            "samples": (2, *event), "mean": event, "std": event, "measurement": event, "truth": event,
            "mask": (1, 16, 24),
        }  # fmt: skip
        assert file["samples"].dtype == np.float32
        assert [list(dim) for dim in file["samples"].dims] == [["sample"], ["channel"], ["row"], ["column"]]
        assert json.loads(file.attrs["config"])["operator"]["name"] == "inpaint"
        assert {"invsolve_version", "seed", "prior_sha256", "units"} <= set(file.attrs)
        assert np.allclose(file["mean"][()], file["samples"][()].mean(0), atol=1e-6)


def test_metrics_json_has_the_keys_of_the_contract():
    simulate("--out", "a")
    found = metrics("a")
    assert set(found["psnr"]) == {"measurement", "mean", "sample"}
    assert set(found["nfe"]) == {"forward", "vjp", "A", "At"}
    scalars = {
        "chi2",
        "coverage90",
        "dispersion",
        "crps",
        "seconds",
        "samples",
        "coverage90_hidden",
        "chosen",
    }
    assert scalars | {"psnr", "ssim", "nfe"} == set(found)


def test_the_samples_follow_the_exact_posterior():
    """Denoising under independent pixels: mean 0.5 + v/(v + s^2)(y - 0.5), variance v s^2/(v + s^2)."""
    s = 0.2
    simulate("--operator", "denoise", "--sigma-y", s, "--out", "a", steps=60, samples=4)
    result, gain = Result.load("a/posterior.h5"), VARIANCE / (VARIANCE + s**2)
    z = (result.samples - 0.5 - gain * (result.measurement - 0.5)) / (gain * s**2) ** 0.5
    floor = 4 / math.sqrt(z.numel())  # four standard errors of a mean over 4,608 values
    assert abs(float(z.mean())) < floor
    assert abs(float(z.std()) - 1) < floor  # sd of an sd is floor / sqrt(2); steps add below 0.5 %


def test_the_noise_lies_on_measured_pixels_alone_with_the_sd_asked_for():
    simulate("--keep", "0.5", "--sigma-y", "0.1", "--out", "a")
    result = Result.load("a/posterior.h5")
    known = result.mask.expand_as(result.truth) == 1
    assert not result.measurement[~known].any()
    sd = float((result.measurement - result.truth)[known].std())
    assert abs(sd / 0.1 - 1) < 4 / math.sqrt(2 * int(known.sum()))  # four standard errors of an sd


def test_run_toml_repeats_the_run_to_the_bit():
    simulate("--keep", "0.4", "--predictor", "heun", "--churn", "0.1", "--seed", "3", "--out", "a")
    code, _, err = invsolve("run", "--config", "a/run.toml", "--out", "b")
    assert code == 0, err
    assert torch.equal(samples("a"), samples("b"))
    assert settings("a") == settings("b")


def test_a_sample_does_not_depend_on_how_many_are_drawn_nor_on_its_unit():
    simulate("--out", "a", samples=5)
    simulate("--out", "b", "--sampler.batch", "1", samples=2)
    assert torch.allclose(samples("a")[:2], samples("b"), atol=1e-5)  # float32, other batches


def test_another_seed_gives_other_noise_and_other_samples():
    simulate("--out", "a")
    simulate("--out", "b", "--seed", "1")
    assert not torch.equal(
        Result.load("a/posterior.h5").measurement, Result.load("b/posterior.h5").measurement
    )
    assert not torch.equal(samples("a"), samples("b"))


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    simulate("--out", "a")
    assert torch.equal(before, torch.random.get_rng_state())


def test_json_is_one_object_on_stdout_and_quiet_is_silent():
    code, out, err = simulate("--out", "a", "--json", "--quiet")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["files"]["posterior"] == "a/posterior.h5"
    assert told["chi2"] == metrics("a")["chi2"]


def test_the_screen_tells_the_numbers_and_the_limit_of_the_prior():
    _, out, _ = simulate("--out", "a", prior="limited")
    assert all(word in out for word in ("PSNR", "chi2", "coverage90", "dispersion", "forward", "files", "a"))
    assert "starts at noise level 40" in out


def test_progress_goes_to_stderr_with_chi2_and_time_left():
    _, out, err = simulate("--out", "a")
    assert "100%" in err
    assert "chi2" in err
    assert "left" in err
    assert "%" not in out


def test_with_no_input_the_bundled_photo_is_simulated_and_that_is_said(monkeypatch):
    code, _, err = run("--operator", "superres", "--factor", "8", "--quiet", steps=1, samples=1)
    assert (code, err) == (0, "")
    assert Result.load("astronaut-superres/posterior.h5").truth.shape == (3, 256, 256)
    code, _, err = run("--operator", "superres", "--factor", "8", steps=1, samples=1)
    assert "no INPUT" in err


def test_a_finished_run_returns_at_once_and_touches_nothing():
    simulate("--out", "a")
    before = {path: path.stat().st_mtime_ns for path in Path("a").rglob("*")}
    code, out, _ = simulate("--out", "a")
    assert code == 0
    assert "PSNR" in out
    assert before == {path: path.stat().st_mtime_ns for path in Path("a").rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run", "--help"], ["run", "--operator", "inpaint", "--help"], None])
def test_help_and_a_finished_run_import_neither_torch_nor_deepinv(words, monkeypatch, tmp_path):
    """The part that is a file is run to see its options, so a registered prior is used here."""
    if words is None:
        words = [
            "run",
            "--operator",
            "denoise",
            "--steps",
            "1",
            "--samples",
            "1",
            "--out",
            "a",
            "photo.png",
            "--simulate",
        ]
        assert invsolve(*words)[0] == 0
    program = (
        "import sys; from invsolve import cli\ntry: cli.main(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'deepinv', 'skimage'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stderr.endswith("[]\n"), done.stderr


def test_help_shows_the_options_of_the_parts_chosen():
    _, out, _ = invsolve("run", "--operator", "inpaint", "--predictor", "heun", "--help")
    assert all(word in out for word in ("--keep", "--mask", "--churn", "--sigma-y", "--gamma", "Bayes"))
    assert "--factor" not in out


def test_several_inputs_have_a_directory_each_and_a_summary():
    code, _, _ = run("photo.png", "other.png", "--simulate", "--operator", "inpaint", "--out", "a")
    assert code == 0
    rows = Path("a/summary.csv").read_text().splitlines()
    assert len(rows) == 3
    assert "psnr.mean" in rows[0]
    assert not torch.equal(samples("a/photo"), samples("a/other"))


def test_an_image_of_several_is_computed_as_if_it_were_alone():
    run("other.png", "photo.png", "--simulate", "--operator", "inpaint", "--out", "a")
    simulate("--out", "b")
    assert torch.equal(samples("a/photo"), samples("b"))


def test_equal_stems_in_two_folders_do_not_meet(world):  # noqa: F811
    for name in ("x", "y"):
        (world / name).mkdir()
        save(world / name / "photo.png", picture(ord(name)))
    code, _, _ = run("x", "y", "--simulate", "--operator", "inpaint", "--out", "a")
    assert code == 0
    assert not torch.equal(samples("a/x-photo"), samples("a/y-photo"))


def test_a_folder_and_a_pattern_are_inputs_too(world):  # noqa: F811
    (world / "notes.txt").write_text("no image")
    for given, count in ((".", 2), ("ph*.png", 1)):
        code, out, _ = run(
            given, "--simulate", "--operator", "denoise", "--out", f"a{count}", "--json", "--quiet"
        )
        told = json.loads(out)
        assert code == 0
        assert (len(told["images"]) if count > 1 else 1) == count


def measured(name="seen.png", pixels=None, *words, operator="inpaint", sigma_y="0.05", **settings):
    save(name, picture() if pixels is None else pixels)
    return run(name, "--operator", operator, "--sigma-y", sigma_y, "--out", "a", *words, **settings)


def test_a_measured_photo_with_a_mask_is_inpainted_where_the_mask_is_black():
    mask = np.full((16, 24, 1), 255, np.uint8)
    mask[4:9, 6:12] = 0
    save("mask.png", mask)
    code, _, err = measured("seen.png", None, "--mask", "mask.png", "--truth", "photo.png")
    assert code == 0, err
    result = Result.load("a/posterior.h5")
    assert torch.equal(result.mask[0] == 0, torch.from_numpy(mask[..., 0] == 0))
    assert not result.measurement[:, 4:9, 6:12].any()
    assert result.truth is not None


def test_a_box_and_an_alpha_channel_are_masks_too():
    assert measured("seen.png", None, "--box", "2,3,4,5")[0] == 0
    boxed = Result.load("a/posterior.h5")
    see_through = np.concatenate([picture(), np.full((16, 24, 1), 255, np.uint8)], 2)
    see_through[2:6, 3:8, 3] = 0
    code, out, _ = measured("clear.png", see_through, "--overwrite")
    assert code == 0
    assert "alpha" in out
    assert torch.equal(Result.load("a/posterior.h5").mask, boxed.mask)
    assert torch.equal(Result.load("a/posterior.h5").samples, boxed.samples)


def test_a_small_photo_becomes_a_large_one_by_superres():
    code, _, err = measured("small.png", picture(shape=(16, 20)), "--factor", "3", operator="superres")
    assert code == 0, err
    assert samples("a").shape == (2, 3, 48, 60)
    assert "psnr" not in metrics("a")


def test_a_grey_photo_is_coloured():
    code, _, err = measured("grey.png", picture(channels=1), operator="colorize")
    assert code == 0, err
    result = Result.load("a/posterior.h5")
    assert result.measurement.shape == (1, 16, 24)
    assert result.samples.shape == (2, 3, 16, 24)


def test_a_blurred_photo_and_its_kernel_file_are_deblurred():
    np.save("kernel.npy", np.ones((3, 5)))
    code, _, err = measured("blurred.png", None, "--kernel", "kernel.npy", operator="deblur")
    assert code == 0, err
    assert settings("a")["operator"]["kernel"].endswith("/kernel.npy")


def test_sigma_y_auto_is_estimated_and_said():
    rng = np.random.default_rng(0)
    flat = np.rint(255 * (0.5 + 0.1 * rng.standard_normal((64, 64, 3)))).clip(0, 255).astype(np.uint8)
    code, out, _ = measured("noisy.png", flat, operator="denoise", sigma_y="auto", steps=2, samples=1)
    assert code == 0
    told = float(out.split("sigma_y ")[1].split(",")[0])
    assert told == pytest.approx(0.1, rel=0.1)  # a median over 3,000 coefficients errs by 2 to 3 %


@pytest.mark.parametrize(("channels", "prior"), [(1, "grey"), (3, "white"), (4, "white")])
@pytest.mark.parametrize("operator", ["inpaint", "deblur", "superres", "denoise"])
def test_odd_sizes_and_all_kinds_of_channels_go_through(channels, prior, operator):
    save("odd.png", picture(channels=channels, shape=(37, 19)))
    code, out, err = (
        run("odd.png", "--simulate", "--operator", operator, "--std", "1", "--out", "a", prior=prior)
        if (operator == "deblur")
        else run("odd.png", "--simulate", "--operator", operator, "--out", "a", prior=prior)
    )
    assert code == 0, err
    shape = (36, 16) if operator == "superres" else (37, 19)
    assert samples("a").shape == (2, min(channels, 3), *shape)
    assert ("cropped to 36 x 16" in out) == (operator == "superres")


def test_an_exif_rotated_photo_comes_out_upright():
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture()).save("turned.jpg", exif=turned, quality=95)
    code, out, _ = run("turned.jpg", "--simulate", "--operator", "denoise", "--out", "a")
    assert code == 0
    assert samples("a").shape == (2, 3, 24, 16)
    assert "upright" in out


def test_one_sample_has_no_spread_and_claims_none():
    code, _, _ = simulate("--out", "a", samples=1)
    assert code == 0
    assert Result.load("a/posterior.h5").std.isnan().all()
    assert "coverage90" not in metrics("a")


def test_flags_win_over_the_config_and_another_part_takes_none_of_its_options():
    text = '[run]\nsteps = 3\nsamples = 1\n[operator]\nname = "inpaint"\nkeep = 0.5\n'
    Path("c.toml").write_text(text + '[prior]\nname = "prior.py:white"\n')
    words = ("run", "photo.png", "--simulate", "--config", "c.toml", "--steps", "4", "--out", "a")
    assert invsolve(*words)[0] == 0
    assert settings("a")["run"]["steps"] == 4
    words = ("run", "photo.png", "--simulate", "--config", "c.toml", "--operator", "denoise", "--out", "b")
    assert invsolve(*words)[0] == 0
    assert settings("b")["operator"] == {"name": "denoise"}


def test_a_mask_given_as_a_flag_takes_the_place_of_the_share_in_the_config():
    save("mask.png", np.where(picture(3)[..., :1] > 128, 255, 0).astype(np.uint8))
    simulate("--out", "a", "--keep", "0.5")
    code, _, err = invsolve("run", "--config", "a/run.toml", "--mask", "mask.png", "--out", "b")
    assert code == 0, err
    assert "keep" not in Path("b/run.toml").read_text()


def test_an_operator_from_a_file_runs_with_its_options_and_its_mask():
    code, _, err = run("photo.png", "--simulate", "--operator", "operators.py:rows", "--every", "3")
    assert code == 0, err
    mask = Result.load("photo-rows/posterior.h5").mask
    assert mask.shape == (1, 16, 24)
    assert not mask[:, ::3].any()
    assert settings("photo-rows")["operator"]["every"] == 3


def test_a_noise_level_may_be_a_quotient():
    assert simulate("--sigma-y", "25.5/255", "--out", "a")[0] == 0
    assert settings("a")["run"]["sigma_y"] == 0.1
    assert "'25/'" in simulate("--sigma-y", "25/", "--out", "b")[2]
    assert "'1/0'" in simulate("--sigma-y", "1/0", "--out", "b")[2]


def test_two_parts_may_be_of_one_file(world):  # noqa: F811
    both = (world / "prior.py").read_text() + (world / "operators.py").read_text()
    (world / "mine.py").write_text(both)
    words = (
        "--simulate",
        "--operator",
        "mine.py:rows",
        "--prior",
        "mine.py:white",
        "--steps",
        5,
        "--samples",
        1,
    )
    code, _, err = invsolve("run", "photo.png", *words, "--device", "cpu", "--out", "a")
    assert code == 0, err


def test_a_measurement_that_contradicts_its_noise_is_doubted():
    _, out, _ = measured("seen.png", None, operator="denoise", sigma_y="0.9")
    assert "is --sigma-y right?" in out
