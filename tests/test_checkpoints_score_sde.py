"""score_sde checkpoints: layout by walking, averaged weights by position, D by the formula of each SDE."""

import io
import math

import numpy as np
import pytest
import torch
from checkpoint_files import assert_denoises_as, refusal
from safetensors.torch import save_file
from score_sde_files import Net, checkpoint, made

from invsolve.priors.catalogue import load_prior

NETS = {
    "ncsnpp": Net(),
    "ddpmpp": Net(pyramid="", fourier=False),
    "ncsnpp 256": Net(pyramid="skip", summed=True, mults=(1, 1, 2), attention=(1,)),
    "two blocks": Net(blocks=2, attention=(0, 1)),
    "grey": Net(channels=1, pyramid=""),
    "ddpm": Net(nf=32, pyramid="", fourier=False, blocks=2, ddpm=True),
    "ddpm of three levels": Net(nf=32, mults=(1, 1, 2), pyramid="", fourier=False, attention=(), ddpm=True),
}


@pytest.fixture
def saved(tmp_path):
    """Save a network as training would; returns the file and the function it is."""

    def save(net, **more):
        state, function = made(net)
        torch.save(checkpoint(net, state, **more), tmp_path / "checkpoint_8.pth")
        return tmp_path / "checkpoint_8.pth", function

    return save


def exploding(function, label):
    """x + sigma F(2x - 1, label) on images in [0, 1]."""
    return lambda x, s: x + s * function(2 * x - 1, torch.full((len(x),), float(label(s))))


def preserving(function, signal, label):
    """x - sigma F(alpha x, label) on images in [-1, 1], seen from [0, 1]."""

    def denoise(x, level):
        s, net = 2 * level, 2 * x - 1
        return (net - s * function(signal(s) * net, torch.full((len(x),), float(label(s)))) + 1) / 2

    return denoise


def vp(s):
    return 1 / math.sqrt(1 + s * s)


def subvp(s):
    return (math.sqrt(s * s + 4) - s) / 2


def time(alpha, first=0.1, last=20.0):
    """t with alpha = exp(-t^2 (last - first)/4 - t first/2), by bisection."""
    low, high = 0.0, 2.0
    for _ in range(60):
        t = (low + high) / 2
        low, high = (t, high) if math.exp(-(t**2) * (last - first) / 4 - t * first / 2) > alpha else (low, t)
    return t


@pytest.mark.parametrize("name", [n for n in NETS if NETS[n].fourier])
def test_a_ve_network_denoises_by_its_formula(saved, name):
    file, function = saved(NETS[name])
    prior = load_prior(file, sde="ve", image_size=16)
    assert_denoises_as(prior, exploding(function, lambda s: s))
    assert prior.shape == (NETS[name].channels, 16, 16)
    assert (prior.sigma_min, prior.sigma_max) == pytest.approx((0.01, 50))


@pytest.mark.parametrize(("sde", "signal"), [("vp", vp), ("subvp", subvp)])
@pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp", "ddpm"])
def test_a_vp_network_denoises_by_its_formula(saved, name, sde, signal):
    file, function = saved(NETS[name])
    prior = load_prior(file, sde=sde, image_size=16)
    assert_denoises_as(prior, preserving(function, signal, lambda s: 999 * time(signal(s))), rtol=2e-5)
    assert prior.sigma_max == pytest.approx(152.2 / 2, rel=1e-3)


def test_betas_are_as_told(saved):
    file, function = saved(NETS["ddpmpp"])
    prior = load_prior(file, sde="vp", image_size=16, beta_min=0.2, beta_max=10.0)
    assert_denoises_as(prior, preserving(function, vp, lambda s: 999 * time(vp(s), 0.2, 10.0)), rtol=2e-5)
    assert "beta_min 20 must be less" in refusal(file, sde="vp", image_size=16, beta_min=20.0)


@pytest.mark.parametrize("name", ["ddpmpp", "ddpm", "ddpm of three levels"])
def test_a_network_of_discrete_steps_takes_the_step(saved, name):
    file, function = saved(NETS[name])
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    levels = np.sqrt(1 / kept - 1)
    prior = load_prior(file, sde="vp", image_size=16, noise_schedule="linear")
    step = lambda s: np.interp(math.log(s), np.log(levels), np.arange(1000))  # noqa: E731 - a formula
    assert_denoises_as(prior, preserving(function, vp, step), rtol=2e-5)
    assert prior.sigma_max == pytest.approx(levels[-1] / 2)


@pytest.mark.parametrize("name", ["ddpmpp", "ddpm"])
def test_a_network_of_discrete_levels_counts_from_the_largest(saved, name):
    file, function = saved(NETS[name])
    label = lambda s: 99 * math.log(50 / s) / math.log(5000)  # noqa: E731 - a formula
    assert_denoises_as(load_prior(file, sde="ve", image_size=16), exploding(function, label), rtol=2e-5)


def test_a_checkpoint_of_numpy_1_loads_too(tmp_path):
    state, function = made(NETS["grey"])
    file = io.BytesIO()
    torch.save(checkpoint(NETS["grey"], state), file, _use_new_zipfile_serialization=False)
    content = file.getvalue()
    assert b"numpy._core.multiarray" in content  # the learning rate, a number of numpy
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pth").write_bytes(old)
    prior = load_prior(tmp_path / "old.pth", sde="ve", image_size=16)
    assert_denoises_as(prior, exploding(function, lambda s: s))


