"""Operators: laws of a linear map, known numbers, and the sentence for each wrong option."""

import copy
import subprocess
import sys
from inspect import signature
from typing import get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from invsolve import operators
from invsolve.errors import InputError, UnknownName
from invsolve.operators import colorize, deblur, denoise, inpaint, matrix, superres

BORDERS = ("circular", "reflect", "replicate", "constant")
A = torch.arange(15, dtype=torch.float64).reshape(3, 5).cos()
BUILD = {
    "keep": lambda: inpaint((3, 17, 20), keep=0.4),
    "box": lambda: inpaint((1, 18, 21), box="2,3,5,6"),
    "denoise": lambda: denoise((3, 9, 11)),
    "colorize": lambda: colorize((3, 9, 11)),
    "bicubic": lambda: superres((3, 32, 48)),
    "box3": lambda: superres((1, 33, 27), factor=3, filter="box"),
    **{b: lambda b=b: deblur((3, 19, 22), std=1.2, border=b) for b in BORDERS},
    **{f"motion-{b}": lambda b=b: deblur((1, 25, 31), kernel="motion", border=b) for b in BORDERS},
    "matrix": lambda: matrix(A),
    "tall": lambda: matrix(A.mT, (3, 1, 1)),
}
GOLDEN_KEEP = [4, 5, 7, 13, 14, 19]
GOLDEN_MOTION = [0.0, 0.062893085, 0.937106967, 0.0, 0.0]
SPECTRAL = [name for name, build in BUILD.items() if hasattr(build(), "U_adjoint")]
every = pytest.mark.parametrize("name", BUILD)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def double(name):
    operator = BUILD[name]()
    return operator.double() if hasattr(operator, "double") else operator


def file(path, values, mode="L"):
    Image.fromarray(np.asarray(values, dtype=np.uint8), mode=None).convert(mode).save(path)
    return path


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_adjoint_is_the_transpose(name, dtype, tolerance):
    operator = double(name) if dtype == torch.float64 else BUILD[name]()
    x = normal(2, *operator.shape, dtype=dtype)
    y = operator.A(x)
    v = normal(*y.shape, seed=1, dtype=dtype)
    gap = (y * v).sum() - (x * operator.A_adjoint(v)).sum()
    assert y.dtype == dtype
    assert abs(gap) <= tolerance * y.norm() * v.norm()


@every
def test_the_map_is_linear(name):
    operator = double(name)
    a, b = normal(2, 1, *operator.shape)
    gap = operator.A(2 * a - 3 * b) - (2 * operator.A(a) - 3 * operator.A(b))
    assert gap.abs().max() < 1e-12  # float64: a few hundred roundings of 2e-16


@every
def test_a_row_does_not_depend_on_its_batch(name):
    operator = double(name)
    x = normal(3, *operator.shape) * torch.tensor([1.0, 1e-3, 1e3]).reshape(3, *[1] * len(operator.shape))
    y = operator.A(x)
    for fn, v in ((operator.A, x), (operator.A_adjoint, y), (operator.A_dagger, y)):
        # float64, though 50 steps of conjugate gradients amplify roundings; a shared stop would show as 1e-2
        assert (fn(v[1:2]) - fn(v)[1:2]).norm() <= 1e-5 * fn(v[1:2]).norm()


@every
def test_neither_input_nor_global_generator_is_touched(name):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    operator = BUILD[name]()
    x = normal(2, *operator.shape)
    kept = x.clone()
    y = operator.A(x)
    y_kept = y.clone()
    operator.A_adjoint(y), operator.A_dagger(y), operators.picture(operator, y)
    assert torch.equal(x, kept)
    assert torch.equal(y, y_kept)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", SPECTRAL)
def test_the_singular_basis_gives_the_map_and_its_transpose(name):
    operator = BUILD[name]()
    x = normal(2, *operator.shape)
    y = operator.A(x)
    assert (operator.U(operator.mask * operator.V_adjoint(x)) - y).abs().max() < 1e-5  # float32 tables
    back = operator.V(operator.mask * operator.U_adjoint(y))
    assert (back - operator.A_adjoint(y)).abs().max() < 1e-5


@pytest.mark.parametrize("name", SPECTRAL)
def test_spectral_functions_of_a_at_are_exact(name):
    """(A A^T + 1)^-1 by the singular basis, with U's complement: what a Gaussian likelihood solves."""
    operator = BUILD[name]()
    y = normal(*operator.A(normal(2, *operator.shape)).shape)
    u = y + operator.U((1 / (1 + operator.mask**2) - 1) * operator.U_adjoint(y))
    assert (operator.A(operator.A_adjoint(u)) + u - y).abs().max() < 1e-5  # float32 tables


