"""The posterior is right: samples against closed forms, tolerances from the Monte-Carlo floor of the same n.

For each figure the floor is its spread over sets of exact samples of the same size; a method passes when it
is within five standard deviations of the floor's mean, which exact samples miss once in a million.
"""

import functools

import pytest
import torch
from problems import SDES, gaussian_prior, gaussian_problem, measured, plane_mixture

from invsolve import operators
from invsolve.bench.images import IMAGES, image_problem
from invsolve.diagnostics import distance, floor, sliced_wasserstein
from invsolve.exact import exact_posterior
from invsolve.guidance import DPS, Exact, MomentMatching, PiGDM
from invsolve.guidances.replace import Replace
from invsolve.posterior import Posterior
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import Ancestral, DPMpp, EulerMaruyama, Heun, ReverseDiffusion
from invsolve.sde import VE
from invsolve.solve import solve

PROBLEMS = [("matrix", 4), ("inpaint", 8), ("blur", 8), ("blur", 16), ("inpaint", 16)]
N = {4: 4000, 8: 2000, 16: 500}


@functools.cache
def problem(kind, side):
    prior, likelihood, exact = gaussian_problem(kind, side)
    return prior, likelihood, exact, floor(exact, N[side], repeats=12)


def check(found, floors, bias=0.0):
    """Each figure within five floor deviations of the floor's mean, plus the bias in sd that is claimed."""
    for name, value in found.items().items():
        sets = torch.tensor([f.items()[name] for f in floors])
        allowed = 5 * float(sets.std()) + bias * (
            2 if name == "covariance" else 1
        )  # a variance has twice sd's bias
        assert abs(value - float(sets.mean())) < allowed, f"{name} {value:.4f}, floor {sets.mean():.4f}"


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize(("kind", "side"), PROBLEMS[:3])
@pytest.mark.parametrize("predictor", [DPMpp(), DPMpp(order=3), DPMpp("ode"), Heun()], ids=str)
def test_second_order_predictors_reach_the_floor(predictor, kind, side, sde):
    prior, likelihood, exact, floors = problem(kind, side)
    samples = PC(predictor, steps=100)(Posterior(prior, likelihood, sde=sde), N[side], 0)
    check(distance(samples, exact), floors)


@pytest.mark.slow
@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize(("kind", "side"), PROBLEMS[3:])
def test_second_order_predictors_reach_the_floor_in_256_dimensions(kind, side, sde):
    prior, likelihood, exact, floors = problem(kind, side)
    samples = PC(DPMpp(order=3), steps=100)(Posterior(prior, likelihood, sde=sde), N[side], 0)
    check(distance(samples, exact), floors)


def heavy_blur():
    """Where the residual of conjugate gradients rises twice in a row before it falls."""
    prior = gaussian_prior(16)
    prior.closed_form = False  # solved as for a network
    likelihood = measured(prior, operators.deblur((1, 16, 16), std=1.8), sigma_y=0.02, seed=0)
    return prior, likelihood, exact_posterior(prior, likelihood)


@pytest.mark.slow
@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("kind", [*IMAGES, "heavy blur"])
def test_the_defaults_with_50_steps_are_right_on_images(kind, sde):
    """Mean within 0.05 sd of its floor, sd in 5 %, coverage 0.88 to 0.92, and what 200 samples scatter."""
    posed = image_problem(kind, 16 if kind != "colorize" else 12, 0) if kind in IMAGES else None
    prior, likelihood, exact = (posed.prior, posed.likelihood, posed.exact) if posed else heavy_blur()
    found = distance(solve(prior, likelihood, sde=sde, steps=50, n=200).samples, exact)
    floors = [f.items() for f in floor(exact, 200, repeats=6)]
    for name, allowed in {"mean_error": 0.05, "sd_ratio": 0.05, "coverage90": 0.02}.items():
        sets = torch.tensor([f[name] for f in floors])
        assert abs(found.items()[name] - float(sets.mean())) < allowed + 3 * float(sets.std()), name


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("predictor", [Ancestral(), EulerMaruyama(), ReverseDiffusion()], ids=str)
def test_first_order_predictors_are_within_c_over_steps(predictor, sde):
    prior, likelihood, exact, floors = problem("matrix", 4)
    samples = PC(predictor, steps=200)(Posterior(prior, likelihood, sde=sde), N[4], 0)
    check(distance(samples, exact), floors, bias=8 / 200)  # measured: -4/steps in VE, -7/steps in VP


