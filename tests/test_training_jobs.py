"""Configs that come one after another: one call trains all, each from the weights of the one before."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from invsolve.errors import InputError
from invsolve.priors.catalogue import load_prior
from invsolve.priors.network import Architecture
from invsolve.training import TrainingConfig, read_chain, read_config, train
from invsolve.training.card import settings_text
from invsolve.training.jobs import chain, pending

FIRST = TrainingConfig(
    name="tiny", architecture=Architecture(1, 4, (8, 8), 1), data="whole", crop=8, batch=4, images=12
)
SECOND = dataclasses.replace(FIRST, after="first", seed=3, images=8)


@pytest.fixture
def images(tmp_path):
    """Forty random squares."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "squares.npz", images=pixels)
    return tmp_path / "squares.npz"


def both(data, out, **options):
    train(SECOND, [data], out, earlier=[FIRST], **options)


def written(folder, **configs):
    folder.mkdir(exist_ok=True)
    for name, config in configs.items():
        (folder / f"{name}.toml").write_text(settings_text(config))
    return folder


def steps_of(folder):
    return len((folder / "loss.csv").read_text().splitlines())


def sha256(folder):
    return load_prior(folder / "tiny.safetensors").sha256


# one call


@pytest.mark.slow
def test_a_chain_leaves_what_its_trainings_leave_one_by_one(images, tmp_path):
    both(images, tmp_path / "both")
    train(FIRST, [images], tmp_path / "one")
    train(SECOND, [images], tmp_path / "two", start=tmp_path / "one" / "tiny.safetensors")
    train(dataclasses.replace(SECOND, after=""), [images], tmp_path / "anew")
    assert sha256(tmp_path / "both" / "earlier" / "first") == sha256(tmp_path / "one")
    assert sha256(tmp_path / "both") == sha256(tmp_path / "two") != sha256(tmp_path / "anew")


@pytest.mark.slow
def test_two_processes_wait_for_the_weights_of_the_first_training(images, tmp_path):
    both(images, tmp_path / "out", processes=2)
    assert steps_of(tmp_path / "out" / "earlier" / "first") == 2  # ceil(12 / (4 * 2))
    assert steps_of(tmp_path / "out") == 1


def test_a_budget_and_the_images_to_validate_on_are_for_each_training(tmp_path):
    jobs = chain([FIRST, SECOND], [tmp_path], tmp_path, validation=tmp_path / "v", budget={"images": 5})
    assert [job.config.images for job in jobs] == [5, 5]
    assert [job.asked for job in jobs] == [FIRST, SECOND]  # whose hash names the weights
    assert {job.validation for job in jobs} == {tmp_path / "v"}


def test_pictures_go_to_the_trainings_that_learn_from_pictures(tmp_path):
    drawn = dataclasses.replace(FIRST, data="phantoms")
    jobs = chain([drawn, SECOND], [tmp_path / "data"], tmp_path)
    assert [job.folders for job in jobs] == [(), (tmp_path / "data",)]
    with pytest.raises(InputError, match="no data to learn from"):
        chain([FIRST, dataclasses.replace(SECOND, data="phantoms")], [], tmp_path)


def test_three_trainings_begin_each_where_the_one_before_ended(tmp_path):
    written(tmp_path, first=FIRST, second=SECOND, third=dataclasses.replace(SECOND, after="second"))
    jobs = chain(read_chain(tmp_path / "third.toml"), [tmp_path], tmp_path)
    earlier = tmp_path / "earlier"
    assert [job.out for job in jobs] == [earlier / "first", earlier / "second", tmp_path]
    assert [job.start for job in jobs] == [None, jobs[0].weights, jobs[1].weights]


# again


@pytest.mark.slow
def test_the_card_repeats_the_last_training_from_the_weights_of_the_one_before(images, tmp_path):
    both(images, tmp_path / "out", images=7)
    card = (tmp_path / "out" / "tiny.md").read_text()
    start = "earlier/first/tiny.safetensors"
    assert f"--config tiny-training.toml --data squares.npz --out run --start {start} --images 7\n" in card
    assert f"beside `{start}`" in card
    settings = read_config(tmp_path / "out" / "tiny-training.toml")
    assert settings == SECOND
    train(settings, [images], tmp_path / "again", start=tmp_path / "out" / start, images=7)
    assert sha256(tmp_path / "again") == sha256(tmp_path / "out")


