"""Sampler and guidance "auto": each row of the table, the reason given, and that nothing else counts."""

import dataclasses

import pytest
import torch
from problems import gaussian_prior, generator, masking, measured, plane_mixture

from invsolve import operators
from invsolve.choice import choose
from invsolve.diagnostics import sliced_wasserstein
from invsolve.errors import Refused
from invsolve.exact import MixturePrior, exact_posterior, log_evidence
from invsolve.guidance import DPS, MomentMatching, PiGDM
from invsolve.guidances.replace import Replace
from invsolve.likelihood import Classifier, Gaussian, Poisson
from invsolve.prior import Prior
from invsolve.result import Result
from invsolve.samplers.smc import TwistedSMC
from invsolve.solve import solve

ALL = ("pc", "smc", "enkg")
PRIOR = gaussian_prior(4)


class Learned(Prior):
    """Stands for a network: a denoiser, and no word of what it is a prior of."""

    shape = (1, 4, 4)

    def denoise(self, x, sigma):
        return PRIOR.denoise(x, sigma)


@dataclasses.dataclass
class Forward:
    """An operator that has a map and nothing else."""

    A: object
    shape: tuple = (1, 4, 4)


class FalselyTransposed(Forward):
    """Not linear, though it has an A_adjoint, as phase retrieval has."""

    def A_adjoint(self, y):
        return y


def through_numpy(x):
    return torch.from_numpy(2 * x.numpy()).reshape(len(x), -1)


def bent(x):
    return (x + 2 * x**3).flatten(1)


TABLE = torch.randn(5, 16, generator=generator(1), dtype=torch.float64)


def doubly(operator, noise=Gaussian):
    y = operator.A(PRIOR.sample(1, 3))[0]
    return noise(y, operator, 0.1) if noise is Gaussian else noise(y.abs(), operator)


def mixture(d, m):
    prior = MixturePrior(torch.eye(2, d, dtype=torch.float64), torch.ones(2), 0.1)
    operator = operators.matrix(torch.randn(m, d, generator=generator(2), dtype=torch.float64))
    return prior, Gaussian(operator.A(prior.sample(1, 0)), operator, 0.1)


ROWS = {
    "no likelihood": (PRIOR, None, "pc", None, "no likelihood"),
    "a classifier": (PRIOR, Classifier(torch.nn.Identity()), "pc", "classifier", "no operator"),
    "a Gaussian prior": (PRIOR, measured(PRIOR, masking(4)), "pc", "moment-matching", "exact"),
    "a learned prior": (Learned(), measured(PRIOR, masking(4)), "pc", "moment-matching", "has its adjoint"),
    "Poisson noise": (PRIOR, doubly(masking(4), Poisson), "pc", "moment-matching", "has its adjoint"),
    "a small mixture": (*mixture(6, 3), "smc", "moment-matching", "small mixture"),
    "a mixture seen through much": (*mixture(40, 20), "pc", "moment-matching", "has its adjoint"),
    "a mixture of many numbers": (*mixture(1026, 2), "pc", "moment-matching", "has its adjoint"),
    "linear, no adjoint": (
        Learned(),
        doubly(Forward(lambda x: x.flatten(1) @ TABLE.mT.to(x))),
        "pc",
        "moment-matching",
        "autograd transposes",
    ),
    "not linear": (PRIOR, doubly(Forward(bent)), "pc", "dps", "not linear, but differentiable"),
    "an adjoint of no linear map": (PRIOR, doubly(FalselyTransposed(bent)), "pc", "dps", "not linear"),
    "numpy inside": (PRIOR, doubly(Forward(through_numpy)), "enkg", None, "neither an adjoint nor"),
    "a gradient of zero": (PRIOR, doubly(Forward(lambda x: x.round())), "enkg", None, "neither an adjoint"),
}


