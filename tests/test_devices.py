"""Everything runs where the images are: the answers of a far device are those of the CPU.

In double precision, so that only rounding is left between two orders of the same sums.
"""

import contextlib
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from far_device import FAR, Far, far_device
from problems import SDES, gaussian_prior, masking, plane_mixture, random_matrix
from running import invsolve, world  # noqa: F401  world is a fixture
from test_checkpoints_run import FORMATS
from test_classifier_training import CLASSIFIER
from test_training_objective import CONFIG

from invsolve import device, operators
from invsolve.classifiers.formats import load_classifier
from invsolve.classifiers.guide import AveragedClassifier, DenoisedClassifier
from invsolve.guidance import ClassifierGuidance
from invsolve.likelihood import Classifier, Gaussian, Poisson
from invsolve.plugins import Part, load
from invsolve.posterior import Posterior
from invsolve.prior import Denoised
from invsolve.priors.catalogue import load_prior
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.run import parts, units
from invsolve.samplers.correctors import Langevin
from invsolve.samplers.density import log_prob
from invsolve.samplers.flow import decode, encode
from invsolve.samplers.pc import PC
from invsolve.samplers.smc import TwistedSMC
from invsolve.sde import VE
from invsolve.testing.plugin import examine
from invsolve.training import checkpoint, group, kinds, whole
from invsolve.training.config import OBJECTIVES
from invsolve.training.loop import Run, gradient_step

REGISTRY = load()
STEPS = 3
ROUNDING = 1e-12  # of double precision, through three steps and their solves
SINGLE = 1e-5  # of gradients of order 1 in single precision
OPERATORS = {
    "inpaint": lambda shape: operators.inpaint(shape, keep=0.4),
    "superres": lambda shape: operators.superres(shape, factor=2),
    "deblur": lambda shape: operators.deblur(shape, std=0.7),
    "deblur, replicated": lambda shape: operators.deblur(shape, std=0.7, border="replicate"),
    "denoise": operators.denoise,
    "matrix": lambda shape: random_matrix(shape[-1], 20),
    "masking matrix": lambda shape: masking(shape[-1]),
}


@pytest.fixture
def far():
    with far_device():
        yield


def moved(part, place):
    return part.to(place) if hasattr(part, "to") else part


def conditioned(prior, operator, place, noise=Gaussian, level=0.05, **parts):
    """The posterior of a fixed image, with all of its parts there."""
    shape = tuple(side or 32 for side in prior.shape)
    truth = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = operator.A(truth).to(place)
    return Posterior(prior.to(place), noise(y, moved(operator, place), level), **parts)


def drawn(sampler, posterior, n=2):
    return sampler(posterior, n, 0)


def assert_same_on_both(work, tolerance=0.0):
    """work(place) gives what it gives on the CPU; far answers are far ones."""
    expected = work("cpu")
    with far_device():
        found = work(FAR)
        assert isinstance(found, Far)
        found = found.cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def small(kind, place, **parts):
    return conditioned(gaussian_prior(8), OPERATORS[kind]((1, 8, 8)), place, **parts)


@pytest.fixture
def places(monkeypatch):
    """Where priors are asked."""
    seen, denoise = set(), DenoiserPrior.denoise
    monkeypatch.setattr(
        DenoiserPrior, "denoise", lambda self, x, sigma: seen.add(x.device) or denoise(self, x, sigma)
    )
    return seen


# ---- the device itself


def test_a_far_tensor_refuses_what_a_gpu_refuses(far):
    x, i = torch.ones(3, device=FAR), torch.tensor([0, 2])
    with pytest.raises(RuntimeError, match="two devices"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3)[i.to(FAR)]
    with pytest.raises(RuntimeError, match="two devices"):
        x[i] = torch.ones(2)
    with pytest.raises(RuntimeError, match="two devices"):
        torch.stack([x[0], torch.tensor(1.0)])
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()