@pytest.mark.slow
def test_the_same_call_goes_on_with_the_last_training_that_has_begun(images, tmp_path):
    out = tmp_path / "out"
    both(images, out)
    before = sha256(out)
    jobs = chain([FIRST, SECOND], [images], out)
    assert pending(jobs) == jobs[1:]
    shutil.move(out / "earlier", tmp_path / "moved")  # nothing needs it any more
    assert pending(jobs) == jobs[1:]
    both(images, out)
    assert sha256(out) == before
    shutil.move(tmp_path / "moved", out / "earlier")
    for file in [out / "tiny.safetensors", *out.glob("step-*/*")]:
        file.unlink()
    next(out.glob("step-*")).rmdir()
    assert pending(jobs) == jobs[1:]
    assert pending(chain([FIRST, SECOND], [images], out, budget={"images": 16}))[0].out == jobs[0].out
    (jobs[0].out / "tiny.md").unlink()  # killed before the card was written
    assert pending(jobs) == jobs


@pytest.mark.slow
def test_what_began_otherwise_is_not_gone_on_with(images, tmp_path):
    out = tmp_path / "out"
    both(images, out)
    changed = dataclasses.replace(FIRST, seed=9)
    with pytest.raises(InputError, match="first holds a training by other settings"):
        train(SECOND, [images], out, earlier=[changed])
    file = out / "earlier" / "first" / "tiny.safetensors"
    shutil.copy(file, tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=r"began with earlier/first/tiny\.safetensors, not with mine"):
        train(SECOND, [images], out, start=tmp_path / "mine.safetensors")
    train(FIRST, [images], tmp_path / "plain")
    with pytest.raises(InputError, match="began with random weights, not with earlier/first"):
        both(images, tmp_path / "plain")
    assert not (tmp_path / "plain" / "earlier").exists()


@pytest.mark.slow
def test_a_card_remembers_the_weights_it_began_with_where_the_second_call_does_not_say(images, tmp_path):
    train(FIRST, [images], tmp_path / "one")
    alone = dataclasses.replace(SECOND, after="")
    train(alone, [images], tmp_path / "two", start=tmp_path / "one" / "tiny.safetensors", images=4)
    train(alone, [images], tmp_path / "two")
    assert "--out run --start tiny.safetensors\n" in (tmp_path / "two" / "tiny.md").read_text()


# the files


def test_a_chain_is_read_from_beside_the_config_whatever_the_working_directory(tmp_path, monkeypatch):
    folder = written(tmp_path / "configs", first=FIRST, second=SECOND)
    monkeypatch.chdir(tmp_path)
    assert read_chain(Path("configs/second.toml")) == (FIRST, SECOND)
    assert read_chain(folder / "second.toml") == (FIRST, SECOND)
    monkeypatch.chdir(folder)
    assert read_chain(Path("second.toml")) == (FIRST, SECOND)


def test_a_chain_may_go_on_from_a_config_that_ships(tmp_path):
    digits = read_config(Path("digits"))
    folder = written(tmp_path, mine=dataclasses.replace(digits, after="digits", seed=1))
    assert read_chain(folder / "mine.toml")[0] == digits


def test_a_kind_that_is_asked_for_is_that_of_the_whole_chain(tmp_path):
    bare = 'kind = "prior"\n[architecture]\nin_channels = 1\nwidths = [8, 8]\nblocks = 1\n'
    (tmp_path / "a.toml").write_text(bare)
    (tmp_path / "b.toml").write_text('after = "a"\n' + bare)
    assert {config.kind for config in read_chain(tmp_path / "b.toml", "classifier")} == {"classifier"}


@pytest.mark.parametrize("names", [("b", "c", "b"), ("a",), ("folder/a",)])
def test_a_chain_that_comes_back_or_leaves_the_folder_is_refused(names, tmp_path):
    for name, after in zip("abc", names, strict=False):
        (tmp_path / f"{name}.toml").write_text(f'after = "{after}"')
    with pytest.raises(InputError, match="expected the name of a config beside it, each once"):
        read_chain(tmp_path / "a.toml")


@pytest.mark.parametrize("change", [{"architecture": Architecture(1, 4, (8, 16), 1)}, {"kind": "classifier"}])
def test_weights_that_do_not_fit_are_refused_before_they_are_trained(change, tmp_path):
    wider = dataclasses.replace(FIRST, **change)
    folder = written(tmp_path, second=SECOND)
    text = settings_text(wider)
    (folder / "first.toml").write_text(text if "architecture" in change else text.replace("stem = 4\n", ""))
    with pytest.raises(InputError, match=r"after = 'first' trains weights of (kind|architecture) "):
        read_chain(folder / "second.toml")


def test_an_earlier_config_that_is_missing_is_named(tmp_path):
    folder = written(tmp_path, second=SECOND)
    with pytest.raises(InputError, match=r"after = 'first' in .*second\.toml, but there is no .*first\.toml"):
        read_chain(folder / "second.toml")
    with pytest.raises(InputError, match="comes after 'first'"):
        chain([SECOND], [tmp_path], tmp_path)
    with pytest.raises(InputError, match="does not say which one"):
        chain([FIRST, FIRST], [tmp_path], tmp_path)
