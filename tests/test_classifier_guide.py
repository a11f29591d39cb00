"""Ways to ask a classifier about a noisy image, against Gaussians where the answer is known."""

import math

import pytest
import torch

from invsolve.classifiers.formats import NoiseAware
from invsolve.classifiers.guide import AveragedClassifier, DenoisedClassifier, classifier, root_times
from invsolve.errors import InputError, UnknownName
from invsolve.exact import GaussianPrior, MixturePrior
from invsolve.gamma import Ramp, parse_gamma
from invsolve.guidance import ClassifierGuidance
from invsolve.likelihood import Classifier
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.samplers.pc import PC
from invsolve.sde import VE, VP, SubVP
from invsolve.testing import check_likelihood

D = 3
WIDTH = 0.5  # of the class below
AIM = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)


def generator():
    return torch.Generator().manual_seed(0)


def covariance():
    a = torch.randn(D, D, generator=generator(), dtype=torch.float64)
    return a @ a.T / 4 + 0.1 * torch.eye(D, dtype=torch.float64)


def gaussian():
    return GaussianPrior(torch.tensor([0.2, 0.0, -0.3], dtype=torch.float64), covariance())


def evaluated(level, sde, n=5):
    prior = gaussian()
    t = sde.time(level)
    x0 = prior.sample(n, 0)
    z = torch.randn(n, D, generator=generator(), dtype=torch.float64)
    return prior, Denoised(prior, sde, sde.alpha(t) * x0 + sde.sigma(t) * z, t, graph=True)


class Bump(torch.nn.Module):
    """Two classes of clean images; the second has p(1 | x) = exp(-|x - AIM|^2 / (2 WIDTH^2))."""

    def forward(self, x, sigma):
        assert (sigma == 0).all()
        log_p = -(x - AIM).square().sum(1) / (2 * WIDTH**2)
        return torch.stack([(-log_p.exp()).log1p(), log_p], 1)


def spread(level):
    """Cov[x_0 | x_t] at a noise level."""
    c = covariance()
    return c @ torch.linalg.inv(c + level**2 * torch.eye(D, dtype=torch.float64)) * level**2