def test_a_far_tensor_takes_what_a_gpu_takes(far):
    x, i = torch.arange(3.0, device=FAR), torch.tensor([0, 2])
    assert (x + torch.tensor(1.0)).device == x[i].device == FAR
    assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3]
    assert torch.tensor([1.0], device=FAR).device == torch.as_tensor(1.0, device=FAR).device == FAR
    assert torch.randn(3, device=FAR, generator=torch.Generator(FAR)).device == FAR
    x += 1
    y = x.clone().requires_grad_()
    assert torch.autograd.grad((y**2).sum(), y)[0].cpu().tolist() == [2, 4, 6]
    assert torch.ones(3).copy_(x).tolist() == [1, 2, 3]


# ---- sampling


@pytest.mark.parametrize("name", sorted(set(REGISTRY.names("guidance")) - {"classifier"}))
def test_guidances(name):
    guidance = REGISTRY.build("guidance", name)
    assert_same_on_both(lambda place: drawn(PC(steps=STEPS), small("inpaint", place, guidance=guidance)))


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators(kind):
    assert_same_on_both(lambda place: drawn(PC(steps=STEPS), small(kind, place)), ROUNDING)


@pytest.mark.parametrize("sde", SDES, ids=str)
@pytest.mark.parametrize("name", REGISTRY.names("predictor"))
def test_predictors_and_sdes(name, sde):
    sampler = PC(REGISTRY.build("predictor", name), Langevin(), steps=STEPS)
    assert_same_on_both(lambda place: drawn(sampler, small("inpaint", place, sde=sde)))


@pytest.mark.parametrize("name", REGISTRY.names("sampler"))
def test_samplers(name):
    sampler = REGISTRY.build("sampler", name)
    if "steps" in {field.name for field in dataclasses.fields(sampler)}:
        sampler = dataclasses.replace(sampler, steps=STEPS)
    assert_same_on_both(lambda place: drawn(sampler, small("superres", place)), ROUNDING)


def test_antithetic_pairs():
    assert_same_on_both(lambda place: drawn(PC(steps=STEPS, antithetic=True), small("inpaint", place)))


def test_poisson():
    def work(place):
        return drawn(PC(steps=STEPS), small("inpaint", place, noise=Poisson, level=100.0))

    assert_same_on_both(work)


def test_particles_on_a_mixture():
    def work(place):
        matrix = operators.matrix(torch.tensor([[1.0, 0.2]]))
        y = torch.tensor([[1.1]], dtype=torch.float64, device=place)
        return drawn(TwistedSMC(steps=6), Posterior(plane_mixture().to(place), Gaussian(y, matrix, 0.1)), 4)

    assert_same_on_both(work)


@pytest.mark.parametrize("law", [log_prob, encode, decode])
def test_densities_and_codes(law):
    x = gaussian_prior(8).sample(2, 0)
    assert_same_on_both(lambda place: law(gaussian_prior(8).to(place), x.to(place), rtol=1e-3), 1e-9)


# ---- networks


@pytest.mark.parametrize("guidance", ["moment-matching", "tmpd", "dps"])
@pytest.mark.parametrize("name", ["photo", "ellipses", "digits", "grey", "tiled"])
def test_priors(name, guidance):
    made = {"grey": lambda p: p.grey(), "tiled": lambda p: p.tiled(16)}.get(name, lambda p: p)
    parts = {"guidance": REGISTRY.build("guidance", guidance)}

    def work(place):
        prior = made(load_prior("photo" if name in ("grey", "tiled") else name).double())
        operator = operators.inpaint((prior.shape[0], 32, 32), keep=0.4)
        return drawn(PC(steps=STEPS), conditioned(prior, operator, place, **parts), 1)

    assert_same_on_both(work, ROUNDING)


