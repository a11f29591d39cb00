"""docs/training.md: its code prints what its comments say, and it names what a config can ask for."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from invsolve.cli.train import train_command
from invsolve.training.config import DATA, OBJECTIVES, SDES, TrainingConfig
from invsolve.training.data import open_image

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import training_images

SHIPPED = [("priors", "photo"), ("priors", "digits"), ("priors", "ellipses"), ("classifiers", "digits")]
ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "training.md").read_text()
CARDS = [f"invsolve/{part}/weights/{name}.md" for part, name in SHIPPED]


def test_the_example_of_training_runs_and_keeps_its_promises(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(compile(code, "docs/training.md", "exec"), {})
    found = [float(value) for value in re.findall(r"tensor\((-?[\d.]+)", capsys.readouterr().out)]
    promised = [float(value) for value in re.findall(r"# .*= (-?[\d.]+)$", code, re.M)]
    assert found == pytest.approx(promised, rel=0.02)  # two digits are printed; 100,000 draws


def test_every_objective_sde_and_kind_of_data_is_explained():
    table = re.findall(r"^\| `([\w-]+)`", TEXT[TEXT.index("## Objectives") :], re.M)
    assert set(OBJECTIVES) <= set(table)
    assert all(f"`{name}`" in TEXT for name in (*SDES, *DATA))
    known = {f.name for f in fields(TrainingConfig)}
    assert set(re.findall(r"`(sigma_\w+|log_\w+|uniform_share|levels|objective|sde)`", TEXT)) <= known


def commands(text):
    """Each `invsolve train` command of a text, its words."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [line.partition("invsolve train ")[2].rstrip("& ") for line in lines if "train --" in line]
    return [command.replace("--processes 2", "").split() for command in found]  # one is quicker


@pytest.mark.parametrize("file", ["docs/training.md", *CARDS])
def test_every_command_of_a_card_is_understood_up_to_its_data(file, monkeypatch, tmp_path):
    """As typed: the config is found by its name, every option exists, and the first thing missing is data."""
    found = commands((ROOT / file).read_text())
    assert found
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(train_command)
    for words in found:
        if "ellipses" in words:  # draws its data, so it would train
            words += ["--data", "no"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code != 0
        assert re.search(
            r"is not a folder|neither a file nor|leave out --data no|first/photo", str(result.exception)
        )


def test_training_images_keep_their_names_and_are_never_enlarged(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "png").mkdir()
    for name, size in (("Boxplot", (40, 30)), ("small", (10, 8))):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(
            tmp_path / "png" / f"{name}.png"
        )
    assert training_images.convert(tmp_path / "png", tmp_path / "jpg", 20, 88) == 2
    sizes = {p.name: open_image(p, 3).size for p in (tmp_path / "jpg").iterdir()}
    assert sizes == {"Boxplot.jpg": (20, 15), "small.jpg": (10, 8)}
    assert training_images.convert(tmp_path / "png", tmp_path / "one", 20, 88, ["small"]) == 1
