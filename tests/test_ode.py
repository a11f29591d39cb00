"""The adaptive probability-flow sampler: right laws, errors under control, and rows that never meet."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from problems import SDES, gaussian_problem, measured, plane_mixture
from test_exactness import N, check, problem

from invsolve import operators, testing
from invsolve.diagnostics import distance
from invsolve.errors import Divergence, InputError, Refused
from invsolve.exact import GaussianPrior, exact_posterior
from invsolve.guidance import Exact
from invsolve.guidances.replace import Replace
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.samplers.dopri import DormandPrince
from invsolve.samplers.ode import ProbabilityFlow
from invsolve.sde import VE


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize(
    ("kind", "side"),
    [
        ("matrix", 4),
        pytest.param("inpaint", 8, marks=pytest.mark.slow),
        pytest.param("blur", 8, marks=pytest.mark.slow),
    ],
)
def test_the_flow_reaches_the_floor_of_exact_posteriors(kind, side, sde):
    prior, likelihood, exact, floors = problem(kind, side)
    posterior = Posterior(prior, likelihood, sde=sde)
    check(distance(ProbabilityFlow()(posterior, N[side], 0), exact), floors)
    assert posterior.calls["forward"] < 75 * N[side]  # measured: 55, 60 and 63 a sample


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_exact_guidance_puts_the_modes_right(sde):
    prior, n = plane_mixture(), 4000
    likelihood = measured(prior, operators.matrix(torch.tensor([[1.0, 0.3]], dtype=torch.float64)), 0.4)
    exact = exact_posterior(prior, likelihood)
    samples = ProbabilityFlow()(Posterior(prior, likelihood, sde=sde, guidance=Exact()), n, 0)
    truth = exact.log_weights.exp()
    found = torch.bincount(torch.cdist(samples, exact.means).argmin(1), minlength=4) / n
    # modes 5 deviations apart: 1e-3 lie nearer to another
    assert ((found - truth).abs() < 4.5 * (truth * (1 - truth) / n).sqrt() + 2e-3).all()


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_the_prior_alone_is_drawn_from_far_above_its_extent(sde):
    prior = plane_mixture()
    prior.means *= 40  # modes 80 apart: at the SDE's own start, 50 or 152, noise does not drown them
    prior.spectra *= 1600
    prior.centre.copy_(prior.mean)
    samples = ProbabilityFlow()(Posterior(prior, sde=sde), 2000, 0)
    shares = torch.bincount(torch.cdist(samples, prior.means).argmin(1), minlength=4) / 2000
    truth = prior.log_weights.exp()
    bias = 0.0 if isinstance(sde, VE) else 0.02  # VP and sub-VP end at 152, 2.7 extents
    assert ((shares - truth).abs() < 4.5 * (truth * (1 - truth) / 2000).sqrt() + bias).all()


def test_a_tighter_tolerance_makes_a_smaller_error_in_proportion():
    prior, likelihood, _ = gaussian_problem("inpaint", 8)
    posterior = Posterior(prior, likelihood, guidance=Exact())

    def draw(tolerance):
        return ProbabilityFlow(rtol=tolerance, atol=0.0, steps=1)(posterior, 20, 0)

    truth, tolerances = draw(1e-10), [2.0**-i for i in range(6, 20, 2)]
    errors = [float((draw(tol) - truth).square().mean().sqrt()) for tol in tolerances]
    assert errors == sorted(errors, reverse=True)
    assert all(tol / 300 < e < 2 * tol for e, tol in zip(errors, tolerances, strict=True)), errors


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_a_sample_does_not_depend_on_its_batch_and_finished_rows_cost_nothing(sde):
    prior, sampler = plane_mixture(), ProbabilityFlow(rtol=1e-4, steps=1)
    together, alone = Posterior(prior, sde=sde), Posterior(prior, sde=sde)
    samples = sampler(together, 6, 3)
    each, calls = [], []
    for k in range(6):
        each.append(sampler(alone, 1, 3, first=k))
        calls.append(alone.calls["forward"] - sum(calls))
    assert len(set(calls)) > 2  # rows that arrive after different numbers of steps
    torch.testing.assert_close(samples, torch.cat(each), rtol=1e-9, atol=1e-9)  # batch sizes round
    assert together.calls == alone.calls
    assert torch.equal(replace(sampler, batch=4)(together, 6, 3)[:4], sampler(together, 4, 3))


def test_the_last_step_is_the_posterior_mean():
    """Of a prior narrower than the last noise level: what is returned has none of that noise."""
    prior = GaussianPrior(torch.zeros(50, dtype=torch.float64), 1e-8)
    samples = ProbabilityFlow(rtol=1e-6)(Posterior(prior), 4, 0)
    assert float(samples.std()) == pytest.approx(1e-4 / 20, rel=0.3)  # (0.002 / 1e-4)^2 + 1 below 0.002


def test_antithetic_samples_cancel_in_the_mean_and_do_not_depend_on_their_batch():
    prior = GaussianPrior(torch.tensor([1.5, -0.7], dtype=torch.float64), 0.4)
    posterior, sampler = Posterior(prior), ProbabilityFlow(antithetic=True)
    samples = sampler(posterior, 40, 0)
    torch.testing.assert_close(samples.mean(0), prior.mean, rtol=0, atol=1e-3)  # independent ones: 0.1
    torch.testing.assert_close(sampler(posterior, 4, 0, first=3), samples[3:7], rtol=1e-9, atol=1e-9)


def test_no_step_is_longer_than_the_fewest_steps_allow():
    posterior = Posterior(plane_mixture())
    ProbabilityFlow(rtol=0.5, steps=30)(posterior, 4, 0)
    assert posterior.calls["forward"] >= 4 * (6 * 30 + 2)


def test_the_integrator_is_of_order_five():
    """dy/du = y cos u has the solution exp(sin u); fixed steps of 1/4, 1/8 and 1/16."""

    def end(h):
        solver = DormandPrince(first=h, longest=h)
        y0 = torch.ones(1, 1, dtype=torch.float64)
        return solver(lambda u, y, rows: y * u.cos()[:, None], y0, 0.0, 2.0, lambda u, e: 0 * u + 1e-9)

    errors = [abs(float(end(h)) - math.exp(math.sin(2.0))) for h in (0.25, 0.125, 0.0625)]
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(4.5 < rate < 6 for rate in rates)


def test_rows_of_the_integrator_take_their_own_steps():
    """Row i turns at a frequency of its own, forwards and back; both are met, at their own costs."""
    rates, seen = torch.tensor([[0.1], [20.0]], dtype=torch.float64), [0, 0]

    def slope(u, y, rows):
        for row in rows.tolist():
            seen[row] += 1
        return (rates[rows] * u[:, None]).cos() * rates[rows]

    y0 = torch.zeros(2, 1, dtype=torch.float64)
    for start, stop in ((0.0, 3.0), (3.0, 0.0)):
        y = DormandPrince()(slope, y0, start, stop, lambda u, e: e.abs()[:, 0] / 1e-6)
        expected = (rates * stop).sin() - (rates * start).sin()
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    assert seen[1] > 10 * seen[0]


def test_the_sampler_passes_the_conformance_kit():
    testing.check_sampler(ProbabilityFlow())


class Rough(Prior):
    """A denoiser with jumps everywhere."""

    shape = (2,)

    def denoise(self, x, sigma):
        return (1e6 * x).sin()


class Broken(Prior):
    shape = (2,)

    def denoise(self, x, sigma):
        return torch.where(sigma[:, None] < 1.0, torch.nan, x)


@pytest.mark.parametrize(
    ("prior", "words"),
    [(Rough(), "has not arrived after 50 steps"), (Broken(), "became NaN or infinite at t = ")],
)
def test_a_walk_that_does_not_arrive_says_where_it_is(prior, words):
    with pytest.raises(Divergence, match=words):
        ProbabilityFlow(tries=50)(Posterior(prior), 2, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ProbabilityFlow(rtol=0.0, atol=0.0), "rtol and atol"),
        (lambda: ProbabilityFlow(rtol=-1e-3), "rtol and atol"),
        (lambda: ProbabilityFlow(steps=0), "steps must be at least 1"),
        (lambda: ProbabilityFlow(steps=2000), "tries no less"),
        (lambda: ProbabilityFlow(batch=0), "batch"),
        (lambda: ProbabilityFlow()(Posterior(plane_mixture()), 0, 0), "n must be"),
    ],
)
def test_senseless_settings_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_guidance_that_replaces_is_refused():
    prior, likelihood, _ = gaussian_problem("inpaint", 8)
    with pytest.raises(Refused, match="no ODE: take sampler pc"):
        ProbabilityFlow()(Posterior(prior, likelihood, guidance=Replace()), 1, 0)
