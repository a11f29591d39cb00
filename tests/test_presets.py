"""Presets: every one parses and, with its parts there, runs; what is given wins over them."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from running import VARIANCE, invsolve, picture, save, world  # noqa: F401  a fixture

from invsolve.errors import Refused, UnknownName
from invsolve.option_values import check_table
from invsolve.plugins import load
from invsolve.registry import Registry
from invsolve.run import free, presets, settings

ALL = presets.presets()
REGISTRY = load()
CASES = [(name, operator) for name, found in ALL.items() for operator in found.operators or (None,)]


def test_each_preset_says_whose_it_is_and_in_which_units():
    for found in ALL.values():
        texts = (found.summary, found.paper, found.source, found.noise, found.prior, found.differs)
        assert all(texts), found.name
        assert "sigma_y" in found.noise
        assert "[0, 1]" in found.noise or "no measurement" in found.noise
        assert "\n" not in found.note()


@pytest.mark.parametrize(("name", "operator"), CASES)
def test_every_preset_parses_and_what_is_installed_takes_its_options(name, operator):
    tables = ALL[name].for_operator(operator)
    assert set(tables) <= {"run", *settings.PARTS}
    settings._check_run(tables["run"])
    for kind, table in tables.items():
        rest = {key: value for key, value in table.items() if key != "name"}
        if kind != "run" and table["name"] in REGISTRY.names(kind):
            check_table(kind, settings.options_of(kind, table["name"], REGISTRY), rest)


def test_units_of_minus_1_to_1_are_halved():
    """DPS's 0.05, scale 0.5 and 0.3 and its VP; PiGDM's unit variance; DAPS's sigma_max 100."""
    inpaint, superres = (ALL["dps-ffhq"].for_operator(name) for name in ("inpaint", "superres"))
    assert inpaint["run"]["sigma_y"] == 0.05 / 2
    assert (inpaint["guidance"]["zeta"], superres["guidance"]["zeta"]) == (0.5 / 2, 0.3 / 2)
    assert inpaint["sde"]["unit"] == 1 / 2
    assert ALL["pigdm-imagenet"].tables["guidance"]["data_variance"] == 1 / 2**2
    assert ALL["daps-ffhq"].tables["sde"]["sigma_max"] == 100 / 2
    assert ALL["ddrm-imagenet"].tables["run"]["sigma_y"] == 0.05  # stated on [0, 1]


@pytest.fixture
def big(world):  # noqa: F811  the fixture
    """A photo of 32 x 32 pixels beside the others: a Gaussian kernel of std 3 has 25."""
    save(world / "big.png", picture(3, shape=(32, 32)))
    return world


def run(*words, prior="white"):
    return measured("--simulate", *words, prior=prior)


def measured(*words, prior="white", photo="big.png"):
    few = ("--samples", 1, "--device", "cpu", "--quiet")
    return invsolve("run", photo, "--prior", f"prior.py:{prior}", *few, *words)


def holes():
    """A mask that half of the pixels pass, (32, 32, 1)."""
    return np.where(picture(3, shape=(32, 32))[..., :1] > 128, 255, 0).astype(np.uint8)