@pytest.mark.parametrize("name", ["keep", "box", "denoise", "colorize", "bicubic", "box3", "matrix", "tall"])
def test_a_dagger_explains_what_was_measured(name):
    operator = BUILD[name]()
    y = operator.A(normal(2, *operator.shape))
    assert (operator.A(operator.A_dagger(y)) - y).abs().max() < 1e-5  # float32 tables


@pytest.mark.parametrize("border", BORDERS[1:])
def test_a_dagger_of_a_blur_explains_y_but_does_not_blow_up_its_noise(border):
    operator = deblur((1, 20, 20), std=1.5, border=border)
    noise = 0.1 * normal(1, 1, 20, 20, seed=1)
    y = operator.A(normal(1, 1, 20, 20)) + noise
    x = operator.A_dagger(y)
    assert (operator.A(x) - y).norm() < noise.norm()
    assert x.norm() < 20 * y.norm()  # the exact inverse amplifies noise by 1e5; 50 steps by about 15


AVERAGING = [n for n in BUILD if n[:4] not in ("keep", "box", "matr", "tall") and "constant" not in n]


@pytest.mark.parametrize("name", AVERAGING)
def test_a_constant_image_stays_constant(name):
    operator = BUILD[name]()
    y = operator.A(torch.full((1, *operator.shape), 0.7))
    assert (y - 0.7).abs().max() < 1e-6  # float32


@every
def test_the_picture_has_the_shape_of_the_image(name):
    operator = BUILD[name]()
    y = operator.A(normal(2, *operator.shape))
    assert operators.picture(operator, y).shape == (2, *operator.shape)


@every
def test_a_deep_copy_computes_by_itself(name):
    operator = BUILD[name]()
    x = normal(1, *operator.shape)
    assert torch.equal(copy.deepcopy(operator).A(x), operator.A(x))


@pytest.mark.parametrize("name", [n for n in BUILD if n not in ("matrix", "tall")])
def test_operators_are_deepinv_physics_with_a_name_and_a_shape(name):
    from deepinv.physics import LinearPhysics

    operator = BUILD[name]()
    assert isinstance(operator, LinearPhysics)
    assert getattr(operators, operator.name)
    assert len(operator.shape) == 3


# golden values: known numbers, so that a changed default of a dependency is seen


def ramp(*shape):
    return torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(1, *shape).sin()


def test_golden_inpaint():
    mask = inpaint((1, 4, 5), keep=0.3).mask
    assert mask.shape == (1, 1, 4, 5)
    assert mask.flatten().nonzero().flatten().tolist() == GOLDEN_KEEP
    assert inpaint((1, 4, 4), box="1,2,2,1").A(torch.ones(1, 1, 4, 4)).sum((0, 1, 2)).tolist() == [4, 4, 2, 4]


def test_golden_denoise():
    x = ramp(1, 2, 2).float()
    assert torch.equal(denoise((1, 2, 2)).A(x), x)


def test_golden_colorize_is_luma():
    red, green, blue = torch.eye(3, dtype=torch.float64).reshape(3, 1, 3, 1, 1)
    operator = colorize((3, 1, 1))
    assert [round(float(operator.A(c)), 6) for c in (red, green, blue)] == [0.299, 0.587, 0.114]


@pytest.mark.parametrize(
    ("border", "mode"),
    [("circular", "wrap"), ("reflect", "mirror"), ("replicate", "nearest"), ("constant", "constant")],
)
def test_golden_gaussian_blur_is_that_of_scipy(border, mode):
    x = ramp(1, 12, 15)
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 1.3, mode=mode, truncate=4.0)
    y = deblur((1, 12, 15), std=1.3, border=border).A(x)
    assert np.abs(y[0, 0].numpy() - expected).max() < 1e-6  # float32 kernel


@pytest.mark.parametrize("border", BORDERS)
def test_golden_kernel_is_convolved_not_correlated(border):
    kernel = torch.zeros(3, 3)
    kernel[0, 1] = 2.0  # above the centre: the image moves up
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    y = deblur((1, 5, 5), kernel=kernel, border=border).A(x)
    assert float(y[0, 0, 1, 2]) == pytest.approx(1, abs=1e-6)


def test_golden_motion_kernel():
    kernel = deblur((1, 32, 32), kernel="motion", length=5, motion_seed=1).filter[0, 0]
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert kernel.sum(0).tolist() == pytest.approx(GOLDEN_MOTION, abs=1e-6)