@pytest.mark.parametrize("sde", [VE(), VP()], ids=str)
@pytest.mark.parametrize("level", [0.05, 0.5, 5.0])
def test_lanczos_finds_the_root_of_the_covariance(sde, level):
    _, at = evaluated(level, sde)
    n = torch.randn(5, D, generator=generator(), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(spread(level))
    expected = n @ (vectors * values.sqrt()) @ vectors.T
    torch.testing.assert_close(
        root_times(at, n, D), expected, rtol=1e-7, atol=1e-10
    )  # complete after D steps


def test_a_row_of_the_root_does_not_depend_on_its_neighbours():
    _, at = evaluated(0.5, VE())
    alone = Denoised(gaussian(), VE(), at.x[:1], at.t[:1], graph=True)
    n = torch.randn(5, D, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(root_times(at, n, 2)[:1], root_times(alone, n[:1], 2))


@pytest.mark.parametrize("level", [0.1, 1.0])
def test_the_average_over_the_covariance_is_p_of_the_class_given_x_t(level):
    _, at = evaluated(level, VE())
    wide = spread(level) + WIDTH**2 * torch.eye(D, dtype=torch.float64)
    off = at.mean - AIM
    shrink = math.log(WIDTH ** (2 * D)) - torch.linalg.slogdet(wide)[1]
    exact = shrink / 2 - torch.einsum("bi,ij,bj->b", off, torch.linalg.inv(wide), off) / 2
    probes = 400
    found = AveragedClassifier(Bump(), 1, probes=probes, rank=D).log_prob_at(at)
    assert (found - exact).abs().max() < 4 * 1.0 / probes**0.5  # a probe's p has a relative sd of at most 1
    sure = DenoisedClassifier(Bump(), 1).log_prob_at(at)
    assert (sure - exact).abs().max() > 3 * (found - exact).abs().max()


def test_a_sample_s_average_has_the_gradient_of_its_finite_difference():
    """The gradient leaves out how the spread moves with x_t: for a Gaussian prior it does not move."""
    prior, at = evaluated(0.5, VE())
    likelihood = AveragedClassifier(Bump(), 1, probes=4, rank=D)
    slope = at.gradient(likelihood.log_prob_at)
    step = 1e-5 * torch.eye(D, dtype=torch.float64)[0]
    ends = (likelihood.log_prob_at(Denoised(prior, VE(), at.x + h, at.t, graph=True)) for h in (step, -step))
    up, down = ends
    torch.testing.assert_close(slope[:, 0], (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_averaging_pays_one_vector_jacobian_product_a_lanczos_step_and_pair():
    _, at = evaluated(0.5, VE())
    at.calls.clear()
    at.gradient(AveragedClassifier(Bump(), 1, probes=6, rank=2).log_prob_at)
    assert at.calls["vjp"] == 5 * (3 * 2 + 1)


def test_a_noise_aware_classifier_takes_no_derivative_of_the_prior():
    class Linear(torch.nn.Module):
        def forward(self, x, sigma):
            return torch.stack([x.sum(1), -x.sum(1)], 1)

    _, at = evaluated(0.5, VE())
    at.calls.clear()
    slope = at.gradient(Classifier(Linear(), 0).log_prob_at)
    assert at.calls["vjp"] == 0
    # d/dx log softmax(u, -u)_0 = 2 (1 - p_0), u the sum of x
    expected = 2 * (1 - torch.sigmoid(2 * at.x.sum(1)))
    torch.testing.assert_close(slope, expected[:, None].expand(5, D))


@pytest.mark.parametrize(("probes", "rank"), [(3, 1), (0, 1), (2, 0)])
def test_probes_without_a_partner_are_refused(probes, rank):
    with pytest.raises(InputError, match="even"):
        AveragedClassifier(Bump(), 1, probes=probes, rank=rank)


def test_a_classifier_in_physical_units_rescales_image_and_noise():
    class Seen(torch.nn.Module):
        def forward(self, x, sigma):
            return torch.stack([x.flatten(1)[:, 0], sigma.to(x)], 1)

    net = NoiseAware(Seen(), 2, 0.01, 40.0)
    logits = net(torch.tensor([[0.75], [0.0]]), torch.tensor([0.0, 3.0]))
    torch.testing.assert_close(logits, torch.tensor([[0.5, 0.02], [-1.0, 6.0]]))


def test_a_classifier_tells_the_class_of_clean_images():
    log_p = Classifier(Bump(), 1).log_classes(torch.stack([AIM + 0.1, AIM + 9]))
    assert log_p.argmax(1).tolist() == [1, 0]


def test_an_unknown_classifier_is_named():
    with pytest.raises(UnknownName, match="no classifier named 'digts'"):
        classifier(weights="digts")


# gamma


def test_a_ramp_goes_from_high_noise_to_low():
    level = torch.tensor([1e-4, 0.5, 1e4], dtype=torch.float64)
    torch.testing.assert_close(Ramp(3.0, 1.0)(level), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


def test_a_ramp_weighs_the_guidance_by_its_own_level():
    prior, sde = gaussian(), VE()
    x, t = prior.sample(4, 1), sde.time(torch.full((4,), 0.5))
    parts = {"guidance": ClassifierGuidance(), "sde": sde}
    scores = [
        Posterior(prior, DenoisedClassifier(Bump(), 1), gamma=g, **parts).score(x, t)
        for g in (Ramp(3.0, 1.0), 2.0)
    ]
    torch.testing.assert_close(*scores)


def test_gamma_is_read_from_text():
    assert parse_gamma("2.5") == 2.5
    assert parse_gamma("3:1") == Ramp(3.0, 1.0)
    for wrong in ("x", "1:2:3", "-1", "nan", "1:inf"):
        with pytest.raises(InputError, match="gamma must be"):
            parse_gamma(wrong)


def test_the_classifier_is_a_likelihood_that_passes_its_checks():
    check_likelihood(classifier)
    check_likelihood(classifier(label=3, way="denoised"))


# a mixture, whose classes are its components


MEANS = torch.tensor([[-1.0, 0.2, 0.0], [0.8, 0.5, -0.3], [0.1, -0.9, 0.6]], dtype=torch.float64)
SHARES = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
OWN = 0.16  # variance of each component


class Linear(torch.nn.Module):
    """Exact p(component | x_0 + sigma n = x): a softmax of linear functions of x. Clean at sigma = 0."""

    def forward(self, x, sigma):
        off = (x[:, None] - MEANS).square().sum(2)
        return SHARES.log() - off / (2 * (OWN + sigma.to(x)[:, None] ** 2))


def mixture_at(level, sde, n=200):
    prior = MixturePrior(MEANS, SHARES, OWN)
    z = torch.randn(n, D, generator=generator(), dtype=torch.float64)
    t = sde.time(level)
    return Denoised(prior, sde, sde.alpha(t) * prior.sample(n, 0) + sde.sigma(t) * z, t, graph=True)


def divergence(likelihood, at):
    """Mean KL from the exact p(component | x_t), nats."""
    exact, found = Classifier(Linear()).log_classes_at(at), likelihood.log_classes_at(at)
    return float((exact.exp() * (exact - found)).sum(1).mean())


@pytest.mark.parametrize("sde", [VE(), VP(), SubVP()], ids=str)
@pytest.mark.parametrize("level", [0.5, 1.0, 3.0])
def test_averaging_comes_nearer_to_p_of_the_class_than_the_denoised_estimate(sde, level):
    at = mixture_at(level, sde)
    sure, averaged = (
        divergence(likelihood, at)
        for likelihood in (DenoisedClassifier(Linear()), AveragedClassifier(Linear(), probes=64, rank=D))
    )
    assert 0 <= averaged < sure / 10  # measured: a 19th to an 84th


@pytest.mark.parametrize("sde", [VE(), VP(), SubVP()], ids=str)
def test_the_exact_classifier_makes_of_a_mixture_its_component(sde):
    prior, n = MixturePrior(MEANS, SHARES, OWN), 2000
    posterior = Posterior(prior, Classifier(Linear(), 2), sde=sde, guidance=ClassifierGuidance())
    x = PC(steps=60)(posterior, n, 0)
    assert (x.mean(0) - MEANS[2]).abs().max() < 4 * OWN**0.5 / n**0.5 + 0.01  # 4 errors, and 60 steps
    torch.testing.assert_close(
        x.T.cov(), OWN * torch.eye(D, dtype=torch.float64), rtol=0, atol=4 * OWN * (2 / n) ** 0.5 + 0.004
    )
