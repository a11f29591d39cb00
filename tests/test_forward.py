"""A map's linearity is found out, and its derivative goes both ways."""

import pytest
import torch

from invsolve.forward import is_differentiable, is_linear, pull, push

LIKE = torch.zeros((), dtype=torch.float64)
SHAPE = (1, 3, 4)

MAPS = {
    "a product": (lambda x: 2 * x, True, True),
    "a constant beside it": (lambda x: 2 * x + 1, False, True),
    "a square": (lambda x: x**2, False, True),
    "a magnitude": (lambda x: torch.fft.fft2(x).abs(), False, True),
    "a mask": (lambda x: x * (torch.arange(4) > 1), True, True),
    "nothing": (lambda x: 0 * x, True, False),
    "whole numbers": (lambda x: x.round(), False, False),
    "without a graph": (lambda x: 2 * x.detach(), True, False),
    "through numpy": (lambda x: torch.from_numpy(2 * x.numpy()), True, False),
}


@pytest.mark.parametrize(("forward", "linear", "differentiable"), MAPS.values(), ids=MAPS)
def test_what_a_map_offers_is_found_out(forward, linear, differentiable):
    assert is_linear(forward, SHAPE, LIKE) == linear
    assert is_differentiable(forward, SHAPE, LIKE) == differentiable


def test_float32_rounding_is_no_nonlinearity():
    weights = torch.randn(500, 500, generator=torch.Generator().manual_seed(0))
    assert is_linear(lambda x: x @ weights @ weights / 500, (1, 500), torch.zeros(()))


def test_the_derivative_of_a_sine_is_a_cosine_both_ways():
    rng = torch.Generator().manual_seed(1)
    x, v = (torch.randn(2, *SHAPE, generator=rng, dtype=torch.float64) for _ in range(2))
    for product in (pull, push):
        assert torch.allclose(product(torch.sin, x, v), torch.cos(x) * v, rtol=1e-12)


def test_pull_is_the_transpose_of_push():
    rng = torch.Generator().manual_seed(2)
    table = torch.randn(5, 12, generator=rng, dtype=torch.float64)
    x, u = (torch.randn(3, *SHAPE, generator=rng, dtype=torch.float64) for _ in range(2))
    v = torch.randn(3, 5, generator=rng, dtype=torch.float64)

    def forward(x):
        return (x.flatten(1) @ table.mT) ** 3

    left, right = (push(forward, x, u) * v).flatten(1).sum(1), (u * pull(forward, x, v)).flatten(1).sum(1)
    assert torch.allclose(left, right, rtol=1e-10)
