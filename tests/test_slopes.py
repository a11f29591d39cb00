"""The slopes of a classifier, on a mixture whose p(c | x_t) is known in closed form."""

import dataclasses

import pytest
import torch

from invsolve.errors import InputError
from invsolve.exact import MixturePrior
from invsolve.training import TrainingConfig, slopes
from invsolve.training.slopes import denoised, slope_loss

MEANS = torch.tensor([[-1.0, 0.2], [0.6, 0.5], [0.1, -0.9]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
OWN = 0.09  # variance of each component
N = 40_000


def log_classes(x, level):
    """Exact log p(component | x_0 + level n = x): a softmax of linear functions of x."""
    return (WEIGHTS.log() - (x[:, None] - MEANS).square().sum(2) / (2 * (OWN + level**2))).log_softmax(1)


def noisy(level, seed=0):
    rng = torch.Generator().manual_seed(seed)
    label = torch.multinomial(WEIGHTS, N, replacement=True, generator=rng)
    x0 = MEANS[label] + OWN**0.5 * torch.randn(N, 2, generator=rng, dtype=torch.float64)
    noise = torch.randn(N, 2, generator=rng, dtype=torch.float64)
    return label, x0, (x0 + level * noise).requires_grad_(True)


def loss_at(level, scale=1.0):
    label, x0, x = noisy(level)
    sigma = torch.full((N,), level, dtype=torch.float64)
    mean = MixturePrior(MEANS, WEIGHTS, OWN).denoise(x.detach(), sigma)
    log_p = scale * log_classes(x, level).gather(1, label[:, None])[:, 0]
    return float(slope_loss(log_p, x, sigma, x0, mean).detach())


@pytest.mark.parametrize("level", [0.4, 1.0, 3.0])
def test_the_true_slope_has_the_least_loss(level):
    low, right, high = (loss_at(level, scale) for scale in (0.0, 1.0, 2.0))
    assert low == 0
    best = (high - 4 * right) / (2 * high - 4 * right)  # minimum of the parabola through the three
    assert best == pytest.approx(1, abs=0.05)  # 40,000 draws: standard deviation 0.01 to 0.015


def test_the_loss_is_what_is_learned_of_the_class_an_e_fold_of_noise(monkeypatch):
    monkeypatch.setattr(slopes, "CLEAR", 0.0)

    def entropy(level):  # of common draws, so that their scatter cancels
        label, _, x = noisy(level)
        return -float(log_classes(x.detach(), level).gather(1, label[:, None]).mean())

    step = 0.05
    rate = (entropy(0.6 * torch.e**step) - entropy(0.6 * torch.e**-step)) / (2 * step)
    # measured scatter of both sides over seeds: 0.01
    assert loss_at(0.6) == pytest.approx(-rate, abs=0.04)


def test_a_prior_of_images_is_asked_in_its_own_units():
    prior = MixturePrior(torch.tensor([[0.3]], dtype=torch.float64), torch.ones(1).double(), 0.04)
    x, sigma = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    # half way between the mean 2 * 0.3 - 1 and x, as 0.04 = (0.4 / 2)^2
    torch.testing.assert_close(denoised(prior, x, sigma), torch.tensor([[0.05]], dtype=torch.float64))


def test_slopes_without_a_prior_are_refused():
    for wrong in ({"slopes": 1.0}, {"beside": "digits"}, {"slopes": -1.0, "beside": "digits"}):
        with pytest.raises(InputError, match="need the prior"):
            TrainingConfig(**wrong)


def test_settings_that_came_later_leave_the_hash_of_older_runs_alone():
    config = TrainingConfig()
    assert config.digest() == "c7b4a12cdd3c7ea0"
    assert dataclasses.replace(config, slopes=1.0, beside="digits").digest() != config.digest()