@functools.cache
def mixture_problem():
    prior = plane_mixture()
    likelihood = measured(prior, operators.matrix(torch.tensor([[1.0, 0.3]], dtype=torch.float64)), 0.4)
    return prior, likelihood, exact_posterior(prior, likelihood)


def mode_weights(samples, exact):
    nearest = torch.cdist(samples, exact.means).argmin(1)
    return torch.bincount(nearest, minlength=4) / len(samples)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_exact_guidance_puts_the_modes_right(sde):
    prior, likelihood, exact = mixture_problem()
    n = 4000
    samples = PC(steps=100)(Posterior(prior, likelihood, sde=sde, guidance=Exact()), n, 0)
    truth = mode_weights(exact.sample(400000, 1), exact)
    error = (truth * (1 - truth) / n).sqrt()
    assert ((mode_weights(samples, exact) - truth).abs() < 4.5 * error + 1e-3).all()
    floors = [
        sliced_wasserstein(exact.sample(n, 2 * i), exact.sample(n, 2 * i + 1), slices=100) for i in range(6)
    ]
    assert sliced_wasserstein(samples, exact.sample(n, 99), slices=100) < 3 * max(floors)


BANDS = {  # sliced W1 to the mixture's posterior, measured 0.12, 0.18 and 0.17 on every SDE; floor 0.013
    "MomentMatching": (MomentMatching(), 0.08, 0.16),
    "PiGDM": (PiGDM(data_variance=1.04), 0.13, 0.24),
    "DPS": (DPS(zeta=0.3), 0.12, 0.23),
}


@pytest.mark.parametrize("name", BANDS)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_approximate_guidance_is_in_its_band_on_the_mixture(name, sde):
    prior, likelihood, exact = mixture_problem()
    guidance, low, high = BANDS[name]
    samples = PC(steps=100)(Posterior(prior, likelihood, sde=sde, guidance=guidance), 2000, 0)
    assert low < sliced_wasserstein(samples, exact.sample(2000, 99), slices=100) < high


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_the_order_of_the_methods_is_the_known_one(sde):
    """Moment matching at the floor, PiGDM near it, DPS too narrow and Replace too wide, by W2 to the
    posterior."""
    prior, likelihood, exact, _ = problem("inpaint", 8)
    found = {}
    for guidance in (MomentMatching(), PiGDM(data_variance=0.06), DPS(), Replace()):
        samples = PC(steps=100)(Posterior(prior, likelihood, sde=sde, guidance=guidance), 1000, 0)
        found[type(guidance).__name__] = distance(samples, exact)
    w2 = {name: d.w2 for name, d in found.items()}
    assert w2["MomentMatching"] < w2["PiGDM"] < min(w2["DPS"], w2["Replace"])
    assert 0.55 < found["DPS"].coverage90 < 0.65  # measured 0.57: intervals called 90 % hold 57 %
    assert 1.03 < found["Replace"].sd_ratio < 1.15  # measured 1.05 in VE, 1.10 in VP and sub-VP


def test_float32_priors_reach_the_floor_too():
    prior, likelihood, exact, floors = problem("matrix", 4)
    from invsolve.exact import GaussianPrior
    from invsolve.likelihood import Gaussian

    single = GaussianPrior(prior.mean.float(), prior.covariance)
    likelihood = Gaussian(likelihood.y.float(), operators.matrix(likelihood.operator.table.float()), 0.05)
    samples = PC(steps=100)(Posterior(single, likelihood, sde=VE()), N[4], 0)
    assert samples.dtype == torch.float32
    check(distance(samples, exact), floors)


def test_the_floor_itself_passes_and_a_tempered_posterior_fails():
    _, _, exact, floors = problem("matrix", 4)
    check(distance(exact.sample(N[4], 77), exact), floors)
    centred = exact.sample(N[4], 78) - exact.mean
    for wrong in (exact.mean + 0.93 * centred, exact.mean + 1.07 * centred, exact.sample(N[4], 79) + 0.01):
        with pytest.raises(AssertionError, match="floor"):
            check(distance(wrong, exact), floors)
