"""A second device, made of the CPU: its tensors say that they are on `far`, and refuse to mix.

No GPU is needed to find a tensor that was made on the wrong device: every operation of torch on
tensors of `far` comes through here, is refused where others take part that are not there, and is
done by the CPU. What CUDA allows is allowed: numbers, copies, and indices from the host.

It changes torch for the whole process. Import it in a process of its own, before koinize.
"""

from __future__ import annotations

from typing import Any

import peft.peft_model
import safetensors.torch
import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

INDEXING = ("aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put")
COPYING = ("aten::_to_copy", "aten::copy_")


class Mixed(AssertionError):
    """Tensors of two devices met."""


class Far(torch.Tensor):
    """A tensor of the device, and the CPU's tensor that it stands for."""

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset()}
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), dtype=near.dtype, device=torch.device("far", 0), **layout
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, operation, types, given=(), named=None):
        return perform(operation, given, named or {})

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.near.tolist()

    def numpy(self) -> Any:
        raise TypeError("a tensor of another device is no array of numpy")


def near(value: object) -> object:
    return value.near if isinstance(value, Far) else value


def perform(operation, given, named):
    """The operation, done by the CPU. Raises Mixed."""
    name = operation._schema.name
    tensors = [one for one in tree_leaves((given, named)) if isinstance(one, torch.Tensor)]
    theirs = [one for one in tensors if isinstance(one, Far)]
    ours = [one for one in tensors if not isinstance(one, Far) and one.dim()]
    if theirs and ours and name not in (*COPYING, *INDEXING):
        raise Mixed(f"{operation} of {theirs[0].shape} there and {ours[0].shape} here")
    if name == "aten::copy_":
        near(given[0]).copy_(near(given[1]))
        return given[0]
    goes = bool(theirs)
    if named.get("device") is not None:
        goes = torch.device(named["device"]).type == "far"
        named = {**named, "device": torch.device("cpu")}
    done = operation(*tree_map(near, given), **tree_map(near, named))
    if not goes or name == "aten::_local_scalar_dense":
        return done
    changed = {id(one.near): one for one in theirs} if operation._schema.is_mutable else {}

    def back(value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return value
        return changed[id(value)] if id(value) in changed else Far(value)

    return tree_map(back, done)


class Module:
    """What torch asks the module of a device."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])
    manual_seed = manual_seed_all = staticmethod(lambda _seed: None)
    get_rng_state = staticmethod(lambda _device=None: torch.zeros(1, dtype=torch.uint8))
    set_rng_state = staticmethod(lambda _state, _device=None: None)


def install() -> torch.device:
    """Make the device known to torch, and its tensors writable by safetensors."""
    backend_registration._setup_privateuseone_for_python_backend("far", backend_module=Module)
    rest = torch.library.Library("_", "IMPL")
    rest.fallback(lambda operation, *given, **named: perform(operation, given, named), KEY)
    own = torch.library.Library("aten", "IMPL")
    for name, make in (
        ("empty.memory_format", torch.empty),
        ("empty_strided", torch.empty_strided),
        ("arange", torch.arange),
        ("arange.start", torch.arange),
        ("arange.start_step", torch.arange),
    ):
        own.impl(name, made_by(make), KEY)
    own.impl("copy_", lambda *given: perform(torch.ops.aten.copy_.default, given, {}), KEY)
    KEPT.extend((rest, own))
    # A parameter that moves becomes a tensor of another class; inference tensors have no versions.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.inference_mode = torch.no_grad
    # Who writes tensors asks which of them share their memory.
    pointer, size = safetensors.torch.storage_ptr, safetensors.torch.storage_size
    safetensors.torch.storage_ptr = lambda one: pointer(near(one))
    safetensors.torch.storage_size = lambda one: size(near(one))
    shared = peft.peft_model.id_tensor_storage
    peft.peft_model.id_tensor_storage = lambda one: shared(near(one))
    return torch.device("far", 0)


KEY = "PrivateUse1"
KEPT: list[torch.library.Library] = []  # what is registered goes with its library


def made_by(make):
    """A function that makes a tensor there as `make` makes it here."""

    def makes(*given, dtype=None, **_more):
        return Far(make(*given, dtype=dtype))

    return makes
