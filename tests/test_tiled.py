"""Tiles: the same answer and derivative as the whole image, in memory that does not grow with it."""

import pytest
import torch
from test_network import images, tiny
from torch import nn

from invsolve import operators
from invsolve.errors import Refused
from invsolve.guidance import MomentMatching
from invsolve.likelihood import Gaussian
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.priors.catalogue import load_prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.network import Architecture
from invsolve.priors.tiled import overhead, spans, why_whole
from invsolve.samplers.pc import PC
from invsolve.sde import VP
from invsolve.testing import check_prior

SMALL = Architecture(3, 4, (8, 8), 1)  # halo 29, stride 4
SIZES = [(64, 64), (75, 53), (33, 101), (16, 130), (5, 40), (17, 1)]


def small(architecture=SMALL):
    """A prior of random weights in float32."""
    network = tiny(architecture=architecture)
    network.head.weight.mul_(0.1)  # of a size that a denoiser has
    prior = DenoiserPrior(network, channels=architecture.in_channels, surrogate_above=0.5, name="small")
    prior.fast = False
    return prior


def levels(*values):
    return torch.tensor(values, dtype=torch.float64)


def pulled(prior, x, sigma, v):
    """D(x) and v^T dD/dx."""
    x = x.clone().requires_grad_(True)
    answer = prior.denoise(x, sigma)
    return answer.detach(), torch.autograd.grad(answer, x, v)[0]


def apart(a, b):
    """Largest difference, in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


# the halo


@pytest.mark.parametrize(
    ("widths", "blocks"), [((3,), 1), ((3,), 2), ((3, 2), 1), ((3, 2, 3), 1), ((2, 2, 2), 2)]
)
def test_the_halo_is_as_far_as_an_answer_depends_and_no_farther(widths, blocks):
    architecture = Architecture(1, 2, widths, blocks)
    network, middle = tiny(architecture=architecture).double(), 256
    x, reach = images(1, 1, architecture.stride, 512).double().requires_grad_(True), 0
    for p in range(middle, middle + architecture.stride):  # every place in a cell of the coarsest grid
        slope = torch.autograd.grad(network(x, levels(0.5))[..., p].sum(), x)[0]
        touched = slope.abs().sum((0, 1, 2)).nonzero().flatten()
        reach = max(reach, p - int(touched[0]), int(touched[-1]) - p)
    assert reach == architecture.halo


def test_the_photo_prior_states_its_halo():
    prior = load_prior("photo")
    assert (prior.metadata["halo"], prior.halo, prior.stride) == ("213", 213, 16)


@pytest.mark.parametrize("stride", [1, 4, 16])
@pytest.mark.parametrize(("length", "size"), [(64, 16), (75, 20), (7, 100), (100, 33)])
def test_tiles_cover_each_pixel_once_and_windows_keep_the_halo_and_the_grid(length, size, stride):
    found = list(spans(length, size, 13, stride))
    assert [i for s in found for i in range(s.start, s.stop)] == list(range(length))
    full = -(-length // stride) * stride
    for s in found:
        assert s.low == 0 or s.low <= s.start - 13
        assert s.high == full or s.high >= s.stop + 13
        assert s.low % stride == s.high % stride == 0
        assert s.high - s.low < size + 2 * (13 + stride)


# the same answer


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("tile", [10, 16, 64])
def test_tiles_are_the_whole_image(height, width, tile):
    prior, x = small(), 0.5 + images(1, 3, height, width)
    for sigma in (0.05, 20.0):
        whole, tiled = (p.denoise(x, levels(sigma)) for p in (prior, prior.tiled(tile)))
        assert apart(tiled, whole) < 1e-5  # float32 sums in another order


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_derivative_of_tiles_is_that_of_the_whole_image(height, width):
    prior, x, v = small(), 0.5 + images(1, 3, height, width), images(1, 3, height, width, seed=7)
    for sigma in (0.05, 1.0):
        whole, tiled = (pulled(p, x, levels(sigma), v) for p in (prior, prior.tiled(16)))
        assert apart(tiled[0], whole[0]) < 1e-5  # float32 sums in another order
        assert apart(tiled[1], whole[1]) < 1e-5


def test_in_double_precision_only_rounding_is_left():
    prior, x, v = small().double(), images(1, 3, 75, 53).double(), images(1, 3, 75, 53, seed=7).double()
    whole, tiled = (pulled(p, x, levels(0.3), v) for p in (prior, prior.tiled(12)))
    assert max(apart(a, b) for a, b in zip(tiled, whole, strict=True)) < 1e-13


def test_a_halo_a_little_too_small_would_be_seen():
    prior, x = small(), images(1, 3, 64, 200)
    tiled = prior.tiled(16)
    tiled.halo = 20
    assert apart(tiled.denoise(x, levels(1.0)), prior.denoise(x, levels(1.0))) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "sigma"), [(24, 530, 0.02), (511, 18, 2.0)])
def test_the_photo_prior_in_tiles_is_the_whole_image(height, width, sigma):
    prior, x, v = load_prior("photo"), torch.rand(1, 3, height, width), images(1, 3, height, width)
    prior.fast = False  # bfloat16 is good to 2^-8 only
    noisy = x + sigma * images(1, 3, height, width, seed=3)
    whole, tiled = (pulled(p, noisy, levels(sigma), v) for p in (prior, prior.tiled(200)))
    assert apart(tiled[0], whole[0]) < 1e-5  # float32 sums in another order
    assert apart(tiled[1], whole[1]) < 1e-5


def test_grey_images_in_tiles_are_the_whole_image():
    grey, x, v = small().grey(), torch.rand(2, 1, 75, 53), images(2, 1, 75, 53)
    sigma = levels(0.05, 0.3)
    whole, tiled = (pulled(p, x, sigma, v) for p in (grey, grey.tiled(16)))
    assert apart(tiled[0], whole[0]) < 1e-5  # float32 sums in another order
    assert apart(tiled[1], whole[1]) < 1e-5
    assert grey.tiled(16).surrogate.above == grey.surrogate.above


def test_a_row_in_tiles_is_the_same_to_the_bit_beside_others():
    prior, x = small().tiled(16), images(3, 3, 40, 24)
    sigma, v = levels(0.01, 0.5, 20.0), images(3, 3, 40, 24, seed=7)
    both = pulled(prior, x, sigma, v)
    for i in range(3):
        alone = pulled(prior, x[i : i + 1], sigma[i : i + 1], v[i : i + 1])
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, both, strict=True))


def test_a_second_derivative_is_an_error_and_not_zero():
    x = images(1, 3, 16, 16).requires_grad_(True)
    answer = small().tiled(8).denoise(x, levels(0.5))
    with pytest.raises(Refused, match="a first derivative only"):
        torch.autograd.grad(answer.sum(), x, create_graph=True)


@pytest.mark.slow
def test_a_tiled_prior_is_a_prior_like_any_other():
    prior = load_prior("photo")
    tiled = prior.tiled(40)
    check_prior(tiled)
    for name in ("name", "shape", "sigma_min", "sigma_max", "precision", "surrogate", "sha256", "metadata"):
        assert getattr(tiled, name) == getattr(prior, name)
    assert (tiled.centre, tiled.dtype, tiled.extent) == (0.5, torch.float32, prior.extent)


# cost


def test_each_vjp_in_tiles_counts_one_forward_more():
    x, v = images(2, 3, 20, 24), images(2, 3, 20, 24, seed=7)
    for prior, forward in ((small(), 2), (small().tiled(8), 2 + 3 * 2), (small().grey().tiled(8), 2 + 3 * 2)):
        channels = prior.shape[0]
        at = Denoised(prior, VP(), x[:, :channels], 0.3, graph=True)
        for _ in range(3):
            at.vjp(v[:, :channels])
        assert at.calls == {"forward": forward, "vjp": 6}


class Rows(nn.Module):
    """The network behind it, counting the pixels it sees."""

    def __init__(self, network):
        super().__init__()
        self.network, self.pixels = network, 0
        self.halo, self.stride = network.halo, network.stride

    def forward(self, x, sigma):
        self.pixels += x[:, 0].numel()
        return self.network(x, sigma)


def test_the_counts_of_a_run_are_the_network_s_own():
    prior = small()
    counting = prior.network = Rows(prior.network)
    operator = operators.inpaint((3, 24, 20), keep=0.5)
    likelihood = Gaussian(operator.A(torch.full((1, 3, 24, 20), 0.4)), operator, 0.1)
    posterior = Posterior(prior.tiled(8), likelihood, guidance=MomentMatching())
    PC(steps=2)(posterior, 2, 0)
    assert posterior.calls["vjp"] > 0
    each = 24 * 20 * overhead(posterior.prior, 24, 20)
    assert counting.pixels == pytest.approx(each * posterior.calls["forward"])


class Ledger:
    """Bytes that autograd keeps for backward passes, at most at one time."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return Entry(self, tensor)


