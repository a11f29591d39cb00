"""The published guidances: each equation where it can be worked out by hand, and where each is exact."""

import pytest
import torch
from problems import (
    SDES,
    gaussian_problem,
    generator,
    masking,
    measured,
    random_matrix,
)

from invsolve import operators
from invsolve.exact import GaussianPrior, exact_posterior
from invsolve.guidance import Exact, MomentMatching, PiGDM
from invsolve.guidances import DDNM, DDRM, ILVR, TMPD, DDNMPlus, DiffPIR, ScoreALD
from invsolve.guidances.replace import Replace
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.rng import Noise
from invsolve.samplers.pc import PC
from invsolve.sde import VE, VP

LEVELS = [0.003, 0.05, 0.5, 5.0, 40.0]
FLAT = 1e6  # variance beside which 5^2, the highest noise of its tests, is 3e-5
ALL = [TMPD(), ScoreALD(), ILVR(), DDNM(), DDNMPlus(), DiffPIR(), DDRM()]
SPECTRAL = [ILVR(), DDNMPlus(), DDRM()]


def name(guidance):
    return type(guidance).__name__


def evaluated(prior, sde, level, n=6, x0=None):
    """The prior at x_t of its own draws, or of x0, at that noise level."""
    t = sde.time(level)
    x0 = prior.sample(n, 1) if x0 is None else x0
    noise = torch.randn(x0.shape, generator=generator(), dtype=x0.dtype)
    return Denoised(prior, sde, float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * noise, t, graph=True)


def shift(guidance, at, likelihood):
    """What the guidance moves E[x_0 | x_t] by."""
    return guidance(at, likelihood) * float(at.sigma[0] ** 2 / at.alpha[0])


def white_problem(sigma_y=0.1, variance=0.3, m=5):
    prior = GaussianPrior(torch.linspace(-1, 1, 16, dtype=torch.float64), variance)
    return prior, measured(prior, random_matrix(4, m), sigma_y)


class AdjointOnly:
    """An operator that hides its decomposition."""

    name, shape = "hidden", (1, 4, 4)

    def __init__(self, operator):
        self.A, self.A_adjoint = operator.A, operator.A_adjoint


