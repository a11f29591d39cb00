"""deepinv's posterior samplers as rows: DPS, PiGDM, moment matching, DDRM and DiffPIR.

Its denoisers are functions of images (B, C, H, W) in [0, 1] and a noise level in that range; a vector of d
numbers is an image of 1 x d pixels. The operator is given with its singular values up to 1,024 dimensions,
which DDRM needs and with which PiGDM and DiffPIR solve exactly; beyond, as a map and its transpose.

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

__all__ = ["METHODS"]

_DENSE = 1024  # dimensions up to which the singular vectors are formed
_RHO = 7.0


class _Denoiser(deepinv.models.Denoiser):  # type: ignore[misc]  # deepinv has no types
    """The exact prior."""

    def __init__(self, scaled: Scaled) -> None:
        super().__init__()
        self._scaled = scaled

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self._scaled.denoise(x, sigma)


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


def _measured(scaled: Scaled, n: int) -> Tensor:
    return scaled.y.expand(n, -1).clone()


def _dps(guidance: str) -> Callable[[Scaled, int, int | None, int], Tensor]:
    def samples(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        model = DPS(_Denoiser(scaled), num_steps=(steps or 999) + 1, guidance=guidance, rng=rng)
        return _run(model, scaled, n)

    return samples


def _guided(fidelity: Callable[[], Any]) -> Callable[[Scaled, int, int | None, int], Tensor]:
    def samples(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
        times = torch.linspace(1, 0.001, (steps or 200) + 1, dtype=torch.float64)
        model = PosteriorDiffusion(
            data_fidelity=fidelity(),
            denoiser=_Denoiser(scaled),
            sde=VarianceExplodingDiffusion(alpha=1.0),
            solver=EulerSolver(timesteps=times, rng=torch.Generator().manual_seed(seed)),
        )
        return _run(model, scaled, n)

    return samples


def _run(model: Any, scaled: Scaled, n: int) -> Tensor:  # noqa: ANN401  deepinv has no types
    with torch.no_grad():
        found: Tensor = model(_measured(scaled, n), _physics(scaled), x_init=(n, *_image(scaled)))
    return found


def _ddrm(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
    physics = _physics(scaled)
    if not isinstance(physics, deepinv.physics.DecomposablePhysics):
        raise Refused(f"DDRM needs the singular vectors, which are formed up to {_DENSE} dimensions.")
    roots = torch.linspace(max(1.0, 5 * scaled.spread) ** (1 / _RHO), 0.001 ** (1 / _RHO), (steps or 100) - 1)
    levels = [*(roots.double() ** _RHO).tolist(), 0.0]
    found: Tensor = DDRM(_Denoiser(scaled), sigmas=levels)(_measured(scaled, n), physics)
    return found


def _diffpir(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
    fidelity = deepinv.optim.data_fidelity.L2()
    model = DiffPIR(_Denoiser(scaled), fidelity, sigma=scaled.sigma_y, max_iter=steps or 100)
    found: Tensor = model(_measured(scaled, n), _physics(scaled))
    return found


METHODS = {
    name: Draw(0.0, 1.0, samples)
    for name, samples in {
        "dps": _dps("norm"),
        "dps-annealed": _dps("annealed"),
        "pigdm": _guided(PiGDMDataFidelity),
        "moment-matching": _guided(MomentMatchingDataFidelity),
        "moment-matching-cg30": _guided(lambda: MomentMatchingDataFidelity(cg_max_iter=30)),
        "ddrm": _ddrm,
        "diffpir": _diffpir,
    }.items()
}
