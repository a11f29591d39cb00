import pytest
import torch
from problems import generator

from invsolve.linalg import robust_cg


def spd(rows, d, spread=100.0):
    q = torch.linalg.qr(torch.randn(rows, d, d, generator=generator(), dtype=torch.float64)).Q
    return (
        q
        @ torch.diag_embed(torch.logspace(0, -torch.log10(torch.tensor(spread)), d).double()).expand(
            rows, d, d
        )
        @ q.mT
    )


def solve(K, b, steps, tolerance=1e-10, L=None):
    L = torch.eye(b.shape[1], dtype=b.dtype) if L is None else L
    apply = lambda p: ((K @ p[..., None])[..., 0], (L @ p[..., None])[..., 0])  # noqa: E731
    return robust_cg(apply, b, steps, tolerance)


def test_it_solves_and_carries_the_image():
    K, b = spd(3, 12), torch.randn(3, 12, generator=generator(1), dtype=torch.float64)
    L = torch.randn(3, 5, 12, generator=generator(2), dtype=torch.float64)
    truth = torch.linalg.solve(K, b)
    torch.testing.assert_close(solve(K, b, 60), truth, rtol=1e-6, atol=1e-8)
    image = solve(K, b, 60, L=L)
    torch.testing.assert_close(image, (L @ truth[..., None])[..., 0], rtol=1e-6, atol=1e-8)


def test_a_row_does_not_depend_on_its_neighbours():
    K, b = spd(4, 12), torch.randn(4, 12, generator=generator(1), dtype=torch.float64)
    b[1] = 0  # done before it starts
    K[2] = torch.eye(12)  # done after one step
    u = solve(K, b, 8)
    for i in range(4):
        torch.testing.assert_close(solve(K[i : i + 1], b[i : i + 1], 8)[0], u[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 10, 50])
def test_an_indefinite_asymmetric_matrix_stays_bounded(steps):
    K = spd(20, 12) + 0.3 * torch.randn(20, 12, 12, generator=generator(5), dtype=torch.float64)
    b = torch.randn(20, 12, generator=generator(1), dtype=torch.float64)
    u = solve(K, b, steps)
    residual = b - (K @ u[..., None])[..., 0]
    assert (residual.norm(dim=1) <= b.norm(dim=1) * (1 + 1e-6)).all()


def test_nan_comes_out_where_it_went_in():
    K, b = spd(3, 6).clone(), torch.ones(3, 6, dtype=torch.float64)
    K[1, 2, 3] = torch.nan
    u = solve(K, b, 10)
    for row, broken in enumerate((False, True, False)):
        assert bool(u[row].isnan().any()) == broken


def test_negative_curvature_at_once_gives_zero():
    u = solve(-spd(2, 6), torch.ones(2, 6, dtype=torch.float64), 5)
    assert float(u.abs().max()) == 0
