"""The bound of maximum likelihood training: above the true divergence, and equal to it where it should be."""

import itertools
import math

import pytest
import torch
from small_nets import MEANS, MIXTURE

from invsolve.exact import GaussianPrior, MixturePrior
from invsolve.sde import VE, VP, SubVP
from invsolve.training.bound import Estimate, kl_bound, log_density
from invsolve.training.objectives import score_of

OTHER = MixturePrior(MEANS + 0.3, torch.full((4,), 0.25), 0.6**2)
SDES = {"ve": VE(0.1, 5.0), "vp": VP(), "subvp": SubVP()}
END = 0.01


def start_of(prior, sde):
    """log density of p_1, (B, d) -> (B,)."""
    return lambda x: log_density(prior, sde, x, torch.ones(len(x), dtype=torch.float64))


def divergence(p, q, sde, t, n=20_000):
    """KL(p_t || q_t) by Monte Carlo."""
    rng, at = torch.Generator().manual_seed(7), torch.full((n,), t, dtype=torch.float64)
    x0 = p.sample(n, 8)
    x = float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * torch.randn(x0.shape, generator=rng, dtype=x0.dtype)
    return Estimate.of(log_density(p, sde, x, at) - log_density(q, sde, x, at))


@pytest.mark.parametrize("name", SDES)
def test_the_exact_score_from_the_exact_start_costs_nothing(name):
    sde = SDES[name]
    found = kl_bound(MIXTURE, score_of(MIXTURE, sde), sde, start_of(MIXTURE, sde), n=500, seed=0, end=END)
    assert abs(found.value) < 1e-5  # float32: every row is zero but for rounding


@pytest.mark.parametrize("name", SDES)
def test_the_exact_score_leaves_the_price_of_the_start(name):
    sde = SDES[name]
    wide = GaussianPrior(torch.zeros(2), 0.1)
    found = kl_bound(MIXTURE, score_of(MIXTURE, sde), sde, start_of(wide, sde), n=20_000, seed=0, end=END)
    price = divergence(MIXTURE, wide, sde, 1.0)
    assert abs(found.value - price.value) < 4 * math.hypot(found.error, price.error)


@pytest.mark.parametrize("name", SDES)
def test_with_the_score_of_another_mixture_the_bound_is_their_divergence(name):
    sde = SDES[name]
    found = kl_bound(MIXTURE, score_of(OTHER, sde), sde, start_of(OTHER, sde), n=40_000, seed=0, end=END)
    true = divergence(MIXTURE, OTHER, sde, END)
    assert true.value > 0.1
    assert abs(found.value - true.value) < 4 * math.hypot(found.error, true.error)


def test_for_a_score_of_no_diffused_law_the_bound_is_its_closed_form():
    """s = c grad log p_t with Gaussian p: 1/2 int g^2 (c - 1)^2 d/(v + sigma^2) dt, d = 2."""
    sde, v, c = SDES["ve"], 0.25, 1.5
    p = GaussianPrior(torch.zeros(2, dtype=torch.float64), v)
    right = score_of(p, sde)
    found = kl_bound(p, lambda x, t: c * right(x, t), sde, start_of(p, sde), n=40_000, seed=0, end=END)
    high, low = (v + float(sde.sigma(t)) ** 2 for t in (1.0, END))
    assert abs(found.value - (c - 1) ** 2 * math.log(high / low)) < 4 * found.error


def drawn_density(p, sde, factor, x, times):
    """Density on the grid x of what the reverse SDE with the score factor * grad log p_t draws, VE."""
    dx = float(x[1] - x[0])
    at = torch.ones(len(x), dtype=torch.float64)
    density = log_density(p, sde, x[:, None], at * times[0]).exp()
    for t, s in itertools.pairwise(times):
        step = float(sde.sigma(t) ** 2 - sde.sigma(s) ** 2)
        mean = x + step * factor * score_of(p, sde)(x[:, None], at * t)[:, 0]  # Euler: variance step, too
        kernel = (-((x[:, None] - mean) ** 2) / (2 * step)).exp() * dx / (2 * math.pi * step) ** 0.5
        density = kernel @ density
    return density


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_on_a_mixture_the_bound_is_above_the_true_divergence(factor):
    """The law drawn with a wrong score, by its Chapman-Kolmogorov equation on a grid of one dimension."""
    sde, double = VE(0.1, 3.0), torch.float64
    p = MixturePrior(torch.tensor([[-1.0], [1.5]], dtype=double), torch.tensor([0.3, 0.7]), 0.16)
    end = float(sde.time(0.3))
    x, times = torch.arange(-13, 13, 0.04, dtype=double), torch.linspace(1, end, 150, dtype=double)
    drawn = drawn_density(p, sde, factor, x, times)
    assert abs(float(drawn.sum()) * 0.04 - 1) < 1e-3
    log_p = log_density(p, sde, x[:, None], torch.full((len(x),), end, dtype=double))
    true = float((log_p.exp() * (log_p - drawn.log())).sum()) * 0.04
    right = score_of(p, sde)
    bound = kl_bound(p, lambda x, t: factor * right(x, t), sde, start_of(p, sde), n=20_000, seed=0, end=end)
    assert 0 < true < bound.value - 4 * bound.error
    assert bound.value < 20 * true  # and says something


def test_the_density_of_a_diffused_gaussian_is_gaussian():
    sde, t = VP(), torch.full((3,), 0.4, dtype=torch.float64)
    x = torch.tensor([[0.1, 0.5], [-1.0, 0.2], [2.0, 0.0]], dtype=torch.float64)
    variance = float(0.25 * sde.alpha(0.4) ** 2 + sde.sigma(0.4) ** 2)
    expected = -x.square().sum(1) / (2 * variance) - math.log(2 * math.pi * variance)
    found = log_density(GaussianPrior(torch.zeros(2, dtype=torch.float64), 0.25), sde, x, t)
    torch.testing.assert_close(found, expected)
