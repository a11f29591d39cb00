"""EDM pickles: four preconditionings by table 1 of the paper, around networks that deepinv computes too."""

import math

import pytest
import torch
from checkpoint_files import assert_denoises_as, randomised, refusal
from deepinv.models import ADMUNet, NCSNpp
from edm_files import write_edm

from invsolve.priors.catalogue import load_prior
from invsolve.priors.checkpoints.dhariwal_unet import DhariwalLayout, DhariwalUNet
from invsolve.priors.checkpoints.song_unet import SongLayout, SongUNet

SIZES = {"img_resolution": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
MAKING = {**SIZES, "in_channels": 3, "out_channels": 3, "label_dim": 0, "model_channels": 128}
NCSN = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
EDM = {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}
VE = {"sigma_min": 0.02, "sigma_max": 100}
VP = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}


@pytest.fixture(scope="module")
def ddpmpp():
    return randomised(NCSNpp("ddpm", augment_dim=9, pretrained=None, **SIZES), scale=0.03)


@pytest.fixture(scope="module")
def ncsnpp():
    return randomised(NCSNpp("ncsn", augment_dim=0, pretrained=None, **SIZES), scale=0.03)


def by_table(network, coefficients):
    """Denoiser in physical units from c_skip, c_out, c_in and c_noise of sigma in [-1, 1]."""

    def denoise(x, level):
        skip, out, scale, noise = coefficients(2 * level)
        net = 2 * x - 1
        raw = network.forward_unet(scale * net, torch.full((len(x),), noise))[:, :3]
        return (skip * net + out * raw + 1) / 2

    return denoise


def edm_table(s, sd=0.5):
    total = s * s + sd * sd
    return sd * sd / total, s * sd / math.sqrt(total), 1 / math.sqrt(total), math.log(s) / 4


def ve_table(s):
    return 1, s, 1, math.log(s / 2)


def vp_table(s):
    t = (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + s * s)) - 0.1) / 19.9
    return 1, -s, 1 / math.sqrt(s * s + 1), 999 * t


def test_a_ddpmpp_of_edm_denoises_by_table_1(tmp_path, ddpmpp):
    file = write_edm(tmp_path / "e.pkl", "EDMPrecond", ddpmpp, MAKING | {"augment_dim": 9}, **EDM)
    prior = load_prior(file)
    assert_denoises_as(prior, by_table(ddpmpp, edm_table), side=8)
    assert (prior.shape, prior.sigma_min, prior.sigma_max) == ((3, 8, 8), 0.001, 40.0)
    assert not (tmp_path / "ran").exists()


def test_a_ve_network_denoises_by_table_1(tmp_path, ncsnpp):
    prior = load_prior(write_edm(tmp_path / "e.pkl", "VEPrecond", ncsnpp, MAKING | NCSN, **VE))
    assert_denoises_as(prior, by_table(ncsnpp, ve_table), side=8)
    assert (prior.sigma_min, prior.sigma_max) == (0.01, 50.0)


def test_a_vp_network_denoises_by_table_1(tmp_path, ddpmpp):
    file = write_edm(tmp_path / "e.pkl", "VPPrecond", ddpmpp, MAKING | {"augment_dim": 9}, **VP)
    prior = load_prior(file)
    assert_denoises_as(prior, by_table(ddpmpp, vp_table), side=8)
    assert prior.sigma_max == pytest.approx(math.sqrt(math.exp(0.5 * 19.9 + 0.1) - 1) / 2, rel=1e-6)


def iddpm_levels(steps=1000):
    """u_j, falling, as improved DDPM's cosine schedule gives them with C_1 = 0.001, C_2 = 0.008."""
    bar = [math.sin(0.5 * math.pi * j / steps / 1.008) ** 2 for j in range(steps + 1)]
    u = [0.0] * (steps + 1)
    for j in range(steps, 0, -1):
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(bar[j - 1] / bar[j], 0.001) - 1)
    return u


@pytest.mark.parametrize("label", [None, 3])
def test_an_adm_of_edm_denoises_at_the_nearest_level_of_iddpm(tmp_path, label):
    making = {**MAKING, "out_channels": 6, "label_dim": 5}
    adm = ADMUNet(pretrained=None, augment_dim=0, out_channels=6, label_dim=5, model_channels=128, **SIZES)
    randomised(adm, scale=0.03)
    u = iddpm_levels()
    told = torch.zeros(1, 5) if label is None else torch.eye(5)[[label]]
    plain = adm.forward_unet
    adm.forward_unet = lambda x, noise: plain(x, noise, class_labels=told.expand(len(x), -1))

    def table(s):
        nearest = min(range(len(u)), key=lambda j: abs(u[j] - s))
        return 1, -s, 1 / math.sqrt(s * s + 1), float(999 - nearest)

    buffers = {"u": torch.tensor(u, dtype=torch.float64).float()}
    file = write_edm(tmp_path / "e.pkl", "iDDPMPrecond", adm, making, kind="DhariwalUNet", buffers=buffers)
    prior = load_prior(file) if label is None else load_prior(file, class_labels=label)
    assert_denoises_as(prior, by_table(adm, table), side=8)
    assert prior.sigma_max == pytest.approx(u[0] / 2, rel=1e-6)


