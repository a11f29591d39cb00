"""Files that try to run something, to fill the memory, or that are damaged: one line each, nothing executed.

Every hostile file here would create the file `ran` if a single call in it were made.
"""

import contextlib
import copyreg
import io
import os
import pickle
import random
import zipfile
from functools import partial

import pytest
import torch
from checkpoint_files import randomised, refusal
from edm_files import Persistent, dumped, edm_content
from score_sde_files import Net, checkpoint, made
from torch import nn

from invsolve.errors import InputError, InvsolveError
from invsolve.priors.catalogue import load_prior
from invsolve.priors.checkpoints.adm_unet import ADMLayout, ADMUNet
from invsolve.priors.checkpoints.edm import _weights as weights_of
from invsolve.priors.checkpoints.song_unet import SongLayout, SongUNet
from invsolve.priors.checkpoints.unpickle import Record

SIZES = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "channel_mult": [1, 1], "num_blocks": 1}
SIZES |= {"attn_resolutions": [], "model_channels": 16}
EDM = {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}
HINTS = {"num_heads": 1, "noise_schedule": "linear", "image_size": 16}


class Trap:
    """Calls a function when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def traps(path):
    """Ways to create the canary, a folder."""
    return {
        "mkdir": Trap(os.mkdir, path),
        "system": Trap(os.system, f"mkdir {path}"),
        "eval": Trap(eval, f"__import__('os').mkdir({path!r})"),
        "exec": Trap(exec, f"import os; os.mkdir({path!r})"),
    }


def saved(content, **how):
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def zipped(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def adm():
    return ADMUNet(ADMLayout(3, 6, 32, (32,), 1, (False,), True, "pool"))


def edm(change=None):
    content = edm_content("EDMPrecond", randomised(SongUNet(SongLayout(**SIZES))), SIZES, "ran", **EDM)
    if change:
        change(content)
    return content


def inside(state, value):
    """A change that puts a value into the record of the network."""
    return lambda content: content["ema"].extra.update({state: value})


def in_loss(value):
    return lambda content: content["loss_fn"].extra.update(x=value)


def with_optimiser(value):
    net = Net(pyramid="")
    content = checkpoint(net, made(net)[0])
    content["optimizer"]["param_groups"][0]["lr"] = value
    return content


def storage_bytes(content):
    """A pickle that asks for a storage made of these bytes, as EDM's tensors do."""
    return pickle.dumps({"ema": Trap(torch.storage._load_from_bytes, content)})


def huge(n=10**13):
    return {name: torch.zeros(1).expand(n) for name in ("input_blocks.0.0.weight", "time_embed.0.weight")}


def named(module, name):
    """A pickle that names any attribute and calls it with no argument."""
    text = [bytes([0x8C, len(s)]) + s.encode() for s in (module, name)]
    return lambda: b"\x80\x04" + text[0] + text[1] + b"\x93)R."


ALTERING = (  # (None, {"__defaults__": (1,)}) as the state of a function that is on the list
    b"\x80\x02ctorch.storage\n_load_from_bytes\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
)


def corpus(path):
    """Hostile files by name: (how to make the content, part of the refusal)."""
    trap = traps(path)
    asked = "nothing in it was run"
    old = {"_use_new_zipfile_serialization": False}
    by_hand = {"a/data.pkl": pickle.dumps(trap["exec"], 2), "a/version": "3", "a/byteorder": "little"}
    return {
        **{f"pickle {name}": (partial(pickle.dumps, t), asked) for name, t in trap.items()},
        "old pickle": (partial(pickle.dumps, trap["eval"], protocol=2), asked),
        "text pickle": (partial(pickle.dumps, trap["system"], protocol=0), "not a safetensors file"),
        "torch zip": (partial(saved, trap["mkdir"]), asked),
        "torch old": (partial(saved, trap["system"], **old), asked),
        "zip by hand": (partial(zipped, by_hand), asked),
        "zip without version": (partial(zipped, {"a/data.pkl": by_hand["a/data.pkl"]}), "cannot be read"),
        "behind real weights": (lambda: saved({**adm().state_dict(), "extra": trap["mkdir"]}), asked),
        "in an optimiser": (lambda: saved(with_optimiser(trap["mkdir"])), asked),
        "whole network": (lambda: saved(adm()), asked),
        "beside an EDM network": (lambda: dumped(edm(lambda c: c.update(extra=trap["system"]))), asked),
        "inside an EDM record": (lambda: dumped(edm(inside("sigma_data", trap["eval"]))), asked),
        "in the loss of EDM": (lambda: dumped(edm(in_loss(trap["mkdir"]))), asked),
        "in storage bytes": (lambda: storage_bytes(pickle.dumps(trap["mkdir"])), "cannot be read"),
        "in storage bytes, as torch": (lambda: storage_bytes(saved(trap["mkdir"], **old)), asked),
        "in storage bytes, as zip": (lambda: storage_bytes(saved([trap["system"]])), asked),
        "storage that is none": (lambda: storage_bytes(saved({})), "cannot be read"),
        "attribute of an attribute": (named("torch.nn.modules.utils", "collections.abc.os.system"), asked),
        "parent of torch": (named("torch.nn.modules.", "os"), "holds os around nothing"),
        "what a module imports": (named("torch.nn.modules.module", "warnings"), "holds warnings around"),
        "persistence itself": (named("torch_utils.persistence", "_src_to_module"), asked),
        "builtins by another name": (named("__builtin__", "eval"), asked),
        "numpy's loader": (named("numpy", "load"), asked),
        "getattr": (named("builtins", "getattr"), asked),
        "import": (named("importlib", "import_module"), asked),
        "extension code": (lambda: b"\x80\x02\x82\x01.", "cannot be read"),
        "alters its reader": (lambda: ALTERING, "cannot be read as weights (it alters what reads it)"),
        "weights without end": (lambda: saved(huge()), "claims weights of"),
        "web page": (lambda: b"<!DOCTYPE html><html>", "a web page"),
    }


