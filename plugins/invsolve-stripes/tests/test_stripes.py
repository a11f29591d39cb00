"""The plugin as its users get it: installed, and found through its entry point."""

import json
import subprocess
import sys

import pytest
import torch

from invsolve import plugins, testing
from invsolve.errors import InputError


@pytest.fixture
def registry():
    return plugins.load()


def test_the_operator_comes_from_this_distribution(registry):
    part = registry.part("operator", "stripes")
    assert part.distribution == "invsolve-stripes"
    assert registry.broken == ()


def test_it_is_an_operator(registry):
    testing.check_operator(registry.get("operator", "stripes"), shape=(3, 24, 33), options={"period": 3})


def test_every_third_row_is_lost_and_no_other(registry):
    operator = registry.build("operator", "stripes", (1, 7, 2), options={"period": 3})
    seen = operator.A(torch.ones(1, 1, 7, 2))[0, 0, :, 0]
    assert seen.tolist() == [1, 1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("period", [1, 0, -3])
def test_a_period_below_two_is_refused(registry, period):
    with pytest.raises(InputError, match=f"2 or more rows, but it is {period}"):
        registry.build("operator", "stripes", (1, 8, 8), options={"period": period})


def test_a_period_beyond_the_image_is_refused(registry):
    with pytest.raises(InputError, match="no row is lost"):
        registry.build("operator", "stripes", (1, 8, 8), options={"period": 9})


def test_the_option_has_its_help(registry):
    (option,) = registry.options("operator", "stripes")
    assert (option.name, option.type, option.default) == ("period", int, 4)
    assert option.help == "rows from one dead row to the next, 2 or more"


def test_list_shows_it_without_torch():
    code = (
        "import sys; from invsolve.plugins import load; rows = load().rows('operator'); "
        "print('torch' in sys.modules, [r.description for r in rows if r.name == 'stripes'])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False ['Lose every n-th detector row.']"


def test_check_passes_on_the_command_line():
    command = [sys.executable, "-c", "from invsolve.cli import main; main()", "check", "stripes", "--json"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["passed"]
