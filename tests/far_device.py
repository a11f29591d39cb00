"""A device that is not the CPU, for machines that have no other: what a GPU refuses, it refuses.

A far tensor wraps one of the CPU and says that it lies elsewhere. An operation takes far tensors alone, or
CPU tensors alone; a number (a tensor without axes) goes with both, and an index of the CPU with far values,
as on a GPU. The arithmetic is the CPU's, so far answers are near ones. It cannot tell whether a GPU's own
kernels are there or right, which is torch's to test, nor for which device a generator was made.

The device is called lazy, the one name besides cpu that torch's autograd serves without a driver.
"""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("lazy")
CROSSING = ("aten.copy_.", "aten._to_copy.", "aten._local_scalar_dense.")
INDEXING = ("aten.index.", "aten._unsafe_index.")
PUTTING = ("aten.index_put", "aten._index_put", "aten._unsafe_index_put")
JOINING = ("aten.cat.", "aten.stack.", "aten.index_select.", "aten.gather.", "aten.scatter")


class Far(torch.Tensor):
    """A CPU tensor that claims to lie on the far device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=FAR,
        )

    def __init__(self, near):
        self.near = near

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)  # shape and strides
        self.near = value.near

    def tolist(self):
        return self.near.tolist()

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert a tensor of the far device to numpy: copy it to the CPU first")

    numpy = __array__


class Everywhere(TorchDispatchMode):
    """Sees the operations without far tensors too, for they may make one."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})


def near(value):
    return value.near if isinstance(value, Far) else value


def computed(operation, args, kwargs):
    """Compute on the CPU what may be computed on one device; the answer lies where the operands do."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, Far)]
    refuse_two_devices(str(operation), tensors, far)
    there = bool(far)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == FAR.type
        kwargs = kwargs | {"device": torch.device("cpu")}
    answer = operation(*tree_map(near, args), **tree_map(near, kwargs))

    def placed(value):
        if not there or not isinstance(value, torch.Tensor):
            return value
        same = [tensor for tensor in far if tensor.near is value]  # computed in place
        return same[0] if same else Far(value)

    return args[0] if str(operation).startswith("aten.copy_.") else tree_map(placed, answer)


def refuse_two_devices(name, tensors, far):
    """Numbers may lie elsewhere, except where they are joined, gathered or written to; indices may."""
    if not far or name.startswith(CROSSING):
        return
    beside = [tensor for tensor in tensors if not isinstance(tensor, Far)]
    if name.startswith(INDEXING):
        beside = [] if isinstance(tensors[0], Far) else tensors[:1]
    elif name.startswith(PUTTING):  # into the first, at some indices, the last
        beside = [
            tensor for tensor in (tensors[0], tensors[-1]) if not isinstance(tensor, Far) and tensor.ndim
        ]
    elif not name.startswith(JOINING) and (isinstance(tensors[0], Far) or "_." not in name):
        beside = [tensor for tensor in beside if tensor.ndim > 0]
    if beside:
        shapes = [(("far" if isinstance(t, Far) else "cpu"), tuple(t.shape)) for t in tensors]
        raise RuntimeError(f"{name} on two devices: {shapes}")


@contextlib.contextmanager
def far_device():
    """Inside, FAR is a device; its generators draw the CPU's numbers, and autocast leaves it alone."""
    generator, autocast = torch.Generator, torch.autocast

    class Generator:
        def __new__(cls, device="cpu"):
            return generator("cpu")

    def cast(device_type, *args, **kwargs):
        known = device_type != FAR.type
        return autocast(device_type, *args, **kwargs) if known else contextlib.nullcontext()

    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=FAR) by way of the CPU
    try:
        with mock.patch("torch.Generator", Generator), mock.patch("torch.autocast", cast), Everywhere():
            yield FAR
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
