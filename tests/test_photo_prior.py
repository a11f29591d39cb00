"""The shipped prior: its guidance converges on a photo, and what comes out is calibrated and close."""

import pytest
import torch

from invsolve import operators
from invsolve.guidance import MomentMatching
from invsolve.images import SAMPLE, load_image
from invsolve.likelihood import Gaussian
from invsolve.metrics import chi2, psnr
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.priors.catalogue import load_prior
from invsolve.rng import Noise
from invsolve.samplers.pc import PC
from invsolve.sde import VE, VP, SubVP

SHAPE = (3, 64, 64)
TASKS = {
    "inpaint": lambda: operators.inpaint(SHAPE, keep=0.3),
    "superres": lambda: operators.superres(SHAPE, factor=4, filter="box"),
    "deblur": lambda: operators.deblur(SHAPE, std=2.0),
}


def problem(task):
    truth = torch.as_tensor(load_image(SAMPLE).pixels)[:, 40:104, 96:160].contiguous()
    operator = TASKS[task]()
    clean = operator.A(truth[None])[0]
    y = clean + 0.02 * Noise(0, "measurement", 1, tuple(clean.shape))()[0] * (clean != 0)
    return truth, Gaussian(y, operator, 0.02)


@pytest.mark.parametrize("task", TASKS)
def test_guidance_through_the_learned_jacobian_converges(task):
    """At low noise the solve reaches its tolerance; at high noise it may stop early, but never moves the mean
    far."""
    truth, likelihood = problem(task)
    prior, sde = load_prior("photo"), VE(sigma_max=160.0)
    noise = Noise(1, "", 2, SHAPE)()
    for level in (0.004, 0.02, 0.1, 0.5, 3.0, 30.0, 150.0):
        at = Denoised(prior, sde, truth + level * noise, sde.time(level), graph=True)
        g = MomentMatching()(at, likelihood)
        mean = at.mean + level**2 * g
        assert float((mean - truth).square().mean().sqrt()) < 1.0  # pixels; plain CG: 1e14
        if level <= 0.02:
            before, after = (likelihood.residual(m).square().mean() for m in (at.mean, mean))
            assert float(after) < float(before) + 1e-6
            assert float(after) < 2 * 0.02**2


@pytest.mark.parametrize("level", [0.2, 0.4])
def test_the_trace_of_its_derivative_tells_how_far_each_picture_is_off(level):
    """Smooth pictures err half as much as rough ones; the size of the covariance follows."""
    picture = torch.as_tensor(load_image(SAMPLE).pixels)
    crops = torch.stack([picture[:, 64 * i : 64 * i + 64, 0:64] for i in range(4)])
    smooth = torch.nn.functional.avg_pool2d(crops, 17, 1, 8, count_include_pad=False)
    truth = torch.cat([crops, smooth])
    prior, sde = load_prior("photo"), VE()
    at = Denoised(prior, sde, truth + level * Noise(3, "", 8, SHAPE)(), sde.time(level), graph=True)
    error = (at.mean - truth).square().mean((1, 2, 3)).log() / 2
    white = Noise(4, "", 8, SHAPE)()
    off = (white * at.covariance(white)).mean((1, 2, 3)).log() / 2 - error
    assert float(error.std()) > 0.3  # what a covariance of one size would be off by
    assert float(off.std()) < 0.2
    assert abs(float(off.mean())) < 0.2


@pytest.mark.parametrize("sde", [VE(), VP(), SubVP()], ids=str)
def test_every_sde_starts_and_ends_where_the_prior_was_trained(sde):
    prior = load_prior("photo")
    posterior = Posterior(prior, sde=sde, shape=SHAPE)
    assert posterior.span()[0] == pytest.approx(float(sde.ratio(1.0)))
    assert prior.sigma_min <= 0.002 / 2  # in [0, 1] units
    x = 0.5 + float(sde.ratio(1.0)) * Noise(2, "", 4, SHAPE)()
    with torch.no_grad():
        mean = prior.denoise(x, torch.full((4,), float(sde.ratio(1.0)), dtype=torch.float64))
    assert float((mean - 0.5).square().mean().sqrt()) < 0.3  # no picture is left: about the mean of photos
    assert float(mean.std(dim=(2, 3)).max()) < 0.15  # and nothing to see in it


@pytest.mark.parametrize(("task", "least"), [("inpaint", 24.0), ("superres", 22.0), ("deblur", 23.5)])
def test_a_short_run_fits_the_measurement_and_nears_the_truth(task, least):
    truth, likelihood = problem(task)
    samples = PC(steps=25)(Posterior(load_prior("photo"), likelihood), 3, 0)
    assert 0.7 < chi2(samples, likelihood.y, likelihood.operator, 0.02) < 1.5
    assert psnr(samples.mean(0), truth) > least


@pytest.mark.gpu
def test_the_prior_runs_on_a_gpu():
    truth, likelihood = problem("inpaint")
    operator = TASKS["inpaint"]().to("cuda")
    posterior = Posterior(load_prior("photo").to("cuda"), Gaussian(likelihood.y.cuda(), operator, 0.02))
    assert psnr(PC(steps=25)(posterior, 3, 0).mean(0).cpu(), truth) > 20
