"""azula's guidances as rows: DPS, PGDM, MMPS, TMPD, DiffPIR and TDS.

Its denoisers are functions of x_t and t under a schedule; data is about [-1, 1]. Everything runs on flat
vectors, because its solvers contract the last axis alone. Schedule VE, ancestral (DDPM) sampling, 200 steps.

    dps         class DPSSampler, zeta 1; its norm is over the batch, so samples are drawn one at a time
    pgdm        class PGDMSampler: the pseudo-inverse, which knows no noise; DDIM steps, its default
    mmps        class MMPSDenoiser, one GMRES iteration, its default
    mmps-cg30   the same; 30 of conjugate gradients
    tmpd        class TMPDenoiser
    diffpir     class DiffPIRDenoiser, lambda 10, one GMRES iteration, its defaults
    tds         class TDSSampler, all samples one set of particles; twist N(y; A E[x_0 | x_t], r^2 A A^T +
                sigma_y^2), r^2 = s^2 / (1 + s^2)
"""

from collections.abc import Callable
from typing import Any

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import (
    DiffPIRDenoiser,
    DPSSampler,
    MMPSDenoiser,
    PGDMSampler,
    TDSSampler,
    TMPDenoiser,
)
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VESchedule
from azula.sample import DDPMSampler
from torch import Tensor

from invsolve.bench.peers import Draw, Scaled

__all__ = ["METHODS"]

_DOUBLE = torch.float64


class _Denoiser(Denoiser):  # type: ignore[misc]  # azula has no types here
    """The exact prior."""

    def __init__(self, scaled: Scaled) -> None:
        super().__init__()
        self._scaled, self.schedule = scaled, VESchedule()

    def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
        alpha, sigma = self.schedule(t)
        return DiracPosterior(mean=self._scaled.denoise(x_t / alpha, sigma / alpha))


def _walk(sampler: Any, scaled: Scaled, n: int) -> Tensor:  # noqa: ANN401  azula's samplers share no type
    d = scaled.table.shape[1]
    found: Tensor = sampler(sampler.init((n, d), dtype=_DOUBLE))
    return found


def _settings(steps: int | None) -> dict[str, Any]:  # Any: azula's own arguments
    return {"steps": steps or 200, "silent": True, "dtype": _DOUBLE}


def _linear(scaled: Scaled) -> Callable[[Tensor], Tensor]:
    return lambda x: x @ scaled.table.mT


def _dps(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
    sampler = DPSSampler(_Denoiser(scaled), scaled.y[None], _linear(scaled), **_settings(steps))
    return torch.cat([_walk(sampler, scaled, 1) for _ in range(n)])


def _pgdm(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
    inverse = torch.linalg.pinv(scaled.table)
    sampler = PGDMSampler(
        _Denoiser(scaled), scaled.y, _linear(scaled), lambda y: y @ inverse.mT, **_settings(steps)
    )
    return _walk(sampler, scaled, n)


def _guided(
    wrap: Callable[[Denoiser, Scaled], Denoiser],
) -> Callable[[Scaled, int, int | None, int], Tensor]:
    def samples(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
        return _walk(DDPMSampler(wrap(_Denoiser(scaled), scaled), **_settings(steps)), scaled, n)

    return samples


def _noise(scaled: Scaled) -> Tensor:
    return torch.tensor(scaled.sigma_y**2, dtype=_DOUBLE)


def _mmps(denoiser: Denoiser, scaled: Scaled) -> Denoiser:
    return MMPSDenoiser(denoiser, scaled.y, _linear(scaled), IsotropicCovariance(_noise(scaled)))


def _mmps_cg30(denoiser: Denoiser, scaled: Scaled) -> Denoiser:
    noise = IsotropicCovariance(_noise(scaled))
    return MMPSDenoiser(denoiser, scaled.y, _linear(scaled), noise, solver="cg", iterations=30)


def _tmpd(denoiser: Denoiser, scaled: Scaled) -> Denoiser:
    return TMPDenoiser(denoiser, scaled.y, _linear(scaled), _noise(scaled))


def _diffpir(denoiser: Denoiser, scaled: Scaled) -> Denoiser:
    return DiffPIRDenoiser(denoiser, scaled.y, _linear(scaled), _noise(scaled))


def _tds(scaled: Scaled, n: int, steps: int | None, seed: int) -> Tensor:
    gram, noise = scaled.table @ scaled.table.mT, scaled.sigma_y**2 * torch.eye(len(scaled.y), dtype=_DOUBLE)

    def twist(mean: Tensor, level: Tensor) -> Tensor:
        law = torch.distributions.MultivariateNormal(
            mean @ scaled.table.mT, level**2 / (1 + level**2) * gram + noise
        )
        found: Tensor = law.log_prob(scaled.y)  # type: ignore[no-untyped-call]  # torch gives it no types
        return found

    return _walk(TDSSampler(_Denoiser(scaled), twist, **_settings(steps)), scaled, n)


METHODS = {
    name: Draw(-1.0, 1.0, samples)
    for name, samples in {
        "dps": _dps,
        "pgdm": _pgdm,
        "mmps": _guided(_mmps),
        "mmps-cg30": _guided(_mmps_cg30),
        "tmpd": _guided(_tmpd),
        "diffpir": _guided(_diffpir),
        "tds": _tds,
    }.items()
}
