"""What the tests of weight files share: random weights, pictures, noise levels, an exact comparison."""

import pytest
import torch

from invsolve.errors import InputError
from invsolve.priors.catalogue import load_prior

LEVELS = (0.02, 0.3, 3.0)  # physical units: fine detail, half way, nothing but noise


def randomised(network, seed=0, scale=0.1):
    """Fill a network with random weights, norms around one, none zero: its output depends on every layer."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            centre = 1.0 if p.ndim == 1 and name.endswith("weight") else 0.0
            p.copy_(centre + scale * torch.randn(p.shape, generator=rng))
    return network.eval().requires_grad_(False)


def pictures(channels=3, side=16, seed=1):
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


def assert_denoises_as(prior, expected, side=16, rtol=1e-5):
    """Compare prior.denoise with expected(x, sigma), both in physical units, at three noise levels."""
    x = pictures(prior.shape[0], side)
    for level in LEVELS:
        noisy = x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        got = prior.denoise(noisy, torch.full((2,), level, dtype=torch.float64))
        want = expected(noisy, level)
        moved = (want - noisy).norm()  # what the network does, so that D = x does not pass
        assert moved > 1e-3 * noisy.norm()
        assert (got - want).norm() <= rtol * want.norm()  # 1e-5: float32, a hundred roundings


def refusal(path, **hints):
    """Message of the refusal: one line, an InputError with exit code 2."""
    with pytest.raises(InputError) as caught:
        load_prior(path, **hints)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)
