"""Write .pkl files as EDM does: objects that carry source code, storages that are pickles in the pickle.

The source of every object here would create a file if it were ever run.
"""

import io
import pickle
import sys
import types
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the name is only written, never called")


class EasyDict(dict):
    """Stands for dnnlib's class of that name in what is written."""


@contextmanager
def edm_installed():
    """Have modules of EDM's names while a file is written, as on the machine that trained the network."""
    names = {
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": EasyDict},
    }
    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    for name, content in names.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class Persistent(nn.Module):
    """An object that pickles as EDM's do: class name, source, state."""

    def __init__(self, kind, canary, like=None, **state):
        super().__init__()
        self.kind, self.canary, self.extra = kind, canary, state
        if like is not None:
            self._parameters, self._buffers = dict(like._parameters), dict(like._buffers)
            self._modules = {name: persistent(child, canary) for name, child in like._modules.items()}

    def __reduce__(self):
        state = {k: v for k, v in vars(self).items() if k not in ("kind", "canary", "extra")} | self.extra
        meta = {
            "type": "class",
            "version": 6,
            "module_src": f"open({str(self.canary)!r}, 'w')",
            "class_name": self.kind,
            "state": state,
        }
        return _reconstruct_persistent_obj, (meta,), None


def persistent(module, canary):
    """A tree of modules as EDM would have it: containers are torch's, everything else carries source."""
    if module is None:
        return None
    if isinstance(module, nn.ModuleDict):
        return nn.ModuleDict({name: persistent(child, canary) for name, child in module.items()})
    return Persistent(type(module).__name__, canary, module)


def edm_content(precond, network, kwargs, canary, kind="SongUNet", **constants):
    """What an EDM file holds: the averaged network, and beside it loss, augmentation and data."""
    inner = Persistent(kind, canary, network, _init_args=(), _init_kwargs=kwargs | {"dropout": 0.1})
    inner.extra["skip_scale"] = np.sqrt(0.5)
    constants = {"label_dim": kwargs.get("label_dim", 0), **constants}
    outer = Persistent(precond, canary, _init_kwargs={}, **constants)
    outer._modules["model"] = inner
    pipe = Persistent("AugmentPipe", canary, p=np.float64(0.12), table=np.eye(2))
    data = EasyDict(class_name="training.dataset.ImageFolderDataset")
    return {"ema": outer, "loss_fn": Persistent("EDMLoss", canary), "augment_pipe": pipe, "data": data}


def dumped(content):
    """The content as bytes."""
    with edm_installed():
        file = io.BytesIO()
        pickle.dump(content, file)
        return file.getvalue()


def write_edm(path, precond, network, kwargs, **more):
    """Write a file around a network; constants are the attributes of the preconditioning."""
    torch.manual_seed(0)
    buffers = more.pop("buffers", {})
    content = edm_content(precond, network, kwargs, path.with_name("ran"), **more)
    content["ema"]._buffers.update(buffers)
    path.write_bytes(dumped(content))
    return path
