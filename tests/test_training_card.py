"""The card that a training leaves: facts of the file, and settings that make the same run again."""

import dataclasses

import numpy as np
import pytest

from invsolve.classifiers.network import ClassifierArchitecture
from invsolve.priors.catalogue import load_prior
from invsolve.priors.network import Architecture
from invsolve.training import TrainingConfig, read_config, train

PRIOR = TrainingConfig(
    name="tiny",
    licence="CC0 1.0",
    architecture=Architecture(1, 4, (8, 8), 1),
    data="whole",
    crop=8,
    batch=4,
    images=12,
    hold_out=5,
    exclude=("[A-Z]*.jpg", 'a "b"'),
    sigma_max=5e-3 * 10**4,
)


@pytest.fixture
def images(tmp_path):
    """Forty random squares in two classes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "squares.npz", images=pixels, labels=np.arange(40) % 2)
    return tmp_path / "squares.npz"


def test_a_card_states_what_its_file_states(images, tmp_path):
    train(PRIOR, [images], tmp_path / "out", images=8)
    card = (tmp_path / "out" / "tiny.md").read_text()
    prior = load_prior(tmp_path / "out" / "tiny.safetensors")
    for said in (prior.sha256, PRIOR.digest(), "CC0 1.0", "1 x 8 x 8", "sigma 0.001 to 25", "8 images seen"):
        assert said in card
    assert "train --config tiny-training.toml --data squares.npz --out run --images 8\n" in card
    assert "| psnr |" in card


@pytest.mark.parametrize("kind", ["prior", "classifier"])
def test_the_settings_beside_a_card_make_the_same_weights_again(kind, images, tmp_path):
    net = {"prior": PRIOR.architecture, "classifier": ClassifierArchitecture(1, (8, 8), 1, 2)}[kind]
    train(dataclasses.replace(PRIOR, kind=kind, architecture=net), [images], tmp_path / "out")
    settings = read_config(tmp_path / "out" / "tiny-training.toml")
    assert settings == dataclasses.replace(PRIOR, kind=kind, architecture=net)
    train(settings, [images], tmp_path / "again")
    for name in ("tiny-training.toml", "tiny.md", "loss.csv"):  # the card holds the sha256 of the weights
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "again" / name).read_text()


def test_what_the_author_adds_to_a_card_stays_while_the_weights_are_the_same(images, tmp_path):
    train(PRIOR, [images], tmp_path / "out", images=8)
    card = tmp_path / "out" / "tiny.md"
    card.write_text(card.read_text() + "\nIt knows squares.\n")
    train(PRIOR, [images], tmp_path / "out", images=8)
    assert "It knows squares." in card.read_text()
    train(PRIOR, [images], tmp_path / "out", images=12)
    assert "12 images seen" in card.read_text()