@pytest.mark.parametrize("made_by", FORMATS)
def test_checkpoints_of_other_toolkits(made_by, tmp_path):
    path, hints = made_by(tmp_path)

    def work(place):
        prior = load_prior(path, **hints).double().to(place)
        x = torch.rand(2, *prior.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        at = Denoised(prior, VE(), x.to(place), torch.tensor([0.2, 0.6], dtype=torch.float64), graph=True)
        return torch.cat([at.mean.detach(), at.vjp(x.to(place))])

    assert_same_on_both(work, ROUNDING)


@pytest.mark.parametrize("made_by", FORMATS)
def test_the_checks_of_a_prior(made_by, tmp_path, places):
    path, hints = made_by(tmp_path)
    part = Part("prior", "made", lambda: load_prior(path, **hints), "file", "")
    near = [line.passed for line in examine(part)]
    places.clear()
    with far_device():
        found = list(examine(part, None, FAR.type))
    assert places == {FAR}
    assert [line.passed for line in found] == near, found


@pytest.mark.parametrize("kind", [Classifier, DenoisedClassifier, AveragedClassifier])
def test_classifiers(kind):
    def work(place):
        likelihood = kind(load_classifier("digits").double().to(place), 7)
        prior = load_prior("digits").double().to(place)
        return drawn(PC(steps=STEPS), Posterior(prior, likelihood, guidance=ClassifierGuidance()), 1)

    assert_same_on_both(work, ROUNDING)


# ---- training


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_prior_learns_the_same(objective, monkeypatch):
    config = dataclasses.replace(CONFIG, objective=objective, sigma_max=4.0)
    source = kinds.load_source([], config)
    assert_same_on_both(lambda place: learned(config, source, place, monkeypatch), SINGLE)


@pytest.mark.parametrize("slopes", [0.0, 0.1])
def test_a_classifier_learns_the_same(slopes, monkeypatch):
    rng = np.random.default_rng(0)
    beside = "digits" if slopes else ""
    config = dataclasses.replace(CLASSIFIER, crop=32, slopes=slopes, beside=beside)
    source = whole.Whole(rng.integers(0, 255, (12, 32, 32, 1)).astype(np.uint8), np.arange(12) % 3)
    assert_same_on_both(lambda place: learned(config, source, place, monkeypatch), SINGLE)


def learned(config, source, place, monkeypatch):
    """The gradient of the first batch, in single precision; Adam would make much of its rounding."""
    monkeypatch.setattr("invsolve.training.loop.mixed_precision", lambda where: contextlib.nullcontext())
    run = Run(config, place)
    gradient_step(run, kinds.KINDS[config.kind].task(config, source), 0)
    return run.gradient


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_moves_and_is_resumed_the_same(optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    assert_same_on_both(lambda place: moved_twice(config, place), 1e-6)


def moved_twice(config, place):
    """The weights after two steps along a fixed gradient, with a checkpoint between them."""
    run, again = Run(config, place), Run(config, place)
    slope = torch.randn(len(run.vector), generator=torch.Generator().manual_seed(0))
    run.gradient.copy_(slope)
    run.update(1e-3)
    again.restore({part: {k: v.cpu() for k, v in row.items()} for part, row in run.parts().items()})
    again.gradient.copy_(slope)
    again.update(1e-3)
    return again.vector


@pytest.mark.parametrize("config", [CONFIG, CLASSIFIER], ids=["prior", "classifier"])
def test_validation(config):
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    source = whole.Whole((255 * images).permute(0, 2, 3, 1).byte().numpy(), np.arange(3), 2)
    task = kinds.KINDS[config.kind].task(config, source)
    with far_device():
        found = task.measured(Run(config, FAR).averaged(), None)
    assert found == task.measured(Run(config).averaged(), None)


# ---- the command line


@pytest.fixture
def gpu(monkeypatch):
    """What the commands take for a GPU is the far device."""
    parts._loaded.cache_clear()
    for module in ("calibration.command", "run.unconditional", "run.conditional"):
        monkeypatch.setattr(f"invsolve.{module}.choose_device", lambda name: FAR.type)
    monkeypatch.setattr(device, "choose_device", lambda name: FAR.type)
    monkeypatch.setattr("invsolve.training.choose_device", lambda name: FAR.type)
    monkeypatch.setattr("invsolve.training.share_device", lambda name, process: FAR.type)
    for table in (units._MOST, units._SPEED):
        monkeypatch.setitem(table, FAR.type, table["cuda"])


COMMANDS = {
    "run": ["run", "photo.png", "--simulate", "--operator", "inpaint", "--samples", "2"],
    "sample": ["sample", "--prior", "digits", "-n", "2"],
    "calibrate": ["calibrate", "--operator", "superres", "--problems", "2", "--samples", "2", "--size", "16"],
    "classes": ["run", "--prior", "digits", "--likelihood", "classifier", "--label", "7", "--samples", "2"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name, gpu, world, places, monkeypatch):  # noqa: F811
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with far_device():
        code, _, said = invsolve(*COMMANDS[name], "--steps", "3", "--out", "out", "--device", "cuda")
    assert code == 0, said
    assert places == {FAR}
    assert not torch.backends.cudnn.allow_tf32, "float32 would be 11 bits on a GPU"


def test_the_command_that_trains(gpu, world, monkeypatch):  # noqa: F811
    asked = set()
    monkeypatch.setattr(
        "invsolve.training.loop.mixed_precision", lambda place: asked.add(place) or contextlib.nullcontext()
    )
    config = ["--config", "ellipses", "--images", "64", "--processes", "1"]
    with far_device():
        code, _, said = invsolve("train", *config, "--out", "out", "--device", "cuda")
    assert code == 0, said
    assert asked == {FAR}
    assert all(
        torch.isfinite(p).all() for p in load_prior(world / "out" / "ellipses.safetensors").parameters()
    )


@pytest.mark.parametrize(
    ("name", "process", "count", "expected"),
    [
        ("auto", 1, 0, "cpu"),
        ("cpu", 1, 2, "cpu"),
        ("auto", 1, 2, "cuda:1"),
        ("cuda", 3, 2, "cuda:1"),
        ("cuda:0", 1, 2, "cuda:0"),
    ],
)
def test_processes_go_round_the_gpus(name, process, count, expected, monkeypatch):
    monkeypatch.setattr(device, "_count", lambda: count)
    assert device.share_device(name, process) == expected


def test_a_gpu_that_is_not_there_ends_a_training_before_it_begins(world):  # noqa: F811
    code, _, said = invsolve("train", "--config", "ellipses", "--out", "out", "--device", "cuda:7")
    assert (code, (world / "out").exists()) == (2, False)
    assert "cuda:7" in said


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_prior_learns_on_a_gpu(optimizer, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    source = kinds.load_source([], config)
    here, there = (learned(config, source, place, monkeypatch).cpu() for place in ("cpu", "cuda:0"))
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)
    here, there = (moved_twice(config, place).cpu() for place in ("cpu", "cuda:0"))
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)  # Muon multiplies in bfloat16


def test_a_checkpoint_goes_on_on_another_device(tmp_path):
    config = dataclasses.replace(CONFIG, optimizer="muon")
    with far_device():
        run = Run(config, FAR)
        run.gradient.copy_(torch.ones(len(run.vector)))
        run.update(1e-3)
        folder = checkpoint.save(tmp_path, 1, run.parts(), {})
        weights = run.vector.cpu()
    again = Run(config)
    again.restore(checkpoint.load(folder)[0])
    assert torch.equal(again.vector, weights)
    again.update(1e-3)


def test_gradients_meet_on_the_cpu(monkeypatch):
    monkeypatch.setattr(group, "world", lambda: 2)
    monkeypatch.setattr(group.dist, "all_reduce", lambda shared: shared.add_(torch.tensor([3.0, 5.0])))
    with far_device():
        gradient = torch.tensor([1.0, 1.0], device=FAR)
        group.average(gradient)
        assert gradient.tolist() == [2, 3]


@pytest.mark.parametrize("emulated", [True, False])
def test_bfloat16_is_left_to_gpus_that_have_it(emulated, monkeypatch):
    major = {torch.device("cuda:0"): 9, torch.device("cuda:1"): 7 if emulated else 8}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at: SimpleNamespace(major=major[at]))
    device.bfloat16_pays.cache_clear()
    assert device.bfloat16_pays(torch.device("cuda:1")) is not emulated
    device.bfloat16_pays.cache_clear()
