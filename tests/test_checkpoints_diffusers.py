"""Folders of diffusers: what is predicted, the betas, VE; read from JSON, nothing else run."""

import json
import math

import numpy as np
import pytest
import torch
from checkpoint_files import assert_denoises_as, randomised, refusal

from invsolve.priors.catalogue import load_prior

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}
NCSNPP = {
    **SMALL,
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "block_out_channels": (32, 32),
    "time_embedding_type": "fourier",
    "center_input_sample": True,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
}


def saved(folder, scheduler=None, **changes):
    """Write a folder as a pipeline does; returns the network in it."""
    network = randomised(diffusers.UNet2DModel(**{**SMALL, **changes}))
    network.save_pretrained(folder / "unet")
    (scheduler or diffusers.DDPMScheduler()).save_pretrained(folder / "scheduler")
    return network


def kept(betas):
    return np.cumprod(1 - np.asarray(betas, dtype=np.float64))


LINEAR = kept(np.linspace(1e-4, 0.02, 1000))
SCALED = kept(np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
SIGMOID = kept(1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.02 - 1e-4) + 1e-4)
BAR = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
COSINE = kept(np.minimum(1 - BAR[1:] / BAR[:-1], 0.999))
ROOT = np.sqrt(LINEAR)
ZERO_END = (((ROOT - ROOT[-1]) * ROOT[0] / (ROOT[0] - ROOT[-1])) ** 2)[:-1]


def epsilon(x, out, s, sigma):
    return x - sigma * out


def velocity(x, out, s, sigma):
    return s * (s * x) - s * sigma * out


def image(x, out, s, sigma):
    return out


def by_formula(network, combine, abar, **more):
    """D in physical units from the network's output at s x and the step between trained levels."""

    def denoise(x, level):
        sigma, net = 2 * level, 2 * x - 1
        step = np.interp(math.log(sigma), np.log(np.sqrt(1 / abar - 1)), np.arange(len(abar)))
        s = 1 / math.sqrt(1 + sigma**2)
        out = network(s * net, torch.full((len(x),), step).float(), **more).sample
        return (combine(net, out, s, sigma) + 1) / 2

    return denoise


@pytest.mark.parametrize(
    ("kind", "combine"), [("epsilon", epsilon), ("v_prediction", velocity), ("sample", image)]
)
def test_a_folder_denoises_by_what_it_predicts(tmp_path, kind, combine):
    network = saved(tmp_path, diffusers.DDPMScheduler(prediction_type=kind))
    prior = load_prior(tmp_path)
    assert_denoises_as(prior, by_formula(network, combine, LINEAR))
    assert prior.shape == (3, 16, 16)
    assert prior.sigma_max == pytest.approx(math.sqrt(1 / LINEAR[-1] - 1) / 2)


