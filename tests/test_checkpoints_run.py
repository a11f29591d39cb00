"""Weights of other toolkits through the command line: run, check, sample, and names on the hub."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from checkpoint_files import randomised, refusal
from edm_files import write_edm
from running import invsolve, picture, save
from score_sde_files import Net, checkpoint, made

from invsolve.errors import DownloadError, InputError
from invsolve.images import SAMPLE, load_image, save_png
from invsolve.priors.catalogue import load_prior
from invsolve.priors.checkpoints.adm_unet import ADMLayout, ADMUNet
from invsolve.priors.checkpoints.song_unet import SongLayout, SongUNet
from invsolve.testing.plugin import examine, find
from invsolve.testing.prior import CHECKS, PriorCase

SIDE = 16


def adm(folder):
    network = randomised(ADMUNet(ADMLayout(3, 6, 32, (32,), 1, (False,), True, "pool")), scale=0.03)
    torch.save(network.state_dict(), folder / "adm.pt")
    return folder / "adm.pt", {"num_heads": 1, "noise_schedule": "linear", "image_size": SIDE}


def score_sde(folder):
    net = Net(pyramid="")
    torch.save(checkpoint(net, made(net)[0]), folder / "sde.pth")
    return folder / "sde.pth", {"sde": "ve", "image_size": SIDE}


def edm(folder):
    sizes = {"img_resolution": SIDE, "in_channels": 3, "out_channels": 3, "model_channels": 16}
    sizes |= {"channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": []}
    constants = {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}
    network = randomised(SongUNet(SongLayout(**sizes)), scale=0.03)
    return write_edm(folder / "edm.pkl", "EDMPrecond", network, sizes, **constants), {}


def diffusers(folder):
    package = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    network = package.UNet2DModel(SIDE, block_out_channels=(16,), norm_num_groups=8, **blocks)
    randomised(network, scale=0.03).save_pretrained(folder / "weights" / "unet")
    package.DDPMScheduler().save_pretrained(folder / "weights" / "scheduler")
    return folder / "weights", {}


FORMATS = [adm, score_sde, edm, diffusers]


def flags(hints):
    return [word for k, v in hints.items() for word in (f"--prior.{k.replace('_', '-')}", v)]


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "photo.png", picture(shape=(SIDE, SIDE)))
    return tmp_path


def restored(prior, *words):
    small = ("--operator", "inpaint", "--steps", 3, "--samples", 1, "--device", "cpu", "--out", "o", "--json")
    return invsolve("run", "photo.png", "--simulate", *small, "--prior", prior, *words)


@pytest.mark.slow
@pytest.mark.parametrize("made_by", FORMATS)
def test_run_inpaints_with_every_format(photo, made_by):
    path, hints = made_by(photo)
    code, out, err = restored(path, *flags(hints))
    assert code == 0, err
    with h5py.File(photo / "o" / "posterior.h5") as file:
        assert file["samples"].shape == (1, 3, SIDE, SIDE)
        assert np.isfinite(file["samples"]).all()
        assert file.attrs["prior_sha256"] == load_prior(path, **hints).sha256
    assert json.loads(out)


def test_run_asks_for_what_the_file_does_not_tell(photo):
    path, hints = adm(photo)
    code, _, err = restored(path)
    assert code == 2
    assert "--prior.image-size" in err
    code, _, err = restored(path, "--prior.num-heads", "many")
    assert code == 2
    assert "a whole number" in err
    assert len(err.strip().splitlines()) == 1
    assert hints


def test_run_with_other_hints_is_another_run(photo):
    path, hints = adm(photo)
    assert restored(path, *flags(hints))[0] == 0
    code, _, err = restored(path, *flags(hints | {"noise_schedule": "cosine"}))
    assert code == 2
    assert "noise_schedule" in err


def test_hints_are_written_down_so_that_a_run_can_be_repeated(photo):
    path, hints = adm(photo)
    assert restored(path, *flags(hints))[0] == 0
    text = (photo / "o" / "run.toml").read_text()
    assert 'noise_schedule = "linear"' in text
    code, _, err = invsolve("run", "--config", "o/run.toml", "--out", "again", "--quiet")
    assert code == 0, err


def test_an_image_of_another_size_is_refused(photo):
    path, hints = adm(photo)
    save(photo / "photo.png", picture(shape=(SIDE, 24)))
    code, _, err = restored(path, *flags(hints))
    assert code == 2
    assert "3 x 16 x 16" in err


def test_help_shows_the_hints_of_a_weight_file_and_not_of_a_name(photo):
    _, out, _ = invsolve("run", "--operator", "inpaint", "--prior", "x.pt", "--help")
    assert "--prior.num-head-channels" in out
    assert "legacy or new" in out
    _, out, _ = invsolve("run", "--operator", "inpaint", "--prior", "photo", "--help")
    assert "num-head-channels" not in out


@pytest.mark.parametrize("made_by", FORMATS)
def test_every_format_passes_the_checks_of_a_prior(tmp_path, made_by):
    path, hints = made_by(tmp_path)
    case = PriorCase(load_prior(path, **hints))
    for check in CHECKS:
        check(case)


def test_check_takes_a_weight_file_with_its_hints_beside_it(photo):
    path, hints = adm(photo)
    lines = [f"{k} = {json.dumps(v)}" for k, v in hints.items()]
    (photo / "prior.toml").write_text("\n".join(lines))
    found = [line for part in find(str(path)) for line in examine(part)]
    assert len(found) == len(CHECKS)
    assert all(line.passed for line in found), found
    (photo / "prior.toml").unlink()
    failed = [line for part in find(f"prior:{path}") for line in examine(part)]
    assert [line.passed for line in failed] == [False]
    assert "does not tell" in failed[0].said


def test_a_prior_is_checked_on_images_of_a_folder(tmp_path):
    path, hints = edm(tmp_path)
    (tmp_path / "images").mkdir()
    save_png(tmp_path / "images" / "one.png", load_image(SAMPLE).pixels[:, :40, :50])
    lines = [f"{k} = {json.dumps(v)}" for k, v in hints.items()]
    (tmp_path / "prior.toml").write_text("\n".join(lines))
    (part,) = find(str(path))
    said = {line.check: line for line in examine(part, tmp_path / "images")}["removes noise"]
    assert "of the noise" in said.said  # random weights: whether it is removed is chance
    code, _, err = invsolve("check", "photo", "--images", tmp_path / "none")
    assert code == 2
    assert "must be a folder of images" in err


@pytest.mark.slow
def test_the_command_check_takes_a_weight_file(photo):
    path, _ = edm(photo)
    code, out, _ = invsolve("check", path)
    assert code == 0, out
    assert "leaves clean signals" in out


def test_d_tends_to_x_as_the_noise_vanishes(tmp_path):
    path, hints = score_sde(tmp_path)
    prior, x = load_prior(path, **hints), torch.rand(1, 3, SIDE, SIDE)
    for level in (1e-3, 1e-6, 0.0):
        moved = prior.denoise(x, torch.tensor([level], dtype=torch.float64)) - x
        assert moved.abs().max() <= 10 * level  # the network's answer has size one


def test_a_colour_checkpoint_serves_grey_images_of_its_size(tmp_path):
    path, hints = adm(tmp_path)
    grey = load_prior(path, **hints).grey()
    assert grey.shape == (1, SIDE, SIDE)
    assert grey.denoise(torch.rand(1, 1, SIDE, SIDE), torch.tensor([0.1])).shape == (1, 1, SIDE, SIDE)


# names on the hub


class Hub(SimpleNamespace):
    """Stands for huggingface_hub: says what was asked, and gives a folder on disk."""

    def __init__(self, folder):
        super().__init__(folder=folder, asked=[])

    def snapshot_download(self, repo, revision=None, allow_patterns=()):
        self.asked.append((repo, revision, tuple(allow_patterns)))
        return str(self.folder)

    def hf_hub_download(self, repo, filename, revision=None):
        self.asked.append((repo, revision, filename))
        if filename == "none.pt":
            raise OSError("404 Client Error.\nmore lines")
        return str(self.folder / filename)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    importlib.import_module("diffusers.models.unets.unet_2d")  # it imports from the package replaced here
    found = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", found)
    return found


def test_a_file_on_the_hub_is_fetched_by_its_name(hub, tmp_path):
    path, hints = adm(tmp_path)
    prior = load_prior("hf:owner/name@v1/adm.pt", **hints)
    assert prior.sha256 == load_prior(path, **hints).sha256
    assert hub.asked == [("owner/name", "v1", "adm.pt")]


def test_a_folder_on_the_hub_is_fetched_without_pickles_and_code(hub, tmp_path):
    hub.folder, _ = diffusers(tmp_path)
    assert load_prior("hf:owner/name").shape == (3, SIDE, SIDE)
    patterns = hub.asked[0][2]
    assert not any(p.endswith((".py", ".bin", ".pt", ".pkl")) for p in patterns)
    hub.folder = tmp_path / "empty"
    hub.folder.mkdir()
    assert "holds no safetensors. Name the file" in refusal("hf:owner/name")


def test_a_download_that_fails_has_its_own_error_in_one_line(hub):
    with pytest.raises(DownloadError, match=r"hf:owner/name/none.pt could not be downloaded: 404") as caught:
        load_prior("hf:owner/name/none.pt")
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none_and_a_missing_package_are_refused(monkeypatch):
    assert "is no name on the hub" in refusal("hf:name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"invsolve\[hub\]"):
        load_prior("hf:owner/name")
    assert Path("hf:owner/name").suffix == ""
