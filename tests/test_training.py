"""The training loop: its laws, its files, and that a killed run goes on as if nothing had happened."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.train import train_command
from invsolve.errors import InputError, OutputError, UnknownName
from invsolve.lock import locked
from invsolve.priors.catalogue import load_prior
from invsolve.priors.network import Architecture
from invsolve.training import (
    TrainingConfig,
    checkpoint,
    data,
    ema,
    export,
    kinds,
    loop,
    loss,
    read_config,
    train,
)
from invsolve.training.validate import denoising_psnr

TINY = TrainingConfig(
    name="tiny",
    architecture=Architecture(3, 4, (8, 8), 1),
    scales=(1.0,),
    crop=8,
    batch=4,
    images=4 * 20,
    warm_up=5,
    save_seconds=0.0,
)
TOML = """
name = "tiny"
scales = [1]
crop = 8
batch = 4
images = 80
warm_up = 5
save_seconds = 0
[architecture]
stem = 4
widths = [8, 8]
blocks = 1
"""


@pytest.fixture
def folder(tmp_path):
    """Three small random pictures."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = rng.integers(0, 256, (24, 20 + 4 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def losses(out):
    return (out / "loss.csv").read_text()


# the loss


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_the_best_denoiser_of_white_gaussian_data_has_loss_one(sigma):
    rng = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(64, 3, 32, 32, generator=rng) * s for s in (0.5, 1))
    shrink = 0.25 / (0.25 + sigma**2)
    level = torch.full((64,), sigma, dtype=torch.float64)
    value = loss.denoising_loss(lambda x, _: shrink * x, x0, level, noise, 0.5).item()
    assert abs(value - 1) < 4 * (2 / x0.numel()) ** 0.5  # 4 sd of a mean of squares


def test_any_other_shrinkage_has_the_loss_of_its_bias_and_variance():
    rng = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(64, 3, 32, 32, generator=rng) * s for s in (0.5, 1))
    level = torch.full((64,), 0.5, dtype=torch.float64)
    value = loss.denoising_loss(lambda x, _: 0.8 * x, x0, level, noise, 0.5).item()
    expected = 8 * (0.2**2 * 0.25 + 0.8**2 * 0.25)
    assert abs(value / expected - 1) < 4 * (2 / x0.numel()) ** 0.5  # 4 sd of a mean of squares


def test_noise_levels_cover_the_whole_range():
    sigma = loss.draw_sigma(40_000, TINY, torch.Generator().manual_seed(0))
    assert 0.002 <= sigma.min() < 0.0025
    assert 75 < sigma.max() <= 80
    share = 0.25 * np.log(80 / 40) / np.log(80 / 0.002)  # log-uniform part; the normal part is 4 sd away
    assert abs((sigma > 40).double().mean() - share) < 4 * (share / 40_000) ** 0.5


# the average and the schedule


def test_the_average_of_constant_weights_forgets_its_start_as_the_decays_multiply():
    average, weights = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    for step in range(4):
        ema.average_weights(average, weights, step, 0.9)
    left = np.prod([ema.decay_at(step, 0.9) for step in range(4)])
    torch.testing.assert_close(average, (1 - left) * weights, rtol=1e-5, atol=1e-6)  # float32


def test_the_learning_rate_warms_up_stays_flat_and_falls_to_zero():
    rate = [loop.learning_rate(step, 0.0, TINY) for step in range(6)]
    assert rate[:5] == pytest.approx([TINY.rate * k / 5 for k in range(1, 6)])
    assert rate[5] == loop.learning_rate(99, 0.3, TINY) == TINY.rate
    assert loop.learning_rate(99, 0.65, TINY) == pytest.approx(TINY.rate / 2)
    assert loop.learning_rate(99, 1.0, TINY) == pytest.approx(0, abs=1e-18)


def test_a_budget_of_seconds_ends_the_run(folder):
    config = dataclasses.replace(TINY, images=10**9, seconds=0.3)
    reports = list(loop.steps(loop.Run(config), kinds.Denoising(config, data.load_bank([folder], config))))
    assert reports[-1].share < 1
    assert reports[-1].rate < reports[len(reports) // 3].rate


# the data


def test_a_crop_is_a_mirrored_or_turned_window_of_a_picture():
    ramp = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None], (24, 20, 3))
    bank = data.Bank(np.ascontiguousarray(ramp).ravel(), (0,), ((24, 20, 3),))
    batch = data.crops(bank, TINY, 0, np.random.default_rng(0)) * 127.5
    slopes = [{round(v) for axis in (1, 2) for v in crop.diff(dim=axis).unique().tolist()} for crop in batch]
    assert all(s in ({0, 1}, {0, -1}) for s in slopes)


