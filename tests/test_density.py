"""Log densities, codes and bits: against closed forms, with each SDE, and without leaning on them."""

import math

import pytest
import torch
from problems import SDES, gaussian_prior, plane_mixture

import invsolve
from invsolve.errors import Divergence, InputError, Refused
from invsolve.exact import GaussianPrior, MixturePrior
from invsolve.prior import Prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.sde import VE


class Unknown(Prior):
    """A prior that hides its extent, as a network does."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.shape = prior, prior.shape
        self.register_buffer("centre", prior.centre, persistent=False)

    def denoise(self, x, sigma):
        return self.prior.denoise(x, sigma)


def skewed(d=3):
    """Three Gaussians in d dimensions, each with a full covariance of its own."""
    rng = torch.Generator().manual_seed(1)
    means = 1.5 * torch.randn(3, d, generator=rng, dtype=torch.float64)
    roots = 0.5 * torch.randn(3, d, d, generator=rng, dtype=torch.float64)
    return MixturePrior(means, torch.tensor([0.5, 0.3, 0.2]), roots @ roots.mT + 0.02 * torch.eye(d).double())


PRIORS = {"plane": plane_mixture, "skewed": skewed, "gaussian": lambda: gaussian_prior(3)}


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("name", PRIORS)
def test_the_exact_trace_gives_the_closed_form_to_a_thousandth_of_a_nat(name, sde):
    prior = PRIORS[name]()
    x = torch.cat([prior.sample(6, 1), prior.sample(2, 2) + 1.0])  # the last two lie where little mass is
    found = invsolve.log_prob(prior, x, sde=sde, exact_trace=True)
    assert found.dtype == torch.float64
    assert float((found - prior.log_prob(x)).abs().max()) < 1e-3  # measured: 2e-5


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_where_the_extent_is_not_known_the_top_of_the_sde_is_the_error(sde):
    """At the top N(c, lambda^2 + 0.25) stands for N(c, lambda^2 + v): nats wrong by (v - 0.25)(n^2 - d)/2
    lambda^2."""
    v, d = 4.0, 2
    prior = GaussianPrior(torch.tensor([0.5, -1.0], dtype=torch.float64), v)
    x = prior.sample(8, 1)
    found = invsolve.log_prob(Unknown(prior), x, sde=sde, exact_trace=True)
    n2 = (x - prior.mean).square().sum(1) / v
    bias = (v - 0.25) / (2 * float(sde.ratio(1.0)) ** 2) * (n2 - d)
    error = found - prior.log_prob(x)
    assert float(bias.abs().max()) > 1e-4
    torch.testing.assert_close(error, -bias, rtol=0.02, atol=3e-5)


def test_the_density_is_that_of_x_with_noise_of_the_end():
    prior, x = plane_mixture(), plane_mixture().sample(5, 1)
    found = invsolve.log_prob(prior, x, exact_trace=True, end=0.3)
    assert float((found - prior.log_prob(x, 0.3)).abs().max()) < 1e-3
    assert float((found - prior.log_prob(x)).abs().max()) > 0.1


def test_float32_priors_reach_a_thousandth_of_a_nat_too():
    double = plane_mixture()
    single = MixturePrior(double.means.float(), double.log_weights.exp(), 0.04)
    x = single.sample(8, 1)
    assert float((invsolve.log_prob(single, x, exact_trace=True) - single.log_prob(x)).abs().max()) < 1e-3


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_with_probes_the_closed_form_is_within_the_standard_error(sde):
    prior = gaussian_prior(3)
    x = prior.sample(20, 1)
    found = invsolve.estimate_log_prob(prior, x, sde=sde, probes=32, rtol=1e-4, atol=1e-4)
    z = (found.nats - prior.log_prob(x)) / found.standard_error
    assert float(z.abs().max()) < 3.5  # 31 degrees of freedom: 20 rows go beyond once in 35 seeds
    assert 0.4 < float(z.square().mean()) < 2.2  # chi2 of 20 rows: mean 1.07, sd 0.36
    assert float(found.standard_error.min()) > 0.05


def test_more_probes_make_a_smaller_error_and_one_tells_nothing_of_it():
    prior = gaussian_prior(3)
    x = prior.sample(10, 1)
    few, many = (
        invsolve.estimate_log_prob(prior, x, probes=m, rtol=1e-3, atol=1e-3).standard_error.mean()
        for m in (8, 128)
    )
    assert 3 < float(few / many) < 5.3  # four, and ten rows' scatter of a sixth
    assert invsolve.estimate_log_prob(prior, x, probes=1, rtol=0.01).standard_error.isinf().all()


def test_the_density_integrates_to_one():
    prior = Unknown(MixturePrior(torch.tensor([[-1.0], [1.5]], dtype=torch.float64), torch.ones(2), 0.25))
    x = torch.arange(-5, 6, 0.1, dtype=torch.float64)[:, None]
    found = invsolve.log_prob(prior, x, exact_trace=True, rtol=1e-4, atol=1e-4)
    assert float(found.exp().sum()) * 0.1 == pytest.approx(1, abs=1e-3)


def test_a_row_has_its_own_density_code_and_probes_whatever_stands_beside_it():
    prior = skewed()
    x = prior.sample(5, 1) * torch.tensor([[0.1], [1.0], [1.0], [2.0], [1.0]])  # of unequal lengths of way
    for evaluate in (invsolve.log_prob, invsolve.encode, invsolve.decode):
        *alone, beside = (evaluate(prior, rows, rtol=1e-4, atol=1e-4) for rows in (*x.split(1), x))
        torch.testing.assert_close(torch.cat(alone), beside, rtol=1e-9, atol=1e-9)
    assert not torch.equal(*(invsolve.log_prob(prior, x, rtol=0.01, seed=s) for s in (0, 1)))


def test_calls_are_counted_forward_and_vjp_apart():
    prior = plane_mixture()
    exact = invsolve.estimate_log_prob(prior, prior.sample(3, 1), exact_trace=True)
    probed = invsolve.estimate_log_prob(prior, prior.sample(3, 1), probes=5)
    assert exact.calls["vjp"] == 2 * exact.calls["forward"] > 0
    assert probed.calls["vjp"] == 5 * probed.calls["forward"]
    assert exact.standard_error.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("sde", SDES, ids=str)
def test_codes_of_a_gaussian_are_known(sde):
    """Along the flow x - m scales as (C + lambda^2)^(1/2); the code divides by r at the top."""
    prior = gaussian_prior(3)
    x, high, c = prior.sample(4, 1), float(sde.ratio(1.0)), prior.covariance
    values, vectors = torch.linalg.eigh(c)
    grown = vectors @ ((values + high**2) / (values + 1e-10)).sqrt().diag() @ vectors.mT
    expected = (x - prior.mean).flatten(1) @ grown / math.hypot(high, prior.extent)
    torch.testing.assert_close(invsolve.encode(prior, x, sde=sde).flatten(1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("name", PRIORS)
def test_decoding_undoes_encoding(name, sde):
    prior = PRIORS[name]()
    x = prior.sample(10, 1)
    z = invsolve.encode(prior, x, sde=sde)
    assert float((invsolve.decode(prior, z, sde=sde) - x).abs().max()) < 1e-4
    assert float((z.std() - 1).abs()) < 0.6  # and z is not x


def test_codes_of_a_mixture_are_standard_normal_and_normal_codes_decode_to_it():
    prior, n = plane_mixture(), 1000
    z = invsolve.encode(prior, prior.sample(n, 1), rtol=1e-4, atol=1e-4)
    assert float(z.mean(0).abs().max()) < 4.5 / n**0.5
    assert float((torch.cov(z.T) - torch.eye(2)).abs().max()) < 4.5 * (2 / n) ** 0.5
    assert float((z.abs() < 0.6745).double().mean(0).sub(0.5).abs().max()) < 4.5 * 0.5 / n**0.5
    x = invsolve.decode(prior, torch.randn(n, 2, generator=torch.Generator().manual_seed(0)), rtol=1e-4)
    shares = torch.bincount(torch.cdist(x, prior.means).argmin(1), minlength=4) / n
    truth = prior.log_weights.exp()
    assert ((shares - truth).abs() < 4.5 * (truth * (1 - truth) / n).sqrt()).all()


def network_prior():
    """A small convolutional network of random weights around the linear denoiser of white images."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 3, 3, padding=1)
            )

        def forward(self, x, sigma):
            s = sigma.to(x)[:, None, None, None]
            r = (s**2 + 0.25).sqrt()
            return 0.25 * x / r**2 + 0.5 * s / r * self.layers(x / r)

    return DenoiserPrior(Net())