NAMES = sorted(corpus("ran"))


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_is_refused_and_nothing_is_run(tmp_path, name):
    make, reason = corpus(str(tmp_path / "ran"))[name]
    (tmp_path / "x.pt").write_bytes(make())
    assert reason in refusal(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", sorted(traps("ran")))
def test_the_traps_work_where_pickle_is_trusted(tmp_path, name):
    pickle.loads(pickle.dumps(traps(str(tmp_path / "ran"))[name]))
    assert (tmp_path / "ran").is_dir()


def test_a_trap_in_the_weights_of_a_diffusers_folder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "sample_size": 16, '
        '"block_out_channels": [32], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}'
    )
    (tmp_path / "scheduler_config.json").write_text(
        '{"beta_schedule": "linear", "_class_name": "DDPMScheduler"}'
    )
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(saved(traps(str(tmp_path / "ran"))["mkdir"]))
    assert "nothing in it was run" in refusal(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_extension_codes_of_other_packages_do_not_help(tmp_path):
    copyreg.add_extension("os", "system", 1)
    try:
        (tmp_path / "x.pkl").write_bytes(b"\x80\x02\x82\x01X\x04\x00\x00\x00true\x85R.")
        assert "nothing in it was run" in refusal(tmp_path / "x.pkl")
    finally:
        copyreg.remove_extension("os", "system", 1)


def test_modules_within_themselves_are_refused(tmp_path):
    record = Record()
    record.state["_modules"] = {"again": record}
    with pytest.raises(InputError, match="one module in two places"):
        list(weights_of(tmp_path, record))


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    content = edm()
    weight = content["ema"]._modules["model"]._modules["map_layer0"]
    weight._parameters["weight"] = Lying(weight._parameters["weight"])
    (tmp_path / "x.pkl").write_bytes(dumped(content))
    assert "cannot be read as weights" in refusal(tmp_path / "x.pkl")


class Lying:
    """A tensor that says it is larger than its storage."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        storage = self.tensor._typed_storage() if hasattr(self.tensor, "_typed_storage") else None
        return torch._utils._rebuild_tensor_v2, (storage, 0, (10**6, 10**6), (10**6, 1), False, {})


NET = Net(pyramid="")
GENUINE = {
    "adm": (lambda: saved(randomised(adm()).state_dict()), HINTS),
    "adm old": (lambda: saved(adm().state_dict(), _use_new_zipfile_serialization=False), HINTS),
    "score_sde": (lambda: saved(checkpoint(NET, made(NET)[0])), {"sde": "ve", "image_size": 16}),
    "edm": (lambda: dumped(edm()), {}),
}


@pytest.mark.parametrize("name", sorted(GENUINE))
def test_a_truncated_file_is_refused(tmp_path, name):
    make, hints = GENUINE[name]
    content = make()
    for share in (0.001, 0.3, 0.99):
        (tmp_path / "x.pt").write_bytes(content[: int(share * len(content))])
        assert str(tmp_path) in refusal(tmp_path / "x.pt", **hints)


@pytest.mark.parametrize("name", sorted(GENUINE))
def test_a_damaged_file_is_refused_or_loads_and_never_crashes(tmp_path, name):
    make, hints = GENUINE[name]
    content, rng = make(), random.Random(0)
    for _ in range(8):
        damaged = bytearray(content)
        for _ in range(5):
            damaged[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "x.pt").write_bytes(damaged)
        with contextlib.suppress(InvsolveError):
            load_prior(tmp_path / "x.pt", **hints)


@pytest.mark.parametrize("length", [0x80, 0x0280, 0x4B50])
def test_a_length_that_looks_like_another_format_is_still_a_length(tmp_path, length):
    header = b'{"__metadata__":{"format":"x"}}'.ljust(length)
    (tmp_path / "x.pt").write_bytes(length.to_bytes(8, "little") + header)
    assert "a safetensors file, but of format 'x'" in refusal(tmp_path / "x.pt")


def test_a_network_of_other_make_is_guessed_at(tmp_path):
    names = {
        "model.diffusion_model.input_blocks.1": "a latent diffusion model",
        "m_head.weight": "deepinv's DRUNet",
        "down_blocks.0.resnets.0.conv1.weight": "a UNet of diffusers",
        "enc.32x32_conv.weight": "no network known here",
        "map_layer0.weight": "an EDM network (a bare state of one needs the .pkl",
        "inner_model.proj.weight": "a network of k-diffusion",
        "anything": "no network known here",
    }
    for name, what in names.items():
        torch.save({name: torch.zeros(2)}, tmp_path / "x.pt")
        assert what in refusal(tmp_path / "x.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "x.pt")
    assert "a torch pickle of 2 weights in no known format" in refusal(tmp_path / "x.pt")


def test_content_that_is_no_weights_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "x.pt")
    assert "holds a list" in refusal(tmp_path / "x.pt")
    torch.save({"a": 1, "b": torch.zeros(2)}, tmp_path / "x.pt")
    assert "1 entries that are no weights, 'a' first" in refusal(tmp_path / "x.pt")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"weights": [1]}))
    assert "is a pickle of a dict with weights, not of EDM" in refusal(tmp_path / "x.pkl")


def test_source_code_in_a_record_is_never_run(tmp_path):
    (tmp_path / "x.pkl").write_bytes(dumped({"ema": Persistent("EDMPrecond", tmp_path / "ran")}))
    refusal(tmp_path / "x.pkl")
    assert not (tmp_path / "ran").exists()
