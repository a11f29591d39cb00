"""Options from annotated parameters: read alive or from source, as flags, as a TOML table, as help."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from invsolve.cli.flags import help_for, parse_part_options
from invsolve.errors import InputError, PluginError, UnknownName
from invsolve.option_values import check_table, spelled
from invsolve.options import Option, describe, options_of

SOURCE = '''
"""A module."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Optional
from .words import SHARE
from .words import Base as Root

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 4
Width = Annotated[float, "width, in pixels"]

def blur(
    shape: tuple[int, int, int],
    width: Width = 2.0,
    kernel: Annotated[Literal["gaussian", "motion"], "which kernel"] = "gaussian",
    low: Annotated[int | None, f"at most {LIMIT}"] = None,
    mask: Annotated["Path | Tensor | None", SHARE] = None,
    only_objects: Annotated["Tensor | None", "no text gives a tensor"] = None,
    untold: int = 3,
    *,
    fast: Annotated[bool, "whether to hurry"] = False,
    box: Annotated[Optional[tuple[int, ...]], "Y,X,H,W"] = None,
    size: Annotated[int, "pixels"] = LIMIT,
) -> "Tensor":
    """Blur by a
    kernel.

    More.
    """

@dataclass(frozen=True)
class Sharp(Root):
    """Sharpen."""

    kind: ClassVar[str] = "x"
    gain: Annotated[float, "gain, >= 0"] = -1.5
    taps: Annotated[int, "taps"] = field(default=3)

class Soft(Root):
    """Soften."""

    def __init__(self, level: Annotated[int, "level"] = 1) -> None: ...

