"""Each check of the kit, on parts that are right and on mutants that must fail with its own sentence."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from invsolve import (
    PC,
    VE,
    VP,
    DPMpp,
    Exact,
    Gaussian,
    GaussianPrior,
    MomentMatching,
    Poisson,
    Replace,
    operators,
    testing,
)
from invsolve.errors import CheckFailed, InputError
from invsolve.prior import Prior
from invsolve.testing.common import outcomes
from invsolve.testing.likelihood import CHECKS as LIKELIHOOD_CHECKS
from invsolve.testing.likelihood import likelihood_case

FACTORIES = {"inpaint": {"keep": 0.5}, "superres": {"factor": 2}, "deblur": {}, "colorize": {}, "denoise": {}}


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTORIES)
def test_the_built_in_operators_pass(name):
    testing.check_operator(getattr(operators, name), options=FACTORIES[name])


class Weighted:
    """y = w x, with a method for a mutant to break."""

    def __init__(self, shape):
        self.shape = shape
        self.w = torch.linspace(0.5, 2, shape[-1])

    def A(self, x):
        return self.w * x

    def A_adjoint(self, y):
        return self.w * y

    def A_dagger(self, y):
        return y / self.w


def mutant(base, **methods):
    return type("Mutant", (base,), methods)


def shifted(self, y):
    return (self.w * y).roll(1, -1)


def drawn(self, x):
    return self.w * x + 0 * torch.randn(1)


def drawn_numpy(self, x):
    np.random.random()
    return self.w * x


def drawn_random(self, x):
    random.random()
    return self.w * x


def in_place(self, x):
    return x.mul_(self.w).clone()


def seedless(self, shape):
    Weighted.__init__(self, shape)
    generator = torch.Generator().manual_seed(seedless.calls)
    seedless.calls += 1
    self.w = torch.rand(shape[-1], generator=generator)


seedless.calls = 0


def noisy(self, x):
    noisy.calls += 1
    return self.w * x * (1 + noisy.calls * 1e-3)


noisy.calls = 0

OPERATOR_MUTANTS = {
    "A_adjoint is not the transpose of A": {"A_adjoint": shifted},
    r"differ by 0\.000\d+ of": {"A_adjoint": lambda self, y: 1.0005 * self.w * y},
    "A is not linear: A(2x - 3z) is": {"A": lambda self, x: self.w * x + 0.01},
    "A mixes the rows of a batch": {"A": lambda self, x: self.w * (x - 0.1 * x.mean(0))},
    "A_adjoint mixes the rows of a batch": {
        "A_adjoint": lambda self, y: self.w * y + 0.01 * (y.sum(0) - y) * (len(y) - 1)
    },
    "A changes its argument in place": {"A": in_place},
    "A changes the global random state of torch": {"A": drawn},
    "A changes the global random state of numpy": {"A": drawn_numpy},
    "A changes the global random state of random": {"A": drawn_random},
    "A gives two answers to one question": {"A": noisy},
    "the factory builds another operator at each call": {"__init__": seedless},
    "A turns torch.float32 into torch.float64": {"A": lambda self, x: (self.w * x).double()},
    "A_dagger gives .* values that are NaN or infinite": {"A_dagger": lambda self, y: y / (0 * self.w)},
    "A of a random image is zero everywhere": {"A": lambda self, x: 0 * x},
    r"A of 2 images has shape \(1,": {"A": lambda self, x: (self.w * x).sum(0, keepdim=True)},
    r"A of 1 image has shape .*, but of 2 images": {"A": lambda self, x: (self.w * x)[..., len(x) - 1 :]},
    "A_adjoint gives shape": {"A_adjoint": lambda self, y: (self.w * y)[..., 1:]},
    "the operator has no method A_dagger": {"A_dagger": None},
    r"the operator's shape is \(1, 1, 1\), but it was built for \(3, 8, 9\)": {
        "shape": property(lambda s: (1, 1, 1))
    },
    "autograd through A is .* away from A_adjoint": {"A": lambda self, x: self.w * x.detach() + 0 * x},
}


def test_the_honest_operator_passes():
    testing.check_operator(Weighted)


@pytest.mark.parametrize("sentence", OPERATOR_MUTANTS)
def test_a_mutant_operator_fails_with_its_sentence(sentence):
    broken = mutant(Weighted, **OPERATOR_MUTANTS[sentence])
    if "shape" in OPERATOR_MUTANTS[sentence]:
        broken.__init__ = lambda self, shape: setattr(self, "w", torch.ones(shape[-1]))
    pattern = sentence.replace("(2x - 3z)", r"\(2x - 3z\)")
    with pytest.raises(CheckFailed, match=pattern):
        testing.check_operator(broken, shape=(3, 8, 9))


def test_a_shape_that_the_factory_refuses_is_left_out_unless_all_are():
    def colour_only(shape):
        if shape[0] != 3:
            raise InputError("colour only.")
        return Weighted(shape)

    testing.check_operator(colour_only)
    with pytest.raises(CheckFailed, match=r"refuses every shape of \[\(1, 8, 8\)\]: colour only"):
        testing.check_operator(colour_only, shape=(1, 8, 8))


# ---- SDEs


@pytest.mark.parametrize("sde", [VE, VP, VP(beta_max=5.0)])
def test_the_built_in_sdes_pass(sde):
    testing.check_sde(sde)


SDE_MUTANTS = {
    "alpha must not rise with t": {"alpha": lambda self, t: 1 / VP.alpha(self, t)},
    "sigma / alpha must rise with t": {"sigma": lambda self, t: VP.alpha(self, t) ** 2 * 0.1},
    "ratio is .* away from sigma / alpha": {"ratio": lambda self, t: self.sigma(t)},
    r"f is .* away from the slope of log\(alpha\)": {"f": lambda self, t: -self.beta(t)},
    r"g\^2 is .* away from d\(sigma\^2\)/dt": {"g": lambda self, t: 1.001 * self.beta(t).sqrt()},
    r"time\(sigma / alpha\) is .* away from t": {"time": lambda self, r: VP.time(self, r) + 1e-4},
    "noising in two short steps is": {"transition": lambda self, s, t: (VP.transition(self, s, t)[0], t - s)},
    "a step leads .* away": {
        "transition": lambda self, s, t: (1 + 0 * t, (VP.sigma(self, t) ** 2 - VP.sigma(self, s) ** 2).sqrt())
    },
    "sigma of float64 times .* dtype torch.float32": {"sigma": lambda self, t: VP.sigma(self, t).float()},
    "alpha changes the global random state": {
        "alpha": lambda self, t: VP.alpha(self, t) + 0 * torch.randn(1)
    },
}


@pytest.mark.parametrize("sentence", SDE_MUTANTS)
def test_a_mutant_sde_fails_with_its_sentence(sentence):
    with pytest.raises(CheckFailed, match=sentence):
        testing.check_sde(mutant(VP, **SDE_MUTANTS[sentence])())


# ---- priors


class Small(Prior):
    """A denoiser of a Gaussian of mean 0.5 and standard deviation 0.2, with a line for a mutant to break."""

    shape = (3, 6, 6)
    sigma_min, sigma_max = 0.01, 10.0

    def gain(self, sigma):
        return (0.04 / (0.04 + sigma**2)).to(torch.float32).reshape(-1, 1, 1, 1)

    def denoise(self, x, sigma):
        return 0.5 + self.gain(sigma) * (x - 0.5)

    def sample(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        return 0.5 + 0.2 * torch.randn(n, *self.shape, generator=generator)


PRIOR_MUTANTS = {
    "the prior has no centre": {"centre": property()},
    "sigma_min 2.0 is not in": {"sigma_min": 2.0, "sigma_max": 1.0},
    "denoise turns torch.float32 into torch.float64": {
        "denoise": lambda self, x, s: Small.denoise(self, x, s).double()
    },
    "denoise of .* has shape": {"denoise": lambda self, x, s: Small.denoise(self, x, s)[:, :1]},
    "denoise is NaN or infinite at sigma 10": {
        "denoise": lambda self, x, s: x / (10 - s.float()[0]).clamp(0)
    },
    "denoise moves x by .* sigma; it must tend to x": {"denoise": lambda self, x, s: 0 * x},
    "denoise mixes rows": {"denoise": lambda self, x, s: Small.denoise(self, x, s.mean() + 0 * s)},
    "denoise changes the global random state of torch": {
        "denoise": lambda self, x, s: Small.denoise(self, x, s) + 0 * torch.randn(1)
    },
    "denoise has no derivative": {"denoise": lambda self, x, s: Small.denoise(self, x.detach(), s)},
    "the derivative of denoise is .* away from its difference": {
        "denoise": lambda self, x, s: Small.denoise(self, x, s).detach() + 0.9 * (x - x.detach())
    },
    "at its highest noise level denoise leaves": {"denoise": lambda self, x, s: 1.0 * x},
    "denoise leaves .* of the noise in clean signals": {
        "denoise": lambda self, x, s: Small.denoise(self, x, 4 * s)  # the noise level in other units
    },
}


@pytest.mark.parametrize("prior", [Small, GaussianPrior(torch.ones(3), 0.2)], ids=["small", "gaussian"])
def test_an_honest_prior_passes(prior):
    testing.check_prior(prior)


@pytest.mark.parametrize("sentence", PRIOR_MUTANTS)
def test_a_mutant_prior_fails_with_its_sentence(sentence):
    broken = mutant(Small, **PRIOR_MUTANTS[sentence])
    if sentence == "the prior has no centre":
        broken.__init__ = torch.nn.Module.__init__
    with pytest.raises(CheckFailed, match=sentence):
        testing.check_prior(broken())


# ---- likelihoods


@pytest.mark.parametrize("likelihood", [Gaussian, Poisson])
def test_the_built_in_likelihoods_pass(likelihood):
    testing.check_likelihood(likelihood)


LIKELIHOOD_MUTANTS = {
    "log_prob of 3 samples has shape": {"log_prob": lambda self, x: Gaussian.log_prob(self, x).sum()},
    "log_prob is NaN": {"log_prob": lambda self, x: Gaussian.log_prob(self, x) * float("nan")},
    "log_prob mixes samples": {"log_prob": lambda self, x: Gaussian.log_prob(self, x - x.mean(0) + 0.5)},
    "log_prob has no gradient": {"log_prob": lambda self, x: Gaussian.log_prob(self, x.detach())},
    "the gradient of log_prob is zero": {"log_prob": lambda self, x: Gaussian.log_prob(self, 0 * x)},
    "the gradient of log_prob is .* away from its difference": {
        "log_prob": lambda self, x: Gaussian.log_prob(self, (x + x.detach()) / 2)
    },
    "log_prob changes the global": {
        "log_prob": lambda self, x: Gaussian.log_prob(self, x) + 0 * torch.randn(1)
    },
    "content must be a text": {"content": 3},
    "finest must be a noise level": {"finest": 0.0},
}


@pytest.mark.parametrize("sentence", LIKELIHOOD_MUTANTS)
def test_a_mutant_likelihood_fails_with_its_sentence(sentence):
    broken = mutant(Gaussian, **LIKELIHOOD_MUTANTS[sentence])
    with pytest.raises(CheckFailed, match=sentence):
        testing.check_likelihood(broken)


def test_a_likelihood_that_cannot_be_built_says_what_it_needs():
    def odd(y, operator, temperature): ...

    with pytest.raises(CheckFailed, match="it needs temperature"):
        testing.check_likelihood(odd)


# ---- guidances


@pytest.mark.parametrize("guidance", [Exact, MomentMatching(), Replace])
def test_the_built_in_guidances_pass(guidance):
    testing.check_guidance(guidance)


GUIDANCE_MUTANTS = {
    "the guidance points away from the measurement": lambda self, at, y: -Exact()(at, y),
    "the guidance gives shape": lambda self, at, y: Exact()(at, y)[:, :1],
    "the guidance turns torch.float32 into": lambda self, at, y: Exact()(at, y).double(),
    "the guidance is NaN": lambda self, at, y: Exact()(at, y) / 0.0,
    "the guidance mixes rows": lambda self, at, y: Exact()(at, y) / Exact()(at, y).norm(),
    "the guidance changes the global": lambda self, at, y: Exact()(at, y) + 0 * torch.randn(1),
}


@pytest.mark.parametrize("sentence", GUIDANCE_MUTANTS)
def test_a_mutant_guidance_fails_with_its_sentence(sentence):
    with pytest.raises(CheckFailed, match=sentence):
        testing.check_guidance(mutant(Exact, __call__=GUIDANCE_MUTANTS[sentence]))


# ---- samplers


@dataclass(frozen=True)
class Walk:
    """A sampler that is right, with a line for a mutant to break."""

    def __call__(self, posterior, n, seed, first=0):
        return PC(predictor=DPMpp(), steps=30)(posterior, n, seed, first)


def around(factor):
    def draw(self, posterior, n, seed, first=0):
        samples = Walk()(posterior, n, seed, first)
        return torch.tensor([1.0, -0.5, 0.3, 2.0]) + factor * (samples - torch.tensor([1.0, -0.5, 0.3, 2.0]))

    return draw


def forgetful(self, posterior, n, seed, first=0):
    return Walk()(posterior, n, seed)


def global_noise(self, posterior, n, seed, first=0):
    return Walk()(posterior, n, seed, first) + 0 * torch.randn(1)


SAMPLER_MUTANTS = {
    "the mean is .* posterior sd from the truth": lambda self, p, n, seed, first=0: (
        1 + Walk()(p, n, seed, first)
    ),
    "the standard deviation is .* away from it": around(1.4),
    "samples 2 and 3 change by": forgetful,
    "seeds 0 and 1 draw the same": lambda self, p, n, seed, first=0: Walk()(p, n, 0, first),
    "samples 0 and 1 of one seed are the same": lambda self, p, n, seed, first=0: Walk()(p, 1, seed).expand(
        n, 4
    ),
    "the sampler changes the global random state": global_noise,
    "3 samples of 4 numbers have shape": lambda self, p, n, seed, first=0: Walk()(p, n, seed, first).T,
    "the samples are torch.float64": lambda self, p, n, seed, first=0: Walk()(p, n, seed, first).double(),
    "a sample is NaN": lambda self, p, n, seed, first=0: Walk()(p, n, seed, first) / 0.0,
    "the samples carry a graph": lambda self, p, n, seed, first=0: Walk()(p, n, seed, first).requires_grad_(),
}


@pytest.mark.slow
def test_an_honest_sampler_passes():
    testing.check_sampler(Walk)


@pytest.mark.slow
@pytest.mark.parametrize("sentence", SAMPLER_MUTANTS)
def test_a_mutant_sampler_fails_with_its_sentence(sentence):
    with pytest.raises(CheckFailed, match=sentence):
        testing.check_sampler(mutant(Walk, __call__=SAMPLER_MUTANTS[sentence]))


# ---- plugins and tables


def test_every_public_check_is_for_a_kind_or_a_plugin():
    kinds = {"guidance", "likelihood", "operator", "plugin", "prior", "sampler", "sde"}
    assert set(testing.__all__) == {f"check_{kind}" for kind in kinds}


def test_a_table_goes_on_after_a_check_that_raises():
    def explode(self, x):
        raise RuntimeError("boom")

    broken = mutant(Gaussian, log_prob=explode)
    lines = list(outcomes(LIKELIHOOD_CHECKS, likelihood_case(broken)))
    assert [line.passed for line in lines] == [False, False, False, False, True]
    assert lines[0].said.startswith("RuntimeError: boom (test_testing_kit.py:")


def test_check_plugin_checks_each_part_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "odd-kit"\n[project.entry-points.invsolve]\nodd = "wrong_kit"\n'
    )
    (tmp_path / "wrong_kit.py").write_text(
        "from invsolve import VP, hookimpl\n"
        "class Wrong(VP):\n    def g(self, t): return 1.1 * VP.g(self, t)\n"
        "@hookimpl\ndef invsolve_sdes(): return {'right': VP, 'wrong': Wrong}\n"
    )
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    with pytest.raises(CheckFailed, match=r"sde wrong: has the diffusion of its noise: g\^2 is"):
        testing.check_plugin(str(tmp_path))
