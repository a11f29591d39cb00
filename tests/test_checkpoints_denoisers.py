"""Each parametrisation against an exact denoiser: ranges, noise levels, and the gain of a trained network."""

import math

import pytest
import torch
from torch import nn

from invsolve.linalg import expand
from invsolve.priors.catalogue import load_prior
from invsolve.priors.checkpoints.denoisers import Image, Noise, Score, Velocity, subvp_signal, vp_signal
from invsolve.priors.checkpoints.edm import PRECONDITIONINGS, Preconditioned
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior
from invsolve.priors.checkpoints.hints import Hints
from invsolve.priors.checkpoints.schedules import Steps, levels_of, linear_betas
from invsolve.priors.checkpoints.score_sde import Exploding
from invsolve.testing.prior import check_prior

LEVELS = torch.tensor([0.01, 0.2, 30.0], dtype=torch.float64)
MEAN, SPREAD = 0.3, 0.2  # of the pixels, physical units


class Raw(nn.Module):
    """What a perfect network gives for its parametrisation; the label passed is sigma itself."""

    def __init__(self, denoise, answer, signal):
        super().__init__()
        self.denoise, self.answer, self.signal = denoise, answer, signal

    def forward(self, scaled, sigma, classes=None):
        s = expand(self.signal(sigma), scaled)
        x = scaled / s
        return self.answer(x, self.denoise(x, sigma), s, expand(sigma, x))


def gaussian(low, high):
    """Exact denoiser of independent pixels, in the units of a network on [low, high]."""
    span = high - low
    mean, variance = low + span * MEAN, (span * SPREAD) ** 2

    def denoise(x, sigma):
        return mean + expand(variance / (variance + sigma**2), x) * (x - mean)

    return denoise


def noise(x, d, s, sigma):
    return (x - d) / sigma


def velocity(x, d, s, sigma):
    return s * (x - d) / sigma - s * sigma * d


def image(x, d, s, sigma):
    return d


def score(x, d, s, sigma):
    return (d - x) / sigma**2


def same(sigma):
    return sigma


def wrapped(kind, denoise):
    """A parametrisation around the raw output that belongs to a denoiser."""
    if kind == "ve score":
        return Score(Raw(denoise, score, torch.ones_like), same)
    signal = subvp_signal if "sub" in kind else vp_signal
    classes = {"noise": Noise, "velocity": Velocity, "image": Image}
    answers = {"noise": noise, "velocity": velocity, "image": image}
    name = kind.split()[-1]
    return classes[name](Raw(denoise, answers[name], signal), same, signal)


KINDS = ["vp noise", "subvp noise", "vp velocity", "vp image", "ve score"]


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_of_known_mean_is_recovered_in_both_ranges(kind, ends):
    network = wrapped(kind, gaussian(*ends))
    prior = CheckpointPrior(network, (3, 4, 4), (0.001, 50.0), data_range=ends, name=kind, card={})
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.denoise(x, LEVELS), gaussian(0.0, 1.0)(x, LEVELS), rtol=1e-9, atol=1e-9)


def raw_of_edm(name, denoise, state):
    """The raw output F that belongs to a denoiser, by the coefficients of a preconditioning."""
    coefficients, _ = PRECONDITIONINGS[name](state)

    class Network(nn.Module):
        def forward(self, scaled, label, classes):
            skip, out, scale, _ = coefficients(self.sigma)
            x = scaled / expand(scale, scaled)
            return (denoise(x, self.sigma) - expand(skip, x) * x) / expand(out, x)

    network = Network()
    return network, Preconditioned(network, coefficients)


@pytest.mark.parametrize("name", ["EDMPrecond", "VEPrecond", "VPPrecond"])
def test_the_preconditionings_of_edm_recover_it_too(name):
    state = {"sigma_data": 0.5, "sigma_min": 0.02, "sigma_max": 100}
    state |= {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}
    network, around = raw_of_edm(name, gaussian(-1.0, 1.0), state)
    network.sigma = 2 * LEVELS
    prior = CheckpointPrior(around, (3, 4, 4), (0.001, 50.0), name=name, card={})
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.denoise(x, LEVELS), gaussian(0.0, 1.0)(x, LEVELS), rtol=1e-9, atol=1e-9)


def test_a_ve_network_on_0_1_doubles_its_input():
    exact = gaussian(0.0, 1.0)

    class Network(nn.Module):
        def forward(self, doubled, sigma):
            x = (doubled + 1) / 2
            return (exact(x, sigma) - x) / expand(sigma, x)

    prior = CheckpointPrior(
        Exploding(Network(), same), (3, 4, 4), (0.01, 50.0), data_range=(0.0, 1.0), name="ve", card={}
    )
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.denoise(x, LEVELS), exact(x, LEVELS), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vp noise", "ve score"])
def test_a_trained_network_behind_a_parametrisation_passes_every_check(kind):
    photo = load_prior("photo")
    photo.fast = False
    network = wrapped(kind, lambda x, sigma: photo.network(x, sigma))
    prior = CheckpointPrior(network, (3, None, None), (0.002, 40.0), name="photo", card={})
    check_prior(prior)  # its gain on photographs among them


def test_signals_of_vp_and_subvp_are_those_of_their_equations():
    sigma = torch.logspace(-6, 4, 50, dtype=torch.float64)
    s = vp_signal(sigma)
    torch.testing.assert_close(s**2 + (s * sigma) ** 2, torch.ones_like(s))
    s = subvp_signal(sigma)
    torch.testing.assert_close(s * sigma, 1 - s**2, rtol=1e-9, atol=1e-12)


def test_steps_are_exact_at_trained_levels_and_stay_inside():
    levels = levels_of(linear_betas())
    steps = Steps(levels)
    torch.testing.assert_close(steps(levels), torch.arange(1000.0, dtype=torch.float64))
    middle = (levels[4] * levels[5]).sqrt()[None]
    assert float(steps(middle)) == pytest.approx(4.5)
    assert steps(torch.tensor([0.0, 1e9])).tolist() == [0.0, 999.0]
    assert float(levels[0]) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    assert float(levels[-1]) == pytest.approx(157.41, abs=0.01)  # what the authors' table gives


def test_every_hint_has_a_range_and_a_type():
    with pytest.raises(ValueError, match="hint sigma_max is inf"):
        Hints(sigma_max=float("inf"))
    with pytest.raises(ValueError, match="hint sigma_min is -1"):
        Hints(sigma_min=-1.0)
    with pytest.raises(ValueError, match=r"hint image_size is 16\.0"):
        Hints(image_size=16.0)
    assert Hints(sigma_max=2).given == {"sigma_max": 2}