class Entry:
    """A kept tensor, on the ledger as long as it lives."""

    def __init__(self, ledger, tensor):
        self.ledger, self.tensor, self.size = ledger, tensor, tensor.numel() * tensor.element_size()
        ledger.now += self.size
        ledger.most = max(ledger.most, ledger.now)

    def __del__(self):
        self.ledger.now -= self.size


def kept(prior, side):
    """Bytes kept at most in a denoising with its derivative, in units of the image's own."""
    ledger, x = Ledger(), images(1, 3, side, side).requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda entry: entry.tensor):
        torch.autograd.grad(prior.denoise(x, levels(0.5)).sum(), x)
    return ledger.most / (4 * x.numel()), ledger.most


def test_what_a_derivative_keeps_grows_with_the_image_but_not_with_tiles():
    prior = small(Architecture(3, 4, (8,), 1))  # halo 13
    (_, whole), (_, large) = kept(prior, 80), kept(prior, 160)
    assert large > 3.9 * whole
    (_, window), (_, tiled) = kept(prior.tiled(24), 80), kept(prior.tiled(24), 160)
    assert tiled - window < 2 * 4 * 3 * (160**2 - 80**2)  # at most the image itself, twice
    assert window < 0.7 * whole  # windows of 24 + 2 * 13 pixels a side, of 80


# refusals


def test_a_network_that_does_not_say_how_far_it_looks_is_refused():
    prior = DenoiserPrior(nn.Identity(), name="attentive")
    with pytest.raises(Refused, match=r"prior attentive cannot be tiled: .* the whole image"):
        prior.tiled(64)
    with pytest.raises(Refused, match="cannot be tiled"):
        prior.grey().tiled(64)
    assert not why_whole(small())


def test_a_prior_of_one_size_is_refused():
    with pytest.raises(Refused, match="one size only, 32 x 32 pixels"):
        DenoiserPrior(tiny(architecture=SMALL), side=32).tiled(16)


def test_tiles_smaller_than_the_grid_are_refused():
    with pytest.raises(Refused, match="tiles of 3 pixels are smaller than 4, the network's own grid"):
        small().tiled(3)
