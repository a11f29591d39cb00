import math

import pytest
import torch
from problems import generator, measured, plane_mixture

from invsolve import operators
from invsolve.errors import InputError
from invsolve.likelihood import Classifier, Gaussian, Poisson, measured_entries
from invsolve.prior import Denoised
from invsolve.sde import VP

SHAPE = (3, 19, 14)
OPERATORS = {
    "inpaint": lambda: operators.inpaint(SHAPE, keep=0.4),
    "deblur": lambda: operators.deblur(SHAPE, std=1.5),
    "superres": lambda: operators.superres((3, 16, 12), factor=4, filter="box"),
    "colorize": lambda: operators.colorize(SHAPE),
    "denoise": lambda: operators.denoise(SHAPE),
    "matrix": lambda: operators.matrix(torch.randn(30, 60, generator=generator(), dtype=torch.float64)),
}


def problem(name, sigma_y=0.1):
    operator = OPERATORS[name]()
    x = torch.rand(1, *operator.shape, generator=generator(), dtype=torch.float64)
    return Gaussian(
        operator.A(x.float()).double() if name != "matrix" else operator.A(x), operator, sigma_y
    ), x


@pytest.mark.parametrize("name", OPERATORS)
def test_solve_inverts_the_measurement_covariance(name):
    likelihood, x = problem(name)
    r = torch.randn(2, *likelihood.y.shape, generator=generator(1), dtype=torch.float64) * likelihood.A(x).ne(
        0
    )
    r2 = torch.tensor([0.3, 40.0], dtype=torch.float64)
    u = likelihood.solve(r2, r, likelihood.A(x))
    event = likelihood.At(u, x.expand(2, *x.shape[1:]))
    back = torch.stack([s * likelihood.A(e[None])[0] for s, e in zip(r2, event, strict=True)]) + 0.01 * u
    assert float((back - r).norm() / r.norm()) < 2e-4  # operators compute in float32, and CG stops at 1e-5


def test_the_spectral_and_the_iterative_solve_agree():
    likelihood, _ = problem("deblur")
    r = torch.randn(2, *likelihood.y.shape, generator=generator(1), dtype=torch.float64)
    r2, variance = torch.tensor([0.3, 4.0], dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)
    spectral = likelihood._solve_spectral(r2, r, variance)
    torch.testing.assert_close(spectral, likelihood._solve_cg(r2, r, variance), rtol=1e-2, atol=2e-2)


def test_condition_is_the_mean_of_a_gaussian_given_y():
    A = torch.randn(3, 5, generator=generator(), dtype=torch.float64)
    likelihood = Gaussian(torch.ones(3, dtype=torch.float64), operators.matrix(A), 0.2)
    c = torch.randn(1, 5, generator=generator(1), dtype=torch.float64)
    K = 0.7 * A.T @ torch.linalg.inv(0.7 * A @ A.T + 0.04 * torch.eye(3))
    torch.testing.assert_close(
        likelihood.condition(c, torch.tensor([0.7])),
        c + (torch.ones(1, 3) - c @ A.T) @ K.T,
        rtol=1e-4,
        atol=1e-5,
    )


def test_log_prob_is_the_normal_density_of_the_measured_entries():
    mask = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    y = torch.tensor([0.3, 0.0, -0.2], dtype=torch.float64)
    likelihood = Gaussian(y, operators.matrix(torch.diag(mask)), 0.1)
    x = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    law = torch.distributions.Normal(x[:, [0, 2]], 0.1)
    torch.testing.assert_close(likelihood.log_prob(x), law.log_prob(y[[0, 2]]).sum(1))


@pytest.mark.parametrize("name", OPERATORS)
def test_log_prob_sums_per_sample(name):
    likelihood, x = problem(name)
    images = torch.cat([x, 0 * x, 1 - x])
    alone = torch.cat([likelihood.log_prob(image[None]) for image in images])
    torch.testing.assert_close(likelihood.log_prob(images), alone, rtol=1e-5, atol=1e-3)
    assert float(alone[0]) == pytest.approx(
        -int(measured_entries(likelihood.operator, tuple(x.shape[1:]), likelihood.y).sum())
        * (math.log(0.1) + math.log(2 * math.pi) / 2),
        rel=1e-4,  # the residual at the truth is float32 noise
    )


def test_hidden_entries_are_found_by_probing():
    operator = operators.inpaint(SHAPE, keep=0.4)
    known = measured_entries(operator, SHAPE, torch.zeros(SHAPE))
    assert torch.equal(known, operator.mask.bool().expand(1, *SHAPE)[0])


def test_a_leading_axis_of_one_is_the_same_measurement():
    operator = OPERATORS["inpaint"]()
    y = torch.zeros(1, *SHAPE)
    assert Gaussian(y, operator, 0.1).content == Gaussian(y[0], operator, 0.1).content


@pytest.mark.parametrize("sigma_y", [0.0, -1.0, math.nan, math.inf])
def test_a_noise_level_must_be_positive(sigma_y):
    with pytest.raises(InputError, match="sigma_y must be"):
        Gaussian(torch.zeros(SHAPE), OPERATORS["inpaint"](), sigma_y)


def test_a_measurement_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"has shape \(1, 64, 64\), but .* gives \(1, 3, 19, 14\)"):
        Gaussian(torch.zeros(1, 64, 64), OPERATORS["inpaint"](), 0.1)


def test_a_measurement_with_nan_is_refused():
    with pytest.raises(InputError, match="1 values that are NaN"):
        Gaussian(torch.full((1, 1), math.nan), operators.matrix(torch.ones(1, 1)), 0.1)


def test_poisson_counts_have_torchs_probability():
    A = torch.rand(4, 3, generator=generator(), dtype=torch.float64)
    x = torch.rand(2, 3, generator=generator(1), dtype=torch.float64) * 10
    counts = torch.tensor([3.0, 0.0, 7.0, 2.0], dtype=torch.float64)
    law = torch.distributions.Poisson(x @ A.T / 0.5)
    likelihood = Poisson(0.5 * counts, operators.matrix(A), gain=0.5)
    torch.testing.assert_close(likelihood.log_prob(x), law.log_prob(counts).sum(1))
    torch.testing.assert_close(likelihood.noise_variance(x @ A.T), 0.25 * (x @ A.T / 0.5).clamp_min(1))


def test_a_classifier_sees_the_noisy_image_and_its_level():
    class Net(torch.nn.Module):
        def forward(self, x, sigma):
            return torch.stack([x.sum(1), sigma.to(x)], 1)

    prior = plane_mixture()
    at = Denoised(prior, VP(), torch.randn(3, 2, generator=generator(), dtype=torch.float64), 0.3)
    logits = torch.stack([at.x.sum(1) / at.alpha, at.sigma / at.alpha], 1)
    torch.testing.assert_close(Classifier(Net(), 1).log_prob_at(at), logits.log_softmax(1)[:, 1])


def test_calls_are_counted_per_sample():
    likelihood = measured(plane_mixture(), operators.matrix(torch.eye(2, dtype=torch.float64)))
    likelihood.A(torch.zeros(5, 2, dtype=torch.float64))
    likelihood.At(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 2))
    assert likelihood.calls == {"A": 5, "At": 3}
