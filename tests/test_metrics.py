"""Metrics: each against the number that theory says, and broken where it should break."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from invsolve.metrics import chi2, coverage90, crps, dispersion, psnr, ssim, summary
from invsolve.operators import denoise, inpaint, matrix, superres

PIXELS = 40_000


def draws(n, size=PIXELS, seed=0, mean=0.3, sd=0.2):
    """Draw a truth and n samples, all independent draws of one Gaussian: a right posterior."""
    x = np.random.default_rng(seed).normal(mean, sd, (n + 1, size))
    return x[0], x[1:]


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_coverage_of_a_right_posterior_is_90_percent_at_every_n(n):
    truth, samples = draws(n)
    low, high = binom.ppf([1e-6, 1 - 1e-6], PIXELS, 0.9) / PIXELS  # pixels are independent
    assert low <= coverage90(samples, truth) <= high


def test_coverage_shows_a_narrow_and_a_wide_posterior():
    truth, samples = draws(8)
    narrow, wide = 0.3 + 0.7 * (samples - 0.3), 0.3 + 1.5 * (samples - 0.3)
    assert coverage90(narrow, truth) < 0.82
    assert coverage90(wide, truth) > 0.96


def test_coverage_counts_only_where_it_is_asked():
    truth, samples = draws(8, 1000)
    where = np.arange(1000) < 500
    truth[~where] = 1e3
    assert coverage90(samples, truth, where) == coverage90(samples[:, :500], truth[:500])
    assert coverage90(samples, truth) < 0.5


def test_one_sample_has_no_interval_and_no_dispersion():
    truth, samples = draws(1, 100)
    assert coverage90(samples, truth) is None
    assert dispersion(samples, truth) is None


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("law", ["normal", "exponential", "uniform"])
def test_dispersion_of_exchangeable_draws_is_one_whatever_their_law(n, law):
    x = getattr(np.random.default_rng(1), law)(size=(n + 1, PIXELS))
    # relative error of a mean of squares over 40,000 pixels: sqrt(kurtosis / pixels) < 2 %; four of them
    assert dispersion(x[1:], x[0]) == pytest.approx(1, abs=0.06)


def test_dispersion_shows_collapse_and_padding():
    truth, samples = draws(8)
    assert dispersion(0.3 + 0.5 * (samples - 0.3), truth) < 0.75
    assert dispersion(0.3 + 2.0 * (samples - 0.3), truth) > 1.3


@pytest.mark.parametrize("n", [2, 5, 8])
def test_crps_of_a_gaussian_is_its_closed_form(n):
    """Truth and samples of one law: E|X - X'| - E|X - X'| / 2, and E|X - X'| = 2 s / sqrt(pi)."""
    truth, samples = draws(n, sd=0.2)
    # sd of one pixel's score is below 0.2; 5 standard errors
    assert crps(samples, truth) == pytest.approx(0.2 / math.sqrt(math.pi), abs=5 * 0.2 / math.sqrt(PIXELS))


def test_crps_is_the_fair_sum_over_pairs_in_chunks_of_any_size(monkeypatch):
    truth, samples = draws(4, 1000)
    pairs = np.abs(samples[:, None] - samples[None]).sum((0, 1)) / (2 * 4 * 3)
    expected = (np.abs(samples - truth).mean(0) - pairs).mean()
    assert crps(samples, truth) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("invsolve.metrics._CHUNK", 7)
    assert crps(samples, truth) == pytest.approx(expected, rel=1e-12)


def test_crps_of_one_sample_is_its_absolute_error():
    truth, samples = draws(1, 100)
    assert crps(samples, truth) == pytest.approx(np.abs(samples[0] - truth).mean())


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


