import random

import numpy as np
import pytest
import torch

from invsolve.rng import Noise

SHAPES = [(), (2,), (700,), (3, 20, 20), (3, 80, 80)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_owns_its_noise_whatever_n_and_first(shape):
    whole = Noise(0, "y", 40, shape)("step", 3)
    part = Noise(0, "y", 7, shape, first=29)("step", 3)
    assert torch.equal(whole[29:36], part)


@pytest.mark.parametrize("other", [{"seed": 1}, {"content": "z"}, {"prefix": ("a",)}])
def test_every_part_of_the_key_counts(other):
    key = {"seed": 0, "content": "y", "n": 5, "shape": (300,)}
    assert not torch.equal(Noise(**key)(1), Noise(**{**key, **other})(1))
    assert not torch.equal(Noise(**key)(1), Noise(**key)(2))


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3)], ids=["numpy", "torch"])
def test_a_seed_is_its_number_whatever_its_type(seed):
    assert torch.equal(Noise(seed, "y", 5, (2,))(1), Noise(3, "y", 5, (2,))(1))
    with pytest.raises(TypeError):
        Noise(3.5, "y", 5, (2,))(1)


def test_noise_is_standard_normal_and_uncorrelated():
    z = Noise(0, "", 4000, (16,), dtype=torch.float64)()
    assert float(z.mean().abs()) < 4 / 64000**0.5  # four standard errors
    off = torch.corrcoef(z.T) - torch.eye(16)
    assert float(off.abs().max()) < 5 / 4000**0.5  # 120 correlations at five standard errors


def test_global_generators_are_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    Noise(0, "", 3, (3, 8, 8))("x")
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


@pytest.mark.parametrize("shape", SHAPES)
def test_antithetic_noise_comes_in_opposite_pairs_whatever_n_and_first(shape):
    whole = Noise(0, "y", 40, shape, antithetic=True)("step", 3)
    assert torch.equal(whole[0::2], -whole[1::2])
    assert torch.equal(whole[0::2], Noise(0, "y", 20, shape)("step", 3))
    for first, n in ((29, 7), (29, 8), (30, 1), (31, 1)):
        part = Noise(0, "y", n, shape, first=first, antithetic=True).child("step")(3)
        assert torch.equal(whole[first : first + n], part)
