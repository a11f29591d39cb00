"""docs/benchmark.md: each table is that of the command above it, complete."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

from invsolve.cli.bench import bench_command

PAGE = (Path(__file__).parents[1] / "docs" / "benchmark.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)[3:]
    for line in PAGE.replace("\\\n", " ").splitlines()
    if line.startswith("    invsolve bench posterior")
]


def given(words):
    """Options of a command, with the command line's own defaults."""
    defaults = {name: part.default for name, part in inspect.signature(bench_command).parameters.items()}
    return defaults | dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))


def table(section):
    """Rows of a section's table, by their column's name."""
    inside = PAGE.split(f"<!-- {section} -->")[1].split(f"<!-- /{section} -->")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in inside.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


def problems(options):
    sizes = [options[name].split(",") for name in ("dx", "dy")]
    pairs = [] if "none" in sizes[0] else [f"mixture {x}/{y}" for x in sizes[0] for y in sizes[1]]
    images = [] if options["images"] == "none" else options["images"].split(",")
    return pairs + [f"{kind} {options['side']}" for kind in images]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[words.index("--out") + 1])
def test_a_table_has_each_method_problem_and_seed_of_its_command(words):
    options = given(words)
    assert f"python benchmarks/document.py {options['out']} {options['out']}\n" in PAGE
    rows = table(options["out"])
    asked = {(problem, name) for problem in problems(options) for name in options["methods"].split(",")}
    assert {(row["problem"], row["method"]) for row in rows} == asked
    assert len(rows) == len(asked)
    assert {row["seeds"] for row in rows} == {str(options["seeds"])}


def test_the_curve_has_each_mixture_and_seed_of_its_command():
    (line,) = re.findall("^    python benchmarks/curve.py (.*) --write$", PAGE, re.MULTILINE)
    options = given(shlex.split(line))
    dimensions, seeds = options["dx"].split(","), options["seeds"].split(",")
    asked = [
        (f"{x} / {y}", n)
        for x, n in zip(dimensions, seeds if len(seeds) > 1 else seeds * len(dimensions), strict=True)
        for y in (1, 2, 4)
    ]
    assert [(row["d_x / d_y"], row["seeds"]) for row in table("curve")] == asked


def test_smc_is_where_the_text_says_within_the_calls_it_may_take():
    rows = table("smc")
    assert len(rows) == 9
    for row in rows:
        assert 0.94 <= float(row["sw1 / floor ± 95 %"].split()[0]) <= 1.05
        assert int(row["forward"]) <= 3200 / 3.9  # "a quarter", with the call at the start
        assert int(row["vjp"]) <= 12_800 / 3.9