@pytest.mark.parametrize("channels", [32, 64, 96])
def test_narrow_networks_have_four_channels_a_group(channels):
    layout = SongLayout(8, 1, 1, model_channels=channels, channel_mult=(1,), num_blocks=1)
    assert SongUNet(layout).enc["8x8_block0"].norm0.num_groups == channels // 4


def test_half_precision_weights_are_computed_in_float32(tmp_path):
    sizes = {**MAKING, "model_channels": 32}
    network = randomised(SongUNet(SongLayout(**sizes))).half()
    prior = load_prior(write_edm(tmp_path / "e.pkl", "EDMPrecond", network, sizes, **EDM))
    assert prior.dtype == torch.float32


def small(tmp_path, making=MAKING, precond="EDMPrecond", change=None, constants=EDM):
    making = {**making, "model_channels": 32}
    network = randomised(SongUNet(SongLayout(**{k: v for k, v in making.items() if k != "up"})))
    if change:
        change(network)
    return write_edm(tmp_path / "e.pkl", precond, network, making, **constants)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: n.dec["8x8_aux_norm"].bias.fill_(float("nan")), "hold NaN or infinity"),
        (lambda n: n.enc.pop("4x4_down"), "missing, 0 unexpected"),
        (lambda n: n.register_buffer("more", torch.zeros(1)), "0 missing, 1 unexpected"),
    ],
)
def test_an_edm_file_that_does_not_fit_is_refused(tmp_path, change, reason):
    assert reason in refusal(small(tmp_path, change=change))
    assert not (tmp_path / "ran").exists()


def test_what_the_record_says_is_checked(tmp_path):
    assert "holds EDM2Precond around SongUNet" in refusal(small(tmp_path, precond="EDM2Precond"))
    assert "lacks usable constants" in refusal(small(tmp_path, constants={}))
    assert "made with up, which is not known" in refusal(small(tmp_path, MAKING | {"up": 1}))
    assert "no use for the hint num_heads" in refusal(small(tmp_path), num_heads=2)
    assert "no use for the hint class_labels" in refusal(small(tmp_path), class_labels=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -0.5])
def test_constants_that_would_make_d_nan_or_nothing_are_refused(tmp_path, value):
    assert "sigma_data = " in refusal(small(tmp_path, constants={**EDM, "sigma_data": value}))
    assert "M = " in refusal(small(tmp_path, precond="VPPrecond", constants={**VP, "M": value}))


@pytest.mark.parametrize(
    "levels",
    [
        torch.zeros(1).as_strided((10**11,), (0,)),  # claims 400 GB
        torch.zeros(3, 4),
        torch.arange(1001.0),
        torch.full((1001,), float("nan")),
    ],
    ids=["huge", "table", "rising", "nan"],
)
def test_levels_of_iddpm_that_cannot_be_are_refused(tmp_path, levels):
    sizes = {**MAKING, "model_channels": 32}
    network = randomised(SongUNet(SongLayout(**sizes)))
    file = write_edm(tmp_path / "e.pkl", "iDDPMPrecond", network, sizes, buffers={"u": levels})
    assert "lacks usable constants" in refusal(file)


def test_the_number_of_classes_is_one_whole_number(tmp_path):
    assert "label_dim" in refusal(small(tmp_path, constants={**EDM, "label_dim": True}))
    assert "has 3 classes, but its network 0" in refusal(small(tmp_path, constants={**EDM, "label_dim": 3}))


def test_channels_that_no_picture_has_are_refused(tmp_path):
    assert "5 channels" in refusal(small(tmp_path, {**MAKING, "in_channels": 5, "out_channels": 5}))


def test_sizes_that_no_machine_holds_are_refused_at_once(tmp_path):
    network = randomised(SongUNet(SongLayout(**{**MAKING, "model_channels": 32})))
    making = {**MAKING, "model_channels": 2**40}
    assert "cannot be built" in refusal(write_edm(tmp_path / "e.pkl", "EDMPrecond", network, making, **EDM))


def test_dhariwal_blocks_keep_the_names_of_the_file():
    layout = DhariwalLayout(
        8, 3, 3, model_channels=64, channel_mult=(1,), num_blocks=1, attn_resolutions=(8,)
    )
    assert {"out_norm.weight", "dec.8x8_block1.qkv.weight"} <= DhariwalUNet(layout).state_dict().keys()