smooth = blur
'''
WORDS = """
from dataclasses import dataclass
from typing import Annotated
SHARE = "share of " "pixels"

@dataclass(frozen=True)
class Base:
    first: Annotated[int, "first"] = 1
    gain: Annotated[float, "gain of the base"] = 0.0
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Put a package on sys.path that raises when it is imported, until `alive` is in sys.modules."""
    folder = tmp_path_factory.mktemp("lib")
    (folder / "odd_kit").mkdir()
    (folder / "odd_kit" / "__init__.py").write_text("import sys\nassert 'alive' in sys.modules\n")
    (folder / "odd_kit" / "parts.py").write_text(SOURCE)
    (folder / "odd_kit" / "words.py").write_text(WORDS)
    sys.path.insert(0, str(folder))
    yield "odd_kit.parts"
    sys.path.remove(str(folder))


NAMES = ["blur", "smooth", "Sharp", "Soft"]


@pytest.mark.parametrize("name", NAMES)
def test_source_and_live_object_say_the_same(package, name, monkeypatch):
    read = describe(f"{package}:{name}")
    assert package not in sys.modules
    monkeypatch.setitem(sys.modules, "alive", sys)
    alive = describe(getattr(__import__(package, fromlist=[name]), name))
    for loaded in ("odd_kit", "odd_kit.parts", "odd_kit.words"):
        del sys.modules[loaded]
    assert read == alive


def test_a_function_is_described_by_its_first_paragraph_and_its_annotated_parameters(package):
    found = describe(f"{package}:blur")
    assert found.sentence == "Blur by a kernel."
    assert [(o.name, o.default) for o in found.options] == [
        ("width", 2.0),
        ("kernel", "gaussian"),
        ("low", None),
        ("mask", None),
        ("fast", False),
        ("box", None),
        ("size", 4),
    ]
    by_name = {o.name: o for o in found.options}
    assert by_name["low"].help == "at most 4"
    assert by_name["mask"].help == "share of pixels"


def test_a_dataclass_has_the_options_of_its_base_and_its_own(package):
    found = options_of(f"{package}:Sharp")
    assert [(o.name, o.default) for o in found] == [("first", 1), ("gain", -1.5), ("taps", 3)]


def test_source_that_is_not_there_is_a_plugin_error(package):
    with pytest.raises(PluginError, match=r"no source of a module 'odd_kit\.gone'"):
        describe("odd_kit.gone:blur")
    with pytest.raises(PluginError, match="has no readable 'gone'"):
        describe(f"{package}:gone")


def blur(
    shape: tuple[int, int, int],
    keep: Annotated[float, "share kept, in (0, 1]"] = 0.5,
    steps: Annotated[int, "steps, >= 1"] = 3,
    kind: Annotated[Literal["box", "cubic"], "which filter"] = "box",
    mask: Annotated[Path | None, "mask file"] = None,
    fast: Annotated[bool, "whether to hurry"] = False,
    box: Annotated[tuple[int, ...] | None, "Y,X,H,W"] = None,
    sigma_min: Annotated[float, "lowest"] = 0.1,
): ...


@dataclass(frozen=True)
class Walk:
    sigma_min: Annotated[float, "noise at the end"] = 0.01
    seed: Annotated[int, "its seed"] = 0


PARTS = {"operator": options_of(blur), "sde": options_of(Walk)}


def parse(*words, **more):
    return parse_part_options(words, PARTS, **more)


GIVEN = {
    ("--keep", "0.25"): {"keep": 0.25},
    ("--keep=.5",): {"keep": 0.5},
    ("--keep", "-1"): {"keep": -1.0},
    ("--operator.keep", "1e-2"): {"keep": 0.01},
    ("--steps", "7"): {"steps": 7},
    ("--kind", "cubic"): {"kind": "cubic"},
    ("--mask", "a/b.png"): {"mask": Path("a/b.png")},
    ("--mask", "none"): {"mask": None},
    ("--fast",): {"fast": True},
    ("--no-fast",): {"fast": False},
    ("--fast=false",): {"fast": False},
    ("--box", "1,2,3,4"): {"box": (1, 2, 3, 4)},
    ("--operator.sigma-min", "3"): {"sigma_min": 3.0},
}


@pytest.mark.parametrize("words", GIVEN)
def test_a_flag_becomes_a_value_of_its_type(words):
    (value,) = parse(*words).options["operator"].values()
    assert parse(*words).options == {"operator": GIVEN[words], "sde": {}}
    assert type(value) is type(next(iter(GIVEN[words].values())))


def test_what_is_no_flag_is_an_input():
    parsed = parse("a.png", "--keep", "0.3", "b.png", "--fast", "-")
    assert parsed.inputs == ["a.png", "b.png", "-"]


WRONG = {
    ("--keep", "half"): "--keep is 'half', but it must be a number: share kept, in (0, 1].",
    ("--keep", "nan"): "--keep is 'nan', but it must be a number",
    ("--steps", "3.0"): "--steps is '3.0', but it must be a whole number: steps, >= 1.",
    ("--kind", "sinc"): "--kind is 'sinc', but it must be box or cubic",
    ("--fast=maybe",): "--fast is 'maybe', but it must be true or false",
    ("--box", "1,x"): "--box is '1,x', but it must be whole numbers joined by commas or none",
    ("--keep",): "--keep must be a number, but nothing comes after it.",
    ("--mask", "--keep", "3"): "--mask must be a path or none, but --keep comes after it.",
    ("--keep", "1", "--operator.keep", "2"): "--operator.keep is given twice, first as 1.0.",
    ("--sigma-min", "1"): "an option of 2 chosen parts: write --operator.sigma-min or --sde.sigma-min.",
    ("--kep", "1"): "there is no option --kep. Did you mean --keep?",
    ("--sampels", "1"): "there is no option --sampels. Did you mean --samples?",
    ("-k", "1"): "there is no option -k.",
    ("--zeta", "1"): "--zeta is an option of guidance dps, which is not chosen.",
    ("--guidance.zeta", "1"): "--guidance.zeta is an option of guidance dps, which is not chosen",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_with_a_flag_is_said(words):
    owners = {"zeta": ["guidance dps"]}
    with pytest.raises(InputError) as caught:
        parse(*words, own=["samples", "seed"], owners=lambda name: owners.get(name, []))
    assert WRONG[words] in str(caught.value)


def test_a_table_of_toml_is_checked_like_the_flags():
    table = {"keep": 1, "mask": "m.png", "box": [1, 2], "sigma-min": 0.5, "fast": True}
    expected = {"keep": 1.0, "mask": Path("m.png"), "box": (1, 2), "sigma_min": 0.5, "fast": True}
    assert check_table("operator", PARTS["operator"], table) == expected


@pytest.mark.parametrize("nothing", ["none", None])
def test_nothing_may_be_given_as_a_word_or_as_itself(nothing):
    """As itself it comes from a flag, which was read before, and undoes what a file says."""
    assert check_table("operator", PARTS["operator"], {"mask": nothing}) == {"mask": None}


WRONG_TABLES = {
    "[operator] keep is '0.5', but it must be a number": {"keep": "0.5"},
    "[operator] keep is True, but it must be a number": {"keep": True},
    "[operator] steps is 2.5, but it must be a whole number": {"steps": 2.5},
    "[operator] kind is 'sinc', but it must be box or cubic": {"kind": "sinc"},
    "[operator] fast is 1, but it must be true or false": {"fast": 1},
    "no option of the operator named 'kep'. Did you mean 'keep'?": {"kep": 1},
}


@pytest.mark.parametrize("sentence", WRONG_TABLES)
def test_what_is_wrong_with_a_table_is_said(sentence):
    with pytest.raises(InputError) as caught:
        check_table("operator", PARTS["operator"], WRONG_TABLES[sentence])
    assert sentence in str(caught.value)
    assert ("no option" in sentence) == isinstance(caught.value, UnknownName)


def test_help_shows_each_option_with_type_and_default():
    text = help_for(PARTS, own=["seed"])
    assert "--keep, --operator.keep" in text
    assert "share kept, in (0, 1] (a number) [default: 0.5]" in " ".join(text.split())
    assert "\n  --sde.seed " in text  # the command has a --seed of its own
    assert "\n  --sde.sigma-min " in text  # two parts have one
    assert "--fast, --operator.fast, --operator.no-fast" in text


def test_help_has_the_operator_first():
    text = help_for(dict(reversed(PARTS.items())))
    assert text.index("--operator.keep") < text.index("--sde.seed")


def test_help_of_parts_without_options_is_empty():
    assert help_for({"operator": ()}) == ""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (float, "a number"),
        (int | None, "a whole number or none"),
        (Literal["a", "b"], "a or b"),
        (tuple[int, int], "2 whole numbers joined by commas"),
        (str | float, "a number or a text"),
    ],
)
def test_a_type_is_spelled_in_words(kind, words):
    assert spelled(kind) == words


def test_an_option_knows_its_parameter():
    assert Option("sigma-min", float, "x", 0.1).key == "sigma_min"
