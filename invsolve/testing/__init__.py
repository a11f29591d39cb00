"""The conformance kit: is a part what its kind promises? Three lines of a test, or `invsolve check`.

    from invsolve.testing import check_operator
    def test_stripes_is_an_operator():
        check_operator(stripes, shape=(3, 32, 40), options={"period": 3})

Each function raises CheckFailed (an AssertionError) with a sentence and the number measured. An operator is
given as its factory, (shape, **options) -> operator; a likelihood as its factory or built; the other kinds as
an object, or as a factory to be called with no argument.
"""

from invsolve.testing.guidance import check_guidance
from invsolve.testing.likelihood import check_likelihood
from invsolve.testing.operator import check_operator
from invsolve.testing.plugin import check_plugin
from invsolve.testing.prior import check_prior
from invsolve.testing.sampler import check_sampler
from invsolve.testing.sde import check_sde

__all__ = [
    "check_guidance",
    "check_likelihood",
    "check_operator",
    "check_plugin",
    "check_prior",
    "check_sampler",
    "check_sde",
]
