"""Few steps against many: one Brownian motion drives all walks, and its ratios say what they should."""

import math
import sys
from pathlib import Path

import pytest
import torch
from problems import gaussian_prior

from invsolve.posterior import Posterior
from invsolve.samplers.pc import PC
from invsolve.samplers.predictors import Ancestral
from invsolve.sde import VE, VP

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import steps

WALKS = [PC(steps=80), PC(steps=40), PC(steps=40, grid="karras")]


def posed(sde):
    posterior = Posterior(gaussian_prior(8), sde=sde)
    return posterior, steps.Motion([steps.clock(walk, posterior) for walk in WALKS], posterior.shape, 0)


def test_the_noise_of_a_step_is_standard_and_of_its_parts():
    posterior, motion = posed(VE())
    early, middle, late = motion.times[3], motion.times[7], motion.times[20]
    whole, first, second = motion.noise(early, late), motion.noise(early, middle), motion.noise(middle, late)
    parts = math.sqrt(middle - early) * first + math.sqrt(late - middle) * second
    torch.testing.assert_close(math.sqrt(late - early) * whole, parts)
    draws = torch.cat([motion.noise(a, b) for a, b in zip(motion.times, motion.times[1:], strict=False)])
    assert abs(float(draws.std()) - 1) < 4 / (2 * draws.numel()) ** 0.5
    assert posterior.shape == draws.shape[1:]


@pytest.mark.parametrize("sde", [VE(), VP()], ids=str)
def test_walks_of_one_motion_end_near_each_other(sde):
    """Measured 0.07 to 0.18 of the prior's standard deviation; walks of their own noise differ by 1.4."""
    posterior, motion = posed(sde)
    many, *few = (steps.drawn(walk, posterior, motion) for walk in WALKS)
    wide = posterior.prior.sample(2000, 0).std(0).mean()
    for each in few:
        assert float((each - many).square().mean().sqrt()) < 0.2 * float(wide)


def test_a_method_that_is_too_narrow_is_seen():
    """Ancestral sampling in 20 steps: 20 % too narrow; the default is right."""
    posterior, walks = Posterior(gaussian_prior(8)), [*WALKS[:2], PC(Ancestral(), steps=20)]
    motion = steps.Motion([steps.clock(walk, posterior) for walk in walks], posterior.shape, 0)
    many, right, narrow = (steps.spreads(steps.drawn(walk, posterior, motion))[0] for walk in walks)
    assert right / many == pytest.approx(1, abs=0.03)
    assert narrow / many == pytest.approx(0.8, abs=0.05)


def test_a_row_is_of_ratios():
    row = steps._row("few", [[1.0, 2.0, 3.0, 4.0, 0.9, 30.0]] * 2, [[2.0, 2.0, 3.0, 4.0, 1.0, 30.0]] * 2)
    assert row == ["few", "0.500 ± 0.000", *["1.000 ± 0.000"] * 3, "0.90", "30.00"]