@pytest.mark.parametrize(("prior", "likelihood", "sampler", "guidance", "words"), ROWS.values(), ids=ROWS)
def test_each_row_of_the_table_is_chosen_for_its_reason(prior, likelihood, sampler, guidance, words):
    found = choose(prior, likelihood, ALL)
    assert (found.sampler, found.guidance) == (sampler, guidance)
    assert words in found.reason
    assert str(found).startswith(f"{sampler} with {guidance}: " if guidance else f"{sampler}: ")
    assert "\n" not in str(found)


def test_a_black_box_without_its_sampler_is_refused_with_the_way_out():
    with pytest.raises(Refused, match="none named 'enkg' is installed") as refused:
        choose(PRIOR, doubly(Forward(through_numpy)), ("pc", "smc"))
    assert "\n" not in str(refused.value)
    named = choose(PRIOR, doubly(Forward(through_numpy)), ("pc",), sampler="mine")
    assert named.sampler == "mine"


def test_who_names_a_guidance_or_a_predictor_gets_pc_and_who_names_a_sampler_its_guidance():
    prior, likelihood = mixture(6, 3)
    assert str(choose(prior, likelihood, ALL, guidance="dps")).startswith("pc with dps: it takes every")
    assert choose(prior, likelihood, ALL, guidance="moment-matching").sampler == "pc"
    parts = choose(prior, likelihood, ALL, parts=("predictor",))
    assert (parts.sampler, parts.guidance) == ("pc", "moment-matching")
    assert choose(prior, likelihood, ALL, sampler="pc").sampler == "pc"
    bare = choose(PRIOR, doubly(Forward(bent)), ALL, sampler="smc")
    assert (bare.sampler, bare.guidance) == ("smc", "dps")


def test_the_choice_is_in_the_result_and_in_its_file(tmp_path):
    likelihood = measured(PRIOR, masking(4))
    result = solve(PRIOR, likelihood, n=2, steps=3)
    assert result.chosen.startswith("pc with moment-matching: the operator is linear and the prior Gaussian")
    result.save(tmp_path / "r.h5")
    assert Result.load(tmp_path / "r.h5").chosen == result.chosen
    named = solve(PRIOR, likelihood, sampler="pc", guidance="moment-matching", n=2, steps=3)
    assert named.chosen == ""
    assert torch.equal(named.samples, result.samples)


@pytest.mark.parametrize("sampler", ["pc", "ode", "smc", "daps", "red-diff"])
def test_the_reason_is_true_of_a_sampler_that_was_named(sampler):
    """Only particles weigh modes rightly, and only pc is called exact; daps and red-diff take no guidance."""
    for prior, likelihood in ((PRIOR, measured(PRIOR, masking(4))), mixture(6, 3)):
        steps = {} if sampler == "ode" else {"steps": 2}
        told = solve(prior, likelihood, sampler=sampler, n=1, **steps).chosen
        assert (told == "") is (sampler in ("daps", "red-diff"))
        assert ("so it is exact" in told) is (sampler == "pc" and prior is PRIOR)
        assert ("would weigh wrongly" in told) is (sampler == "smc" and prior is not PRIOR)


def test_auto_takes_the_same_samples_however_many_are_drawn():
    prior, likelihood = mixture(4, 1)
    few, more = (solve(prior, likelihood, n=n, seed=2, steps=4).samples for n in (3, 101))
    assert torch.equal(few, more[:3])


@pytest.mark.slow
def test_modes_are_right_by_default():
    """The default on a small mixture is at the floor; guidance alone is at five times the floor here."""
    prior, n = plane_mixture(), 1000
    likelihood = measured(prior, operators.matrix(torch.tensor([[1.0, 0.3]], dtype=torch.float64)), 0.4)
    exact = exact_posterior(prior, likelihood)
    result = solve(prior, likelihood, n=n, steps=40)
    pairs = [(exact.sample(n, 2 * i), exact.sample(n, 2 * i + 1)) for i in range(20)]
    floors = torch.tensor([sliced_wasserstein(a, b, slices=50) for a, b in pairs])
    far = [sliced_wasserstein(result.samples, exact.sample(n, 900 + i), slices=50) for i in range(4)]
    assert sum(far) / 4 < float(floors.mean() + 4 * floors.std())  # 1 in 10,000 exact sets is not
    # ten sets of 800 particles: their mean evidence within 4 of its own standard errors
    each = result.log_evidence
    assert each.shape == (10,)
    error = float(each.std()) / 10**0.5
    assert abs(float(each.mean()) - log_evidence(prior, likelihood)) < 4 * error + 0.5 * float(each.var())


