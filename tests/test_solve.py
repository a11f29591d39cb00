"""solve: names and objects give the same result, which is the sampler's own."""

import pytest
import torch
from problems import gaussian_prior, masking

from invsolve import (
    PC,
    VE,
    VP,
    Ancestral,
    Gaussian,
    Langevin,
    MomentMatching,
    Posterior,
    Ramp,
    exact_posterior,
    solve,
)
from invsolve.errors import InputError, Refused, UnknownName
from invsolve.files import write_whole
from invsolve.result import Result

PRIOR = gaussian_prior(8)


def likelihood(sigma_y=0.05):
    operator = masking(8)
    x = PRIOR.sample(1, seed=5)
    return Gaussian(operator.A(x), operator, sigma_y)


def test_solve_is_the_sampler_on_the_posterior():
    result = solve(PRIOR, likelihood(), n=3, seed=4, steps=12)
    by_hand = PC(steps=12)(Posterior(PRIOR, likelihood(), sde=VE(), guidance=MomentMatching()), 3, 4)
    assert torch.equal(result.samples, by_hand)


def test_names_and_objects_are_the_same_parts():
    named = solve(PRIOR, likelihood(), sde="vp", predictor="ancestral", corrector="langevin", steps=8, n=2)
    given = solve(PRIOR, likelihood(), sde=VP(), predictor=Ancestral(), corrector=Langevin(), steps=8, n=2)
    whole = solve(PRIOR, likelihood(), sde=VP(), sampler=PC(Ancestral(), Langevin(), steps=8), n=2)
    assert torch.equal(named.samples, given.samples)
    assert torch.equal(named.samples, whole.samples)


def test_the_mean_and_the_std_are_those_of_the_exact_posterior():
    n = 1000
    result, exact = solve(PRIOR, likelihood(), n=n, steps=60), exact_posterior(PRIOR, likelihood())
    sd = exact.covariance.diagonal().sqrt().reshape(exact.mean.shape)
    z = (result.mean - exact.mean) / sd * n**0.5
    assert float(z.square().mean()) == pytest.approx(1, abs=1)  # 1 for exact draws; a bias of 0.03 sd adds 1
    assert float((result.std / sd).mean()) == pytest.approx(1, abs=0.03)  # 1 % floor, correlated pixels


def test_gamma_is_a_number_or_a_schedule():
    one, level, falling = (
        solve(PRIOR, likelihood(), gamma=g, n=2, steps=8) for g in (2.0, Ramp(2.0, 2.0), Ramp(4.0, 1.0))
    )
    torch.testing.assert_close(level.samples, one.samples)
    assert not torch.allclose(falling.samples, one.samples, atol=1e-3)
    assert falling.config["gamma"] == "Ramp(high=4.0, low=1.0)"


def test_calls_are_counted_per_sample_whatever_was_counted_before():
    one = likelihood()
    first = solve(PRIOR, one, n=2, steps=5)
    again = solve(PRIOR, one, n=4, steps=5)
    assert first.nfe["forward"] == 6  # one a step, and the last mean
    assert first.nfe["forward"] == again.nfe["forward"]
    assert again.nfe["A"] == pytest.approx(first.nfe["A"], rel=0.5)  # solves stop where they have converged


def test_parts_of_pc_beside_a_finished_sampler_are_refused():
    with pytest.raises(Refused, match="predictor, steps are parts of PC"):
        solve(PRIOR, likelihood(), sampler=PC(), predictor="heun", steps=3)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'pigdm'"):
        solve(PRIOR, likelihood(), guidance="pigd")


def test_a_result_file_gives_back_what_was_saved(tmp_path):
    result = solve(PRIOR, likelihood(), n=3, steps=5, seed=2)
    result.save(tmp_path / "r.h5")
    back = Result.load(tmp_path / "r.h5")
    assert torch.equal(back.samples, result.samples.float())
    assert torch.equal(back.measurement, result.measurement.float())
    assert (back.nfe, back.seed, back.config) == (result.nfe, 2, result.config)


def test_weights_weigh_the_mean_and_the_std():
    samples = torch.tensor([[0.0], [1.0], [5.0]])
    result = Result(samples, log_weights=torch.tensor([0.0, 0.0, -torch.inf]))
    assert result.mean.tolist() == [0.5]
    assert float(result.std) == pytest.approx((0.25 * 3 / 2) ** 0.5)


def test_a_file_that_is_no_result_is_refused(tmp_path):
    write_whole(tmp_path / "r.h5", b"something else")
    for name in ("r.h5", "none.h5"):
        with pytest.raises(InputError, match=name):
            Result.load(tmp_path / name)