# ---- TMPD


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_tmpd_is_exact_for_independent_pixels_through_a_mask(sde, level):
    variances = torch.rand(1, 6, 6, generator=generator(), dtype=torch.float64) + 0.1
    prior = GaussianPrior(torch.ones(1, 6, 6, dtype=torch.float64), variances)
    likelihood = measured(prior, masking(6))
    at = evaluated(prior, sde, level)
    torch.testing.assert_close(TMPD()(at, likelihood), Exact()(at, likelihood), rtol=1e-8, atol=1e-8)
    matched = MomentMatching().log_twist(at, likelihood)
    torch.testing.assert_close(TMPD().log_twist(at, likelihood), matched, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("level", [0.5, 5.0, 40.0])
@pytest.mark.parametrize("kind", ["inpaint", "blur"])
def test_tmpd_is_the_published_term_where_no_covariance_is_negative(kind, level):
    prior, likelihood, _ = gaussian_problem(kind, 4)
    at = evaluated(prior, VP(), level)
    A, C = likelihood.operator.table, _conditional_covariance(prior, level)
    assert float((A @ C @ A.T).min()) > -1e-12
    u = likelihood.residual(at.mean) / (likelihood.sigma_y**2 + (A @ C @ A.T).sum(1))
    torch.testing.assert_close(shift(TMPD(), at, likelihood).flatten(1), u @ A @ C, rtol=1e-5, atol=1e-8)


def test_tmpd_never_goes_beyond_the_minimum_along_its_direction():
    """Random projections have row sums of either sign; uncut, the posterior is 1e5 of its size away."""
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    for level in LEVELS:
        at = evaluated(prior, VE(), level)
        A, C = likelihood.operator.table, _conditional_covariance(prior, level)
        moved = shift(TMPD(), at, likelihood).flatten(1)
        K, r = A @ C @ A.T + likelihood.sigma_y**2 * torch.eye(len(A)), likelihood.residual(at.mean)
        u = torch.linalg.lstsq((C @ A.T), moved.T).solution.T  # moved = C A^T u
        slope = (u * (u @ K - r)).sum(1)  # of u K u / 2 - u r, along u
        assert (slope <= 1e-6 * (u * r).sum(1).abs()).all()


def _conditional_covariance(prior, level):
    C = prior.covariance
    return C - C @ torch.linalg.solve(C + level**2 * torch.eye(len(C), dtype=C.dtype), C)


# ---- flat priors


NEAR = torch.randn(
    6, 16, generator=generator(2), dtype=torch.float64
)  # draws of the flat prior are 1e3 large


@pytest.mark.parametrize("level", LEVELS[:4])
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_score_ald_is_exact_for_a_flat_prior_and_orthogonal_rows(sde, level):
    rows = torch.linalg.qr(torch.randn(16, 5, generator=generator(), dtype=torch.float64))[0].T
    prior = GaussianPrior(torch.zeros(16, dtype=torch.float64), FLAT)
    for operator in (operators.matrix(2.5 * rows), AdjointOnly(operators.matrix(2.5 * rows))):
        operator.shape = (16,)
        likelihood = Gaussian(operator.A(torch.ones(1, 16, dtype=torch.float64)), operator, 0.1)
        at = evaluated(prior, sde, level, x0=NEAR)
        exact = Exact()(at, Gaussian(likelihood.y, operators.matrix(2.5 * rows), 0.1))
        torch.testing.assert_close(ScoreALD()(at, likelihood), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS[:4])
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_diffpir_is_exact_for_a_flat_prior(sde, level):
    prior = GaussianPrior(torch.zeros(16, dtype=torch.float64), FLAT)
    operator = random_matrix(4, 5)
    likelihood = Gaussian(operator.A(torch.ones(1, 16, dtype=torch.float64)), operator, 0.1)
    at = evaluated(prior, sde, level, x0=NEAR)
    torch.testing.assert_close(DiffPIR()(at, likelihood), Exact()(at, likelihood), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_diffpir_of_the_right_weight_is_pigdm_and_exact_for_white_priors(sde):
    prior, likelihood = white_problem(variance=0.3)
    for level in LEVELS:
        at = evaluated(prior, sde, level)
        found = DiffPIR(weight=1 + level**2 / 0.3)(at, likelihood)  # r^2 = s^2 v / (s^2 + v)
        torch.testing.assert_close(found, PiGDM(0.3)(at, likelihood), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found, Exact()(at, likelihood), rtol=1e-8, atol=1e-8)


def test_diffpir_solves_the_published_proximal_problem():
    prior, likelihood, _ = gaussian_problem("blur", 4)
    at, A, rho = evaluated(prior, VP(), 0.7), likelihood.operator.table, 7 * 0.05**2 / 0.7**2
    normal = A.T @ A + rho * torch.eye(16, dtype=torch.float64)
    proximal = torch.linalg.solve(normal, A.T @ likelihood.y[:, None] + rho * at.mean.flatten(1).T).T
    moved = at.mean.flatten(1) + shift(DiffPIR(weight=7.0), at, likelihood).flatten(1)
    torch.testing.assert_close(moved, proximal, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("guidance", [ScoreALD(spread=1.7), DiffPIR()], ids=name)
def test_the_twist_of_a_flat_prior_has_the_term_for_gradient(guidance):
    prior = GaussianPrior(torch.zeros(4, dtype=torch.float64), FLAT)
    operator = operators.matrix(torch.eye(4, dtype=torch.float64)[:2])
    likelihood = Gaussian(torch.ones(1, 2, dtype=torch.float64), operator, 0.1)
    sde, t, step = VP(), VP().time(0.5), 1e-5
    x = torch.randn(3, 4, generator=generator(), dtype=torch.float64)
    term = guidance(Denoised(prior, sde, x, t), likelihood)
    for i in range(4):
        off = step * torch.eye(4, dtype=torch.float64)[i]
        high, low = (guidance.log_twist(Denoised(prior, sde, v, t), likelihood) for v in (x + off, x - off))
        torch.testing.assert_close((high - low) / (2 * step), term[:, i], rtol=1e-5, atol=1e-5)


# ---- singular components


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("hidden", [False, True])
def test_ddnm_fits_the_measurement_and_leaves_the_null_space(hidden, sde, level):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    operator, A = likelihood.operator, likelihood.operator.table
    if hidden:
        likelihood = Gaussian(likelihood.y, AdjointOnly(operator), 0.05)
    at = evaluated(prior, sde, level)
    moved = shift(DDNM(), at, likelihood)
    left = likelihood.residual(at.mean + moved).norm(dim=1) / likelihood.residual(at.mean).norm(dim=1)
    assert float(left.max()) < (2e-3 if hidden else 1e-9)  # conjugate gradients stop at 1e-4 of A^T r
    null = moved.flatten(1) - moved.flatten(1) @ torch.linalg.pinv(A) @ A
    assert float(null.abs().max()) < 1e-9 * float(moved.abs().max() + 1)


@pytest.mark.parametrize("guidance", [DDNM(), DDNMPlus(), DDRM()], ids=name)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_without_noise_the_spectral_methods_are_exact_for_white_priors(guidance, sde):
    prior, likelihood = white_problem(sigma_y=1e-6)
    for level in LEVELS:
        at = evaluated(prior, sde, level)
        exact = shift(Exact(), at, likelihood)  # of gain 1 / (1 + sigma_y^2 / (r s)^2), and r s >= 1e-4
        torch.testing.assert_close(shift(guidance, at, likelihood), exact, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ddnm_samples_fit_the_measurement_to_rounding(sde):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    samples = PC(steps=10)(Posterior(prior, likelihood, sde=sde, guidance=DDNM()), 4, 0)
    assert float(likelihood.residual(samples).abs().max()) < 1e-9


SCALE = torch.tensor([2.0, 0.5, 0.01, 0.0], dtype=torch.float64)  # singular values, the last unmeasured


def diagonal_problem(sigma_y=0.05):
    prior = GaussianPrior(torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64), 0.5)
    return prior, measured(prior, operators.matrix(SCALE.diag()), sigma_y)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2, 10.0])
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ddnm_plus_takes_of_each_component_what_its_noise_allows(sde, level):
    prior, likelihood = diagonal_problem()
    at = evaluated(prior, sde, level)
    share = (level * SCALE / 0.05).clamp_max(1)  # equation 19
    wanted = share * (likelihood.y / SCALE - at.mean)
    wanted[:, 3] = 0
    torch.testing.assert_close(shift(DDNMPlus(), at, likelihood), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2, 10.0])
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ddrm_blends_each_component_as_published(sde, level):
    prior, likelihood = diagonal_problem()
    at = evaluated(prior, sde, level)
    fitted = (1 - 0.6**2) ** 0.5 * level * SCALE / 0.05
    share = torch.where(level * SCALE >= 0.05, 0.9, fitted)
    wanted = share * (likelihood.y / SCALE - at.mean)
    wanted[:, 3] = 0
    found = shift(DDRM(eta=0.6, eta_b=0.9), at, likelihood)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


