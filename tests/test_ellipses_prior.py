"""The shipped ellipses: it denoises phantoms of any size better than NL-means, and restores one."""

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_nl_means

from invsolve import operators
from invsolve.likelihood import Gaussian
from invsolve.metrics import chi2, psnr
from invsolve.posterior import Posterior
from invsolve.priors.catalogue import load_prior
from invsolve.rng import Noise
from invsolve.samplers.pc import PC
from invsolve.training.phantoms import phantom


def phantoms(n, side, seed=2**31 + 5):  # a seed that no training has
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([phantom(side, rng) for _ in range(n)])).float()[:, None]


def nl_means(image, sigma):
    found = denoise_nl_means(image.numpy(), sigma=sigma, h=0.8 * sigma, patch_size=5, patch_distance=6)
    return torch.from_numpy(found).clamp(0, 1)


def test_it_is_small_and_takes_any_size():
    prior = load_prior("ellipses")
    assert prior.shape == (1, None, None)
    assert prior.metadata["licence"].startswith("CC0 1.0")
    x = Noise(0, "", 1, (1, 33, 50))()
    assert prior.denoise(x, torch.ones(1, dtype=torch.float64)).shape == x.shape


@pytest.mark.parametrize(("sigma", "least"), [(0.05, 3.0), (0.25, 3.0)])
def test_it_denoises_better_than_nl_means_that_knows_the_noise(sigma, least):
    truth, prior = phantoms(6, 80), load_prior("ellipses")
    noisy = truth + sigma * Noise(1, "", 6, (1, 80, 80))()
    with torch.no_grad():
        found = prior.denoise(noisy, torch.full((6,), sigma, dtype=torch.float64)).clamp(0, 1)
    gains = [
        psnr(f, t) - psnr(nl_means(y[0], sigma), t[0]) for f, y, t in zip(found, noisy, truth, strict=True)
    ]
    assert np.mean(gains) > least  # measured: +4.3 and +5.1 dB


@pytest.mark.slow
def test_a_phantom_is_restored_from_a_third_of_its_pixels():
    truth, operator = phantoms(1, 64)[0], operators.inpaint((1, 64, 64), keep=0.3)
    clean = operator.A(truth[None])[0]
    y = clean + 0.02 * Noise(0, "measurement", 1, tuple(clean.shape))()[0] * operator.mask[0]
    samples = PC(steps=25)(Posterior(load_prior("ellipses"), Gaussian(y, operator, 0.02)), 3, 0)
    assert 0.7 < chi2(samples, y, operator, 0.02) < 1.5
    assert psnr(samples.mean(0).clamp(0, 1), truth) > 30  # measured: 33.6 dB
