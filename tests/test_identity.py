"""What decides the samples of a start: code, files and weights, and not where they lie."""

import sys

import pytest
import torch

from invsolve.files import sha256_of
from invsolve.registry import Part, Registry
from invsolve.run import identity, parts

TABLES = {"prior": {"name": "photo"}, "operator": {"name": "stretch"}, "run": {"seed": 0, "device": "cpu"}}


@pytest.fixture
def weightless(monkeypatch):
    monkeypatch.setattr(parts, "prior_sha256", lambda tables, device: "0")


@pytest.mark.usefixtures("weightless")
def test_a_part_of_another_distribution_is_told_by_its_release_and_its_file(tmp_path, monkeypatch):
    file = tmp_path / "stretching_kit.py"
    file.write_text("def stretch(shape):\n    return shape\n")
    monkeypatch.syspath_prepend(tmp_path)
    part = Part("operator", "stretch", "stretching_kit:stretch", "stretching-kit", "1.2")
    other = Part("operator", "bend", "stretching_kit:bend", "stretching-kit", "1.2")
    monkeypatch.setattr(identity, "load", lambda: Registry((part, other)))
    found = identity.identity(TABLES, "cpu")
    assert found["operator from"] == f"stretching-kit 1.2, {sha256_of(file)}"
    assert not any(key.startswith(("prior from", "run.device")) for key in found)
    assert found["device"] == "cpu"
    sys.modules.pop("stretching_kit")


@pytest.mark.usefixtures("weightless")
def test_a_file_is_told_by_its_name_and_content(tmp_path):
    found = []
    for folder, text in (("a", "x = 1"), ("b", "x = 1"), ("b", "x = 2")):
        (tmp_path / folder).mkdir(exist_ok=True)
        file = tmp_path / folder / "mine.py"
        file.write_text(text)
        found.append(identity.identity(TABLES | {"operator": {"name": f"{file}:blur"}}, "cpu"))
    assert found[0] == found[1]
    assert {key for key in found[1] if found[1][key] != found[2][key]} == {"operator.name sha256"}


def test_weights_of_any_type_have_a_hash(monkeypatch):
    def of(value):
        prior = torch.nn.Module()
        prior.register_buffer("weight", value)
        monkeypatch.setattr(parts, "load_prior", lambda tables, device: prior)
        return parts.prior_sha256(TABLES, "cpu")

    values = [torch.tensor(v, dtype=d) for v in (1.0, 2.0) for d in (torch.bfloat16, torch.float64)]
    assert len({of(v) for v in [*values, torch.ones(2, 3, dtype=torch.bfloat16)]}) == 5