@pytest.mark.parametrize("factor", range(2, 9))
def test_golden_bicubic_is_that_of_pillow(factor):
    x = ramp(1, 6 * factor, 4 * factor)
    small = Image.fromarray(x[0, 0].numpy().astype(np.float32)).resize((4, 6), Image.Resampling.BICUBIC)
    y = superres((1, 6 * factor, 4 * factor), factor=factor).A(x)
    assert np.abs(y[0, 0].numpy() - np.asarray(small)).max() < 1e-6  # float32


def test_golden_box_is_the_mean_of_blocks():
    y = superres((1, 6, 9), factor=3, filter="box").A(ramp(1, 6, 9))
    assert torch.allclose(y, ramp(1, 6, 9).reshape(1, 1, 2, 3, 3, 3).mean((3, 5)), atol=1e-7)


def test_golden_matrix():
    assert torch.equal(matrix(A).A(ramp(5)), ramp(5) @ A.mT)


@pytest.mark.parametrize("table", [A, 0.01 * A.mT, torch.outer(A[0], A[1])])
def test_a_matrix_inverts_as_numpy_does(table):
    y = normal(2, len(table))
    expected = y.numpy() @ np.linalg.pinv(table.numpy()).T
    assert np.abs(matrix(table).A_dagger(y).numpy() - expected).max() < 1e-12  # float64


# inpaint


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.99])
def test_keep_is_the_share_of_pixels_seen_in_all_channels_alike(keep):
    operator = inpaint((3, 20, 25), keep=keep)
    seen = operator.A(torch.ones(1, 3, 20, 25))[0]
    assert float(seen[0].sum()) == round(keep * 500)
    assert torch.equal(seen[0], seen[2])


def test_another_mask_seed_is_another_mask():
    masks = [inpaint((1, 20, 20), mask_seed=seed).mask for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_mask_file_and_a_mask_array_say_the_same(tmp_path):
    mask = normal(6, 7) > 0
    path = file(tmp_path / "mask.png", 255 * mask.numpy())
    rgb = file(tmp_path / "rgb.png", 255 * mask.numpy(), "RGB")
    np.save(tmp_path / "mask.npy", mask.numpy().astype(np.uint8))
    for given in (mask, mask.numpy(), mask[None].float(), path, str(rgb), tmp_path / "mask.npy"):
        assert torch.equal(inpaint((3, 6, 7), mask=given).mask, mask[None, None].float())


def test_a_mask_of_its_own_for_each_channel_is_kept():
    mask = normal(3, 6, 7) > 0
    assert torch.equal(inpaint((3, 6, 7), mask=mask).mask, mask[None].float())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": 0.3, "box": "1,1,2,2"}, "takes one of keep, box and mask, but got keep and box"),
        ({"keep": 0.0}, "share between 0 and 1, but it is 0.0"),
        ({"keep": 1.0}, "use denoise"),
        ({"keep": float("nan")}, "it is nan"),
        ({"box": "1,2,3"}, "four whole numbers Y,X,H,W, but it is '1,2,3'"),
        ({"box": "a,b,c,d"}, "four whole numbers"),
        ({"box": (5, 5, 4, 2)}, "does not lie in the image of height 8 and width 9"),
        ({"box": "-1,0,2,2"}, "does not lie in"),
        ({"box": "0,0,8,9"}, "nothing is measured"),
        ({"mask": torch.zeros(8, 9)}, "black everywhere"),
        ({"mask": torch.ones(8, 9)}, "nothing is lost. Use denoise"),
        ({"mask": torch.ones(4, 9)}, r"shape \(1, 4, 9\), but the image is \(3, 8, 9\)"),
        ({"mask": torch.linspace(0, 1, 72).reshape(8, 9)}, "70 values that are neither black nor white"),
        ({"mask": torch.full((8, 9), torch.nan)}, "72 values that are neither"),
        ({"mask": -torch.eye(9)[:8]}, "neither black nor white"),
        ({"mask": "no/such.png"}, "no file no/such.png"),
    ],
)
def test_a_wrong_mask_is_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        inpaint((3, 8, 9), **options)


def test_a_grey_mask_file_is_refused_with_its_name(tmp_path):
    path = file(tmp_path / "grey.png", np.arange(72).reshape(8, 9))
    with pytest.raises(InputError, match=r"grey\.png has 70 values that are neither"):
        inpaint((3, 8, 9), mask=path)


# deblur


