"""What sampler "auto" and guidance "auto" take, by what the problem offers, and why.

    the problem                                                        sampler   guidance
    no likelihood                                                      pc
    a likelihood without an operator, such as a classifier             pc        classifier
    an operator that is linear
        and a Gaussian prior                                           pc        moment-matching    exact
        and a mixture prior of at most 1,024 numbers,
        seen through at most 16 entries with Gaussian noise            smc       moment-matching
        and any other prior                                            pc        moment-matching
    an operator that is not linear, but differentiable                 pc        dps
    an operator of which nothing but A(x) can be had                   enkg

The rules ask the parts themselves: linearity and derivatives are found by trying (forward.py), so an operator
without A_adjoint is as good as one with it where autograd goes through. On mixtures guidance alone, of
whatever kind, is 2 to 160 times as far from the posterior as exact samples are (Cardoso et al. 2023,
arXiv:2308.07983, and `invsolve bench posterior`): it puts modes at wrong weights, which particles mend. They
cost 8 times the calls of a sample, and a derivative for each measured entry, hence the limits.

Whoever names a guidance, a predictor or a corrector gets pc, which takes them all; whoever names a sampler
gets the guidance of the table. Nothing else counts: not the number of samples, of which no sample may depend;
and not the memory of the machine, on which results must not depend either. Samplers keep memory flat
themselves, by micro-batches.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from invsolve.errors import Refused
from invsolve.exact import GaussianPrior, MixturePrior
from invsolve.likelihood import Likelihood, LinearLikelihood, measured_entries
from invsolve.prior import Prior

__all__ = ["AUTO", "Choice", "choose"]

AUTO = "auto"
_NUMBERS = 1024  # of an event: a particle set of 800 then takes seconds on one core
_ENTRIES = 16  # measured: one vector-Jacobian product each, at every step of every particle


@dataclass(frozen=True)
class Choice:
    """A sampler and a guidance by name, None where the sampler uses none, and the reason, one clause."""

    sampler: str
    guidance: str | None
    reason: str

    def __str__(self) -> str:
        """Say it on one line: pc with moment-matching: the operator is linear."""
        return f"{self.sampler}{f' with {self.guidance}' if self.guidance else ''}: {self.reason}"


_ALONE = Choice("pc", None, "there is no likelihood")
_FOLLOWED = Choice("pc", "classifier", "the likelihood has no operator, but a log p(y | x_t) to be followed")
_EXACT = Choice("pc", "moment-matching", "the operator is linear and the prior Gaussian, so it is exact")
_LINEAR = Choice("pc", "moment-matching", "the operator is linear and has its adjoint")
_TRANSPOSED = Choice("pc", "moment-matching", "the operator is linear, and autograd transposes it")
_WEIGHED = Choice(
    "smc", "moment-matching", "the prior is a small mixture, whose modes guidance alone would weigh wrongly"
)
_BENT = Choice("pc", "dps", "the operator is not linear, but differentiable")
_BLACK_BOX = Choice("enkg", None, "the operator has neither an adjoint nor derivatives")


def choose(
    prior: Prior,
    likelihood: Likelihood | None,
    offered: Collection[str],
    *,
    sampler: str = AUTO,
    guidance: str = AUTO,
    parts: Iterable[str] = (),
) -> Choice:
    """Fill in what is "auto" of a sampler and a guidance; offered are the names of samplers that there are.

    parts: the kinds of part that were given and that only pc takes. Refused where no sampler on offer can do.
    """
    found = _by_problem(prior, likelihood)
    if sampler != AUTO:
        return replace(_named(found, sampler, likelihood), sampler=sampler)
    if guidance != AUTO and (guidance, "pc") != (found.guidance, found.sampler):
        return Choice("pc", guidance, f"it takes every guidance, and {guidance} was asked for")
    given = " and ".join(parts)
    if given and found.sampler != "pc":
        return Choice("pc", found.guidance, f"it is the one that takes a {given}")
    if found.sampler not in offered:
        raise Refused(
            f"{found.reason}, so it takes a derivative-free sampler, but none named {found.sampler!r} is "
            "installed. Give the operator a torch implementation or an A_adjoint, or name a --sampler."
        )
    return found


def _by_problem(prior: Prior, likelihood: Likelihood | None) -> Choice:
    """Find the row of the table."""
    if likelihood is None:
        return _ALONE
    if not isinstance(likelihood, LinearLikelihood):
        return _FOLLOWED
    if not likelihood.linear:
        return _BENT if likelihood.forward.differentiable else _BLACK_BOX
    if isinstance(prior, GaussianPrior) and likelihood.noise_is_gaussian:
        return _EXACT
    if isinstance(prior, MixturePrior) and _is_small(prior, likelihood):
        return _WEIGHED
    return _linear(likelihood)


def _linear(likelihood: LinearLikelihood) -> Choice:
    return _LINEAR if likelihood.forward.transposes else _TRANSPOSED


def _named(found: Choice, sampler: str, likelihood: Likelihood | None) -> Choice:
    """Give the guidance of the table for a sampler that was named, by a reason that is true of that one."""
    if found not in (_EXACT, _WEIGHED) or sampler == found.sampler:
        return found
    assert isinstance(likelihood, LinearLikelihood)  # those two rows are of linear operators
    return _linear(likelihood)


def _is_small(prior: MixturePrior, likelihood: LinearLikelihood) -> bool:
    """Whether a particle set of a mixture is cheap enough to be the default."""
    if not likelihood.noise_is_gaussian or prior.centre.numel() > _NUMBERS:
        return False
    return int(measured_entries(likelihood.operator, prior.event, likelihood.y).sum()) <= _ENTRIES
