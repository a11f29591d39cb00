import pytest
import torch
from problems import SDES, gaussian_problem, generator, masking, measured, plane_mixture, random_matrix

from invsolve import operators
from invsolve.diagnostics import distance
from invsolve.errors import Refused
from invsolve.exact import GaussianPrior, MixturePrior, exact_posterior
from invsolve.guidance import DPS, ClassifierGuidance, Exact, MomentMatching, PiGDM
from invsolve.guidances.replace import Replace
from invsolve.likelihood import Classifier, Gaussian
from invsolve.linalg import dot, expand
from invsolve.posterior import Posterior
from invsolve.prior import Denoised, Prior
from invsolve.rng import Noise
from invsolve.samplers.pc import PC

LEVELS = [0.003, 0.05, 0.5, 5.0, 40.0]


def draws(posterior, sde, level, n=6):
    """x_t of draws from an exact posterior."""
    t = sde.time(level)
    x0 = posterior.sample(n, 1)
    return float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * torch.randn(
        x0.shape, generator=generator(), dtype=x0.dtype
    ), t


def guide(guidance, prior, likelihood, sde, x, t):
    return guidance(Denoised(prior, sde, x, t, graph=True), likelihood)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_exact_is_the_gradient_of_the_true_log_likelihood(sde, level):
    prior = plane_mixture()
    likelihood = measured(prior, operators.matrix(torch.tensor([[1.0, 0.6]], dtype=torch.float64)), 0.2)
    x, t = draws(exact_posterior(prior, likelihood), sde, level)
    joint = exact_posterior(prior, likelihood)
    live = x.clone().requires_grad_(True)
    xh, s = live / float(sde.alpha(t)), sde.ratio(t).expand(len(x))
    slope = torch.autograd.grad((joint.log_prob(xh, s) - prior.log_prob(xh, s)).sum(), live)[0]  # Bayes
    torch.testing.assert_close(guide(Exact(), prior, likelihood, sde, x, t), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("kind", ["inpaint", "blur", "matrix"])
def test_moment_matching_is_exact_for_gaussian_priors(kind, sde, level):
    prior, likelihood, posterior = gaussian_problem(kind, 6)
    x, t = draws(posterior, sde, level)
    matched = guide(MomentMatching(cg_steps=100, tolerance=1e-9, patience=100), prior, likelihood, sde, x, t)
    torch.testing.assert_close(matched, guide(Exact(), prior, likelihood, sde, x, t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_pigdm_is_exact_for_white_priors(sde):
    prior = GaussianPrior(torch.linspace(-1, 1, 16, dtype=torch.float64), 0.3)
    likelihood = measured(prior, random_matrix(4, 5), 0.1)
    for level in LEVELS:
        x, t = draws(exact_posterior(prior, likelihood), sde, level)
        exact = guide(Exact(), prior, likelihood, sde, x, t)
        torch.testing.assert_close(
            guide(PiGDM(data_variance=0.3), prior, likelihood, sde, x, t), exact, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_dps_steps_down_the_norm_of_each_row(sde):
    prior, likelihood, posterior = gaussian_problem("matrix", 4)
    x, t = draws(posterior, sde, 0.5)
    live = x.clone().requires_grad_(True)
    mean = prior.denoise(live / float(sde.alpha(t)), sde.ratio(t).expand(len(x)))
    r = likelihood.residual(mean)
    slope = torch.autograd.grad(dot(r, r).sqrt().sum(), live)[0]
    zeta = 1e-5  # small enough to stay short of the minimiser in every SDE
    rate = 1000 * zeta / float(sde.g(t)) ** 2
    torch.testing.assert_close(
        guide(DPS(zeta), prior, likelihood, sde, x, t), -rate * slope, rtol=1e-8, atol=1e-8
    )


def test_dps_never_goes_beyond_the_least_residual_along_its_direction():
    prior, likelihood, posterior = gaussian_problem("matrix", 4)
    x, t = draws(posterior, SDES[0], 0.5)
    at = Denoised(prior, SDES[0], x, t, graph=True)
    shift = expand(at.sigma**2 / at.alpha, x) * DPS(zeta=1e6)(at, likelihood)
    sizes = [likelihood.residual(at.mean + share * shift).norm(dim=1) for share in (0.99, 1.0, 1.01)]
    assert (sizes[1] <= sizes[0]).all()
    assert (sizes[1] <= sizes[2]).all()


class Perturbed(Prior):
    """A Gaussian prior's denoiser with a random, asymmetric error in its Jacobian, the share of |J| given."""

    def __init__(self, exact, share):
        super().__init__()
        self.exact, self.share, self.shape = exact, share, exact.shape
        d = exact.means.shape[1]
        self.error = torch.randn(d, d, generator=generator(9), dtype=torch.float64) / d**0.5

    @property
    def dtype(self):
        return self.exact.dtype

    def denoise(self, x, sigma):
        off = x.flatten(1) - self.exact.means
        size = self.share * (self.exact.spectra / (self.exact.spectra + expand(sigma**2, off))).mean(1)
        return self.exact.denoise(x, sigma) + (expand(size, off) * (off @ self.error)).reshape(x.shape)


@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("kind", ["inpaint", "blur", "matrix"])
def test_an_error_in_the_jacobian_leaves_moment_matching_bounded(kind, share):
    prior, likelihood, posterior = gaussian_problem(kind, 8)
    wrong = Perturbed(prior, share)
    for level in torch.logspace(-2.6, 1.6, 12).tolist():
        x, t = draws(posterior, SDES[0], level)
        exact = guide(Exact(), prior, likelihood, SDES[0], x, t)
        off = guide(MomentMatching(cg_steps=50), wrong, likelihood, SDES[0], x, t)
        shift = level**2 * (off - exact).flatten(1).norm(dim=1)  # what it moves E[x_0 | x_t, y] by
        assert float(shift.max()) < 8.0  # the norm of a draw itself; plain CG reaches 1e4 and more


def ill_conditioned(d):
    """A (d, d) matrix whose singular values fall from 1 to 1e-4."""
    each = [torch.randn(d, d, generator=generator(k), dtype=torch.float64) for k in (1, 2)]
    u, v = (torch.linalg.qr(square)[0] for square in each)
    return u @ torch.diag(torch.logspace(0, -4, d, dtype=torch.float64)) @ v.mT


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_by_default_moment_matching_leaves_no_small_singular_value_to_the_prior(dtype, level):
    prior = GaussianPrior(torch.linspace(0, 1, 40, dtype=dtype), torch.linspace(0.02, 0.4, 40))
    likelihood = measured(prior, operators.matrix(ill_conditioned(40).to(dtype)), 1e-3)
    posterior = exact_posterior(prior, likelihood)
    x, t = draws(posterior, SDES[0], level)
    off = guide(MomentMatching(), prior, likelihood, SDES[0], x, t)
    off = level**2 * (off - guide(Exact(), prior, likelihood, SDES[0], x, t)).double()
    rooted = posterior.spectra.double().rsqrt() * (off @ posterior.bases[0].double())
    assert float(rooted.square().mean().sqrt()) < 0.5  # posterior sds; patience leaves 2 to 5


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_sampling_with_a_wrong_jacobian_stays_near_the_posterior(share):
    prior, likelihood, exact = gaussian_problem("blur", 8)
    samples = PC(steps=50)(Posterior(Perturbed(prior, share), likelihood), 200, 0)
    found = distance(samples, exact)
    assert found.mean_error < 0.1 + 13 * share  # measured 0.07, 0.15, 0.64 at shares 0, 1 %, 5 %
    assert 0.95 < found.sd_ratio < 1.05 + 2 * share  # measured 1.03, 1.03, 1.09; sd of the floor 0.01


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_replace_puts_the_measurement_at_the_level_reached(sde):
    prior = GaussianPrior(torch.zeros(1, 4, 4, dtype=torch.float64), 1.0)
    likelihood = Gaussian(torch.ones(1, 16, dtype=torch.float64), masking(4, 2.0), 0.1)  # everything is seen
    posterior = Posterior(prior, likelihood, sde=sde, guidance=Replace())
    t = sde.time(2.0)
    x = posterior.project(
        torch.zeros(4000, 1, 4, 4, dtype=torch.float64), t, Noise(0, "", 4000, (1, 4, 4), dtype=torch.float64)
    )
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    error = 5 / 64000**0.5  # five standard errors of 64,000 numbers
    assert float(x.mean()) == pytest.approx(alpha, abs=error * sigma)
    assert float(x.var()) == pytest.approx(sigma**2 - alpha**2 * 0.01, rel=1.5 * error)


def test_replace_stops_where_the_measurement_is_noisier_than_the_level():
    prior, likelihood, _ = gaussian_problem("inpaint", 4)
    posterior = Posterior(prior, likelihood, guidance=Replace())
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    noise = Noise(0, "", 2, (1, 4, 4), dtype=torch.float64)
    assert torch.equal(posterior.project(x, posterior.sde.time(0.04), noise), x)
    assert not torch.equal(posterior.project(x, posterior.sde.time(0.06), noise), x)


def test_replace_refuses_an_operator_that_mixes_pixels():
    prior, likelihood, _ = gaussian_problem("blur", 4)
    posterior = Posterior(prior, likelihood, guidance=Replace())
    with pytest.raises(Refused, match="orthogonal rows"):
        posterior.project(torch.zeros(1, 1, 4, 4, dtype=torch.float64), posterior.sde.time(1.0), None)


@pytest.mark.parametrize(
    "guidance", [Exact(), MomentMatching(), PiGDM(), DPS(), Replace()], ids=lambda g: type(g).__name__
)
def test_guidance_that_needs_an_operator_says_so(guidance):
    prior = plane_mixture()
    posterior = Posterior(prior, Classifier(torch.nn.Identity()), guidance=guidance)
    with pytest.raises(Refused, match="operator"):
        PC(steps=2)(posterior, 1, 0)


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_an_exact_classifier_gives_the_posterior_of_its_class(sde):
    """The classifier p(k | x_t) of a mixture turns the mixture's score into component k's."""
    prior = plane_mixture()

    class Responsibility(torch.nn.Module):
        def forward(self, x, sigma):
            return prior._log_joint(*prior._coordinates(x, sigma)).T

    alone = MixturePrior(prior.means[2:3], torch.ones(1), 0.04)
    posterior = Posterior(prior, Classifier(Responsibility(), 2), sde=sde, guidance=ClassifierGuidance())
    x = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    for level in LEVELS:
        t = sde.time(level)
        torch.testing.assert_close(
            posterior.score(x, t), Posterior(alone, sde=sde).score(x, t), rtol=1e-5, atol=1e-6
        )


def test_gamma_scales_the_guidance_alone():
    prior, likelihood, posterior = gaussian_problem("matrix", 4)
    x, t = draws(posterior, SDES[1], 0.5)
    scores = [Posterior(prior, likelihood, sde=SDES[1], gamma=g).score(x, t) for g in (0.0, 1.0, 3.0)]
    torch.testing.assert_close(scores[0], Posterior(prior, sde=SDES[1]).score(x, t))
    torch.testing.assert_close(scores[2] - scores[0], 3 * (scores[1] - scores[0]))


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_one_evaluation_holds_the_score_and_the_mean(sde):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    posterior, t = Posterior(prior, likelihood, sde=sde, gamma=1.5), sde.time(0.4)
    x = torch.randn(3, *prior.shape, generator=generator(), dtype=torch.float64)
    found = posterior.evaluate(x, t)
    torch.testing.assert_close(found.score, posterior.score(x, t))
    torch.testing.assert_close(found.mean, posterior.mean(x, t))