def test_a_network_in_float32_gives_images_back():
    prior = network_prior()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    z = invsolve.encode(prior, x)
    back = invsolve.decode(prior, z)
    assert z.dtype == back.dtype == torch.float32
    assert float((back - x).abs().max()) < 1e-3  # measured: 2e-5


@pytest.mark.parametrize("channels", [3, 1])
def test_no_digits_are_lost_to_bfloat16(channels):
    prior = network_prior()
    fitting = prior if channels == 3 else prior.grey()
    x = torch.rand(1, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for fast in (True, False):
        prior.fast = fast
        found.append(invsolve.log_prob(fitting, x, probes=2))
        assert prior.fast is fast
    assert torch.equal(*found)


def test_bits_per_dimension_are_eight_for_uniform_images():
    """A density of 1 on [0, 1)^d gives each of 256^d images the same probability: 8 bits."""
    assert float(invsolve.bits_per_dim(torch.zeros(1), 12)) == 8.0
    assert float(invsolve.bits_per_dim(torch.zeros(1), 12, levels=2)) == 1.0
    prior = gaussian_prior(3)
    found = invsolve.estimate_log_prob(prior, prior.sample(2, 1), rtol=1e-3)
    torch.testing.assert_close(found.bits_per_dim(), 8 - found.nats / (9 * math.log(2)))


def test_bits_bound_the_true_cost_of_a_quantised_gaussian():
    """They exceed the entropy of the quantised values by a term of second order in the width of a level."""
    prior = GaussianPrior(torch.tensor([0.5], dtype=torch.float64), 0.01)
    edges = torch.arange(257, dtype=torch.float64) / 256
    p = torch.special.ndtr((edges - 0.5) / 0.1).diff()
    entropy = -float((p * p.log2())[p > 0].sum())
    u = (torch.arange(256 * 8, dtype=torch.float64)[:, None] + 0.5) / (256 * 8)
    inside = p.repeat_interleave(8) / 8 > 1e-9
    bits = invsolve.bits_per_dim(prior.log_prob(u), 1)
    assert entropy < float((p.repeat_interleave(8) / 8 * bits)[inside].sum()) < entropy + 1e-3


def test_dequantised_images_lie_in_their_own_level():
    k = torch.randint(256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    images = k / 255
    u = invsolve.dequantise(images)
    assert torch.equal((u * 256).floor().long(), k)
    assert abs(float((u * 256 - k).mean()) - 0.5) < 4.5 / (12 * k.numel()) ** 0.5
    assert torch.equal(invsolve.dequantise(images[2:3]), u[2:3])
    assert not torch.equal(invsolve.dequantise(images, seed=1), u)


class Broken(Prior):
    shape = (2,)

    def denoise(self, x, sigma):
        return torch.where(sigma[:, None] > 1.0, torch.nan, x)


PLANE = plane_mixture()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: invsolve.log_prob(PLANE, torch.zeros(2)), InputError, "shape is"),
        (lambda: invsolve.log_prob(PLANE, torch.full((1, 2), torch.nan)), InputError, "2 of its values"),
        (lambda: invsolve.log_prob(PLANE, torch.zeros(1, 3)), Refused, "disagree"),
        (lambda: invsolve.log_prob(PLANE, torch.zeros(1, 2), probes=0), InputError, "probes"),
        (lambda: invsolve.log_prob(PLANE, torch.zeros(1, 2), end=0.0), InputError, "end must be"),
        (lambda: invsolve.encode(PLANE, torch.zeros(1, 2), end=60.0), InputError, "end must be"),
        (lambda: invsolve.encode(PLANE, torch.zeros(1, 2), rtol=2.0), InputError, "rtol and atol"),
        (
            lambda: invsolve.log_prob(network_prior(), torch.zeros(1, 3, 64, 64), exact_trace=True),
            InputError,
            "take probes",
        ),
        (lambda: invsolve.log_prob(Broken(), torch.zeros(1, 2)), Divergence, "NaN or infinite at noise"),
        (lambda: invsolve.dequantise(torch.full((1, 2), 0.5)), InputError, "grey levels"),
        (lambda: invsolve.dequantise(torch.full((1, 2), 2.0)), InputError, "grey levels"),
    ],
)
def test_senseless_requests_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_default_sde_is_ve():
    prior = Unknown(plane_mixture())
    x = prior.prior.sample(2, 1)
    assert torch.equal(invsolve.log_prob(prior, x), invsolve.log_prob(prior, x, sde=VE()))
