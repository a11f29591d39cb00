"""The table of planted bugs stays true to the code, without planting them."""

import pytest
from mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_finds_its_line_and_its_tests(mutant):
    assert (ROOT / "invsolve" / mutant.file).read_text().count(mutant.old) == 1
    file, _, words = mutant.tests.partition(" -k ")
    assert all(word in (ROOT / file).read_text() for word in words.split(" or "))