def test_a_kernel_file_is_divided_by_its_sum(tmp_path):
    weights = np.array([[0, 1, 0], [1, 4, 2], [0, 0, 0]])
    np.save(tmp_path / "k.npy", weights)
    file(tmp_path / "k.png", 60 * weights)
    for given in (tmp_path / "k.npy", str(tmp_path / "k.png"), torch.tensor(weights)):
        kernel = deblur((1, 8, 8), kernel=given).filter[0, 0]
        assert np.abs(kernel.numpy() - weights / 8).max() < 1e-7  # float32


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernel": torch.ones(4, 3)}, r"shape \(4, 3\); expected two odd sides"),
        ({"kernel": torch.ones(11, 11)}, "11 x 11 pixels, larger than the image of 9 x 10"),
        ({"kernel": torch.zeros(3, 3)}, "sum 0"),
        ({"kernel": -torch.ones(3, 3)}, "minimum -1"),
        ({"kernel": torch.full((3, 3), torch.nan)}, "9 values that are NaN"),
        ({"kernel": "gausian"}, "Did you mean 'gaussian'"),
        ({"kernel": "no/such.png"}, "no file no/such.png"),
        ({"std": 0.0}, "length > 0 in pixels, but it is 0.0"),
        ({"std": float("nan")}, "it is nan"),
        ({"std": 30.0}, "larger than the image"),
        ({"border": "circle"}, "Did you mean 'circular'"),
        ({"kernel": "motion", "length": 4}, "odd side of the motion kernel, 3 pixels or more, but it is 4"),
    ],
)
def test_a_wrong_kernel_is_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        deblur((1, 9, 10), **options)


def test_another_motion_seed_is_another_path():
    kernels = [deblur((1, 32, 32), kernel="motion", motion_seed=seed).filter for seed in (0, 0, 1)]
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])


# superres, colorize, shapes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"factor": 1}, "whole number from 2 to 8, but it is 1"),
        ({"factor": 9}, "from 2 to 8"),
        ({"factor": 2.5}, "but it is 2.5"),
        ({"factor": 3}, "does not divide the image of 8 x 10 pixels. Crop it to 6 x 9"),
        ({"factor": 2, "filter": "cubic"}, "Did you mean 'bicubic'"),
    ],
)
def test_a_wrong_reduction_is_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        superres((1, 8, 10), **options)


def test_pictures_are_what_one_would_look_at():
    x = torch.full((1, 3, 8, 8), 0.25, dtype=torch.float64)
    for operator in (
        superres((3, 8, 8)),
        colorize((3, 8, 8)),
        deblur((3, 8, 8), std=0.5),
        denoise((3, 8, 8)),
    ):
        assert (operators.picture(operator, operator.A(x)) - x).abs().max() < 1e-6  # float32
    holes = inpaint((3, 8, 8), box="2,2,3,3")
    assert torch.equal(operators.picture(holes, holes.A(x)), x * holes.mask)


def test_the_unknown_image_of_a_measured_file():
    shape = operators.unknown_shape
    assert shape(superres, (3, 10, 12), {}) == (3, 40, 48)
    assert shape(superres, (3, 10, 12), {"factor": 2, "filter": "box"}) == (3, 20, 24)
    assert shape(colorize, (1, 10, 12), {}) == (3, 10, 12)
    for factory in (inpaint, deblur, denoise, lambda shape: None):
        assert shape(factory, (3, 10, 12), {}) == (3, 10, 12)
    with pytest.raises(InputError, match="one channel, but this one has 3"):
        shape(colorize, (3, 10, 12), {})


@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8), (3, 8.5, 8), "abc", 8])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(InputError, match="shape"):
        denoise(shape)


def test_colorize_wants_three_channels():
    with pytest.raises(InputError, match=r"3 channels, but the shape is \(1, 8, 8\)"):
        colorize((1, 8, 8))


@pytest.mark.parametrize(
    ("table", "shape", "sentence"),
    [
        (A[0], None, r"real matrix \(m, d\), but it has shape \(5,\)"),
        (A.to(torch.complex64), None, "complex64"),
        (A / 0 * 0, None, "15 entries that are NaN"),
        (A, (2, 2), r"5 columns, but events of shape \(2, 2\) have 4 values"),
    ],
)
def test_a_wrong_matrix_is_named(table, shape, sentence):
    with pytest.raises(InputError, match=sentence):
        matrix(table, shape)


@pytest.mark.parametrize("factory", [inpaint, deblur, superres, colorize, denoise])
def test_every_option_has_a_default_and_a_help_line(factory):
    hints = get_type_hints(factory, include_extras=True)
    for name, parameter in list(signature(factory).parameters.items())[1:]:
        (help_line,) = hints[name].__metadata__
        assert parameter.default is not parameter.empty
        assert help_line == help_line.strip().rstrip(".")
        assert help_line[0].islower()


def test_unknown_names_are_lookup_errors_too():
    with pytest.raises(UnknownName):
        deblur((1, 9, 9), border="torus")


def test_importing_the_operators_imports_neither_torch_nor_deepinv():
    code = "import sys, invsolve.operators; print({'torch', 'deepinv', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
