from functools import partial

import pytest
import torch
from problems import generator

from invsolve import operators
from invsolve.exact import GaussianPrior, exact_posterior
from invsolve.guidance import Exact, MomentMatching, PiGDM
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.priors.stationary import COLOURS, StationaryCovariance
from invsolve.sde import VE, VP

SHAPE = (3, 6, 8)


def dense(surrogate, shape, level):
    """Its matrix at one noise level, column by column."""
    d = torch.Size(shape).numel()
    eye = torch.eye(d, dtype=torch.float64).reshape(d, *shape)
    ones = torch.ones(d, dtype=torch.float64)
    return surrogate.covariance(eye, level * ones, ones).reshape(d, d)


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
    assert at.calls["vjp"] == (3 if level <= 2 else 0)  # one probe a row, for its amplitude


def test_it_serves_only_the_rows_beyond_its_level():
    prior = GaussianPrior(torch.full(SHAPE, 0.5, dtype=torch.float64), 0.3)
    prior.surrogate = surrogate = StationaryCovariance(0.5)
    x, v = torch.randn(2, 2, *SHAPE, generator=generator(), dtype=torch.float64)
    at = Denoised(prior, VE(), x, VE().time(torch.tensor([0.1, 2.0])), graph=True)
    mixed = at.covariance(v)
    torch.testing.assert_close(mixed[0], v[0] * 0.3 * 0.01 / 0.31)
    torch.testing.assert_close(mixed[1:], surrogate.covariance(v[1:], at.level[1:], at.amplitude[1:]))


def test_rows_of_different_noise_levels_and_sizes_are_those_of_each_alone():
    surrogate, level = StationaryCovariance(0.1), torch.tensor([0.2, 3.0], dtype=torch.float64)
    v = torch.randn(2, *SHAPE, generator=generator(), dtype=torch.float64)
    of = torch.tensor([0.1, 1.0], dtype=torch.float64)
    alone = [surrogate.covariance(v[i : i + 1], level[i : i + 1], of[i : i + 1]) for i in range(2)]
    together = surrogate.covariance(v, level, of)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-14)
    sizes = surrogate.amplitude(together.flatten(1).square().mean(1), level, (6, 8))
    each = [
        surrogate.amplitude(a.square().mean()[None], level[i : i + 1], (6, 8)) for i, a in enumerate(alone)
    ]
    torch.testing.assert_close(sizes, torch.cat(each), rtol=1e-9, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("times", [0.01, 1.0, 30.0])
def test_its_size_is_that_of_the_prior_s_own_covariance(channels, size, times):
    """A stationary Gaussian of `times` the power: one probe tells its trace to the last digit."""
    shape, surrogate = (channels, *size), StationaryCovariance(0.1, channels)
    prior = GaussianPrior(torch.zeros(shape, dtype=torch.float64), times * dense(surrogate, shape, 1e9))
    prior.surrogate = surrogate
    x = torch.randn(2, *shape, generator=generator(), dtype=torch.float64)
    at = Denoised(prior, VE(), x, VE().time(torch.tensor([0.3, 1.9])), graph=True)
    torch.testing.assert_close(at.amplitude, torch.full((2,), times).double(), rtol=1e-3, atol=0)
    v = torch.randn(2, *shape, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(
        at.covariance(v), at.sigma[:, None, None, None] ** 2 * at.vjp(v), rtol=1e-3, atol=1e-5
    )


def test_a_trace_of_many_pixels_is_an_integral_over_frequencies():
    surrogate, level = StationaryCovariance(0.1), torch.full((1,), 0.5, dtype=torch.float64)
    whole = torch.zeros(1, 3, 256, 320, dtype=torch.float64)
    whole[:, :, 0, 0] = torch.eye(3, dtype=torch.float64)[0]
    one = torch.ones(1, dtype=torch.float64)
    colours = [torch.roll(whole, k, 1) for k in range(3)]
    mean = torch.stack(
        [surrogate.covariance(c, level, one)[0, k, 0, 0] for k, c in enumerate(colours)]
    ).mean()
    torch.testing.assert_close(surrogate.amplitude(mean[None], level, (256, 320)), one, rtol=0.01, atol=0)


@pytest.mark.parametrize("sde", [VE(), VP()], ids=str)
def test_at_high_noise_it_has_one_size_and_asks_for_no_derivative(sde):
    """There the trace of a learned derivative tells nothing of the picture, and may not even be positive."""
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=torch.float64), 9.0)
    prior.surrogate = StationaryCovariance(0.1)
    x = torch.zeros(2, *SHAPE, dtype=torch.float64)
    at = Denoised(prior, sde, x, sde.time(torch.tensor([2.1, 50.0])))
    assert at.amplitude.tolist() == [1.0, 1.0]
    assert not at.calls["vjp"]
    mixed = Denoised(prior, sde, x, sde.time(torch.tensor([1.9, 50.0])), graph=True).amplitude
    assert float(mixed[0]) > 2  # of a prior wider than photographs
    assert float(mixed[1]) == 1.0


