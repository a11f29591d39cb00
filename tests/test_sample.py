"""`invsolve sample`: draws of a prior alone."""

import json
import math
from pathlib import Path

import pytest
import torch
from running import VARIANCE, invsolve, world  # noqa: F401  world is a fixture

from invsolve.images import load_image
from invsolve.result import Result

pytestmark = pytest.mark.usefixtures("world")


def sample(*words, prior="white"):
    return invsolve("sample", "--prior", f"prior.py:{prior}", "--device", "cpu", "--size", "16,24", *words)


def test_samples_of_a_known_prior_have_its_mean_and_sd():
    code, _, err = sample("-n", "4", "--steps", "60", "--out", "a")
    assert code == 0, err
    z = (Result.load("a/samples.h5").samples - 0.5) / VARIANCE**0.5
    floor = 4 / math.sqrt(z.numel())  # four standard errors over 4,608 independent pixels
    assert abs(float(z.mean())) < floor
    assert abs(float(z.std()) - 1) < floor


def test_each_sample_has_a_picture_and_the_sheet_has_all():
    sample("-n", "3", "--steps", "2", "--out", "a")
    assert sorted(path.name for path in Path("a/samples").iterdir()) == ["000.png", "001.png", "002.png"]
    assert load_image("a/sheet.png").pixels.shape == (3, 32, 48)


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    sample("-n", "3", "--steps", "4", "--out", "a")
    sample("-n", "2", "--steps", "4", "--out", "b")
    assert torch.equal(Result.load("a/samples.h5").samples[:2], Result.load("b/samples.h5").samples)


def test_json_tells_shape_and_place():
    _, out, err = sample("-n", "2", "--steps", "2", "--json", "--quiet")
    assert err == ""
    assert json.loads(out)["shape"] == [2, 3, 16, 24]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photo.png"], "invsolve run"),
        (["-n", "0"], "at least 1"),
        (["--size", "9"], "H,W"),
        (["--kep", "1"], "--kep"),
    ],
)
def test_what_makes_no_sense_is_refused(words, told):
    code, _, err = sample(*words)
    assert code == 2
    assert told in err
    assert err.startswith("error: ")


def test_earlier_samples_are_not_written_over():
    sample("-n", "1", "--steps", "2", "--out", "a")
    assert sample("-n", "1", "--steps", "2", "--out", "a")[0] == 2
    assert sample("-n", "1", "--steps", "2", "--out", "a", "--overwrite")[0] == 0


def test_a_directory_that_cannot_be_made_is_found_before_the_work():
    Path("taken").write_text("a file")
    code, _, err = sample("-n", "2", "--steps", "2", "--out", "taken")
    assert code == 5
    assert "1 of 2" not in err
