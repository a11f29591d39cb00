"""Bad input to `invsolve run`: its exit code, one or two lines that name the fault, no stray files."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import invsolve, picture, run, save, simulate, world  # noqa: F401  world is a fixture

from invsolve.files import write_whole
from invsolve.result import Result
from invsolve.run import outputs, shards

pytestmark = pytest.mark.usefixtures("world")


def assert_refused(said, code, *words):
    """Check the exit code, that each word is said, and the manner of saying it."""
    given, _, err = said
    assert given == code, err
    for word in words:
        assert word in err, err
    assert err.startswith("error: ")
    assert err.count("\n") <= 2
    assert "Traceback" not in err


def test_a_refused_run_leaves_no_directory_and_does_not_stand_in_the_way_of_the_right_one():
    wrong = simulate("--operator", "deblur", "--std", "1", "--guidance", "replace")
    assert_refused(wrong, 2, "Replace")
    assert not Path("photo-deblur").exists()
    assert simulate("--operator", "deblur", "--std", "1")[0] == 0


def _truncated(path):
    save("whole.png", picture(shape=(64, 64)))
    path.write_bytes(Path("whole.png").read_bytes()[:2000])


FILES = {
    "missing": (lambda path: None, "no file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (_truncated, "cut short"),
    "text": (lambda path: path.write_text("hello there"), "not an image"),
    "tiny": (lambda path: save(path, picture(shape=(8, 40))), "8 x 40 pixels"),
    "folder": (lambda path: path.mkdir(), "no image files"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_is_no_photo_is_named(fault):
    make, word = FILES[fault]
    make(Path("bad.png"))
    assert_refused(run("bad.png", "--simulate", "--operator", "inpaint"), 2, word, "bad.png")
    assert not Path("bad-inpaint", "units").exists()


ARRAYS = {
    "nan": (np.full((3, 16, 16), np.nan), "NaN"),
    "objects": (np.array([[{}] * 16] * 16), "never unpickled"),
    "complex": (np.ones((16, 16), complex), "complex"),
    "bytes as floats": (np.full((16, 16), 200.0), "200"),
    "a line": (np.ones(16), "shape (16,)"),
}


@pytest.mark.parametrize("fault", ARRAYS)
def test_an_array_that_is_no_photo_is_named(fault):
    values, word = ARRAYS[fault]
    np.save("bad.npy", values)
    assert_refused(run("bad.npy", "--simulate", "--operator", "inpaint"), 2, word, "bad.npy")


OPTIONS = {
    "unknown operator": (["--operator", "inpiant"], ["inpiant", "Did you mean 'inpaint'?"]),
    "no operator": ([], ["--operator", "inpaint"]),
    "unknown sde": (["--operator", "inpaint", "--sde", "vee"], ["vee", "ve"]),
    "unknown option": (["--operator", "inpaint", "--keeep", "0.3"], ["--keeep", "--keep"]),
    "option of another part": (["--operator", "inpaint", "--factor", "4"], ["--factor", "superres"]),
    "option that is no number": (["--operator", "inpaint", "--keep", "much"], ["--keep", "much", "number"]),
    "share above one": (["--operator", "inpaint", "--keep", "30"], ["keep", "30"]),
    "two masks": (["--operator", "inpaint", "--keep", "0.3", "--box", "1,1,2,2"], ["one of keep, box"]),
    "sigma_y negative": (["--operator", "inpaint", "--sigma-y", "-1"], ["--sigma-y", "-1"]),
    "sigma_y nan": (["--operator", "inpaint", "--sigma-y", "nan"], ["--sigma-y", "nan"]),
    "sigma_y zero": (["--operator", "inpaint", "--sigma-y", "0"], ["--sigma-y", "> 0"]),
    "sigma_y of bytes": (["--operator", "inpaint", "--sigma-y", "25"], ["25/255 = 0.098"]),
    "sigma_y a word": (["--operator", "inpaint", "--sigma-y", "low"], ["--sigma-y", "low"]),
    "sigma_y auto when simulating": (["--operator", "inpaint", "--sigma-y", "auto"], ["auto", "--simulate"]),
    "seed that no file holds": (["--operator", "inpaint", "--seed", str(2**63)], ["--seed", "63 bits"]),
    "gamma negative": (["--operator", "inpaint", "--gamma", "-2"], ["--gamma", "-2"]),
    "device that is not there": (["--operator", "inpaint", "--device", "cuda:97"], ["cuda:97"]),
    "device of another kind": (["--operator", "inpaint", "--device", "tpu"], ["tpu"]),
    "mask that is not there": (["--operator", "inpaint", "--mask", "no.png"], ["no.png"]),
    "box outside": (["--operator", "inpaint", "--box", "0,0,99,2"], ["box 0,0,99,2"]),
    "kernel that is not there": (["--operator", "deblur", "--kernel", "no.npy"], ["no.npy"]),
    "kernel larger than the photo": (["--operator", "deblur", "--std", "9"], ["larger than the image"]),
    "factor out of range": (["--operator", "superres", "--factor", "9"], ["factor", "9"]),
    "parts that clash": (["--operator", "deblur", "--std", "1", "--guidance", "replace"], ["Replace"]),
    "a likelihood the run does not know": (["--operator", "denoise", "--likelihood", "poisson"], ["poisson"]),
    "a grid that is wrong for the predictor": (
        ["--operator", "denoise", "--sde", "vp", "--grid", "uniform"], ["uniform", "geometric"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", OPTIONS)
def test_a_setting_that_makes_no_sense_is_refused(fault):
    words, told = OPTIONS[fault]
    device = [] if "--device" in words else ["--device", "cpu"]
    said = invsolve(
        "run", "photo.png", "--simulate", "--prior", "prior.py:white", "--steps", 5, *device, *words
    )
    assert_refused(said, 2, *told)


@pytest.mark.parametrize("flag", ["--steps", "--samples"])
def test_zero_of_anything_is_refused(flag):
    words = (
        "run",
        "photo.png",
        "--simulate",
        "--operator",
        "inpaint",
        "--prior",
        "prior.py:white",
        flag,
        "0",
    )
    assert_refused(invsolve(*words), 2, flag, "at least 1")


def test_a_photo_to_inpaint_must_say_what_is_lost():
    assert_refused(
        run("photo.png", "--operator", "inpaint", "--sigma-y", "0.1"), 2, "--mask", "--box", "--simulate"
    )
    assert_refused(
        run("photo.png", "--operator", "inpaint", "--sigma-y", "0.1", "--keep", "0.3"), 2, "--keep"
    )


def test_a_measured_photo_must_say_its_noise():
    assert_refused(run("photo.png", "--operator", "denoise"), 2, "--sigma-y", "auto", "--simulate")


def test_a_mask_of_another_size_or_without_a_hole_is_refused():
    for pixels, word in (
        (np.eye(20, dtype=np.uint8) * 255, "20"),
        (np.full((16, 24), 255, np.uint8), "white everywhere"),
    ):
        save("mask.png", pixels[..., None])
        said = run("photo.png", "--operator", "inpaint", "--sigma-y", "0.1", "--mask", "mask.png")
        assert_refused(said, 2, "mask.png", word)


def test_an_opaque_alpha_channel_is_no_mask():
    save("opaque.png", np.concatenate([picture(), np.full((16, 24, 1), 255, np.uint8)], 2))
    assert_refused(run("opaque.png", "--operator", "inpaint", "--sigma-y", "0.1"), 2, "opaque", "--mask")


def test_auto_needs_whole_neighbourhoods():
    mask = np.random.default_rng(0).random((16, 24, 1)) < 0.5
    save("mask.png", np.where(mask, 255, 0).astype(np.uint8))
    said = run("photo.png", "--operator", "inpaint", "--sigma-y", "auto", "--mask", "mask.png")
    assert_refused(said, 2, "--sigma-y auto")


def test_a_coloured_photo_is_not_coloured_again():
    assert_refused(run("photo.png", "--operator", "colorize", "--sigma-y", "0.1"), 2, "has colour")


def test_a_truth_of_another_size_is_refused():
    save("large.png", picture(shape=(32, 32)))
    said = run("photo.png", "--operator", "denoise", "--sigma-y", "0.1", "--truth", "large.png")
    assert_refused(said, 2, "large.png", "(3, 32, 32)")


def test_a_prior_of_other_channels_is_refused():
    assert_refused(simulate(prior="grey"), 2, "1 x any x any", "3 x 16 x 24", "--prior")


CONFIGS = {
    "broken": ("[run\n", ["line 1"]),
    "unknown table": ("[opperator]\n", ["opperator", "operator"]),
    "unknown key": ("[run]\nstep = 3\n", ["step", "steps"]),
    "unknown option": ('[operator]\nname = "inpaint"\nkep = 0.3\n', ["kep", "keep"]),
    "wrong type": ('[run]\nsteps = "many"\n', ["steps", "many"]),
    "no table": ("operator = 3\n", ["operator"]),
    "twice": ("[run]\nsteps = 3\nsteps = 4\n", ["line 3"]),
    "latin-1": ("# \xe9\n".encode("latin-1"), ["TOML"]),
}


@pytest.mark.parametrize("fault", CONFIGS)
def test_a_broken_config_is_named_with_the_line_or_the_key(fault):
    text, told = CONFIGS[fault]
    Path("c.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_refused(
        run("photo.png", "--simulate", "--operator", "inpaint", "--config", "c.toml"), 2, "c.toml", *told
    )


def test_a_missing_config_is_named():
    assert_refused(simulate("--config", "no.toml"), 2, "no.toml")


class _Boom:
    def __reduce__(self):
        return os.mkdir, ("executed",)


WEIGHTS = {
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(_Boom())), "pickle"),
    "a torch file": (lambda path: torch.save({"w": torch.ones(2)}, path), "pickle"),
    "cut short": (lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{"), "safetensors"),
    "missing": (lambda path: None, "no"),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_a_foreign_weight_file_is_refused_and_never_executed(fault):
    make, word = WEIGHTS[fault]
    make(Path("w.safetensors"))
    said = invsolve("run", "photo.png", "--simulate", "--operator", "inpaint", "--prior", "w.safetensors")
    assert_refused(said, 2, word, "w.safetensors")
    assert not Path("executed").exists()


def test_a_changed_setting_in_the_same_directory_is_refused_with_the_difference():
    simulate("--out", "a")
    before = Result.load("a/posterior.h5").samples
    assert_refused(simulate("--out", "a", "--keep", "0.5"), 2, "operator.keep: 0.3 -> 0.5", "--overwrite")
    assert torch.equal(Result.load("a/posterior.h5").samples, before)
    assert simulate("--out", "a", "--keep", "0.5", "--overwrite")[0] == 0
    assert not torch.equal(Result.load("a/posterior.h5").samples, before)


def test_a_changed_input_in_the_same_directory_is_refused():
    simulate("--out", "a")
    save("photo.png", picture(7))
    assert_refused(simulate("--out", "a"), 2, "input sha256", "--overwrite")


def test_files_of_others_are_not_overwritten():
    Path("a").mkdir()
    Path("a", "mean.png").write_text("mine")
    assert_refused(simulate("--out", "a"), 2, "mean.png", "--overwrite")
    assert Path("a", "mean.png").read_text() == "mine"


def test_overwriting_removes_nothing_that_is_not_of_a_run():
    simulate("--out", "a")
    Path("a", "notes.txt").write_text("mine")
    assert simulate("--out", "a", "--seed", "1", "--overwrite")[0] == 0
    assert Path("a", "notes.txt").read_text() == "mine"


def test_bad_input_costs_no_earlier_run_even_with_overwrite():
    simulate("--out", "a")
    Path("photo.png").write_bytes(b"")
    assert_refused(simulate("--out", "a", "--overwrite"), 2, "empty")
    assert Path("a", "posterior.h5").exists()


def test_an_output_directory_that_is_a_file_is_refused_before_the_work():
    Path("a").write_text("a file")
    assert_refused(simulate("--out", "a"), 5, "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_not_writable_is_refused_before_the_work():
    Path("a").mkdir(mode=0o555)
    assert_refused(simulate("--out", "a/b"), 5, "a/b")


def test_a_full_disk_ends_the_run_with_its_own_code_and_leaves_no_half_file(monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("invsolve.files._flushed", full)
    with pytest.raises(OSError, match="cannot write x: No space left"):
        write_whole(Path("x"), b"1")
    monkeypatch.setattr(shards, "write_whole", write_whole)
    assert_refused(simulate("--out", "a"), 5, "No space left")
    assert not list(Path(".").rglob("*.part"))


def test_one_bad_image_never_stops_the_others():
    Path("bad.png").write_text("no photo")
    code, out, err = run(
        "photo.png", "bad.png", "other.png", "--simulate", "--operator", "inpaint", "--out", "a"
    )
    assert code == 3
    assert "bad.png" in err
    assert out.count("PSNR") == 2
    assert "1 failed, see a/failures.csv" in out
    rows = Path("a/failures.csv").read_text().splitlines()
    assert len(rows) == 2
    assert "bad.png" in rows[1]


def test_only_bad_images_are_bad_input():
    for name in ("x.png", "y.png"):
        Path(name).write_text("no photo")
    assert run("x.png", "y.png", "--simulate", "--operator", "inpaint", "--out", "a")[0] == 2


def test_a_divergence_is_a_failed_unit_with_step_and_term():
    code, _, err = simulate("--out", "a", prior="diverging")
    assert code == 3
    assert "NaN" in err
    assert "step" in err
    assert "Traceback" not in err
    assert "NaN" in Path("a/failures.csv").read_text()


def test_a_lack_of_memory_has_its_own_code():
    code, _, err = simulate("--out", "a", prior="hungry")
    assert code == 4
    assert "memory" in err


def test_two_runs_in_one_directory_do_not_meet():
    fcntl = pytest.importorskip("fcntl")
    Path("a").mkdir()
    with Path("a", ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert_refused(simulate("--out", "a"), 5, "another run")


def test_a_picture_bomb_is_refused_before_it_is_decoded():
    Image.new("1", (12000, 12000)).save("bomb.png")
    assert_refused(run("bomb.png", "--simulate", "--operator", "inpaint"), 2, "144 million pixels")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wrong", "wrong A_adjoint"),
        ("broken", "no such thing"),
        ("forgetful", "returned None"),
        ("inplace", "changes the image"),
        ("first", "A gives (3, 16, 24)"),
        ("moving", "something else each time"),
        ("complex", "complex64"),
        ("nothing", "0 everywhere"),
        ("pairs", "(2, 16, 24), but a picture is"),
    ],
)
def test_a_broken_operator_of_others_is_named(name, told):
    said = run("photo.png", "--simulate", "--operator", f"operators.py:{name}")
    assert_refused(said, 7, f"operators.py:{name}", told)


def test_an_operator_without_a_picture_has_no_psnr_of_its_measurement():
    said = run("photo.png", "--simulate", "--operator", "operators.py:brightness", "--json")
    assert said[0] == 0, said[2]
    assert set(json.loads(said[1])["psnr"]) == {"mean", "sample"}


def test_what_a_plugin_prints_stays_out_of_the_results():
    said = run("photo.png", "--simulate", "--operator", "operators.py:chatty", "--json")
    assert json.loads(said[1])["samples"] == 2
    assert "chat" in said[2]


def test_a_chi2_beyond_all_numbers_is_doubted_in_words():
    assert outputs._doubts({"chi2": None}, simulated=False)[0].startswith("chi2 is infinite")
    assert "--steps" in outputs._doubts({"chi2": 24.2}, simulated=True)[0]
    assert "--sigma-y" in outputs._doubts({"chi2": 24.2}, simulated=False)[0]


@pytest.mark.parametrize("name", ["needing", "empty"])
def test_a_file_s_prior_that_is_none_is_its_own_fault(name):
    assert_refused(simulate(prior=name), 7, f"prior.py:{name}")


def test_a_prior_that_ends_the_program_fails_its_unit_alone():
    code, _, err = simulate("--out", "a", prior="leaving")
    assert code == 3
    assert "SystemExit: 5" in err


@pytest.mark.parametrize("kind", ["sde", "guidance", "corrector"])
def test_a_part_of_another_kind_is_named(kind):
    assert_refused(simulate(f"--{kind}", "prior.py:white"), 7, kind, "White")


def test_a_file_without_the_name_of_a_part_lists_what_it_has():
    said = run("photo.png", "--simulate", "--operator", "operators.py")
    assert_refused(said, 2, "which part of operators.py", "brightness")
