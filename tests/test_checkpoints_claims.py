"""Files that claim more than they hold: sizes, depths, numbers and names without end, each refused at once.

Memory is limited while a file is read, so that what is merely claimed cannot be made.
"""

import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_files import refusal
from edm_files import Persistent, dumped
from safetensors.torch import save as save_tensors
from test_checkpoints_hostile import HINTS, adm, edm, saved

from invsolve.classifiers.formats import load_classifier, shipped_classifiers
from invsolve.classifiers.network import ClassifierArchitecture, build_classifier
from invsolve.errors import InputError
from invsolve.priors.catalogue import load_prior, shipped
from invsolve.priors.checkpoints.edm import _weights as weights_of
from invsolve.priors.checkpoints.fit import one_line
from invsolve.priors.checkpoints.unpickle import Record
from invsolve.priors.network import Architecture, build

DEEP = "[" * 100_000 + "]" * 100_000


def with_header(header, payload=b""):
    return len(header).to_bytes(8, "little") + header + payload


def ours(file, **claims):
    """A shipped file that says something else of itself; fields of the architecture are changed within it."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:start])
    said = table["__metadata__"]
    inner = json.loads(said["architecture"])
    changed = {name: claims.pop(name) for name in list(claims) if name in inner}
    said |= {"architecture": json.dumps(inner | changed)} | claims
    return with_header(json.dumps(table).encode(), content[start:])


CLAIMS = [
    ({"widths": [10**7, 10**7]}, "of 7200000000004752 weights or more"),
    ({"blocks": 10**9}, "1 to 12 widths"),
    ({"widths": [8] * 2000}, "1 to 12 widths"),
    ({"widths": [48.5, 64, 96]}, "whole numbers"),
    ({"in_channels": True}, "whole numbers"),
    ({"in_channels": 10**9}, "of 14400"),
    ({"sigma_data": float("inf")}, "sigma_data positive and finite"),
    ({"architecture": DEEP}, "recursion depth"),
    ({"data_range": "[-Infinity, 1]"}, "data range"),
    ({"sigma_max": "inf"}, "not finite"),
    ({"side": "9" * 5000}, "states side = 99999999999999999999;"),
    ({"side": "100000"}, "1 to 8192"),
    ({"halo": "9" * 5000}, "states halo = 99999999999999999999;"),
]


@pytest.mark.parametrize(("claims", "reason"), CLAIMS)
def test_a_file_of_ours_that_claims_too_much_is_refused(tmp_path, claims, reason):
    (tmp_path / "x.safetensors").write_bytes(ours(shipped()["digits"], **claims))
    said = refusal(tmp_path / "x.safetensors")
    assert reason in said
    assert len(said) < 600


@pytest.mark.parametrize("claims", [{"widths": [10**7]}, {"classes": 10**9}, {"blocks": 10**9}])
def test_a_classifier_that_claims_too_much_is_refused(tmp_path, claims):
    (tmp_path / "x.safetensors").write_bytes(ours(shipped_classifiers()["digits"], **claims))
    with pytest.raises(InputError, match=r"describes a network of|1 to 12 widths"):
        load_classifier(tmp_path / "x.safetensors")


@pytest.mark.parametrize("sizes", [((8,), 1, 4), ((4, 8), 2, 1), ((16, 4, 4), 1, 2)])
def test_the_least_of_an_architecture_is_no_more_than_its_weights(sizes):
    widths, blocks, stem = sizes
    for network in (
        build(Architecture(1, stem, widths, blocks)),
        build_classifier(ClassifierArchitecture(1, widths, blocks, 3)),
    ):
        assert 0 < network.architecture.least <= sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("header", [f'{{"a": {DEEP}}}', f'{{"__metadata__": {DEEP}}}'])
def test_a_header_that_is_too_deep_is_broken(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(with_header(header.encode()))
    assert "broken safetensors header" in refusal(tmp_path / "x.safetensors")


def test_hints_that_are_too_deep_are_refused(tmp_path):
    (tmp_path / "prior.toml").write_text(f"sde = {DEEP}")
    (tmp_path / "x.pt").write_bytes(saved(adm().state_dict()))
    assert "prior.toml cannot be read as TOML" in refusal(tmp_path / "x.pt")


def test_an_archive_that_grows_when_it_is_read_is_refused(tmp_path):
    text, file = b"a" * 2**22, io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/version", "3")
        archive.writestr("a/data.pkl", b"\x80\x02X" + struct.pack("<I", len(text)) + text + b".")
    (tmp_path / "x.pt").write_bytes(file.getvalue())
    assert f"that claims {len(text) + 9}" in refusal(tmp_path / "x.pt")


def test_a_block_of_a_number_without_end_is_not_counted_up_to(tmp_path):
    state = adm().state_dict() | {"output_blocks.99999999999.0.x": torch.zeros(1)}
    (tmp_path / "x.pt").write_bytes(saved(state))
    assert "1 unexpected" in refusal(tmp_path / "x.pt", **HINTS)


def test_a_module_in_two_places_is_refused_before_there_are_names_without_end(tmp_path):
    node = Persistent("Conv", "ran")
    for _ in range(7):
        inner, node = node, Persistent("Block", "ran")
        node._modules = {f"m{i}": inner for i in range(60)}
    content = edm()
    content["ema"]._modules["model"]._modules["extra"] = node
    (tmp_path / "x.pkl").write_bytes(dumped(content))
    assert "holds one module in two places" in refusal(tmp_path / "x.pkl")


def test_modules_deep_within_modules_are_refused(tmp_path):
    top = record = Record()
    for _ in range(12):
        record.state["_modules"] = {"m": Record()}
        record = record.state["_modules"]["m"]
    with pytest.raises(InputError, match="more than 8 deep"):
        list(weights_of(tmp_path, top))


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(tmp_path, kind):
    state = {name: value.to(kind).contiguous() for name, value in adm().state_dict().items()}
    (tmp_path / "x.safetensors").write_bytes(save_tensors(state))
    assert f"no floating-point numbers, but {kind}" in refusal(tmp_path / "x.safetensors", **HINTS)


def test_whole_numbers_in_a_file_of_ours_are_refused(tmp_path):
    content = shipped()["digits"].read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:start].replace(b'"F16"', b'"I16"'))
    table["__metadata__"]["sha256"] = hashlib.sha256(content[start:]).hexdigest()
    (tmp_path / "x.safetensors").write_bytes(with_header(json.dumps(table).encode(), content[start:]))
    assert "no floating-point numbers, but torch.int16" in refusal(tmp_path / "x.safetensors")


def test_a_name_in_a_file_cannot_write_on_the_terminal(tmp_path):
    content = edm()
    content["ema"].kind = "Evil\n\x1b[31mPrecond"
    (tmp_path / "x.pkl").write_bytes(dumped(content))
    assert r"holds Evil\n\x1b[31mPrecond around" in refusal(tmp_path / "x.pkl")
    assert one_line("a" * 5000) == "a" * 1000 + "..."
    assert one_line("précis: 'ß'") == "précis: 'ß'"


def test_a_pipe_is_no_weight_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    assert "is no regular file" in refusal(tmp_path / "x.pt")
    with pytest.raises(InputError, match="no regular file"):
        load_prior(Path("/dev/zero"))
