"""The statistics of calibration on numbers of known law: what is right passes, what is wrong fails."""

import numpy as np
import pytest
from scipy.stats import binom

from invsolve import metrics
from invsolve.calibration import ranks as ranking
from invsolve.calibration.exchange import check_chi2, check_coverage, check_variance
from invsolve.calibration.figures import SHARES, inside
from invsolve.calibration.ranks import MEAN, SD, curve, histogram, rank_law, ranks_of

LEVEL = 0.05


def table(n, samples, mean=0.0, factor=1.0, seed=0):
    """Truths N(0, 1) and samples N(mean, factor^2) of n problems, (n, 1 + samples)."""
    z = np.random.default_rng(seed).standard_normal((n, 1 + samples))
    z[:, 1:] = mean + factor * z[:, 1:]
    return z


def ranks(*args, **kwargs):
    return ranks_of(table(*args, **kwargs), 0)


def low(p_values, level=LEVEL):
    return sum(p < level for p in p_values)


# ---- ranks


def test_a_rank_counts_the_samples_below_the_truth():
    assert ranks_of(np.array([[2.0, 1, 3, 0], [0, 1, 2, 3], [9, 1, 2, 3]]), 0).tolist() == [2, 0, 3]


def test_ties_are_broken_at_random_and_evenly():
    found = np.bincount(ranks_of(np.ones((4000, 4)), 1), minlength=4)
    assert np.abs(found - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)  # four standard errors


def test_the_law_of_ranks_is_uniform_for_a_right_posterior_and_that_of_draws_for_another():
    assert rank_law(7, 0.0, 1.0) == pytest.approx(np.full(8, 1 / 8), abs=1e-6)
    found = np.bincount(ranks(100_000, 7, 0.5, 0.6), minlength=8) / 100_000
    assert np.abs(found - rank_law(7, 0.5, 0.6)).max() < 4 * np.sqrt(0.25 / 100_000)  # four standard errors


@pytest.mark.parametrize(("samples", "n", "bins"), [(7, 1000, 8), (8, 20, 3), (15, 30, 4), (99, 1000, 20)])
def test_bins_divide_the_ranks_and_are_full_enough(samples, n, bins):
    counts = histogram(ranks(n, samples), samples, LEVEL).counts
    assert len(counts) == bins
    assert (samples + 1) % bins == 0
    assert sum(counts) == n


@pytest.mark.parametrize("test", [histogram, curve])
@pytest.mark.parametrize(("n", "mean", "factor"), [(40, 0, 1), (400, 0, 1), (400, MEAN, 1 - SD)])
def test_a_posterior_good_enough_fails_no_more_often_than_the_level(test, n, mean, factor):
    p_values = [test(ranks(n, 9, mean, factor, seed), 9, LEVEL).p for seed in range(100)]
    assert low(p_values) <= binom.ppf(0.9999, 100, LEVEL)


@pytest.mark.parametrize("test", [histogram, curve])
@pytest.mark.parametrize(("mean", "factor"), [(0, 0.6), (0, 2.0), (0.5, 1), (-0.5, 1)])
def test_narrow_wide_and_biased_posteriors_fail(test, mean, factor):
    """U-shaped, hill-shaped and sloping ranks."""
    assert test(ranks(600, 15, mean, factor), 15, LEVEL).p < 0.001


def test_the_shape_of_the_histogram_tells_narrow_from_wide():
    narrow, wide = (np.array(histogram(ranks(400, 15, 0, f), 15, LEVEL).counts) for f in (0.6, 2.0))
    assert narrow[[0, -1]].min() > 1.5 * 400 / 16
    assert wide[[0, -1]].max() < 400 / 16 / 1.5


def test_the_band_holds_every_bin_of_uniform_ranks_at_its_level():
    found = [histogram(ranks(100, 9, seed=seed), 9, LEVEL) for seed in range(200)]
    out = sum(min(h.counts) < h.band[0] or max(h.counts) > h.band[1] for h in found)
    assert out <= binom.ppf(0.9999, 200, LEVEL)
    low_end, high_end = found[0].band
    assert binom.cdf(low_end - 1, 100, 0.1) <= LEVEL / 20 < binom.cdf(low_end, 100, 0.1)
    assert binom.sf(high_end, 100, 0.1) <= LEVEL / 20 < binom.sf(high_end - 1, 100, 0.1)


def test_the_curve_is_the_share_of_truths_among_the_nearest():
    found = curve(np.array([0, 0, 1, 3]), 3, LEVEL)
    assert found.expected == (0, 0.25, 0.5, 0.75, 1)
    assert found.covered == (0, 0.5, 0.75, 0.75, 1)
    assert found.deviation == 0.25


def test_the_band_of_the_curve_holds_whole_curves_at_its_level():
    found = [curve(ranks(100, 9, seed=seed), 9, LEVEL) for seed in range(200)]
    out = sum(c.deviation > c.band for c in found)
    assert out <= binom.ppf(0.9999, 200, LEVEL)
    assert 0.05 < found[0].band < 0.2  # Kolmogorov's 1.36 / sqrt(100), and less for few cells