def settled(directory="a"):
    return tomllib.loads(Path(directory, "run.toml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "operator"), CASES)
def test_every_preset_whose_parts_are_there_runs(name, operator, big):
    missing = ALL[name].missing(REGISTRY)
    if name == "tds-mnist":
        code, _, err = invsolve("run", "--preset", name, "--steps", 2, "--samples", 1, "--out", "a")
    else:
        chosen = ("--operator", operator or "inpaint")
        code, _, err = run("--preset", name, *chosen, "--steps", 2, "--out", "a")
    if missing:
        assert code == 2
        assert err.startswith(f"error: preset {name} needs {' and '.join(missing)}, which is not installed")
        return
    assert code == 0, err
    assert settled()["run"]["preset"] == name
    assert json.loads(Path("a/metrics.json").read_text())["samples"] == 1


def test_flags_win_over_the_config_and_that_over_the_preset_and_that_over_the_defaults(big):
    Path("c.toml").write_text("[run]\nseed = 5\nsigma_y = 0.3\n[guidance]\nzeta = 0.7\n")
    code, _, err = run(
        "--preset", "dps-ffhq", "--config", "c.toml", "--sigma-y", 0.2, "--steps", 2, "--out", "a"
    )
    assert code == 0, err
    found = settled()
    assert (found["run"]["sigma_y"], found["run"]["steps"]) == (0.2, 2)  # flags
    assert (found["run"]["seed"], found["guidance"]["zeta"]) == (5, 0.7)  # the config
    assert found["guidance"]["name"] == "dps"  # the preset
    assert (found["sde"]["unit"], found["predictor"]["name"]) == (0.5, "ancestral")
    assert found["sampler"]["antithetic"] is False
    assert (found["corrector"]["name"], found["run"]["gamma"]) == ("none", 1.0)  # defaults


@pytest.mark.parametrize("words", [("--simulate",), ("--sigma-y", 0.1)])
def test_a_mask_of_ones_own_takes_the_place_of_the_presets_share(big, words):
    save("mask.png", holes())
    inpaint = ("--preset", "dps-ffhq", "--operator", "inpaint", "--mask", "mask.png", "--steps", 2)
    code, _, err = measured(*words, *inpaint, "--out", "a")
    assert code == 0, err
    assert "keep" not in settled()["operator"]


def test_a_measured_photo_has_nothing_of_the_presets_share(big):
    save("holes.png", np.dstack([picture(0, shape=(32, 32)), holes()]))
    words = ("--preset", "dps-ffhq", "--sigma-y", 0.1, "--steps", 2)
    assert measured(*words, "--out", "a", photo="holes.png")[0] == 0
    assert invsolve("run", "--config", "a/run.toml", "--out", "b")[0] == 0
    code, _, err = measured(*words, "--out", "c")
    assert code == 2
    assert "which pixels" in err


def test_another_guidance_keeps_nothing_of_the_presets(big):
    code, _, err = run(
        "--preset", "dps-ffhq", "--guidance", "pigdm", "--operator", "superres", "--factor", 2,
        "--steps", 2, "--out", "a",
    )  # fmt: skip
    assert code == 0, err
    assert settled()["guidance"] == {"name": "pigdm", "data_variance": 0.25}
    assert (settled()["operator"]["factor"], settled()["sde"]["unit"]) == (2, 0.5)


def test_run_toml_repeats_a_preset_run_and_the_screen_names_it(big):
    assert run("--preset", "pigdm-imagenet", "--operator", "inpaint", "--steps", 2, "--out", "a")[0] == 0
    code, _, err = invsolve("run", "--config", "a/run.toml", "--out", "b")
    assert code == 0, err
    assert "preset pigdm-imagenet: PiGDM" in err
    assert settled("a") == settled("b")


def test_a_preset_of_a_config_counts_and_that_of_a_flag_wins(big):
    Path("c.toml").write_text('[run]\npreset = "song2021-inpaint"\nsteps = 2\n')
    assert run("--config", "c.toml", "--out", "a")[0] == 0
    assert settled()["guidance"]["name"] == "replace"
    assert run("--config", "c.toml", "--preset", "dps-ffhq", "--out", "b")[0] == 0
    assert settled("b")["guidance"]["name"] == "dps"


def test_an_unknown_preset_is_refused_with_the_nearest(big):
    code, _, err = run("--preset", "dps-fhq")
    assert code == 2
    assert err.startswith("error: no preset named 'dps-fhq'. Did you mean 'dps-ffhq'? Known: ")
    with pytest.raises(UnknownName, match="Did you mean 'ddrm-imagenet'"):
        presets.preset("ddrm-image")


def test_an_operator_without_settings_is_refused(big):
    code, _, err = run("--preset", "dps-ffhq", "--operator", "colorize")
    assert code == 2
    assert "has the paper's settings for inpaint, superres, deblur, none for colorize." in err
    assert len(err.splitlines()) == 1


def test_a_preset_without_its_parts_is_shown_and_refused():
    bare = Registry(tuple(part for part in REGISTRY.parts if part.name != "dps"))
    row = next(row for row in presets.rows(bare) if row.name == "dps-ffhq")
    assert row.description.startswith("not installed: guidance dps; DPS on faces")
    assert row.broken
    with pytest.raises(Refused, match="preset dps-ffhq needs guidance dps, which is not installed"):
        presets.under({"run": {"preset": "dps-ffhq"}}, bare)


def test_list_shows_a_line_for_each_preset():
    code, out, err = invsolve("list", "presets")
    assert (code, err) == (0, "")
    _, *lines = out.splitlines()
    assert [line.split()[1] for line in lines] == list(ALL)
    (dps,) = [line for line in lines if " dps-ffhq " in line]
    assert "sigma_y 0.05 on [-1, 1], which is 0.025 on [0, 1]" in dps
    rows = json.loads(invsolve("list", "preset", "--json")[1])
    assert {row["kind"] for row in rows} == {"preset"}
    assert ["preset", "dps-ffhq"] in [line.split()[:2] for line in invsolve("list")[1].splitlines()]


def test_a_preset_without_an_operator_is_for_runs_without_one():
    tables = presets.presets()["tds-mnist"].tables
    assert free.is_free(tables, REGISTRY)
    assert "sigma_y" not in tables["run"]
