"""deepinv's posterior samplers as rows: DPS, PiGDM, moment matching, DDRM and DiffPIR.

Its denoisers are functions of images (B, C, H, W) in [0, 1] and a noise level in that range; a vector of d
numbers is an image of 1 x d pixels. The operator is given with its singular values up to 1,024 dimensions,
which DDRM needs and with which PiGDM and DiffPIR solve exactly; beyond, as a map and its transpose. SAMPLERS
take any problem that is posed as deepinv likes it, METHODS those of the benchmark.

    dps                     class DPS: VP, 1,000 DDPM steps, weight 1
    dps-annealed            the same with guidance "annealed", whose weight 1 has a scale
    pigdm                   class PosteriorDiffusion, VE with alpha 1, 200 Euler steps
    moment-matching         the same; 3 conjugate-gradient steps, its default
    moment-matching-cg30    the same; 30
    ddrm                    class DDRM, 100 levels; Karras-spaced from 5 standard deviations of the data
    diffpir                 class DiffPIR, 100 steps
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import deepinv
import torch
from deepinv.sampling import (
    DDRM,
    DPS,
    DiffPIR,
    EulerSolver,
    MomentMatchingDataFidelity,
    PiGDMDataFidelity,
    PosteriorDiffusion,
    VarianceExplodingDiffusion,
)
from torch import Tensor

from invsolve.bench.peers import Draw, Scaled
from invsolve.errors import Refused

__all__ = ["METHODS", "POINTS", "SAMPLERS", "Posed", "Samples"]

_DENSE = 1024  # dimensions up to which the singular vectors are formed
_RHO = 7.0


Denoise = Callable[[Tensor, Tensor | float], Tensor]


@dataclass(frozen=True)
class Posed:
    """A problem as deepinv takes it: a denoiser of [0, 1], a physics with its noise, and one measurement."""

    denoise: Denoise
    physics: Any  # deepinv has no types
    y: Tensor  # (*m), without a leading axis
    image: tuple[int, ...]  # (C, H, W)
    sigma_y: float
    spread: float  # standard deviation of the data along its widest direction

    @property
    def denoiser(self) -> "_Denoiser":
        """The prior as a deepinv model."""
        return _Denoiser(self.denoise)

    def measured(self, n: int) -> Tensor:
        """Repeat the measurement n times: (n, *m)."""
        return self.y.expand(n, *self.y.shape).clone()


Samples = Callable[[Posed, int, int | None, int], Tensor]  # problem, n, steps or None, seed


class _Denoiser(deepinv.models.Denoiser):  # type: ignore[misc]  # deepinv has no types
    """The prior."""

    def __init__(self, denoise: Denoise) -> None:
        super().__init__()
        self._denoise = denoise

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self._denoise(x, sigma)


def _posed(scaled: Scaled) -> Posed:
    image = _image(scaled)
    return Posed(scaled.denoise, _physics(scaled), scaled.y, image, scaled.sigma_y, scaled.spread)


def _image(scaled: Scaled) -> tuple[int, ...]:
    return scaled.event if len(scaled.event) == 3 else (1, 1, math.prod(scaled.event))


def _physics(scaled: Scaled) -> Any:  # noqa: ANN401  deepinv has no types
    noise = deepinv.physics.GaussianNoise(scaled.sigma_y)
    image, d = _image(scaled), math.prod(scaled.event)
    if d > _DENSE:
        return deepinv.physics.LinearPhysics(
            A=lambda x, **_: scaled.A(x),
            A_adjoint=lambda v, **_: scaled.At(v, v.new_empty(len(v), *image)),
            noise_model=noise,
        )
    m = len(scaled.table)
    u, s, vt = torch.linalg.svd(scaled.table, full_matrices=True)
    mask = torch.nn.functional.pad(s, (0, d - len(s))).reshape(1, *image)
    return deepinv.physics.DecomposablePhysics(
        U=lambda z: _times(z.flatten(1)[:, :m], u),
        U_adjoint=lambda y: torch.nn.functional.pad(_times(y, u.mT), (0, d - m)).reshape(-1, *image),
        V=lambda z: _times(z.flatten(1), vt.mT).reshape(-1, *image),
        V_adjoint=lambda x: _times(x.flatten(1), vt).reshape(-1, *image),
        mask=mask,
        noise_model=noise,
    )


def _times(rows: Tensor, table: Tensor) -> Tensor:
    return (rows.to(table) @ table.mT).to(rows)


def _dps(guidance: str) -> Samples:
    def samples(posed: Posed, n: int, steps: int | None, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        model = DPS(posed.denoiser, num_steps=(steps or 999) + 1, guidance=guidance, rng=rng)
        return _run(model, posed, n)

    return samples


def _guided(fidelity: Callable[[], Any]) -> Samples:
    def samples(posed: Posed, n: int, steps: int | None, seed: int) -> Tensor:
        times = torch.linspace(1, 0.001, (steps or 200) + 1, dtype=torch.float64)
        model = PosteriorDiffusion(
            data_fidelity=fidelity(),
            denoiser=posed.denoiser,
            sde=VarianceExplodingDiffusion(alpha=1.0),
            solver=EulerSolver(timesteps=times, rng=torch.Generator().manual_seed(seed)),
        )
        return _run(model, posed, n)

    return samples


def _run(model: Any, posed: Posed, n: int) -> Tensor:  # noqa: ANN401  deepinv has no types
    with torch.no_grad():
        found: Tensor = model(posed.measured(n), posed.physics, x_init=(n, *posed.image))
    return found


def _ddrm(posed: Posed, n: int, steps: int | None, seed: int) -> Tensor:
    if not isinstance(posed.physics, deepinv.physics.DecomposablePhysics):
        raise Refused(f"DDRM needs the singular vectors, which are formed up to {_DENSE} dimensions.")
    roots = torch.linspace(max(1.0, 5 * posed.spread) ** (1 / _RHO), 0.001 ** (1 / _RHO), (steps or 100) - 1)
    levels = [*(roots.double() ** _RHO).tolist(), 0.0]
    found: Tensor = DDRM(posed.denoiser, sigmas=levels)(posed.measured(n), posed.physics)
    return found


def _ddrm_linear(posed: Posed, n: int, steps: int | None, seed: int) -> Tensor:
    levels = torch.linspace(1, 0, steps or 100).tolist()
    found: Tensor = DDRM(posed.denoiser, sigmas=levels)(posed.measured(n), posed.physics)
    return found


def _dpir(posed: Posed, n: int, steps: int | None, seed: int) -> Tensor:
    point = deepinv.optim.DPIR(posed.sigma_y, posed.denoiser)(posed.measured(1), posed.physics)
    return torch.as_tensor(point).expand(n, *posed.image)


def _diffpir(posed: Posed, n: int, steps: int | None, seed: int) -> Tensor:
    fidelity = deepinv.optim.data_fidelity.L2()
    model = DiffPIR(posed.denoiser, fidelity, sigma=posed.sigma_y, max_iter=steps or 100)
    found: Tensor = model(posed.measured(n), posed.physics)
    return found


def _of_scaled(samples: Samples) -> Callable[[Scaled, int, int | None, int], Tensor]:
    return lambda scaled, n, steps, seed: samples(_posed(scaled), n, steps, seed)


SAMPLERS: dict[str, Samples] = {
    "dps": _dps("norm"),
    "dps-annealed": _dps("annealed"),
    "pigdm": _guided(PiGDMDataFidelity),
    "moment-matching": _guided(MomentMatchingDataFidelity),
    "moment-matching-cg30": _guided(lambda: MomentMatchingDataFidelity(cg_max_iter=30)),
    "ddrm": _ddrm,
    "diffpir": _diffpir,
}
METHODS = {name: Draw(0.0, 1.0, _of_scaled(samples)) for name, samples in SAMPLERS.items()}
SAMPLERS |= {"ddrm-linear": _ddrm_linear, "dpir": _dpir}
POINTS = {"dpir"}  # point estimates, whose n samples are one
