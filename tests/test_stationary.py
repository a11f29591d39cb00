import pytest
import torch
from problems import generator

from invsolve import operators
from invsolve.exact import GaussianPrior, exact_posterior
from invsolve.guidance import Exact, MomentMatching
from invsolve.likelihood import Gaussian
from invsolve.prior import Denoised
from invsolve.priors.stationary import COLOURS, StationaryCovariance
from invsolve.sde import VE, VP

SHAPE = (3, 6, 8)


def dense(surrogate, shape, level):
    """Its matrix at one noise level, column by column."""
    d = torch.Size(shape).numel()
    eye = torch.eye(d, dtype=torch.float64).reshape(d, *shape)
    return surrogate.covariance(eye, torch.full((d,), level, dtype=torch.float64)).reshape(d, d)


def test_it_is_the_covariance_of_a_stationary_gaussian_after_noise():
    surrogate = StationaryCovariance(0.1)
    clean = dense(surrogate, SHAPE, 1e6)  # so much noise that nothing is known beyond the prior itself
    known = clean @ torch.linalg.inv(clean + 0.09 * torch.eye(len(clean))) * 0.09
    torch.testing.assert_close(dense(surrogate, SHAPE, 0.3), known, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(clean, clean.T)
    assert float(torch.linalg.eigvalsh(clean).min()) > 0


def test_its_colours_have_the_measured_covariance():
    clean = dense(StationaryCovariance(0.1), (3, 1, 1), 1e9)
    torch.testing.assert_close(
        clean / clean[0, 0], torch.tensor(COLOURS, dtype=torch.float64) / COLOURS[0][0], rtol=1e-6, atol=0
    )


def test_grey_is_the_mean_of_the_colours():
    colour, grey = StationaryCovariance(0.1), StationaryCovariance(0.1, channels=1)
    d = 48
    mean = torch.eye(d, dtype=torch.float64).repeat(1, 3) / 3
    of_mean = mean @ dense(colour, SHAPE, 1e9) @ mean.T
    torch.testing.assert_close(dense(grey, (1, 6, 8), 1e9), of_mean, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("sde", [VE(), VP()], ids=str)
@pytest.mark.parametrize("level", [0.2, 1.0, 20.0])
def test_moment_matching_through_it_is_exact_where_it_is_the_truth(sde, level):
    surrogate = StationaryCovariance(0.1)
    prior = GaussianPrior(torch.full(SHAPE, 0.5, dtype=torch.float64), dense(surrogate, SHAPE, 1e9))
    operator = operators.matrix(torch.randn(30, 144, generator=generator(), dtype=torch.float64) / 12)
    likelihood = Gaussian(prior.sample(1, 1).flatten(1) @ operator.table.T, operator, 0.1)
    prior.surrogate = surrogate
    t = sde.time(level)
    x = float(sde.alpha(t)) * exact_posterior(prior, likelihood).sample(3, 2)
    x = x + float(sde.sigma(t)) * torch.randn(x.shape, generator=generator(), dtype=x.dtype)
    at = Denoised(prior, sde, x, t, graph=True)
    through = MomentMatching(cg_steps=200, tolerance=1e-10)(at, likelihood)
    torch.testing.assert_close(through, Exact()(at, likelihood), rtol=1e-4, atol=1e-6)
    assert at.calls["vjp"] == 0


def test_it_serves_only_the_rows_beyond_its_level():
    prior = GaussianPrior(torch.full(SHAPE, 0.5, dtype=torch.float64), 0.3)
    prior.surrogate = StationaryCovariance(0.5)
    x, v = torch.randn(2, 2, *SHAPE, generator=generator(), dtype=torch.float64)
    at = Denoised(prior, VE(), x, VE().time(torch.tensor([0.1, 2.0])), graph=True)
    mixed = at.covariance(v)
    torch.testing.assert_close(mixed[0], v[0] * 0.3 * 0.01 / 0.31)
    torch.testing.assert_close(mixed[1:], prior.surrogate.covariance(v[1:], at.level[1:]))
