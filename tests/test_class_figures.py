"""The figures of classifiers measure what they say, on a mixture whose p(c | x_t) is known."""

import math
import sys
from pathlib import Path

import pytest
import torch

from invsolve.exact import MixturePrior
from invsolve.likelihood import Classifier

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import class_figures

MEANS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)[..., None, None]  # images of one pixel
SHARES = torch.tensor([0.25, 0.75], dtype=torch.float64)
OWN, N = 0.25, 20_000


class Exact(torch.nn.Module):
    """p(component | x_0 + sigma n = x) to a power."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def forward(self, x, sigma):
        off = (x[:, None] - MEANS).flatten(2).square().sum(2)
        return self.power * (SHARES.log() - off / (2 * (OWN + sigma.to(x)[:, None] ** 2)))


def known(level):
    rng = torch.Generator().manual_seed(0)
    labels = torch.multinomial(SHARES, N, replacement=True, generator=rng)
    x0 = MEANS[labels] + OWN**0.5 * torch.randn(N, 1, 1, 1, generator=rng, dtype=torch.float64)
    return list(class_figures.evaluations(MixturePrior(MEANS, SHARES, OWN), x0, labels, level))


def way(power):
    return lambda label: Classifier(Exact(power), label)


def test_the_exact_classifier_is_calibrated_and_gains_by_its_whole_slope():
    _, nats, error, shares = class_figures.values(way(1.0), known(1.0))
    assert error < 0.02  # ten bins of 2,000 draws, each within a standard error of 0.01
    assert shares < 4 * (0.25 * 0.75 / N) ** 0.5
    gained, best = class_figures.slopes(way(1.0), known(1.0))
    step = 0.1
    ends = (class_figures.values(way(1.0), known(math.exp(h)))[1] for h in (step, -step))
    high, low = ends
    assert gained == pytest.approx((high - low) / (2 * step), abs=0.03)  # both sides scatter by 0.01
    assert best == pytest.approx(1, abs=0.06)  # 20,000 draws: standard deviation 0.015
    assert nats < class_figures.values(way(2.0), known(1.0))[1]


def test_a_classifier_that_is_too_sure_is_found_out():
    assert class_figures.values(way(3.0), known(1.0))[2] > 0.05
    assert class_figures.values(way(0.0), known(1.0))[3] == pytest.approx(0.25, abs=0.02)
    assert class_figures.slopes(way(0.25), known(1.0))[1] > 1.5


def test_a_share_has_wilsons_interval():
    assert class_figures.wilson(19, 20) == pytest.approx((0.7639, 0.9911), abs=1e-4)
    assert class_figures.wilson(20, 20)[1] == pytest.approx(1)


def test_the_spread_is_that_within_classes():
    samples = torch.stack([torch.full((4, 1, 2, 2), c) for c in (0.0, 1.0)])
    assert class_figures.spread(samples) == 0
    samples[:, ::2] += torch.tensor([0.2, -0.2])[:, None, None, None, None]
    assert class_figures.spread(samples) == pytest.approx((0.04 / 3) ** 0.5)  # ddof 1: 4/3 of 0.01
