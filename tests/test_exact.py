import pytest
import torch
from problems import gaussian_problem, generator, measured, plane_mixture, random_matrix

from invsolve import operators
from invsolve.errors import InputError, Refused
from invsolve.exact import GaussianPrior, MixturePrior, exact_posterior
from invsolve.likelihood import Gaussian, Poisson
from invsolve.prior import EnergyPrior

LEVELS = torch.tensor([0.01, 0.1, 0.5, 3.0, 40.0], dtype=torch.float64)


def correlated_mixture():
    root = torch.randn(3, 4, 4, generator=generator(), dtype=torch.float64)
    means = torch.randn(3, 4, generator=generator(1), dtype=torch.float64)
    return MixturePrior(means, torch.tensor([1.0, 2.0, 3.0]), root @ root.mT / 8)


def tilted_gaussian():
    root = torch.randn(4, 4, generator=generator(2), dtype=torch.float64)
    return GaussianPrior(torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64), root @ root.T / 4)


PRIORS = [correlated_mixture(), tilted_gaussian(), plane_mixture()]


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: f"{p.name}{p.shape}")
def test_score_is_the_gradient_of_the_log_density(prior):
    x = (2 * torch.randn(5, *prior.event, generator=generator(), dtype=torch.float64)).requires_grad_(True)
    slope = torch.autograd.grad(prior.log_prob(x, LEVELS).sum(), x)[0]
    torch.testing.assert_close(prior.score(x.detach(), LEVELS), slope, rtol=1e-7, atol=1e-9)


def test_log_density_is_torchs():
    prior = tilted_gaussian()
    law = torch.distributions.MultivariateNormal(prior.mean, prior.covariance + 0.25 * torch.eye(4))
    x = torch.randn(6, 4, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(x, 0.5), law.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: f"{p.name}{p.shape}")
def test_samples_have_the_stated_moments(prior):
    x = prior.sample(20000, seed=0)
    sd = prior.covariance.diagonal().sqrt()
    assert float(((x.mean(0) - prior.mean) / sd).abs().max()) < 4 / 20000**0.5  # four standard errors
    torch.testing.assert_close(
        torch.cov(x.T), prior.covariance, rtol=0, atol=6 * float(sd.max()) ** 2 / 20000**0.5
    )


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: f"{p.name}{p.shape}")
def test_exact_samples_do_not_depend_on_n(prior):
    assert torch.equal(prior.sample(9, seed=3)[4:7], prior.sample(3, seed=3, first=4))


def test_gaussian_posterior_solves_the_normal_equations():
    prior, likelihood, posterior = gaussian_problem("matrix", 4)
    A = likelihood.matrix((1, 4, 4))
    precision = torch.linalg.inv(prior.covariance) + A.T @ A / 0.05**2
    torch.testing.assert_close(posterior.covariance, torch.linalg.inv(precision), rtol=1e-6, atol=1e-9)
    pull = torch.linalg.solve(prior.covariance, prior.mean.flatten()) + A.T @ likelihood.y / 0.05**2
    torch.testing.assert_close(
        posterior.mean.flatten(), torch.linalg.solve(precision, pull), rtol=1e-6, atol=1e-8
    )


def test_mixture_posterior_agrees_with_importance_sampling():
    prior = plane_mixture()
    likelihood = measured(prior, operators.matrix(torch.tensor([[1.0, 0.6]], dtype=torch.float64)), 0.2)
    x = prior.sample(400000, seed=1)
    w = torch.softmax(likelihood.log_prob(x), 0)
    posterior = exact_posterior(prior, likelihood)
    error = (
        posterior.covariance.diagonal().max().sqrt() * (w**2).sum().sqrt()
    )  # standard error of the weighted mean
    torch.testing.assert_close(w @ x, posterior.mean, rtol=0, atol=4 * float(error))
    torch.testing.assert_close(torch.cov(x.T, aweights=w), posterior.covariance, rtol=0.03, atol=0.01)


def test_noise_may_differ_between_entries():
    prior = tilted_gaussian()
    A = torch.randn(3, 4, generator=generator(), dtype=torch.float64)
    sigma_y = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    posterior = exact_posterior(
        prior, Gaussian(torch.ones(3, dtype=torch.float64), operators.matrix(A), sigma_y)
    )
    precision = torch.linalg.inv(prior.covariance) + A.T @ torch.diag(sigma_y**-2) @ A
    torch.testing.assert_close(torch.linalg.inv(posterior.covariance), precision, rtol=1e-5, atol=1e-6)


def test_an_energy_prior_has_the_score_of_its_energy():
    prior = EnergyPrior(lambda x: ((x - 1) ** 2).sum(1) / 2, shape=(2,))
    x = torch.randn(5, 2, generator=generator())
    torch.testing.assert_close(prior.score(x), 1 - x)
    noisy = EnergyPrior(lambda x, sigma: ((x - 1) ** 2).sum(1) / (2 * (4 + sigma**2)), shape=(2,))
    exact = GaussianPrior(torch.ones(2), 4.0)
    torch.testing.assert_close(noisy.denoise(x, LEVELS), exact.denoise(x, LEVELS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: GaussianPrior(torch.zeros(3), torch.tensor([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])),
            "eigenvalue -1",
        ),
        (lambda: GaussianPrior(torch.zeros(3), torch.eye(4)), "does not fit"),
        (lambda: GaussianPrior(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: MixturePrior(torch.zeros(2, 3), torch.tensor([1.0, -1.0]), 1.0), "weights"),
    ],
)
def test_impossible_priors_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_poisson_noise_has_no_closed_form():
    likelihood = Poisson(torch.ones(4), operators.matrix(torch.eye(4)))
    with pytest.raises(Refused, match="Poisson noise depends on x"):
        exact_posterior(tilted_gaussian(), likelihood)


def test_only_exact_priors_have_exact_posteriors():
    with pytest.raises(Refused, match="closed-form"):
        exact_posterior(
            EnergyPrior(lambda x: x.sum(1), (16,)), measured(tilted_gaussian(), random_matrix(2, 2))
        )
