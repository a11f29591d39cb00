"""Objectives of score matching against closed forms, and the score of a mixture recovered by each of them."""

import itertools
import math

import pytest
import torch
from small_nets import MIXTURE, SmallScore, fit, relative_error

from invsolve.errors import InputError
from invsolve.exact import GaussianPrior
from invsolve.prior import EnergyPrior
from invsolve.sde import VE, VP, SubVP
from invsolve.training.implicit import (
    exact_score_matching,
    rademacher,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from invsolve.training.objectives import (
    EDM,
    Ladder,
    Likelihood,
    Song,
    UniformLikelihood,
    denoising_score_matching,
    score_of,
)

V = 0.25  # variance of the Gaussian data of the closed forms
GAUSSIAN = GaussianPrior(torch.zeros(2, dtype=torch.float64), V)
SDES = {"ve": VE(0.05, 5.0), "vp": VP(), "subvp": SubVP()}
END = 1e-3


def denoising(objective, sde, n=20_000, prior=GAUSSIAN):
    rng = torch.Generator().manual_seed(0)
    return float(denoising_score_matching(score_of(prior, sde), prior.sample(n, 1), sde, objective, rng))


# denoising score matching: at the exact score 1/2 |sigma s + z|^2 has the mean V/(V + level^2) in the plane


def best(level):
    return V / (V + level**2)


@pytest.mark.parametrize("name", SDES)
def test_song_s_loss_of_the_exact_score_is_the_mean_over_uniform_t(name):
    sde, t = SDES[name], torch.linspace(END, 1, 20_001, dtype=torch.float64)
    expected = best(sde.ratio(t)).mean().item()
    assert abs(denoising(Song(END), sde) - expected) < 4 / 20_000**0.5  # 4 sd of a mean, sd at most 1


@pytest.mark.parametrize("name", SDES)
def test_the_likelihood_s_loss_of_the_exact_score_is_its_integral(name):
    sde = SDES[name]
    high, low = (math.log(s**2 / (s**2 + V)) for s in sde.ratio(torch.tensor([1.0, END])).tolist())
    width = 2 * math.log(float(sde.ratio(1.0) / sde.ratio(END)))  # the weight of a row
    found = denoising(Likelihood(END), sde)
    assert abs(found - (high - low)) < 4 * width / 20_000**0.5  # a row's 1/2 |..|^2 has sd at most 1


@pytest.mark.parametrize("name", SDES)
def test_uniform_t_has_the_mean_of_the_importance_sampled_loss_and_more_variance(name):
    sde, rng = SDES[name], torch.Generator().manual_seed(3)
    (t, w), (u, v) = (o.draw(200_000, sde, rng) for o in (Likelihood(0.01), UniformLikelihood(0.01)))
    a, b = w * best(sde.ratio(t)), v * best(sde.ratio(u))
    spread = (a.var() + b.var()).sqrt() / 200_000**0.5
    assert abs(a.mean() - b.mean()) < 4 * spread
    if name != "ve":  # there uniform t is the importance law itself
        assert b.std() > 1.5 * a.std()  # measured: 2.3 (vp), 2.2 (sub-vp)


def test_edm_weighs_every_level_of_gaussian_data_alike():
    t, weight = EDM(sigma_data=V**0.5).draw(1000, SDES["ve"], torch.Generator().manual_seed(0))
    torch.testing.assert_close(weight * best(SDES["ve"].ratio(t)), torch.ones_like(t))


def test_a_ladder_descends_by_one_ratio_and_is_climbed_evenly():
    ladder, sde = Ladder(5.0, 0.05, 5), SDES["ve"]
    ratios = ladder.levels[1:] / ladder.levels[:-1]
    torch.testing.assert_close(ratios, torch.full((4,), 0.01**0.25, dtype=torch.float64))
    t, _ = ladder.draw(20_000, sde, torch.Generator().manual_seed(0))
    counts = (sde.ratio(t)[:, None] / ladder.levels - 1).abs().lt(1e-9).sum(0)
    assert (counts - 4000).abs().max() < 4 * (20_000 * 0.2 * 0.8) ** 0.5  # 4 sd of a binomial count


def test_a_ladder_that_does_not_fall_is_refused():
    with pytest.raises(InputError, match="falling"):
        Ladder(0.1, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "sde"),
    [
        (Song(), VE(0.1, 5.0)),
        (Likelihood(), VE(0.1, 5.0)),
        (Likelihood(END), SubVP()),
        (UniformLikelihood(END), VP()),
        (EDM(-0.5, 1.0, 1.0), VE(0.1, 5.0)),
        (Ladder(3.0, 0.1, 6), VE(0.1, 5.0)),
        (Song(END), VP()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_each_denoising_objective_recovers_the_score_of_a_mixture(objective, sde):
    network = SmallScore()

    def score(x, t):
        alpha = sde.alpha(t).to(x)[:, None]
        return network(x / alpha, sde.ratio(t)) / alpha

    fit(network, lambda x0, rng: denoising_score_matching(score, x0, sde, objective, rng))
    errors = [relative_error(network, level) for level in (0.2, 0.5, 1.0, 2.0)]
    assert max(errors) < 0.02  # measured: at most 0.002, with sub-vp 0.008; at the start 0.2


# without a kernel


def gaussian_score(k):
    return lambda x: -x @ k


def rows(n=64, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_exact_score_matching_of_a_linear_score_is_its_closed_form():
    k = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 3.0]], dtype=torch.float64)
    x = rows()
    expected = -k.trace() + (x @ k).square().sum(1) / 2
    torch.testing.assert_close(exact_score_matching(gaussian_score(k), x), expected)


@pytest.mark.parametrize("sliced", [sliced_score_matching, sliced_score_matching_vr])
def test_sliced_score_matching_is_the_exact_one_in_the_mean_over_all_signs(sliced):
    x = rows(16).float()[:, :2]
    network, level = SmallScore(), torch.full((16,), 0.3, dtype=torch.float64)
    signs = itertools.product((-1.0, 1.0), repeat=2)
    mean = sum(sliced(lambda x: network(x, level), x, torch.tensor(v).expand(16, 2)) for v in signs) / 4
    exact = exact_score_matching(lambda x: network(x, level), x)
    torch.testing.assert_close(mean, exact, rtol=1e-4, atol=1e-5)  # float32


def test_variance_reduction_reduces_the_variance():
    x, k = rows(4000), torch.eye(3, dtype=torch.float64) * 2
    v = rademacher(x, torch.Generator().manual_seed(5))
    full, reduced = (f(gaussian_score(k), x, v) for f in (sliced_score_matching, sliced_score_matching_vr))
    # (v^T s)^2 / 2 is 2 (v^T x)^2, of variance 8; |s|^2 / 2 is 2 |x|^2, of variance 8 over x and 0 over v
    exact = exact_score_matching(gaussian_score(k), x)
    assert (reduced - exact).abs().max() < 1e-12  # signs see the trace of a multiple of I exactly
    assert (full - exact).std() > 1


def test_an_energy_model_is_trained_through_its_score_without_its_constant():
    k, x = torch.tensor(1.5, dtype=torch.float64, requires_grad=True), rows()
    prior = EnergyPrior(lambda x: k * x.square().sum(1) / 2 + 7)
    loss = exact_score_matching(prior.score, x).mean()
    slope = torch.autograd.grad(loss, k)[0]
    torch.testing.assert_close(
        slope, (-3 + k * x.square().sum(1).mean()).detach()
    )  # d/dk (-3 k + k^2 |x|^2/2)


def test_a_constant_score_has_no_trace():
    torch.testing.assert_close(
        exact_score_matching(lambda x: torch.ones(5, 2), rows(5, 2).float()), torch.ones(5)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "sliced", "reduced"])