@pytest.mark.parametrize(("variance", "bound"), [(-1.0, 1e-4), (0.0, 1e-4), (1e9, 1e3)])
def test_a_derivative_of_no_trace_or_too_much_leaves_a_size_within_bounds(variance, bound):
    asked, level = torch.tensor([variance]).double(), torch.ones(1, dtype=torch.float64)
    assert StationaryCovariance(0.1).amplitude(asked, level, (16, 16)).tolist() == [pytest.approx(bound)]


def test_a_trace_that_is_no_number_is_no_size():
    asked, level = torch.tensor([torch.nan]).double(), torch.ones(1, dtype=torch.float64)
    assert StationaryCovariance(0.1).amplitude(asked, level, (16, 16)).isnan().all()


def inpainting(guidance):
    """A posterior whose prior is Gaussian and has a true surrogate beyond 0.1."""
    surrogate, operator = StationaryCovariance(0.1), operators.inpaint(SHAPE, keep=0.5)
    prior = GaussianPrior(torch.full(SHAPE, 0.5, dtype=torch.float64), dense(surrogate, SHAPE, 1e9))
    likelihood = Gaussian(operator.A(prior.sample(1, 1)), operator, 0.02)
    prior.surrogate = surrogate
    return Posterior(prior, likelihood, guidance=guidance)


@pytest.mark.parametrize(
    ("guidance", "graphs"), [(MomentMatching(), (True, True, True, False)), (PiGDM(), (True,) * 4)]
)
def test_no_graph_is_kept_where_the_surrogate_serves_as_it_is(guidance, graphs):
    posterior = inpainting(guidance)
    x = torch.zeros(2, *SHAPE, dtype=torch.float64)
    levels = [[0.05, 0.05], [0.05, 5.0], [0.2, 5.0], [2.1, 5.0]]
    kept = [posterior.at(x, posterior.sde.time(torch.tensor(pair)))._mean.requires_grad for pair in levels]
    assert tuple(kept) == graphs


@pytest.mark.parametrize("level", [0.11, 0.5, 2.0, 20.0])
def test_its_solve_errs_by_a_small_share_of_the_noise(level):
    posterior = inpainting(MomentMatching())
    z = torch.randn(4, *SHAPE, generator=generator(), dtype=torch.float64)
    x, t = posterior.prior.sample(4, 2) + level * z, posterior.sde.time(level)
    exact = Posterior(posterior.prior, posterior.likelihood, guidance=Exact()).mean(x, t)
    off = (posterior.mean(x, t) - exact).square().mean().sqrt()
    assert float(off) < 0.1 * level  # then the law of x_t is off by 0.01 nats a pixel an e-fold at most


TELLING = {  # operators that tell their spectrum; those of the first line are diagonal in Fourier space
    "circular": partial(operators.deblur, std=0.8, border="circular"),
    "box": partial(operators.superres, factor=2, filter="box"),
    "replicate": partial(operators.deblur, std=0.8, border="replicate"),
    "bicubic": partial(operators.superres, factor=2, filter="bicubic"),
}


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("level", [0.2, 1.0])
def test_an_operator_that_tells_its_spectrum_is_solved_at_once(monkeypatch, name, level):
    made, shape, diagonal = [], (3, 16, 14), name in ("circular", "box")
    surrogate, operator = StationaryCovariance(0.1), TELLING[name](shape).double()
    prior = GaussianPrior(torch.full(shape, 0.5, dtype=torch.float64), dense(surrogate, shape, 1e9))
    likelihood = Gaussian(operator.A(prior.sample(1, 1)), operator, 0.05)
    prior.surrogate = surrogate
    z = torch.randn(2, *shape, generator=generator(), dtype=torch.float64)
    x, t = prior.sample(2, 2) + level * z, VE().time(level)
    exact = Posterior(prior, likelihood, guidance=Exact()).mean(x, t)
    real = surrogate.covariance
    monkeypatch.setattr(surrogate, "covariance", lambda *given: made.append(given) or real(*given))
    tight = Posterior(prior, likelihood, guidance=MomentMatching(tolerance=1e-4)).mean(x, t)
    assert float((tight - exact).square().mean().sqrt()) < 0.01 * level
    assert len(made) <= (1 if diagonal else 20)
    if diagonal:
        torch.testing.assert_close(tight, exact, rtol=1e-5, atol=1e-6)  # of a float32 table


def test_high_noise_takes_few_products(monkeypatch):
    made, posterior = [], inpainting(MomentMatching())
    real = posterior.prior.surrogate.covariance
    monkeypatch.setattr(
        posterior.prior.surrogate, "covariance", lambda *given: made.append(given) or real(*given)
    )
    posterior.mean(20.0 * torch.ones(1, *SHAPE, dtype=torch.float64), posterior.sde.time(20.0))
    assert len(made) == 1