OPERATORS = {
    "denoise": lambda: denoise((1, 64, 64)),
    "inpaint": lambda: inpaint((1, 96, 96), keep=0.3),
    "superres": lambda: superres((3, 64, 64), factor=2),
    "matrix": lambda: matrix(normal(1000, 20, seed=3), (20,)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_chi2_of_the_truth_is_one(name, shape):
    """A sample that is the truth leaves the noise: |noise|^2 / (m sigma^2), m the measured entries."""
    operator = OPERATORS[name]()
    truth = normal(*operator.shape)
    clean = operator.A(truth[None])[0]
    noise = torch.where(clean == 0, 0.0, normal(*clean.shape, seed=1))
    y = (clean + 0.05 * noise).reshape(*shape, *clean.shape)
    value = chi2(torch.stack([truth, truth]), y, operator, 0.05)
    assert value == pytest.approx(1, abs=5 * math.sqrt(2 / int((clean != 0).sum())))  # chi-square of m


def test_chi2_takes_a_noise_level_for_each_entry():
    operator = denoise((1, 64, 64))
    truth, level = torch.zeros(1, 64, 64, dtype=torch.float64), 0.1 + normal(1, 64, 64, seed=1).abs()
    value = chi2(truth[None], level * normal(1, 64, 64), operator, level)
    assert value == pytest.approx(1, abs=5 * math.sqrt(2 / 4096))  # chi-square of 4096


def test_chi2_is_the_mean_over_the_samples():
    operator, zero = denoise((1, 8, 8)), torch.zeros(1, 8, 8)
    samples = torch.stack([zero + 0.1, zero + 0.3])
    assert chi2(samples, zero, operator, 0.1) == pytest.approx((1 + 9) / 2, rel=1e-6)  # float32


def test_psnr_of_a_known_error():
    truth = np.full((3, 16, 16), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20)
    assert psnr(truth + 1.0, truth) == pytest.approx(0)  # nothing is clipped
    assert psnr(truth, truth) == math.inf


def test_ssim_falls_from_one_with_noise():
    truth = np.random.default_rng(0).random((3, 32, 32))
    noise = np.random.default_rng(1).normal(size=truth.shape)
    values = [ssim(truth + level * noise, truth) for level in (0, 0.1, 0.5)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)


def problem(n=4):
    operator = inpaint((3, 24, 24), keep=0.4)
    x = 0.5 + 0.1 * normal(n + 1, 3, 24, 24)
    y = operator.A(x[:1])[0] + 0.02 * operator.mask[0] * normal(3, 24, 24, seed=1)
    return {"samples": x[1:], "y": y, "operator": operator, "sigma_y": 0.02}, x[0], operator.mask[0]


def test_the_summary_has_the_keys_of_the_contract():
    run, truth, mask = problem()
    result = summary(**run, picture=run["y"], truth=truth, mask=mask)
    keys = {"psnr", "ssim", "chi2", "coverage90", "coverage90_hidden", "dispersion", "crps"}
    assert set(result) == keys
    assert set(result["psnr"]) == set(result["ssim"]) == {"measurement", "mean", "sample"}
    assert json.loads(json.dumps(result)) == result


def test_the_summary_agrees_with_its_parts():
    run, truth, mask = problem()
    result = summary(**run, picture=3 * run["y"], truth=truth, mask=mask)
    samples, hidden = run["samples"], (mask == 0).expand(3, 24, 24)
    assert result["chi2"] == chi2(**run)
    assert result["coverage90_hidden"] == coverage90(samples[:, hidden], truth[hidden])
    assert result["psnr"]["mean"] == pytest.approx(psnr(samples.mean(0), truth))
    assert result["psnr"]["sample"] == pytest.approx(np.mean([psnr(s, truth) for s in samples]))
    assert result["psnr"]["measurement"] == pytest.approx(psnr((3 * run["y"]).clamp(0, 1), truth))


def test_without_a_truth_only_chi2_is_left():
    run, _, mask = problem()
    assert set(summary(**run, picture=run["y"], mask=mask)) == {"chi2"}


def test_keys_without_a_meaning_are_left_out():
    run, truth, mask = problem(n=1)
    one = summary(**run, truth=truth)
    assert set(one) == {"chi2", "psnr", "ssim", "crps"}
    assert "measurement" not in one["psnr"]
    run, truth, mask = problem()
    assert "coverage90_hidden" not in summary(**run, truth=truth, mask=torch.ones_like(mask))


def test_vectors_have_no_structural_similarity():
    operator = matrix(normal(5, 6))
    x = normal(5, 6)
    result = summary(x[1:], operator.A(x[:1])[0], operator, 0.1, truth=x[0])
    assert "ssim" not in result
    assert "psnr" in result


def test_tensors_and_arrays_score_alike_and_stay_as_they_are():
    truth, samples = draws(4, 500)
    kept = samples.copy()
    for score in (coverage90, dispersion, crps):
        assert score(torch.tensor(samples), torch.tensor(truth)) == score(samples, truth)
    assert np.array_equal(samples, kept)


def pairs(n, share, seed=0):
    """Draw a truth and n samples in pairs m +- d; share is the variance of m over that of a sample."""
    truth, middle = draws(n // 2, seed=seed)
    far = draws(n // 2, seed=seed + 1)[1] - 0.3
    middle = 0.3 + share**0.5 * (middle - 0.3)
    ends = [middle + sign * (1 - share) ** 0.5 * far for sign in (1, -1)]
    return truth, np.stack(ends, 1).reshape(n, -1)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("n", [4, 8])
def test_dispersion_of_antithetic_pairs_is_one(n, share):
    truth, samples = pairs(n, share)
    # as above: the relative error of a mean of squares over 40,000 pixels is below 2 %; four of them
    assert dispersion(samples, truth, antithetic=True) == pytest.approx(1, abs=0.06)


def test_dispersion_of_antithetic_pairs_would_be_wrong_as_independent_draws():
    truth, samples = pairs(8, 0.05)
    assert dispersion(samples, truth) > 1.09  # 2 / (1 + 0.05/4) over 16/9


@pytest.mark.parametrize("n", [4, 8, 16])
def test_coverage_of_antithetic_pairs_is_close_to_90_percent(n):
    truth, samples = pairs(n, 0.0)
    # P(|t_{n/2}| < t_{n-1, 0.95} sqrt((n+1)/(n-1))) = 0.907, 0.902, 0.901 for n = 4, 8, 16;
    # 5 standard errors of 0.0015
    assert 0.9 - 0.0075 < coverage90(samples, truth) < 0.907 + 0.0075
