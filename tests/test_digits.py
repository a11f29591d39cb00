"""The shipped digits: a prior, its classifier, and what a second classifier makes of the draws."""

import json
from pathlib import Path

import pytest
import torch
from running import invsolve
from safetensors.torch import load_file
from torch import nn

from invsolve.classifiers.formats import load_classifier
from invsolve.guidance import ClassifierGuidance
from invsolve.likelihood import Classifier
from invsolve.posterior import Posterior
from invsolve.priors import catalogue
from invsolve.priors.catalogue import load_prior
from invsolve.result import Result
from invsolve.rng import Noise
from invsolve.samplers.pc import PC


@pytest.fixture(scope="module")
def judge():
    """A classifier of clean digits (n, 1, 32, 32), independent of the one that guides."""
    layers = []
    for before, width in ((1, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(before, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    weights = load_file(Path(__file__).parent / "data" / "judge.safetensors")
    net.load_state_dict({name.removeprefix("layers."): value for name, value in weights.items()})
    return lambda x: net(x.clamp(0, 1)).argmax(1)


def drawn(label, n=4, gamma=4.0):
    posterior = Posterior(
        load_prior("digits"),
        Classifier(load_classifier("digits"), label),
        guidance=ClassifierGuidance(),
        gamma=gamma,
    )
    return PC()(posterior, n, 0)


def test_the_prior_is_small_and_knows_its_size():
    prior = load_prior("digits")
    assert prior.shape == (1, 32, 32)
    assert "CC BY-SA 3.0" in prior.metadata["licence"]
    root = Path(catalogue.__file__).parent.parent
    for file in ("priors/weights/digits.safetensors", "classifiers/weights/digits.safetensors"):
        assert (root / file).stat().st_size < 8e6
        assert (root / file).with_suffix(".md").exists()


def test_the_classifier_knows_nothing_in_pure_noise():
    x = 40 * Noise(0, "", 8, (1, 32, 32))()
    p = load_classifier("digits")(x, torch.full((8,), 40.0, dtype=torch.float64)).softmax(1)
    assert (p - 0.1).abs().max() < 0.1  # MNIST's own classes are 9 to 11 %


@pytest.mark.slow
def test_digits_of_a_class_are_recognised_by_an_independent_classifier(judge):
    right = sum(int((judge(drawn(label, 3)) == label).sum()) for label in range(10))
    assert right >= 27  # of 30; benchmarks/digits.py measures the share on more


@pytest.mark.slow
def test_without_guidance_all_classes_are_drawn(judge):
    samples = drawn(7, 24, gamma=0.0)
    assert len(judge(samples).unique()) >= 6  # of ten; 24 even draws leave out three or more in 1 of 70


@pytest.mark.slow
def test_the_command_draws_sevens(judge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = ("--prior", "digits", "--likelihood", "classifier", "--label", 7, "--samples", 20)
    code, _, err = invsolve("run", *chosen, "--device", "cpu")
    assert code == 0, err
    folder = Path("digits-classifier-7")
    samples = Result.load(folder / "posterior.h5").samples
    assert (judge(samples) == 7).sum() >= 18
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["recognised"] >= 0.9
    assert metrics["samples"] == 20
    assert "gamma = 4.0" in (folder / "run.toml").read_text()
    assert (folder / "sheet.png").exists()
