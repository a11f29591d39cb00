"""`--tile` on the command line: the same result, recorded, part of the run's key, and refused in one line."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from running import invsolve, picture, run, save, world  # noqa: F401  world is a fixture

from invsolve.errors import InputError
from invsolve.result import Result
from invsolve.run.tile import chosen, parse_tile

pytestmark = pytest.mark.usefixtures("world")
NET = """
import torch
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.network import Architecture, build

def _made(side=None):
    network = build(Architecture(3, 4, (8, 8), 1)).requires_grad_(False)
    network.head.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    prior = DenoiserPrior(network, side=side)
    prior.fast = False
    return prior

def small(): return _made()
def fixed(): return _made(16)
"""


@pytest.fixture(autouse=True)
def _network(world):  # noqa: F811  the fixture of running.py
    (world / "net.py").write_text(NET)
    save(world / "photo.png", picture(shape=(52, 70)))
    save(world / "grey.png", picture(shape=(52, 70), channels=1))


def restore(*words, image="photo.png", out="a"):
    start = ("run", image, "--simulate", "--operator", "inpaint", "--prior", "net.py:small")
    return invsolve(*start, "--steps", 3, "--samples", 1, "--device", "cpu", "--out", out, *words)


def metrics(out):
    return json.loads(Path(out, "metrics.json").read_text())


@pytest.mark.parametrize("image", ["photo.png", "grey.png"])
def test_a_run_in_tiles_is_the_run_without(image):
    assert restore(image=image)[0] == 0
    code, _, err = restore("--tile", 20, image=image, out="b")
    assert code == 0
    assert "tiles of 20 pixels with a halo of 29: the network sees" in err
    whole, tiled = (Result.load(f"{out}/posterior.h5").samples for out in "ab")
    assert (whole - tiled).abs().max() < 1e-4  # float32, and the inner solve repeats its rounding
    one, other = metrics("a")["nfe"], metrics("b")["nfe"]
    assert one["vjp"] == other["vjp"] > 0
    assert other["forward"] == one["forward"] + one["vjp"]


def test_run_toml_has_the_tile_and_repeats_it():
    restore("--tile", 20)
    assert tomllib.loads(Path("a/run.toml").read_text())["run"]["tile"] == 20
    code, _, err = invsolve("run", "--config", "a/run.toml", "--out", "a")
    assert (code, "finished already" in err) == (0, True)
    restore(out="b")
    assert tomllib.loads(Path("b/run.toml").read_text())["run"]["tile"] == "auto"


def test_another_tile_is_another_run():
    restore("--tile", 20)
    units = {path.name for path in Path("a/units").glob("*.h5")}
    code, _, err = restore("--tile", 24)
    assert (code, "run.tile: 20 -> 24" in err) == (2, True)
    restore("--tile", 24, out="b")
    assert not units & {path.name for path in Path("b/units").glob("*.h5")}


def test_samples_of_the_prior_in_tiles_are_those_without():
    words = ("sample", "--prior", "net.py:small", "-n", 1, "--size", "33,50", "--steps", 4, "--device", "cpu")
    assert invsolve(*words, "--out", "a")[0] == 0
    assert invsolve(*words, "--out", "b", "--tile", 16)[0] == 0
    whole, tiled = (Result.load(f"{out}/samples.h5").samples for out in "ab")
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)  # float32 over four steps


@pytest.mark.parametrize("word", ["12.5", "-4", "large", ""])
def test_a_tile_that_is_none_is_refused(word):
    code, _, err = restore(f"--tile={word}")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--tile must be a number of pixels, 0 for none, or auto, but it is {word!r}" in err


def test_a_tile_in_a_file_is_checked_like_the_flag():
    Path("wrong.toml").write_text("[run]\ntile = -4\n")
    code, _, err = restore("--config", "wrong.toml")
    assert (code, "--tile must be a number" in err) == (2, True)


@pytest.mark.parametrize(
    ("prior", "reason"),
    [("prior.py:white", "depend on the whole image"), ("net.py:fixed", "one size only, 16 x 16 pixels")],
)
def test_a_prior_that_cannot_be_tiled_is_refused_in_one_line(prior, reason):
    save("photo.png", picture(shape=(16, 16)))
    code, _, err = restore("--prior", prior, "--tile", 8)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: prior ")
    assert reason in err
    assert not Path("a/run.toml").exists()


def test_auto_takes_large_images_in_tiles_of_512_and_others_whole():
    assert chosen("auto", (3, 1024, 1024)) == 0
    assert chosen("auto", (3, 1024, 1025)) == 512
    assert chosen("auto", (1, 600, 4000)) == 512
    assert (chosen(0, (3, 4000, 4000)), chosen(64, (3, 32, 32))) == (0, 64)


def test_auto_leaves_whole_what_cannot_be_tiled(monkeypatch):
    monkeypatch.setattr("invsolve.run.tile._WHOLE", 100)
    assert run("photo.png", "--simulate", "--operator", "inpaint", "--out", "a")[0] == 0
    _, _, err = restore(out="b")
    assert "tiles of 512 pixels" in err
    assert tomllib.loads(Path("b/run.toml").read_text())["run"]["tile"] == "auto"


def test_the_flag_is_read_as_a_number_or_auto():
    assert (parse_tile("256"), parse_tile("0"), parse_tile("auto")) == (256, 0, "auto")
    with pytest.raises(InputError, match="'off'"):
        parse_tile("off")
