"""The one door to deepinv: its physics with every default spelt out, and inputs of any float type.

What deepinv 0.5 needs from us. Its tables are float32 and some of its classes reject float64, so here the
input is cast to the operator's own type and the result back (`operator.double()` makes the tables float64
too). Its default noise is one object shared by all physics; ours adds no noise at all, because the likelihood
owns the noise. Its iterative A_dagger stops when the whole batch has converged, so that a sample depends on
its neighbours; ours does not. Its bicubic Downsampling is centred at pixel 1/2 whatever the factor, so that a
photo reduced by 4 comes back shifted by one pixel: `separable` takes the weights of each axis instead, and
has an exact decomposition.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from invsolve.operators.interface import Operator, Shape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["blur", "circular_blur", "decolorize", "denoising", "inpainting", "motion_kernel", "separable"]

_MAPS = ("A", "A_adjoint", "A_dagger", "U", "U_adjoint", "V", "V_adjoint")


def denoising(shape: Shape) -> Operator:
    """Build A = 1."""
    from deepinv.physics import Denoising, ZeroNoise

    return _finish(_adapted(Denoising)(noise_model=ZeroNoise(), device="cpu"), "denoise", shape)


def inpainting(shape: Shape, mask: "Tensor") -> Operator:
    """Build A = diag(mask), mask (1 or C, H, W) of zeros and ones; `.mask` has a leading axis of 1."""
    from deepinv.physics import Inpainting, ZeroNoise

    physics = _adapted(Inpainting)(
        img_size=shape, mask=mask, pixelwise=True, device="cpu", rng=None, noise_model=ZeroNoise()
    )
    return _finish(physics, "inpaint", shape)


def decolorize(shape: Shape, weights: tuple[float, float, float]) -> Operator:
    """Build the weighted sum of the channels: (B, 3, H, W) -> (B, 1, H, W); the weights sum to 1."""
    from deepinv.physics import Decolorize, ZeroNoise

    physics = _adapted(Decolorize)(channels=shape[0], srf=weights, device="cpu", noise_model=ZeroNoise())
    return _finish(physics, "colorize", shape)


def circular_blur(shape: Shape, kernel: "Tensor") -> Operator:
    """Build the convolution with kernel (h, w) on a torus, by Fourier transform."""
    from deepinv.physics import BlurFFT, ZeroNoise

    physics = _adapted(BlurFFT)(
        img_size=shape, filter=kernel[None, None], device="cpu", noise_model=ZeroNoise()
    )
    return _finish(physics, "deblur", shape)


def blur(shape: Shape, kernel: "Tensor", border: str) -> Operator:
    """Build the convolution with kernel (h, w), the image continued by reflect, replicate or constant (0)."""
    from deepinv.physics import Blur, ZeroNoise

    physics = _adapted(Blur)(
        filter=kernel[None, None],
        padding=border,
        use_fft=False,
        device="cpu",
        noise_model=ZeroNoise(),
        img_size=shape,
        max_iter=50,
        tol=1e-4,
        solver="CG",
        implicit_backward_solver=False,
    )
    return _finish(physics, "deblur", shape)


def separable(shape: Shape, rows: "Tensor", columns: "Tensor") -> Operator:
    """Build y = rows x columns^T in each channel: rows (h, H) and columns (w, W), float64, h <= H, w <= W.

    Both are decomposed by themselves, so the operator's decomposition is exact: U = U_rows x U_columns, and
    so on.
    """
    import torch
    from deepinv.physics import DecomposablePhysics, ZeroNoise

    physics = _separable(DecomposablePhysics)(img_size=shape, device="cpu", noise_model=ZeroNoise())
    tables: dict[str, Tensor] = {"rows": rows, "columns": columns}
    for axis, matrix in (("rows", rows), ("columns", columns)):
        left, scale, right = torch.linalg.svd(matrix, full_matrices=False)
        tables |= {f"{axis}_left": left, f"{axis}_right": right.mT, f"{axis}_scale": scale}
    tables["mask"] = torch.outer(tables.pop("rows_scale"), tables.pop("columns_scale"))[None, None]
    for name, table in tables.items():
        physics.register_buffer(name, table.float())
    return _finish(physics, "superres", shape)


def motion_kernel(length: int, seed: int) -> "Tensor":
    """Draw a shaken camera's smooth random path as a kernel (length, length) of sum 1."""
    import torch
    from deepinv.physics.generator import MotionBlurGenerator

    rng = torch.Generator().manual_seed(seed)
    generator = MotionBlurGenerator(
        psf_size=(length, length), rng=rng, device="cpu", dtype=torch.float64, l=0.3, sigma=0.25, n_steps=1000
    )
    kernel: Tensor = generator.step(batch_size=1, sigma=None, l=None, seed=None)["filter"][0, 0]
    return kernel / kernel.sum()


def _finish(physics: Any, name: str, shape: Shape) -> Operator:  # noqa: ANN401  deepinv has no types
    physics.name, physics.shape = name, shape
    operator: Operator = physics
    return operator


@cache
def _adapted(base: type) -> Callable[..., Any]:  # Any: a physics
    """Subclass a physics so that every map takes any float type, and A_dagger treats each row by itself."""
    from deepinv.physics import DecomposablePhysics

    maps = {name: getattr(base, name) for name in _MAPS if hasattr(base, name)}
    if not issubclass(base, DecomposablePhysics):
        maps["A_dagger"] = _least_squares
    return type(base.__name__, (base,), {name: _casting(fn) for name, fn in maps.items()})


def _casting(fn: Callable[..., "Tensor"]) -> Callable[..., "Tensor"]:
    @wraps(fn)
    def call(self: "Module", v: "Tensor") -> "Tensor":
        dtype = next(table.dtype for table in self.buffers() if table.is_floating_point())
        return fn(self, v.to(dtype)).to(v.dtype)

    return call


def _least_squares(physics: Operator, y: "Tensor") -> "Tensor":
    """Solve A^T A x = A^T y row by row; at most 50 steps, so small singular values stay out."""
    from invsolve.linalg import robust_cg

    def normal(x: "Tensor") -> tuple["Tensor", "Tensor"]:
        product = physics.A_adjoint(physics.A(x))
        return product, x

    return robust_cg(normal, physics.A_adjoint(y), steps=50, tolerance=1e-4)


@cache
def _separable(base: type) -> Callable[..., Any]:  # Any: a physics
    maps = {
        "A": lambda self, x: self.rows @ x @ self.columns.mT,
        "A_adjoint": lambda self, y: self.rows.mT @ y @ self.columns,
        "U": lambda self, z: self.rows_left @ z @ self.columns_left.mT,
        "U_adjoint": lambda self, y: self.rows_left.mT @ y @ self.columns_left,
        "V": lambda self, z: self.rows_right @ z @ self.columns_right.mT,
        "V_adjoint": lambda self, x: self.rows_right.mT @ x @ self.columns_right,
        "A_dagger": base.A_dagger,  # type: ignore[attr-defined]  # DecomposablePhysics has it
    }
    return type("Separable", (base,), {name: _casting(fn) for name, fn in maps.items()})
