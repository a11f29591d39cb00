"""What daps, pnp-dm, red-diff and enkg share: rows apart, NaN named, black boxes; and the last two alone."""

from dataclasses import replace

import pytest
import torch
from problems import SDES, gaussian_problem, plane_mixture

from invsolve import operators
from invsolve.diagnostics import distance, floor
from invsolve.errors import CheckFailed, Divergence, InputError, Refused
from invsolve.exact import GaussianPrior, exact_posterior
from invsolve.guidance import DPS, Exact, MomentMatching, PiGDM
from invsolve.guidances.replace import Replace
from invsolve.likelihood import Gaussian, Poisson
from invsolve.operators.interface import picture
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.run.parts import Parts
from invsolve.samplers.daps import DAPS
from invsolve.samplers.enkg import EnKG
from invsolve.samplers.pc import PC
from invsolve.samplers.pnp_dm import PnPDM
from invsolve.samplers.red_diff import REDDiff
from invsolve.testing.sampler import SamplerCase, has_the_spread_of_the_posterior

SMALL = [
    DAPS(steps=4),
    DAPS(steps=4, centre="ode", width="sigma", inner="langevin", inner_steps=3),
    PnPDM(steps=4, prior_steps=3),
    REDDiff(steps=6),
    EnKG(steps=3, particles=5, prior_steps=2),
]
each = pytest.mark.parametrize("sampler", SMALL, ids=lambda s: type(s).__name__)


@each
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_a_sample_depends_on_its_index_alone(sampler, sde):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    posterior = Posterior(prior, likelihood, sde=sde)
    whole = sampler(posterior, 12, 0)
    for first, n in ((2, 2), (0, 1), (4, 7), (11, 1)):
        torch.testing.assert_close(sampler(posterior, n, 0, first=first), whole[first : first + n])
    assert not torch.equal(sampler(posterior, 12, 1), whole)
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 12


@each
def test_micro_batches_change_nothing_but_rounding(sampler):
    prior, likelihood, _ = gaussian_problem("blur", 8)
    posterior = Posterior(prior, likelihood)
    torch.testing.assert_close(
        replace(sampler, batch=3)(posterior, 7, 0), sampler(posterior, 7, 0), rtol=1e-8, atol=1e-8
    )


@each
def test_the_last_step_of_the_walk_is_the_samples(sampler):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    steps = list(sampler.walk(Posterior(prior, likelihood), 3, 0, first=1))
    assert torch.equal(steps[-1].x, sampler(Posterior(prior, likelihood), 3, 0, first=1))
    assert [step.i for step in steps] == list(range(1, len(steps) + 1))


@each
def test_float32_stays_float32(sampler):
    prior = GaussianPrior(torch.full((4,), 0.3), 0.1)
    likelihood = Gaussian(torch.ones(1, dtype=torch.float64), _Sum(), 0.1)
    assert sampler(Posterior(prior, likelihood), 2, 0).dtype == torch.float32


@each
def test_nan_is_named(sampler):
    class Broken(Prior):
        shape = (16,)

        def denoise(self, x, sigma):
            return torch.where(sigma[:, None] < 1.0, torch.nan, 0.5 * x)

    _, likelihood, _ = gaussian_problem("matrix", 4)
    with pytest.raises(Divergence, match="the prior's mean became NaN"):
        sampler(Posterior(Broken(), likelihood), 2, 0)


@each
def test_an_operator_that_overflows_is_named(sampler):
    class Overflowing:
        shape = (4,)

        def A(self, x):
            return 1e300 * (x + 2.0) ** 9

    prior = GaussianPrior(torch.ones(4, dtype=torch.float64), 1.0)
    likelihood = Gaussian(torch.zeros(4, dtype=torch.float64), Overflowing(), 1e-9)
    with pytest.raises(Divergence, match="became NaN or infinite at noise level"):
        sampler(Posterior(prior, likelihood), 2, 0)


@each
def test_guidance_that_projects_is_refused(sampler):
    prior, likelihood, _ = gaussian_problem("inpaint", 4)
    with pytest.raises(Refused, match="uses no guidance"):
        sampler(Posterior(prior, likelihood, guidance=Replace()), 1, 0)
    with pytest.raises(InputError, match="n must be"):
        sampler(Posterior(prior, likelihood), 0, 0)


@each
def test_without_a_likelihood_samples_are_finite_and_gamma_0_is_the_same(sampler):
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    ignoring = Posterior(prior, likelihood, gamma=0.0)
    assert torch.isfinite(sampler(Posterior(prior), 2, 0)).all()
    assert torch.isfinite(sampler(ignoring, 2, 0)).all()
    assert likelihood.calls["At"] == 0


# ---- black boxes


class _Sum:
    """A black box that torch can differentiate."""

    name, shape = "sum", (4,)

    def A(self, x):
        return x.sum(1, keepdim=True)