def test_each_implicit_objective_recovers_the_score_of_a_noisy_mixture(name):
    network, level = SmallScore(), torch.full((1024,), 0.2, dtype=torch.float64)
    losses = {
        "exact": lambda s, x, rng: exact_score_matching(s, x),
        "sliced": lambda s, x, rng: sliced_score_matching(s, x, rademacher(x, rng)),
        "reduced": lambda s, x, rng: sliced_score_matching_vr(s, x, rademacher(x, rng)),
    }

    def loss(x0, rng):
        x = x0 + 0.2 * torch.randn(x0.shape, generator=rng)
        return losses[name](lambda x: network(x, level), x, rng).mean()

    fit(network, loss)
    assert relative_error(network, 0.2) < 0.02
    assert relative_error(SmallScore(), 0.2) > 0.1  # so there was something to learn


def test_a_wrong_score_costs_more_than_the_right_one():
    for objective in (Song(), Likelihood(), EDM(), Ladder()):
        x0, sde = MIXTURE.sample(4000, 0), SDES["ve"]
        right = score_of(MIXTURE, sde)
        losses = [
            denoising_score_matching(s, x0, sde, objective, torch.Generator().manual_seed(0))
            for s in (right, lambda x, t, right=right: 0.7 * right(x, t))
        ]
        assert losses[0] < losses[1]
