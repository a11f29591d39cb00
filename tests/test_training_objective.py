"""The objective of a config: each name has the loss of its closed form, and trains a prior by the command."""

import dataclasses

import pytest
import torch

from invsolve.errors import InputError, UnknownName
from invsolve.priors.catalogue import load_prior
from invsolve.priors.network import Architecture
from invsolve.training import TrainingConfig, read_config, train
from invsolve.training.choice import chosen_loss
from invsolve.training.config import OBJECTIVES, TIMED

V = 0.25  # variance of the white data of the closed forms
CONFIG = TrainingConfig(
    name="tiny",
    data="phantoms",
    architecture=Architecture(1, 4, (4,), 1),
    sigma_min=0.05,
    sigma_max=5.0,
    uniform_share=1.0,
    crop=4,
    batch=2,
    images=4,
)


def shrinking(c):
    """D = c v x / (v + sigma^2): the best denoiser of white data where c = 1."""
    return lambda x, s: x * (c * V / (V + s**2)).to(x)[:, None, None, None]


def measured(config, c, batches=40):
    """Mean loss over batches of white data and four standard errors of it."""
    rng = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(batches):
        x0 = V**0.5 * torch.randn(256, 1, 4, 4, generator=rng)
        rows.append(chosen_loss(config, shrinking(c), x0, rng).detach().item())
    return torch.tensor(rows).mean().item(), 4 * torch.tensor(rows).std().item() / batches**0.5


def levels(config):
    """Noise levels of equal weight: the config's law, on a grid of its own variable."""
    ends = torch.tensor([config.sigma_min, config.sigma_max], dtype=torch.float64)
    if config.objective == "ladder":
        return torch.logspace(*ends.log10().tolist(), config.levels, dtype=torch.float64)
    if config.objective == "song":
        sde = config.process()
        return sde.ratio(torch.linspace(*sde.time(ends).tolist(), 4001, dtype=torch.float64))
    return torch.logspace(*ends.log10().tolist(), 4001, dtype=torch.float64)


def expected(config, c):
    """The loss of `shrinking(c)` on white data, a pixel."""
    s = levels(config)
    off = c * V / (V + s**2) - 1
    square = (off**2 * V + (1 + off) ** 2 * s**2) / s**2  # |D - x_0|^2 / sigma^2
    if config.objective == "edm":
        return (square * (1 + s**2 / V)).mean().item()
    if config.objective in ("likelihood", "uniform-likelihood"):
        return (square.mean() * torch.log(s[-1] / s[0])).item()  # 1/2 int 2 d ln sigma
    if config.objective in ("song", "ladder"):
        return 0.5 * square.mean().item()
    return (off + off**2 * (V + s**2) / (2 * s**2)).mean().item()  # sigma^2 (tr grad s + |s|^2 / 2)


@pytest.mark.parametrize("c", [1.0, 0.8])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_of_each_objective_is_its_closed_form(objective, c):
    config = dataclasses.replace(CONFIG, objective=objective)
    found, error = measured(config, c)
    assert abs(found - expected(config, c)) < error  # four standard errors, of 40 batches


@pytest.mark.parametrize("sde", ["vp", "subvp"])
@pytest.mark.parametrize("objective", TIMED)
def test_the_times_of_other_sdes_have_their_own_law(objective, sde):
    config = dataclasses.replace(CONFIG, objective=objective, sde=sde)
    found, error = measured(config, 0.8)
    assert abs(found - expected(config, 0.8)) < error
    if objective == "song":
        assert abs(found - expected(dataclasses.replace(config, sde="ve"), 0.8)) > 2 * error


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_best_denoiser_has_the_least_loss_of_the_same_draws(objective):
    config = dataclasses.replace(CONFIG, objective=objective)
    low, best, high = (measured(config, c, batches=6)[0] for c in (0.8, 1.0, 1.2))
    assert best < low
    assert best < high


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_prior_is_trained_by_each_objective_and_says_so(objective, tmp_path):
    text = 'name = "tiny"\ndata = "phantoms"\ncrop = 4\nbatch = 2\nimages = 4\nsigma_min = 0.05\n'
    text += (
        f'objective = "{objective}"\n[architecture]\nin_channels = 1\nstem = 4\nwidths = [4]\nblocks = 1\n'
    )
    (tmp_path / "c.toml").write_text(text)
    train(read_config(tmp_path / "c.toml"), [], tmp_path / "out")
    prior = load_prior(tmp_path / "out" / "tiny.safetensors")
    assert prior.metadata.get("objective", "edm") == objective
    assert prior.network.state_dict()["head.weight"].abs().max() > 0  # zero at the start: it has learned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "slised"}, "Did you mean 'sliced'"),
        ({"objective": "song", "sde": "vpp"}, "Did you mean 'vp'"),
        ({"sde": "vp"}, "goes unused by objective = 'edm'"),
        ({"kind": "classifier", "objective": "song"}, "learns by cross-entropy"),
        ({"objective": "song", "sde": "vp", "sigma_max": 200.0}, "beyond the noise of vp, 152"),
        ({"objective": "ladder", "levels": 1}, "two or more"),
    ],
)
def test_a_wrong_choice_is_refused_in_words(change, message):
    with pytest.raises((InputError, UnknownName), match=message):
        dataclasses.replace(CONFIG, **change)


def test_the_exact_trace_of_a_large_image_is_refused():
    config = dataclasses.replace(CONFIG, objective="exact")
    with pytest.raises(InputError, match="each of 3072 entries"):
        chosen_loss(config, shrinking(1.0), torch.zeros(1, 3, 32, 32), torch.Generator())
