"""A config that comes after another: one call trains both, the second from the weights of the first."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from invsolve.errors import InputError
from invsolve.priors.catalogue import load_prior
from invsolve.priors.network import Architecture
from invsolve.training import TrainingConfig, read_config, train
from invsolve.training.card import settings_text
from invsolve.training.jobs import chain

FIRST = TrainingConfig(
    name="tiny", architecture=Architecture(1, 4, (8, 8), 1), data="whole", crop=8, batch=4, images=12
)

FOLDERS = ("both/first", "both", "one", "two", "anew")


@pytest.fixture
def images(tmp_path):
    """Forty random squares."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "squares.npz", images=pixels)
    return tmp_path / "squares.npz"


@pytest.fixture
def second(tmp_path):
    """A config after one that lies in the file first.toml."""
    (tmp_path / "first.toml").write_text(settings_text(FIRST))
    return dataclasses.replace(FIRST, after=str(tmp_path / "first.toml"), seed=3, images=8)


def steps_of(folder):
    return len((folder / "loss.csv").read_text().splitlines())


def test_a_chain_leaves_what_its_trainings_leave_one_by_one(images, second, tmp_path):
    train(second, [images], tmp_path / "both")
    train(FIRST, [images], tmp_path / "one")
    alone = dataclasses.replace(second, after="")
    train(alone, [images], tmp_path / "two", start=tmp_path / "one" / "tiny.safetensors")
    train(alone, [images], tmp_path / "anew")
    made = {f: load_prior(tmp_path / f / "tiny.safetensors").sha256 for f in FOLDERS}
    assert made["both/first"] == made["one"]
    assert made["both"] == made["two"] != made["anew"]


def test_two_processes_wait_for_the_weights_of_the_first_training(images, second, tmp_path):
    train(second, [images], tmp_path / "out", processes=2)
    assert steps_of(tmp_path / "out" / "first") == 2  # ceil(12 / (4 * 2))
    assert steps_of(tmp_path / "out") == 1


def test_the_same_call_keeps_what_is_done(images, second, tmp_path):
    train(second, [images], tmp_path / "out")
    done = tmp_path / "out" / "first" / "tiny.safetensors"
    before = done.stat().st_mtime_ns
    (tmp_path / "out" / "tiny.safetensors").unlink()
    train(second, [images], tmp_path / "out")
    assert done.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "tiny.safetensors").exists()


def test_a_budget_counts_for_each_training(images, second, tmp_path):
    train(second, [images], tmp_path / "out", images=4)
    assert [steps_of(tmp_path / "out" / f) for f in ("first", ".")] == [1, 1]


def test_weights_to_start_from_take_the_place_of_the_trainings_before(second, tmp_path):
    jobs = chain(second, (), tmp_path, None, Path("mine.safetensors"), {})
    assert [(job.start, job.chained) for job in jobs] == [(Path("mine.safetensors"), False)]


def test_the_card_of_a_chain_names_its_settings_and_no_weights(images, second, tmp_path):
    train(second, [images], tmp_path / "out")
    assert "--start" not in (tmp_path / "out" / "tiny.md").read_text()
    assert read_config(tmp_path / "out" / "tiny-training.toml") == second


def test_a_chain_that_leads_back_to_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, after in (("a", "b"), ("b", "c"), ("c", "b")):
        Path(f"{name}.toml").write_text(f'after = "{after}.toml"')
    with pytest.raises(InputError, match=r"after = 'b\.toml' leads back to itself"):
        chain(read_config(Path("a.toml")), (), tmp_path, None, None, {})


def test_weights_of_another_architecture_are_refused_before_they_are_trained(images, second, tmp_path):
    wider = dataclasses.replace(second, architecture=Architecture(1, 4, (8, 16), 1))
    with pytest.raises(InputError, match="another architecture"):
        train(wider, [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_prior_photo_is_three_trainings(tmp_path):
    jobs = chain(read_config(Path("photo")), (), tmp_path, None, None, {})
    assert [job.out for job in jobs] == [tmp_path / "photo-1", tmp_path / "photo-2", tmp_path]
    assert [job.start for job in jobs] == [None, jobs[0].weights, jobs[1].weights]