@pytest.mark.parametrize(("factor", "good"), [(1.0, True), (0.5, False), (2.0, False)])
def test_tarp_of_gaussian_posteriors_passes_the_right_one_alone(factor, good):
    """Prior N(0, I) in 5 dimensions, y = x + n of sd 1: the posterior is N(y / 2, I / 2)."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((300, 5))
    y, reference = x + rng.standard_normal((300, 5)), rng.standard_normal((300, 5))
    samples = y[:, None] / 2 + factor * np.sqrt(0.5) * rng.standard_normal((300, 15, 5))
    draws = np.concatenate([x[:, None], samples], 1)
    distances = np.linalg.norm(draws - reference[:, None], axis=2)
    assert (curve(ranks_of(distances, 0), 15, 0.01).p > 0.01) is good


# ---- coverage, chi2, variance


def draws(samples, d, mean=0.0, factor=1.0, seed=0):
    return table(d, samples, mean, factor, seed).T


def test_coverage_of_the_truth_is_that_of_the_metrics():
    x = draws(8, 500)
    assert inside(x)[SHARES.index(0.9), 0] == metrics.coverage90(x[1:], x[0])


def test_each_draw_takes_the_truths_place_against_all_others():
    x = draws(5, 40)
    for j in range(6):
        others = np.delete(x, j, 0)
        assert inside(x)[SHARES.index(0.9), j] == metrics.coverage90(others, x[j])


def squares(x):
    return np.square(x - x.mean(0)).mean(1)


def test_the_variance_ratio_is_what_samples_claim_over_what_their_mean_errs():
    problems = [draws(6, 30, seed=seed) for seed in range(4)]
    claimed = np.mean([x[1:].var(0, ddof=1).mean() for x in problems])
    error = np.mean([np.square(x[1:].mean(0) - x[0]).mean() for x in problems])
    found = check_variance(np.stack([squares(x) for x in problems]), LEVEL, 0)
    assert found.value == pytest.approx((1 + 1 / 6) * claimed / error)


def tables(n, samples, d, law, **wrong):
    """Squares, coverages and residuals of n problems whose values all hang together."""
    rng, rows = np.random.default_rng(wrong.pop("seed", 0)), []
    for _ in range(n):
        shared = law(rng, (1 + samples, 1)) * np.ones((1, d)) * rng.exponential()
        shared[1:] *= wrong.get("factor", 1.0)
        rows.append((squares(shared), inside(shared)[1], np.square(shared).mean(1)))
    return [np.stack(each) for each in zip(*rows, strict=True)]


LAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "two peaks": lambda rng, shape: rng.choice([-1.0, 1.0], shape) + 0.1 * rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_exchangeable_draws_pass_whatever_their_law_and_their_correlation(law):
    found = [tables(30, 7, 4, law, seed=seed) for seed in range(40)]
    for number, check in enumerate((check_variance, check_coverage, check_chi2)):
        p_values = [check(each[number], LEVEL, 1).p for each in found]
        assert low(p_values) <= binom.ppf(0.9999, 40, LEVEL)


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("check", [check_variance, check_coverage, check_chi2])
def test_collapse_and_padding_fail(check, factor):
    number = (check_variance, check_coverage, check_chi2).index(check)
    found = check(tables(400, 15, 4, LAWS["normal"], factor=factor)[number], LEVEL, 1)
    assert found.p < 0.001
    low_end, high_end = found.band
    assert not low_end < found.value < high_end
    assert (found.value > found.expected) is (factor > 1)


def test_the_interval_is_students_over_problems():
    rows = table(50, 4) ** 2
    found = check_chi2(rows, LEVEL, 0)
    each = rows[:, 1:].mean(1)
    assert np.mean(found.interval) == pytest.approx(each.mean())
    assert found.interval[1] - each.mean() == pytest.approx(2.0096 * each.std(ddof=1) / 50**0.5, rel=1e-4)


def test_the_interval_of_the_variance_ratio_holds_its_mean_over_repetitions():
    """The spread of the ratio over repetitions is what its interval says."""
    found = [
        check_variance(np.stack([squares(draws(6, 30, seed=100 * r + k)) for k in range(40)]), LEVEL, 0)
        for r in range(30)
    ]
    sd = np.std([c.value for c in found], ddof=1)
    half = np.mean([c.interval[1] - c.value for c in found])
    assert half / 2.02 == pytest.approx(sd, rel=0.6)  # sd of an sd from 30: 13 %; four of them


def test_samples_that_are_all_the_truth_do_not_stand_out():
    assert check_coverage(np.ones((20, 5)), LEVEL, 0).p == 1


def test_p_values_have_the_resolution_of_their_simulation():
    found = histogram(np.zeros(1000, dtype=np.int64), 9, LEVEL)
    assert found.p == 1 / (ranking._DRAWS + 1)
