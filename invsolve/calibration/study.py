"""calibrate: from a prior, an operator and a noise level to the verdict on a solver, in one call.

found = calibrate(prior, operator, 0.05, problems=200, samples=15, guidance="dps")
found.passed, found.coverage["90"], found.variance_ratio
"""

from typing import Any

from invsolve.calibration.report import Calibration, conclude
from invsolve.calibration.simulate import Experiment, Simulator, Truths
from invsolve.choice import AUTO
from invsolve.errors import Refused
from invsolve.gamma import Gamma
from invsolve.guidance import Guidance
from invsolve.likelihood import Gaussian, Operator
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.result import Result
from invsolve.samplers.correctors import Corrector
from invsolve.samplers.predictors import Predictor
from invsolve.sde import SDE
from invsolve.solve import Sampler, build_part, solve

__all__ = ["calibrate", "check_sampler", "event_shape"]


def calibrate(
    prior: Prior,
    operator: Operator,
    sigma_y: float,
    *,
    problems: int = 100,
    samples: int = 15,
    seed: int = 0,
    truths: Truths | None = None,
    assumed_sigma_y: float | None = None,
    sde: SDE | str = "ve",
    guidance: Guidance | str = AUTO,
    sampler: Sampler | str = AUTO,
    predictor: Predictor | str | None = None,
    corrector: Corrector | str | None = None,
    gamma: Gamma = 1.0,
    steps: int | None = None,
) -> Calibration:
    """Simulate problems from the prior, solve each with `samples` independent samples, and compare.

    sigma_y is in the units of the measurement; assumed_sigma_y is what the solver is told instead. truths
    gives the truth (*event) of each problem by its number, in place of draws of the prior. The others are
    those of solve. Refused for samples in antithetic pairs, which are not independent.
    """
    check_sampler(sampler)
    given = {"sde": sde, "guidance": guidance, "predictor": predictor, "corrector": corrector}
    # once, not for each problem: a name is looked up among all plugins
    parts: dict[str, Any] = {  # Any: objects
        kind: part if part == AUTO else build_part(kind, part) for kind, part in given.items()
    }

    def solver(likelihood: Gaussian, n: int, own: int) -> Result:
        return solve(prior, likelihood, sampler=sampler, gamma=gamma, steps=steps, n=n, seed=own, **parts)

    simulator = Simulator(prior, operator, sigma_y, event_shape(prior, operator), seed, truths)
    experiment = Experiment(simulator, solver, samples, assumed_sigma_y)
    return conclude([experiment.outcome(k) for k in range(problems)], samples, seed)


def check_sampler(sampler: object) -> None:
    """Refuse a sampler whose samples are not independent."""
    if getattr(sampler, "antithetic", False):
        raise Refused(
            "ranks need independent samples, but this sampler's are antithetic pairs: leave it out."
        )


def event_shape(prior: Prior, operator: Operator) -> tuple[int, ...]:
    """Shape of one image: the prior's, or the operator's where the prior takes any size."""
    own = prior.shape
    full = own is not None and None not in own
    return Posterior(prior, None, shape=None if full else getattr(operator, "shape", None)).shape