class _Sealed(_Sum):
    """A black box that it cannot."""

    name = "sealed"

    def A(self, x):
        return torch.from_numpy(x.detach().numpy().sum(1, keepdims=True))


class _Bent:
    """Not linear, and one to one."""

    name, shape = "bent", (2,)

    def A(self, x):
        return x + 0.3 * x**3


def bent_problem():
    """A Gaussian of the plane behind a cubic, and mean and sd of the posterior by quadrature."""
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    prior = GaussianPrior(mean, torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64))
    likelihood = Gaussian(_Bent().A(prior.sample(1, 4))[0] + torch.tensor([0.15, -0.3]), _Bent(), 0.3)
    nodes = torch.cartesian_prod(*[torch.linspace(-4, 4, 401, dtype=torch.float64)] * 2)
    weights = (prior.log_prob(nodes) + likelihood.log_prob(nodes)).softmax(0)
    at = weights @ nodes
    return prior, likelihood, at, (weights @ (nodes - at) ** 2).sqrt()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "far", "wide"),
    [
        (EnKG(steps=30), 0.1, 0.08),  # measured 0.02 sd and 1.00
        (DAPS(steps=40, inner_steps=50), 0.2, 0.15),  # measured 0.03 sd and 1.08: r^2 is the mean of two
        (PnPDM(steps=40, inner_steps=50), 0.3, 0.15),  # measured 0.09 sd and 1.08
    ],
    ids=["enkg", "daps", "pnp-dm"],
)
def test_a_nonlinear_operator_without_transpose_is_sampled(sampler, far, wide):
    prior, likelihood, mean, sd = bent_problem()
    n = 512
    samples = sampler(Posterior(prior, likelihood), n, 0)
    assert float(((prior.mean - mean) / sd).abs().min()) > 2  # what there is to be learned
    assert float(((samples.mean(0) - mean) / sd).abs().max()) < far + 4 / n**0.5
    assert float((samples.std(0) / sd - 1).abs().max()) < wide + 4 / (2 * n) ** 0.5


def test_red_diff_finds_the_peak_behind_a_nonlinear_operator():
    prior, likelihood, _, sd = bent_problem()
    found = REDDiff()(Posterior(prior, likelihood), 2, 0)
    x = found.clone().requires_grad_(True)
    slope = torch.autograd.grad((prior.log_prob(x) + likelihood.log_prob(x)).sum(), x)[0]
    assert float((slope * sd).abs().max()) < 0.05  # of one nat a posterior sd


def test_only_enkg_takes_a_black_box_that_cannot_be_differentiated():
    prior = GaussianPrior(torch.zeros(4, dtype=torch.float64), 1.0)
    likelihood = Gaussian(torch.ones(1, dtype=torch.float64), _Sealed(), 0.1)
    for sampler in SMALL[:4]:
        with pytest.raises(Refused, match="take sampler enkg"):
            sampler(Posterior(prior, likelihood), 1, 0)
    assert torch.isfinite(SMALL[4](Posterior(prior, likelihood), 2, 0)).all()


@pytest.mark.parametrize("guidance", [MomentMatching(), PiGDM(), DPS(), Exact(), Replace()], ids=str)
def test_guidances_refuse_a_black_box_and_name_what_takes_it(guidance):
    prior = GaussianPrior(torch.zeros(4), 1.0)
    posterior = Posterior(prior, Gaussian(torch.ones(1), _Sealed(), 0.1), guidance=guidance)
    with pytest.raises(Refused, match="sealed is a black box, without an A_adjoint: take sampler enkg"):
        PC(steps=2)(posterior, 1, 0)


def test_inner_exact_needs_a_transpose():
    prior = GaussianPrior(torch.zeros(4), 1.0)
    with pytest.raises(Refused, match="inner exact"):
        DAPS(steps=2, inner="exact")(Posterior(prior, Gaussian(torch.ones(1), _Sealed(), 0.1)), 1, 0)


# ---- RED-diff and EnKG on their own


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize(("kind", "side"), [("matrix", 4), ("inpaint", 8), ("blur", 8)])
def test_red_diff_is_the_mean_of_a_gaussian_posterior_and_has_no_spread(kind, side, sde):
    """Peak and mean are one there; the walk ends at a noise level of 0.002."""
    prior, likelihood, exact = gaussian_problem(kind, side)
    points = REDDiff()(Posterior(prior, likelihood, sde=sde), 4, 0)
    sd = exact.covariance.diagonal().sqrt().reshape(exact.mean.shape)
    assert float(((points - exact.mean) / sd).square().mean().sqrt()) < 0.05  # measured 0.00 to 0.02
    assert float((points.std(0) / sd).max()) < 0.02
    assert REDDiff.point_estimate
    assert "no uncertainty" in REDDiff().notes()[0]