# ---- what particle sets tell


def test_a_result_has_the_sizes_and_the_evidence_of_its_sets(tmp_path):
    prior, likelihood = mixture(4, 1)
    smc = TwistedSMC(steps=5, particles=12, draws=3)
    result = solve(prior, likelihood, sampler=smc, n=7, seed=1)
    assert result.ess.shape == (3, 6)
    from invsolve.posterior import Posterior

    clouds = list(smc.clouds(Posterior(prior, likelihood), 1, 2))
    assert result.ess[2].tolist() == [cloud.ess for cloud in clouds]
    assert float(result.log_evidence[2]) == clouds[-1].log_evidence
    result.save(tmp_path / "r.h5")
    back = Result.load(tmp_path / "r.h5")
    assert torch.equal(back.ess, result.ess.float())
    assert torch.equal(back.log_evidence, result.log_evidence.float())


def test_other_samplers_have_no_sizes_and_no_evidence(tmp_path):
    result = solve(PRIOR, measured(PRIOR, masking(4)), n=1, steps=2)
    assert (result.ess, result.log_evidence) == (None, None)
    result.save(tmp_path / "r.h5")
    assert Result.load(tmp_path / "r.h5").ess is None


# ---- operators that are more, or less, than a linear map with its adjoint


@pytest.mark.parametrize("guidance", [MomentMatching(), PiGDM(), DPS()], ids=lambda g: type(g).__name__)
def test_autograd_transposes_as_the_adjoint_does(guidance):
    own = operators.matrix(TABLE, (1, 4, 4))
    told, bare = (
        solve(PRIOR, doubly(op), guidance=guidance, n=2, steps=4).samples for op in (own, Forward(own.A))
    )
    assert torch.allclose(told, bare, atol=1e-4)  # PiGDM has singular values there, CG to 1e-5 here


def test_a_nonlinear_operator_is_fitted_and_the_misfit_falls_to_the_noise():
    truth, operator = PRIOR.sample(1, 3), Forward(bent)
    y = operator.A(truth) + 0.1 * torch.randn(1, 16, generator=generator(5), dtype=torch.float64)
    result = solve(PRIOR, Gaussian(y, operator, 0.1), n=8, steps=100)
    assert "dps" in result.chosen
    chi2 = (operator.A(result.samples) - y).square().mean() / 0.1**2
    unguided = (operator.A(PRIOR.sample(8, 9)) - y).square().mean() / 0.1**2
    # a step size is not a likelihood: it overfits the noise somewhat, or underfits it
    assert float(chi2) < 2
    assert float(unguided) > 20


@pytest.mark.parametrize("guidance", [MomentMatching(), PiGDM(), Replace()], ids=lambda g: type(g).__name__)
def test_what_needs_a_linear_operator_refuses_another(guidance):
    with pytest.raises(Refused, match=r"Forward is not linear, as .* needs it: take guidance dps"):
        solve(PRIOR, doubly(Forward(bent)), guidance=guidance, n=1, steps=2)
    with pytest.raises(Refused, match="Forward is a black box, without an A_adjoint: take sampler enkg"):
        solve(PRIOR, doubly(Forward(through_numpy)), guidance=guidance, n=1, steps=2)


def test_a_bent_operator_has_no_matrix_and_a_black_box_no_misfit_to_step_down():
    with pytest.raises(Refused, match="its matrix needs it"):
        doubly(Forward(bent)).matrix((1, 4, 4))
    with pytest.raises(Refused, match="is a black box"):
        solve(PRIOR, doubly(Forward(through_numpy)), guidance="dps", n=1, steps=2)
