"""Every predictor x corrector x SDE runs and is right, on a Gaussian of the plane whose mean is not zero."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import SDES, gaussian_problem, masking, measured, plane_mixture

from invsolve import operators
from invsolve.errors import Divergence, InputError, Refused
from invsolve.exact import GaussianPrior
from invsolve.guidance import DPS, Exact, MomentMatching, PiGDM
from invsolve.guidances.replace import Replace
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.samplers.correctors import AnnealedLangevin, Langevin, NoCorrector
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import (
    Ancestral,
    DPMpp,
    EulerMaruyama,
    Heun,
    NoPredictor,
    ReverseDiffusion,
)
from invsolve.sde import VE, VP

MEAN = torch.tensor([1.5, -0.7], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
N = 4000
ORDER_1 = [EulerMaruyama(), ReverseDiffusion(), Ancestral()]
ORDER_2 = [Heun(), Heun(churn=0.1), DPMpp(), DPMpp("ode"), DPMpp(order=3), DPMpp("ode", order=3)]
CORRECTORS = [NoCorrector(), Langevin(), AnnealedLangevin()]


def whitened(samples):
    """Mean and covariance eigenvalues in the coordinates where the truth is N(0, I)."""
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(COVARIANCE), (samples - MEAN).T, upper=False).T
    return z.mean(0).norm(), torch.linalg.eigvalsh(torch.cov(z.T))


def check(samples, bias_low, bias_high):
    """Mean within 4 standard errors; eigenvalues within 4.5 of theirs, widened by the method's own bias."""
    mean, values = whitened(samples)
    error = (2 / N) ** 0.5  # standard error of a variance
    assert float(mean) < 4 * (2 / N) ** 0.5
    assert 1 - 4.5 * error + bias_low < float(values[0])
    assert float(values[1]) < 1 + 4.5 * error + bias_high


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("corrector", CORRECTORS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("predictor", ORDER_1 + ORDER_2, ids=str)
def test_every_combination_is_right(predictor, corrector, sde):
    samples = PC(predictor, corrector, steps=200)(Posterior(GaussianPrior(MEAN, COVARIANCE), sde=sde), N, 1)
    first = 14 / 200 if predictor in ORDER_1 else 0.0  # twice the measured bias in sd of 7 / steps
    langevin = 0.0 if corrector == NoCorrector() else 0.026  # unadjusted Langevin: eps / (2 sigma^2) = r^2
    check(samples, -first, first + langevin)


@pytest.mark.slow
@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize(
    "corrector", [Langevin(n_steps=5), AnnealedLangevin(n_steps=5)], ids=lambda c: type(c).__name__
)
def test_the_corrector_alone_is_in_its_band(corrector, sde):
    samples = PC(NoPredictor(), corrector, steps=400)(
        Posterior(GaussianPrior(MEAN, COVARIANCE), sde=sde), N, 1
    )
    mean, values = whitened(samples)
    assert float(mean) < 4 * (2 / N) ** 0.5
    assert (
        1.0 < float(values.mean()) < 1.25
    )  # measured 1.13 (VE), 1.17 (VP, sub-VP): it lags behind the noise


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_a_corrector_leaves_the_right_law_alone(sde):
    """One hundred steps at a fixed time, from draws of p_t itself, leave its moments where they were."""
    prior = GaussianPrior(MEAN, COVARIANCE)
    posterior, t = Posterior(prior, sde=sde), sde.time(0.3)
    from invsolve.rng import Noise

    noise = Noise(0, "", N, (2,), dtype=torch.float64)
    x = float(sde.alpha(t)) * prior.sample(N, 0) + float(sde.sigma(t)) * noise("start")
    for corrector in (Langevin(n_steps=100), AnnealedLangevin(n_steps=100)):
        moved = corrector.correct(posterior, x, t, noise)
        noisy = COVARIANCE + 0.09 * torch.eye(2)
        ratio = torch.linalg.eigvals(
            torch.cov((moved / float(sde.alpha(t))).T) @ torch.linalg.inv(noisy)
        ).real
        assert float((ratio - 1).abs().max()) < 4.5 * (2 / N) ** 0.5 + 0.026  # unadjusted Langevin: r^2


@pytest.mark.parametrize("predictor", [Ancestral(), EulerMaruyama(), ReverseDiffusion()], ids=str)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_first_order_predictors_have_order_one(predictor, sde):
    """The bias in sd halves, within Monte-Carlo error, when the steps double from 100 to 200."""
    posterior = Posterior(GaussianPrior(MEAN, COVARIANCE), sde=sde)
    bias = [_sd_bias(PC(predictor, steps=steps), posterior) for steps in (50, 100, 200)]
    assert abs(bias[2]) < 0.05  # below 5 % in sd at 200 steps
    assert (
        abs(bias[2]) < 0.75 * abs(bias[1]) + 0.008 < 0.75 * 0.75 * abs(bias[0]) + 0.02
    )  # 0.008: its MC error


def _sd_bias(sampler, posterior, n=20000):
    return float(whitened(sampler(posterior, n, 0))[1].mean().sqrt() - 1)


@pytest.mark.parametrize("predictor", ORDER_2, ids=str)
def test_second_order_predictors_beat_first_order_ones(predictor):
    posterior = Posterior(GaussianPrior(MEAN, COVARIANCE), sde=VE())
    assert abs(_sd_bias(PC(predictor, steps=100), posterior)) < 0.25 * abs(
        _sd_bias(PC(Ancestral(), steps=50), posterior)
    )


@pytest.mark.parametrize(
    "guidance", [Exact(), MomentMatching(), PiGDM(), DPS(), DPS(1e-5), Replace()], ids=str
)
@pytest.mark.parametrize("corrector", [None, Langevin(), AnnealedLangevin()], ids=str)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_a_sample_does_not_depend_on_its_batch(guidance, corrector, sde):
    prior, likelihood, _ = gaussian_problem("inpaint", 4)
    posterior = Posterior(prior, likelihood, sde=sde, guidance=guidance)
    sampler = PC(Ancestral(), corrector, steps=12)
    whole = sampler(posterior, 6, 0)
    for part in (
        sampler(posterior, 3, 0, first=3),
        PC(Ancestral(), corrector, steps=12, batch=2)(posterior, 6, 0)[3:],
    ):
        torch.testing.assert_close(part, whole[3:], rtol=1e-9, atol=1e-9)  # float64 sums in another order


@pytest.mark.parametrize("predictor", [*ORDER_1, *ORDER_2], ids=str)
def test_first_is_an_offset_into_the_same_samples(predictor):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    sampler, posterior = PC(predictor, steps=8), Posterior(prior, likelihood)
    torch.testing.assert_close(
        sampler(posterior, 4, 0)[2:], sampler(posterior, 2, 0, first=2), rtol=1e-9, atol=1e-9
    )


def test_seeds_differ_and_repeat_and_zero_is_a_seed():
    posterior, sampler = Posterior(plane_mixture()), PC(steps=5)
    assert torch.equal(sampler(posterior, 3, 0), sampler(posterior, 3, 0))
    assert not torch.equal(sampler(posterior, 3, 0), sampler(posterior, 3, 1))


def test_two_measurements_of_one_seed_have_noise_of_their_own():
    prior = GaussianPrior(torch.zeros(1, 4, 4, dtype=torch.float64), 1.0)
    a, b = (Posterior(prior, measured(prior, masking(4), seed=s), guidance=Exact()) for s in (1, 2))
    starts = [next(iter(PC(steps=2).walk(p, 1, 0))).x for p in (a, b)]
    assert not torch.equal(*starts)


def test_global_generators_are_untouched():
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    PC(steps=3, corrector=Langevin())(Posterior(plane_mixture()), 3, 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_network_calls_are_counted_forward_and_vjp_apart():
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    posterior = Posterior(prior, likelihood, guidance=PiGDM())
    PC(Ancestral(), Langevin(n_steps=2), steps=10)(posterior, 3, 0)
    assert posterior.calls == Counter(forward=3 * (10 * 3 + 1), vjp=3 * (10 * 3 + 1))
    posterior = Posterior(prior, likelihood, guidance=MomentMatching(cg_steps=1))
    PC(Heun(), steps=10)(posterior, 3, 0)
    assert posterior.calls == Counter(forward=3 * 21, vjp=3 * 21)


def test_samples_carry_no_graph_and_the_prior_no_gradients():
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    samples = PC(steps=3)(Posterior(prior, likelihood), 2, 0)
    assert not samples.requires_grad
    assert samples.dtype == prior.dtype


def test_the_walk_ends_below_the_noise_of_the_measurement():
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    for sigma_y, low in ((0.05, 0.002), (0.004, 0.0004)):
        likelihood.sigma_y = torch.tensor(sigma_y)
        posterior = Posterior(prior, likelihood, sde=VE())
        assert float(posterior.sde.ratio(PC(steps=4).times(posterior)[-1])) == pytest.approx(low)


def test_the_last_step_is_the_posterior_mean_not_the_priors():
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    posterior = Posterior(prior, likelihood, sde=VP())
    *_, before, last = PC(steps=10).walk(posterior, 2, 0)
    t = PC(steps=10).times(posterior)[-1]
    assert torch.equal(last.x, posterior.mean(before.x, t))
    prior_mean = posterior.at(before.x, t).mean
    assert float((last.x - prior_mean).norm()) > 1e-6


def test_the_walk_stays_inside_the_priors_range():
    prior = plane_mixture()
    prior.sigma_min, prior.sigma_max = 0.01, 20.0
    for sde in SDES:
        levels = sde.ratio(PC(steps=4).times(Posterior(prior, sde=sde)))
        assert (float(levels[0]), float(levels[-1])) == pytest.approx((20.0, 0.01))


class Broken(Prior):
    shape = (2,)

    def denoise(self, x, sigma):
        return torch.where(sigma[:, None] < 1.0, torch.nan, x)


def test_nan_names_the_step_the_time_and_the_term():
    with pytest.raises(
        Divergence, match=r"step \d+ of 9: the prior's mean became NaN or infinite at t = 0\.\d+"
    ):
        PC(Ancestral(), steps=9)(Posterior(Broken()), 2, 0)


class NanJacobian(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 0.5 * x

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, torch.nan)


class BrokenDerivative(Prior):
    shape = (2,)

    def denoise(self, x, sigma):
        return NanJacobian.apply(x)


@pytest.mark.parametrize("guidance", [MomentMatching(), PiGDM(), DPS()], ids=lambda g: type(g).__name__)
def test_a_nan_derivative_is_never_a_silent_zero(guidance):
    likelihood = Gaussian(torch.ones(2), operators.matrix(torch.eye(2)), 0.1)
    posterior = Posterior(BrokenDerivative(), likelihood, guidance=guidance)
    with pytest.raises(Divergence, match="the likelihood's term"):
        PC(Ancestral(), steps=3)(posterior, 2, 0)


def test_dpmpp_refuses_a_uniform_grid_where_it_is_wrong():
    assert PC(DPMpp(), grid="uniform", steps=5)(Posterior(plane_mixture(), sde=VE()), 2, 0).shape == (2, 2)
    with pytest.raises(Refused, match="uniform"):
        PC(DPMpp(), grid="uniform", steps=5)(Posterior(plane_mixture(), sde=VP()), 2, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PC(steps=0), "steps"),
        (lambda: PC(NoPredictor()), "neither a predictor nor a corrector"),
        (lambda: PC(batch=0), "batch"),
        (lambda: Heun(churn=0.5), "churn"),
        (lambda: Langevin(snr=0.0), "snr"),
        (lambda: PC(steps=2)(Posterior(plane_mixture()), 0, 0), "n must be"),
        (lambda: PC(grid="karas", steps=2)(Posterior(plane_mixture()), 1, 0), "Did you mean 'karras'"),
    ],
)
def test_senseless_settings_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_antithetic_samples_have_the_right_law_and_the_mean_without_its_noise(sde):
    """A walk on a Gaussian is linear in its noise: pairs cancel, what is left is the bias of the steps."""
    posterior = Posterior(GaussianPrior(MEAN, COVARIANCE), sde=sde)
    samples = PC(steps=200, antithetic=True)(posterior, N, 1)
    mean, values = whitened(samples)
    assert float(mean) < 0.01  # the noise of N independent samples is 0.022
    error = (4 / N) ** 0.5  # of a variance, from N/2 independent pairs
    assert 1 - 4.5 * error < float(values[0]) < float(values[1]) < 1 + 4.5 * error