@pytest.mark.parametrize(
    ("settings", "abar"),
    [
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, SCALED),
        ({"beta_schedule": "squaredcos_cap_v2"}, COSINE),
        ({"beta_schedule": "sigmoid"}, SIGMOID),
        ({"trained_betas": np.linspace(1e-4, 0.02, 1000).tolist()}, LINEAR),
        ({"rescale_betas_zero_snr": True}, ZERO_END),
    ],
    ids=["scaled", "cosine", "sigmoid", "trained", "zero end"],
)
def test_noise_levels_come_from_the_scheduler(tmp_path, settings, abar):
    network = saved(tmp_path, diffusers.DDPMScheduler(**settings))
    prior = load_prior(tmp_path)
    assert_denoises_as(prior, by_formula(network, epsilon, abar))
    assert prior.sigma_max == pytest.approx(math.sqrt(1 / abar[-1] - 1) / 2, rel=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_scheduler_of_the_package_agrees_at_its_own_steps(tmp_path, kind):
    scheduler = diffusers.DDPMScheduler(prediction_type=kind, clip_sample=False)
    network, prior = saved(tmp_path, scheduler), load_prior(tmp_path)
    abar = scheduler.alphas_cumprod.double()
    for step in (3, 400, 900):
        x_t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        theirs = scheduler.step(network(x_t, step).sample, step, x_t).pred_original_sample
        root = abar[step].sqrt()
        level = ((1 / abar[step] - 1).sqrt() / 2).expand(2)
        ours = 2 * prior.denoise((x_t / root.float() + 1) / 2, level) - 1
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()  # theirs has betas in float32: 2e-5 of levels


def test_a_network_of_ve_gives_the_score_of_images_in_0_1(tmp_path):
    network = saved(tmp_path, diffusers.ScoreSdeVeScheduler(sigma_max=348.0), **NCSNPP)
    prior = load_prior(tmp_path)
    by_score = lambda x, s: x + s**2 * network(x, torch.full((len(x),), s)).sample  # noqa: E731 - a formula
    assert_denoises_as(prior, by_score)
    assert (prior.sigma_min, prior.sigma_max) == (0.01, 348.0)


def test_learned_variances_are_cut_off(tmp_path):
    network = saved(tmp_path, out_channels=6)
    first = lambda x, out, s, sigma: x - sigma * out[:, :3]  # noqa: E731 - a formula
    assert_denoises_as(load_prior(tmp_path), by_formula(network, first, LINEAR))


def test_a_class_conditional_folder_needs_its_class(tmp_path):
    network = saved(tmp_path, num_class_embeds=4)
    assert "--prior.class-labels" in refusal(tmp_path)
    assert "has 4 classes" in refusal(tmp_path, class_labels=4)
    more = {"class_labels": torch.tensor([2, 2])}
    assert_denoises_as(load_prior(tmp_path, class_labels=2), by_formula(network, epsilon, LINEAR, **more))


def test_a_flat_folder_with_old_names_in_a_pickle_is_the_same(tmp_path):
    network = saved(tmp_path)
    state = network.state_dict()
    olds = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in olds.items():
        state = {k.replace(f".{new}.", f".{old}."): v for k, v in state.items()}
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    (tmp_path / "unet" / "config.json").rename(tmp_path / "config.json")
    (tmp_path / "unet").rmdir()
    (tmp_path / "scheduler" / "scheduler_config.json").rename(tmp_path / "scheduler_config.json")
    assert_denoises_as(load_prior(tmp_path), by_formula(network, epsilon, LINEAR))


def test_the_size_is_asked_only_where_it_is_not_told(tmp_path):
    saved(tmp_path, sample_size=None)
    assert "does not tell image_size" in refusal(tmp_path)
    assert load_prior(tmp_path, image_size=16).shape == (3, 16, 16)
    saved(tmp_path)
    assert "no use for the hint image_size" in refusal(tmp_path, image_size=16)


def edited(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("file", "fields", "reason"),
    [
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "only a UNet2DModel"),
        ("unet/config.json", {"in_channels": 9, "out_channels": 9}, "takes 9 channels"),
        ("unet/config.json", {"out_channels": 4}, "takes 3 channels and gives 4"),
        ("unet/config.json", {"magic": 1}, "has fields that UNet2DModel has not: magic"),
        ("unet/config.json", {"block_out_channels": [16, 31]}, "cannot be built"),
        ("unet/config.json", {"layers_per_block": 2}, "missing, 0 unexpected"),
        ("unet/config.json", {"class_embed_type": "identity"}, "embeds classes as identity"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "of another shape"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "predicts flow"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}, "the beta_schedule 'odd'"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 2.0]}, "must lie in (0, 1]"),
        ("scheduler/scheduler_config.json", {"trained_betas": ["a"]}, "are no numbers"),
        ("scheduler/scheduler_config.json", {"beta_start": None}, "beta_start = None"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 1}, "trained at 1 steps"),
        ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, "not embed sigma"),
    ],
    ids=str,
)
def test_a_folder_that_says_something_else_is_refused(tmp_path, file, fields, reason):
    saved(tmp_path)
    edited(tmp_path / file, **fields)
    assert reason in refusal(tmp_path)


def test_code_that_a_folder_names_is_not_loaded(tmp_path):
    saved(tmp_path)
    (tmp_path / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    load_prior(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_fourier_embedding_of_steps_is_refused(tmp_path):
    saved(tmp_path, time_embedding_type="fourier")
    assert "predicts epsilon with a fourier embedding" in refusal(tmp_path)


def test_latent_pipelines_and_incomplete_folders_are_refused(tmp_path):
    assert "cannot be read as weights" in refusal(tmp_path)
    saved(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "LDMPipeline", "vqvae": []}')
    assert "UNet2DModel of LDMPipeline" in refusal(tmp_path)
    (tmp_path / "model_index.json").write_text("[" * 100_000)
    assert "cannot be read as JSON" in refusal(tmp_path)
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "holds no weights" in refusal(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    assert "there is no" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("unet", "act_fn", 3),
        ("unet", "block_out_channels", []),
        ("unet", "downsample_padding", -1),
        ("unet", "freq_shift", float("nan")),
        ("unet", "freq_shift", "x"),
        ("unet", "time_embedding_type", "x"),
        ("unet", "sample_size", -16),
        ("unet", "sample_size", [16, 16, 16]),
        ("scheduler", "prediction_type", ["epsilon"]),
        ("scheduler", "prediction_type", None),
    ],
)
def test_fields_that_cannot_be_are_refused_when_the_folder_is_loaded(tmp_path, file, field, value):
    saved(tmp_path)
    place = tmp_path / file / ("config.json" if file == "unet" else "scheduler_config.json")
    place.write_text(json.dumps(json.loads(place.read_text()) | {field: value}))
    assert refusal(tmp_path)


def test_a_scheduler_without_its_class_is_one_of_betas(tmp_path):
    network = saved(tmp_path)
    place = tmp_path / "scheduler" / "scheduler_config.json"
    table = json.loads(place.read_text())
    del table["_class_name"]
    place.write_text(json.dumps(table))
    assert_denoises_as(load_prior(tmp_path), by_formula(network, epsilon, LINEAR))