def test_crops_are_a_function_of_their_generator(folder):
    bank = data.load_bank([folder], TINY)
    a, b, c = (data.crops(bank, TINY, 0, np.random.default_rng([0, 5, k])) for k in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_every_eighth_batch_holds_fewer_crops_of_twice_the_side(folder):
    bank = data.load_bank([folder], TINY)
    shapes = [tuple(data.crops(bank, TINY, k, np.random.default_rng(0)).shape) for k in range(8)]
    assert shapes == [(4, 3, 8, 8)] * 7 + [(1, 3, 16, 16)]


def test_scales_and_exclusions_are_obeyed(folder):
    config = dataclasses.replace(TINY, scales=(1.0, 0.5), exclude=("1.*",))
    assert data.load_bank([folder], config).shapes == ((24, 20, 3), (12, 10, 3), (24, 28, 3), (12, 14, 3))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="no image of at least 8 pixels"):
        data.load_bank([tmp_path], TINY)
    with pytest.raises(InputError, match="is not a folder"):
        data.load_bank([tmp_path / "nowhere"], TINY)


def test_sixteen_bits_become_eight_with_65535_as_white(tmp_path):
    Image.fromarray(np.array([[0, 257, 40_000, 65_535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(data.open_image(tmp_path / "deep.png", 1)).tolist() == [[0, 1, 156, 255]]
    assert np.asarray(data.open_image(tmp_path / "deep.png", 3))[0, 2].tolist() == [156] * 3


def test_an_image_without_a_known_white_is_refused_and_not_clipped(folder):
    Image.fromarray(np.full((24, 24), 40_000, dtype=np.int32)).save(folder / "deep.tif")
    with pytest.raises(InputError, match=r"deep\.tif has more than 8 bits"):
        data.load_bank([folder], TINY)


def test_the_psnr_of_doing_nothing_is_that_of_the_noise():
    psnr = denoising_psnr(lambda x, _: x, torch.zeros(6, 3, 32, 32), 0.1)
    assert psnr.shape == (6,)
    spread = 10 / np.log(10) * (2 / (6 * 3072)) ** 0.5  # sd of 10 log10 of a mean of squares
    assert abs(psnr.mean() - 10 * np.log10(4 / 0.01)) < 4 * spread


# the config


def test_a_config_is_read_with_its_table(tmp_path):
    (tmp_path / "c.toml").write_text(TOML)
    assert read_config(tmp_path / "c.toml") == TINY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bacth = 3", "Did you mean 'batch'"),
        ("[architecture]\nwidht = 3", "no training setting named 'widht'"),
        ("batch = 'x'", "expected the type int"),
        ("scales = ['x']", "expected the type float"),
        ("batch = 0", "must be positive"),
        ("sigma_min = 90", "is not below"),
        ("average = 1.0", r"must lie in \[0, 1\)"),
        ("batch = = 3", "not valid TOML"),
        ("architecture = 3", "expected a table"),
        ("[architecture]\nstem = 0", "builds no network"),
    ],
)
def test_a_wrong_config_is_refused_in_words(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.toml")


def test_a_misspelt_setting_is_an_unknown_name_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "c.toml").write_text("nmae = 'x'")
    with pytest.raises(UnknownName):
        read_config(tmp_path / "c.toml")
    with pytest.raises(InputError, match="one that ships: digits, digits-classifier, ellipses"):
        read_config(tmp_path / "none.toml")


def test_a_config_that_ships_is_found_by_its_name_where_no_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()  # the --out of an earlier training
    assert read_config(Path("digits")).digest() == "c111b6177824e893"  # what the shipped weights state
    Path("digits").rmdir()
    Path("digits").write_text('name = "mine"')
    assert read_config(Path("digits")).name == "mine"
    with pytest.raises(InputError, match=r"no training config at photo\.toml"):
        read_config(Path("photo.toml"))


def test_the_packaged_config_of_photo_is_what_the_shipped_weights_state():
    config = read_config(Path("photo"))
    assert (config.name, config.architecture) == ("photo", Architecture())
    assert config.digest() == load_prior("photo").metadata["config_hash"]


# the run and its files


def test_training_learns_and_leaves_a_prior(folder, tmp_path):
    for i, file in enumerate(sorted(folder.iterdir())):  # flat pictures: there is much to learn
        Image.new("RGB", (20, 20), (40, 90 * i, 200)).save(file)
    config = dataclasses.replace(TINY, images=4 * 150, rate=5e-3, save_seconds=99.0)
    train(config, [folder], tmp_path / "out")
    values = [float(line.split(",")[1]) for line in losses(tmp_path / "out").splitlines()]
    assert len(values) == 150
    assert np.mean(values[-50:]) < 0.9 * np.mean(values[:20])  # measured: 0.83
    prior = load_prior(tmp_path / "out" / "tiny.safetensors")
    assert prior.metadata["images"] == "600"
    assert (prior.sigma_min, prior.sigma_max) == (0.001, 40.0)


def test_muon_steps_are_of_the_size_of_adamw_s_and_leave_the_other_weights_to_it(folder):
    config = dataclasses.replace(TINY, optimizer="muon", images=12 * TINY.batch, warm_up=1)
    run = loop.Run(config)
    bank, before = data.load_bank([folder], config), None
    for report in loop.steps(run, kinds.Denoising(config, bank)):
        if report.step == 10:  # the zeros of the first weights have moved: every gradient is of full rank
            before = run.named(run.vector)
        if report.step == 11:
            break
    after = run.named(run.vector)
    assert set(run.matrices) == {k for k, v in after.items() if v.ndim == 4} - {"entry.weight", "head.weight"}
    for name in run.matrices:
        size = (after[name] - before[name]).square().mean().sqrt().item() / report.rate
        assert 0.2 * 0.6 < size < 0.2 * 1.3  # Newton-Schulz leaves singular values between about 0.7 and 1.2
    assert (after["head.weight"] != before["head.weight"]).all()


def test_a_run_starts_from_the_weights_of_another(folder, tmp_path):
    train(TINY, [folder], tmp_path / "first")
    file = tmp_path / "first" / "tiny.safetensors"
    still = dataclasses.replace(TINY, rate=1e-12, images=4)
    train(still, [folder], tmp_path / "second", start=file)
    again = load_prior(tmp_path / "second" / "tiny.safetensors").network.state_dict()
    for name, weights in load_prior(file).network.state_dict().items():
        torch.testing.assert_close(again[name], weights, rtol=1e-6, atol=1e-8)
    wider = dataclasses.replace(TINY, architecture=Architecture(3, 4, (8, 16), 1))
    with pytest.raises(InputError, match="another architecture than the config"):
        train(wider, [folder], tmp_path / "third", start=file)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_goes_on_bit_for_bit(folder, tmp_path, optimizer):
    flat = dataclasses.replace(
        TINY, flat=0.99, save_seconds=99.0, optimizer=optimizer
    )  # the rate of a shorter budget is another rate
    for out, budgets in (("a", (80,)), ("b", (36, 80))):
        for images in budgets:
            train(flat, [folder], tmp_path / out, images=images)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    a, b = (checkpoint.latest(tmp_path / out) for out in "ab")
    for name in ("weights", "average", "optimizer"):
        assert (a / f"{name}.safetensors").read_bytes() == (b / f"{name}.safetensors").read_bytes()


def test_every_step_and_every_process_sees_other_noise(folder):
    still = dataclasses.replace(TINY, rate=1e-12)
    bank = data.load_bank([folder], still)
    seen = [
        report.loss
        for rank in (0, 1)
        for report in loop.steps(loop.Run(still), kinds.Denoising(still, bank), rank)
    ]
    assert len(set(seen)) == len(seen) == 40


@pytest.mark.slow
def test_a_run_killed_with_signal_9_repeats_its_loss_curve(folder, tmp_path):
    (tmp_path / "c.toml").write_text(TOML)
    train(TINY, [folder], tmp_path / "whole")
    code = (
        "import sys; from pathlib import Path; from invsolve.training import read_config, train\n"
        "train(read_config(Path(sys.argv[1])), [Path(sys.argv[2])], Path(sys.argv[3]))"
    )
    killed = [sys.executable, "-c", code, tmp_path / "c.toml", folder, tmp_path / "killed"]
    started = subprocess.Popen(killed, stderr=subprocess.DEVNULL)
    while checkpoint.latest(tmp_path / "killed") is None and started.poll() is None:
        time.sleep(0.002)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert len(losses(tmp_path / "killed").splitlines()) < 20
    train(TINY, [folder], tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see the processes")
def test_processes_end_with_the_one_that_started_them(folder, tmp_path):
    (tmp_path / "c.toml").write_text(TOML.replace("images = 80", "images = 1_000_000"))
    code = (
        "import sys; from pathlib import Path; from invsolve.training import read_config, train\n"
        "if __name__ == '__main__':\n"
        "    train(read_config(Path(sys.argv[1])), [Path(sys.argv[2])], Path(sys.argv[3]), processes=2)"
    )
    (tmp_path / "start.py").write_text(code)
    words = [sys.executable, tmp_path / "start.py", tmp_path / "c.toml", folder, tmp_path / "out"]
    started = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while checkpoint.latest(tmp_path / "out") is None and started.poll() is None:
        time.sleep(0.05)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    assert len(children) >= 2
    started.kill()
    started.wait()
    late = time.monotonic() + 60
    while alive(children) and time.monotonic() < late:
        time.sleep(0.1)
    assert not alive(children)


def alive(processes):
    """Those of the processes that run: neither gone nor waiting to be buried."""
    states = [Path(f"/proc/{pid}/stat") for pid in processes]
    return [p for p in states if p.exists() and p.read_text().rsplit(")", 1)[1].split()[0] != "Z"]


@pytest.mark.slow
def test_two_processes_share_the_work(folder, tmp_path):
    train(TINY, [folder], tmp_path / "two", processes=2)
    state = json.loads((checkpoint.latest(tmp_path / "two") / "state.json").read_text())
    assert (state["step"], state["images"]) == (10, 80)
    train(dataclasses.replace(TINY, images=40, batch=4), [folder], tmp_path / "one")
    assert losses(tmp_path / "two") != losses(tmp_path / "one")
    assert losses(tmp_path / "two").splitlines()[0] == losses(tmp_path / "one").splitlines()[0]


def test_a_checkpoint_is_made_of_safetensors_and_json_alone(folder, tmp_path):
    train(dataclasses.replace(TINY, images=8), [folder], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.glob("out/step-*/*")) == [
        "average.safetensors",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    assert len(list((tmp_path / "out").glob("step-*"))) == 1


def test_another_architecture_does_not_resume(folder, tmp_path):
    train(dataclasses.replace(TINY, images=8), [folder], tmp_path / "out")
    other = dataclasses.replace(TINY, architecture=Architecture(3, 4, (8, 16), 1))
    with pytest.raises(InputError, match="another architecture"):
        train(other, [folder], tmp_path / "out")


def test_two_trainings_in_one_folder_are_refused(folder, tmp_path):
    with locked(tmp_path), pytest.raises(OutputError, match="another run is at work"):
        train(TINY, [folder], tmp_path)


def test_a_torn_checkpoint_is_refused(folder, tmp_path):
    train(dataclasses.replace(TINY, images=8), [folder], tmp_path / "out")
    torn = checkpoint.latest(tmp_path / "out") / "weights.safetensors"
    torn.write_bytes(torn.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        train(TINY, [folder], tmp_path / "out")


def test_export_needs_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        export(tmp_path, tmp_path / "x.safetensors")


def test_validation_measures_the_average(folder, tmp_path):
    config = dataclasses.replace(TINY, images=8)
    big = tmp_path / "big"
    big.mkdir()
    Image.new("RGB", (140, 130), (99, 99, 99)).save(big / "a.png")
    train(config, [folder], tmp_path / "out", validation=big)
    row = json.loads((tmp_path / "out" / "validation.jsonl").read_text())
    assert row["images"] == 8
    assert row["psnr"]["5.0"] > row["psnr"]["0.02"] - 40


def test_the_global_generator_is_left_alone(folder, tmp_path):
    before = torch.random.get_rng_state()
    train(dataclasses.replace(TINY, images=8), [folder], tmp_path / "out")
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_command_trains_and_names_its_file(folder, tmp_path):
    (tmp_path / "c.toml").write_text(TOML)
    app = typer.Typer()
    app.command()(train_command)
    arguments = ["--config", tmp_path / "c.toml", "--data", folder, "--out", tmp_path / "out", "--images", 8]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "out" / "tiny.safetensors") in result.stdout.replace("\n", "")