def test_antithetic_samples_do_not_depend_on_their_batch():
    posterior = Posterior(GaussianPrior(MEAN, COVARIANCE))
    sampler = PC(Ancestral(), Langevin(), steps=5, antithetic=True)
    assert torch.equal(sampler(posterior, 7, 0)[3:], sampler(posterior, 4, 0, first=3))


@pytest.mark.parametrize("predictor", [DPMpp(), Heun()], ids=str)
def test_data_wider_than_the_noise_of_the_sde_keep_their_width(predictor):
    prior = GaussianPrior(torch.tensor([1000.0, 0.0], dtype=torch.float64), torch.tensor([1e4, 4e4]))
    samples = PC(predictor, steps=100)(Posterior(prior, sde=VE(sigma_max=50.0)), 4000, 0)
    ratio = samples.std(0) / torch.tensor([100.0, 200.0])
    assert (ratio - 1).abs().max() < 0.05  # the start 0.02, the floor 0.03; from 50 up 0.4 to 0.8


FEW = [PC(steps=40), PC(DPMpp(order=2), steps=40, grid="karras")]


@pytest.mark.parametrize("sampler", FEW, ids=["default", "2M"])
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_a_few_dozen_steps_give_data_of_every_width_their_own(sde, sampler):
    sds = torch.logspace(-1.5, 0.5, 40, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(40, dtype=torch.float64), sds**2)
    samples = sampler(Posterior(prior, sde=sde), 10_000, 0)
    assert abs(float((samples.std(0) / sds).mean()) - 1) < 0.02  # measured 0.01; by the weight of 2M 0.03


