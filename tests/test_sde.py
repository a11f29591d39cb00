import math

import pytest
import torch
from problems import SDES

from invsolve.errors import InputError
from invsolve.sde import GRIDS, SDE, VE, VP, SubVP, grid_times

T = torch.tensor([1e-5, 1e-3, 0.1, 0.37, 0.8, 1.0], dtype=torch.float64)


class Plugin(SDE):
    """A third party's SDE: only the two marginals."""

    def __repr__(self):
        return "Plugin()"

    def alpha(self, t):
        return torch.cos(torch.as_tensor(t, dtype=torch.float64) * 1.5)

    def sigma(self, t):
        return torch.sin(torch.as_tensor(t, dtype=torch.float64) * 1.5)


ALL = [*SDES, VP(unit=0.5), SubVP(unit=0.5), Plugin()]


@pytest.mark.parametrize("sde", ALL, ids=str)
def test_f_and_g_are_the_derivatives_of_the_marginals(sde):
    f, g = SDE.f(sde, T), SDE.g(sde, T)  # derived by autograd from alpha and sigma
    torch.testing.assert_close(sde.f(T), f, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sde.g(T), g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sde", ALL, ids=str)
def test_variance_obeys_its_differential_equation(sde):
    h = 1e-6  # central difference: error h^2, relative to derivatives of order 1
    t = T[1:-1]
    slope = (sde.sigma(t + h) ** 2 - sde.sigma(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(slope, 2 * sde.f(t) * sde.sigma(t) ** 2 + sde.g(t) ** 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sde", ALL, ids=str)
def test_time_inverts_the_noise_level(sde):
    torch.testing.assert_close(sde.time(sde.ratio(T)), T, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sde", ALL, ids=str)
def test_two_short_noising_steps_equal_one_long(sde):
    a1, b1 = sde.transition(0.2, 0.5)
    a2, b2 = sde.transition(0.5, 0.9)
    a, b = sde.transition(0.2, 0.9)
    torch.testing.assert_close(a1 * a2, a)
    torch.testing.assert_close((a2**2 * b1**2 + b2**2).sqrt(), b)


@pytest.mark.parametrize("sde", ALL, ids=str)
def test_signal_to_noise_falls(sde):
    t = torch.linspace(1e-4, 1, 200, dtype=torch.float64)
    assert (sde.ratio(t).diff() > 0).all()


def test_marginals_are_songs():
    assert float(VE().sigma(0.0)) == pytest.approx(0.01)
    assert float(VE().sigma(1.0)) == pytest.approx(50)
    assert float(VP().ratio(1.0)) == pytest.approx(152.2, rel=1e-3)  # measured on the published code
    assert float(VP().alpha(1.0)) == pytest.approx(0.00657, rel=1e-3)
    assert float(SubVP().sigma(0.5)) == pytest.approx(1 - float(VP().alpha(0.5)) ** 2)


def test_small_times_keep_their_digits():
    t = 1e-5  # sigma^2 = int beta to first order; float32 subtraction is wrong by 6e-3 here
    assert float(VP().sigma(t)) == pytest.approx(math.sqrt(0.1 * t), rel=1e-3)
    assert float(VP().time(VP().ratio(1e-9))) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sde", SDES, ids=str)
def test_grids_fall_between_their_ends(grid, sde):
    times = grid_times(grid, sde, 30.0, 0.002, 40)
    assert len(times) == 41
    assert (times.diff() < 0).all()
    assert float(sde.ratio(times[0])) == pytest.approx(30)
    assert float(sde.ratio(times[-1])) == pytest.approx(0.002)


def test_karras_grid_is_uniform_in_the_seventh_root():
    roots = VP().ratio(grid_times("karras", VP(), 30.0, 0.002, 10)) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(10))


@pytest.mark.parametrize(("name", "steps"), [("karas", 10), ("karras", 0)])
def test_bad_grids_are_refused(name, steps):
    with pytest.raises(InputError, match=r"karras|steps"):
        grid_times(name, VE(), 30.0, 0.002, steps)


@pytest.mark.parametrize("make", [lambda: VE(1.0, 0.5), lambda: VP(-1.0, 20.0), lambda: SubVP(0.1, math.inf)])
def test_parameters_that_do_not_rise_are_refused(make):
    with pytest.raises(InputError, match="must satisfy"):
        make()


@pytest.mark.parametrize("kind", [VP, SubVP])
def test_unit_one_half_is_the_published_process_of_images_in_minus_1_to_1(kind):
    """u_t = alpha u_0 + sigma z with u = 2 x - 1 is x_t = alpha x_0 + sigma z / 2, up to its mean."""
    ours, published = kind(unit=0.5), kind()
    torch.testing.assert_close(ours.alpha(T), published.alpha(T))
    torch.testing.assert_close(2 * ours.sigma(T), published.sigma(T))
    torch.testing.assert_close(2 * ours.g(T), published.g(T))


@pytest.mark.parametrize("unit", [0.0, -1.0, math.inf, math.nan])
def test_a_unit_that_is_no_noise_is_refused(unit):
    with pytest.raises(InputError, match="unit must be a number > 0"):
        VP(unit=unit)