def test_bare_weights_load_as_they_are(tmp_path):
    state, function = made(NETS["ncsnpp"])
    torch.save(state, tmp_path / "bare.pth")
    hints = {"sde": "ve", "image_size": 16}
    assert "does not tell sigma_min, sigma_max" in refusal(tmp_path / "bare.pth", **hints)
    prior = load_prior(tmp_path / "bare.pth", **hints, sigma_min=0.01, sigma_max=50.0)
    assert_denoises_as(prior, exploding(function, lambda s: s))


def test_bare_weights_in_safetensors_load_too(tmp_path):
    state, function = made(NETS["grey"])
    save_file(state, tmp_path / "bare.safetensors")
    told = {"sde": "ve", "image_size": 16, "sigma_min": 0.01, "sigma_max": 50.0}
    assert_denoises_as(load_prior(tmp_path / "bare.safetensors", **told), exploding(function, lambda s: s))


def test_the_sde_and_the_size_are_asked(saved):
    file, _ = saved(NETS["ncsnpp"])
    assert "does not tell sde, image_size. Give --prior.sde, --prior.image-size" in refusal(file)
    assert "a multiple of 2" in refusal(file, sde="ve", image_size=17)
    assert "under ve, which has no use for the hint beta_max" in refusal(
        file, sde="ve", image_size=16, beta_max=20.0
    )
    assert "cosine" in refusal(file, sde="vp", image_size=16, noise_schedule="cosine")


def without(content, name):
    content["model"].pop(f"module.{name}")
    content["ema"]["shadow_params"].pop()


def with_nin(content):
    content["model"]["module.all_modules.4.NIN_0.W"] = torch.zeros(16, 16)
    content["ema"]["shadow_params"].append(torch.zeros(16, 16))


def with_nan(content):
    content["ema"]["shadow_params"][3][0] = float("nan")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["ema"]["shadow_params"].pop(), "averaged weights (ema) for"),
        (lambda c: c["ema"].pop("shadow_params"), "has 0 averaged weights"),
        (lambda c: c["ema"]["shadow_params"].reverse(), "differ in shape from those trained"),
        (lambda c: c["ema"].update(shadow_params=[0] * 86), "averaged weights"),
        (with_nan, "hold NaN or infinity"),
        (with_nin, "block of the DDPM network"),
        (lambda c: without(c, "all_modules.3.bias"), "averaged weights (ema)"),
        (lambda c: c["model"].update({"module.other": torch.zeros(1)}), "averaged weights (ema) for"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, reason):
    state, _ = made(NETS["ncsnpp"])
    content = checkpoint(NETS["ncsnpp"], state)
    change(content)
    torch.save(content, tmp_path / "c.pth")
    assert reason in refusal(tmp_path / "c.pth", sde="ve", image_size=16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("all_modules.3.bias"), "1 missing, 0 unexpected"),
        (lambda s: s.pop("all_modules.4.Conv_1.bias"), "1 missing, 0 unexpected"),
        (lambda s: s.update({"all_modules.40.weight": torch.zeros(3)}), "has 41 layers"),
        (lambda s: s.update({"other": torch.zeros(3)}), "'other', which no network of score_sde has"),
        (lambda s: s.update({"all_modules.0.b": torch.zeros(3)}), "unexpected"),
        (lambda s: s.update({"all_modules.1.weight": torch.zeros(64)}), "does not start like NCSN++"),
    ],
)
def test_bare_weights_that_do_not_fit_are_refused(tmp_path, change, reason):
    state, _ = made(NETS["ncsnpp"])
    change(state)
    torch.save(state, tmp_path / "c.pth")
    hints = {"sde": "ve", "image_size": 16, "sigma_min": 0.01, "sigma_max": 50.0}
    assert reason in refusal(tmp_path / "c.pth", **hints)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("all_modules.4.Conv_1.bias"), "1 missing, 0 unexpected"),
        (lambda s: s.pop("all_modules.3.Conv_1.weight"), "does not start like DDPM"),
        (lambda s: s.update({"all_modules.3.more": torch.zeros(3)}), "0 missing, 1 unexpected"),
        (lambda s: s["all_modules.0.bias"].fill_(float("inf")), "hold NaN or infinity"),
        (lambda s: s.update({"all_modules.2.weight": torch.zeros(3)}), "does not start like DDPM"),
        (lambda s: s.update({"all_modules.2.weight": torch.zeros(32, 7, 3, 3)}), "takes 7 channels"),
        (lambda s: s.update({"all_modules.2.weight": torch.zeros(64, 3, 3, 3)}), "of another shape"),
    ],
)
def test_a_ddpm_network_that_does_not_fit_is_refused(tmp_path, change, reason):
    state, _ = made(NETS["ddpm"])
    change(state)
    torch.save(state, tmp_path / "c.pth")
    assert reason in refusal(tmp_path / "c.pth", sde="vp", image_size=16)
    assert "a multiple of 2" in refusal(tmp_path / "c.pth", sde="vp", image_size=15)