SPREADS = [
    (None, "geometric", 40, 0.0105),
    (2, "geometric", 40, 0.0045),
    (2, "karras", 40, 0.012),  # with 2M's own weight 0.041
    (3, "karras", 40, 0.083),
    (None, "karras", 40, 0.012),  # as of order 2: the steps grow
    (None, "geometric", 15, 0.058),  # as of order 2: the steps are long
]


@pytest.mark.parametrize(("order", "grid", "steps", "worst"), SPREADS)
def test_the_spread_of_dpmpp_is_as_far_off_as_its_docstring_says(order, grid, steps, worst):
    """Exactly, without sampling: row j of x is what the j-th noise has become, and rows add up in squares."""
    sds = torch.logspace(-2, 0.5, 51, dtype=torch.float64)
    posterior = Posterior(GaussianPrior(torch.zeros(51, dtype=torch.float64), sds**2))
    times, memory = PC(steps=steps, grid=grid).times(posterior), None
    x = torch.zeros(steps + 1, 51, dtype=torch.float64)
    x[0] = float(posterior.sde.sigma(times[0]))
    for i, (t, s) in enumerate(pairwise(times), start=1):
        z = torch.zeros_like(x)
        z[i] = 1
        x, memory = DPMpp(order=order).step(posterior, x, t, s, lambda z=z: z, memory)
    found = posterior.mean(x, times[-1]).square().sum(0).sqrt()
    right = sds**2 / (sds**2 + posterior.span()[1] ** 2).sqrt()  # of E[x_0 | x_t] at the last level
    assert 0.7 * worst < float((found / right - 1).abs().max()) < worst