# ---- ILVR


@pytest.mark.parametrize("level", [0.03, 0.06, 2.0])
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ilvr_is_replace_where_rows_are_orthogonal_and_of_one_length(sde, level):
    prior, likelihood, _ = gaussian_problem("inpaint", 4)
    noise = Noise(0, "", 3, (1, 4, 4), dtype=torch.float64)
    x = prior.sample(3, 0)
    one, other = (
        Posterior(prior, likelihood, sde=sde, guidance=g).project(x, sde.time(level), noise)
        for g in (ILVR(), Replace())
    )
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ilvr_puts_each_component_at_the_level_reached(sde):
    prior, likelihood = diagonal_problem(sigma_y=0.1)
    posterior, t, n = Posterior(prior, likelihood, sde=sde, guidance=ILVR()), sde.time(0.4), 20000
    x = torch.full((n, 4), 7.0, dtype=torch.float64)
    got = posterior.project(x, t, Noise(0, "", n, (4,), dtype=torch.float64))
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    spread = (sigma**2 - (alpha * 0.1 / SCALE[:2]) ** 2).sqrt()  # y has the rest of the noise already
    off = (got[:, :2].mean(0) - alpha * likelihood.y[:2] / SCALE[:2]) / spread
    assert float(off.abs().max()) < 5 / n**0.5
    assert float((got[:, :2].std(0) / spread - 1).abs().max()) < 5 / (2 * n) ** 0.5
    assert torch.equal(got[:, 2:], x[:, 2:])  # noisier than the level, and not measured at all


def test_ilvr_stops_at_the_level_it_is_told():
    prior, likelihood, _ = gaussian_problem("blur", 4)
    posterior = Posterior(prior, likelihood, guidance=ILVR(until=1.0))
    x, noise = prior.sample(2, 0), Noise(0, "", 2, (1, 4, 4), dtype=torch.float64)
    assert torch.equal(posterior.project(x, VE().time(0.9), noise), x)
    assert not torch.equal(posterior.project(x, VE().time(1.1), noise), x)


@pytest.mark.slow
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_ilvr_is_right_for_a_white_prior(sde):
    """As lambda falls to sigma_y / s, a component of x_t becomes that of y itself, which is such an x_t."""
    prior, likelihood = white_problem()
    exact = exact_posterior(prior, likelihood)
    samples = PC(steps=200)(Posterior(prior, likelihood, sde=sde, guidance=ILVR()), 4000, 0)
    z = torch.linalg.solve_triangular(
        torch.linalg.cholesky(exact.covariance.double()), (samples - exact.mean).T, upper=False
    ).T
    assert float(z.mean(0).abs().max()) < 5 / 4000**0.5
    assert (
        float((z.std(0) - 1).abs().max()) < 5 / 8000**0.5 + 0.05
    )  # 0.05: the grid meets no threshold exactly
