"""Laws of the denoising network: sizes, rows, preconditioning, locality."""

import pytest
import torch

from invsolve.priors.network import Architecture, DenoisingUNet, mirror

TINY = Architecture(in_channels=3, stem=4, widths=(8, 8, 8, 8), blocks=1)


def tiny(seed=0, architecture=TINY):
    """A small network with no zero weights left, so that every path counts."""
    network = DenoisingUNet(architecture).requires_grad_(False)
    rng = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.copy_(0.3 * torch.randn(p.shape, generator=rng))
    return network


def images(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_fresh_network_is_the_best_linear_denoiser():
    x, sigma = images(2, 3, 16, 16), torch.tensor([0.3, 5.0], dtype=torch.float64)
    shrink = (0.25 / (0.25 + sigma**2)).float().reshape(2, 1, 1, 1)
    answer = DenoisingUNet(TINY)(x, sigma)
    torch.testing.assert_close(answer, shrink * x)  # one float32 rounding


def test_the_preconditioning_is_that_of_karras():
    network, x, sigma = tiny(), images(1, 3, 16, 16), torch.tensor([0.7], dtype=torch.float64)
    skip, out, scale = 0.25 / 0.74, 0.7 * 0.5 / 0.74**0.5, 0.74**-0.5
    expected = skip * x + out * network.raw(scale * x, sigma)
    torch.testing.assert_close(network(x, sigma), expected, rtol=1e-5, atol=1e-5)  # a few float32 roundings


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (1, 1), (3, 40), (48, 5), (33, 64)])
def test_any_size_keeps_its_shape_and_stays_finite(height, width):
    x = images(1, 3, height, width)
    answer = tiny()(x, torch.tensor([0.5], dtype=torch.float64))
    assert answer.shape == x.shape
    assert answer.isfinite().all()


def test_padding_is_by_reflection_even_beyond_the_image():
    row = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    expected = torch.tensor([0.0, 1, 2, 1, 0, 1, 2, 1])
    torch.testing.assert_close(mirror(row, 8)[0, 0, 0], expected)


def test_an_image_that_fits_is_not_padded():
    x = images(1, 3, 16, 32)
    assert mirror(x, 16) is x


def test_a_row_does_not_depend_on_the_others():
    network, x = tiny(), images(5, 3, 20, 24)
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0, 80.0], dtype=torch.float64)
    alone = torch.cat([network(x[i : i + 1], sigma[i : i + 1]) for i in range(5)])
    scale = alone.abs().amax((1, 2, 3), keepdim=True)
    assert ((network(x, sigma) - alone) / scale).abs().max() < 1e-4  # float32 sums in another order


def test_what_is_far_away_does_not_matter():
    shallow = tiny(architecture=Architecture(3, 4, (8,), 1))
    x, sigma = images(1, 3, 16, 96), torch.tensor([0.5], dtype=torch.float64)
    changed = x.clone()
    changed[..., 80:] += 5
    difference = (shallow(changed, sigma) - shallow(x, sigma)).abs()
    assert difference[..., :48].max() == 0  # no norm and no attention pools over space
    assert difference[..., 80:].max() > 0.1


def test_sigma_is_not_rounded_to_the_images_precision():
    network, x = tiny().double(), images(1, 3, 16, 16).double()
    a, b = (network(x, torch.tensor([s], dtype=torch.float64)) for s in (1.0, 1.0 + 1e-9))
    assert (a - b).abs().max() > 1e-12  # float32 would see the same sigma twice


def test_the_derivative_is_that_of_a_difference():
    network, x, sigma = tiny().double(), images(1, 3, 16, 16).double(), torch.tensor([0.5]).double()
    x.requires_grad_(True)
    v, u = images(1, 3, 16, 16, seed=2).double(), images(1, 3, 16, 16, seed=3).double()
    (vjp,) = torch.autograd.grad(network(x, sigma), x, v)
    h = 1e-5
    slope = (network(x + h * u, sigma) - network(x - h * u, sigma)) / (2 * h)
    torch.testing.assert_close((vjp * u).sum(), (v * slope).sum(), rtol=1e-5, atol=1e-6)  # O(h^2)


@pytest.mark.parametrize("wrong", [{"stem": 0}, {"widths": ()}, {"widths": (8, 0)}, {"sigma_data": 0.0}])
def test_an_architecture_that_builds_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="builds no network"):
        Architecture(**wrong)


def test_the_shipped_architecture_stays_below_8_megabytes_in_half_precision():
    count = sum(p.numel() for p in DenoisingUNet(Architecture()).parameters())
    assert 2_700_000 < count < 3_000_000