def test_red_diff_with_the_papers_weight_fits_the_noise():
    prior, likelihood, exact = gaussian_problem("blur", 8)
    found = REDDiff(weight=0.25, steps=200)(Posterior(prior, likelihood), 2, 0)
    misfit = [float((likelihood.residual(x) / 0.05).square().mean()) for x in (found, exact.mean[None])]
    assert misfit[0] < 0.5 * misfit[1]  # measured 0.10 and 0.32, chi2 of the mean itself


def test_red_diff_ends_on_the_peaks_of_a_mixture():
    prior = plane_mixture()
    likelihood = Gaussian(torch.tensor([0.8]), operators.matrix(torch.tensor([[1.0, 0.3]])), 0.4)
    exact = exact_posterior(prior, likelihood)
    points = REDDiff()(Posterior(prior, likelihood), 20, 0)
    score = exact.score(points, torch.full((20,), 0.002, dtype=torch.float64))
    slope = 0.2 * score.norm(dim=1)  # nats a standard deviation of a component
    assert float(slope.median()) < 0.05  # measured 0.01
    assert float(slope.max()) < 1  # measured 0.5: the restarts that chose their mode last


@pytest.mark.slow
@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize(("kind", "side"), [("matrix", 4), ("inpaint", 8)])
def test_enkg_reaches_a_gaussian_posterior_by_evaluating_a_alone(kind, side, sde):
    prior, likelihood, exact = gaussian_problem(kind, side)
    found = distance(EnKG()(Posterior(prior, likelihood, sde=sde), 512, 0), exact)
    floors = floor(exact, 512, repeats=8)
    assert found.mean_error < max(f.mean_error for f in floors) + 0.06  # measured 0.02 above the floor
    assert 0.95 < found.sd_ratio < 1.04  # measured 0.98 to 1.00
    assert likelihood.calls["At"] == 0
    assert likelihood.calls["A"] == 2 * 51 * 512


def test_enkg_with_fewer_particles_than_measurements_is_off_by_a_known_band():
    prior, likelihood, exact = gaussian_problem("blur", 8)  # 64 measured entries
    found = distance(EnKG(particles=16)(Posterior(prior, likelihood), 512, 0), exact)
    assert 0.2 < found.mean_error < 0.45  # measured 0.31


def test_enkg_refuses_other_noise():
    counts = Poisson(torch.ones(1), _Sum())
    with pytest.raises(Refused, match="enkg needs a measurement with Gaussian noise, not Poisson"):
        EnKG()(Posterior(GaussianPrior(torch.ones(4), 0.1), counts), 1, 0)


def test_noise_on_the_measurement_has_the_variance_of_the_likelihood():
    """sigma_y of each entry counts; after few levels a measurement without noise is 0.7 times too narrow."""
    prior = GaussianPrior(torch.zeros(2, dtype=torch.float64), 1.0)

    class Same:
        shape = (2,)

        def A(self, x):
            return x

    sigma = torch.tensor([0.1, 1.0], dtype=torch.float64)
    likelihood = Gaussian(torch.tensor([0.5, 0.5], dtype=torch.float64), Same(), sigma)
    samples = EnKG(steps=4, prior_steps=8)(Posterior(prior, likelihood), 512, 0)
    true = (sigma**2 / (1 + sigma**2)).sqrt()
    assert float((samples.std(0) / true - 1).abs().max()) < 0.06 + 4 / 1024**0.5


# ---- what users are told


def test_a_measurement_of_a_black_box_is_shown_by_its_own_picture():
    class Pictured(_Sum):
        def picture(self, y):
            return 2 * y

    assert torch.equal(picture(Pictured(), torch.ones(1, 1)), torch.full((1, 1), 2.0))
    with pytest.raises(InputError, match="neither picture"):
        picture(_Sum(), torch.ones(1, 1))


class _Pretender(DAPS):
    point_estimate = True


def test_the_kit_holds_a_point_estimate_to_its_word():
    with pytest.raises(CheckFailed, match="a point estimate, but its points are"):
        has_the_spread_of_the_posterior(SamplerCase(_Pretender(steps=5)))
    assert "a point estimate: 0.0" in has_the_spread_of_the_posterior(SamplerCase(REDDiff()))


def test_a_run_says_which_guidance_it_leaves_out():
    prior, likelihood, _ = gaussian_problem("matrix", 4)
    for guidance, said in (
        (DPS(), ["the sampler uses no guidance: DPS is left out"]),
        (MomentMatching(), []),
    ):
        posterior = Posterior(prior, likelihood, guidance=guidance)
        made = Parts(posterior, likelihood, DAPS(), 100, torch.ones(8, dtype=torch.bool), {}, "")
        assert made.notes() == said
