"""A base in 4 bit while adapters are trained on it (QLoRA: Dettmers et al., arXiv 2305.14314).

bitsandbytes keeps the weights of linear layers in NF4, their scales quantized once more, and turns
each matrix into the base's dtype as it is multiplied. The vocabulary's layers and a mixture's
experts keep their dtype. Training alone is done on such a base: what is merged, scored or served
stands on the one that it was made of.

torch is imported only by what needs it.
"""

from __future__ import annotations

import gc
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from koinize.errors import InputError
from koinize.model.families import MAMBA

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

WHERE = "training.load_in_4bit"
PACKAGE = "bitsandbytes"

BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight: itself, one of 8 bits for each 64 scales them, and one of 32 for each 256 of those
(bitsandbytes' blocks)."""


def require() -> None:
    """Raise InputError where bitsandbytes is not installed."""
    if find_spec(PACKAGE) is None:
        raise InputError(
            "a base in 4 bit needs bitsandbytes, which is not installed",
            where=WHERE,
            remedy="pip install 'koinize[quantized]', or take load_in_4bit out",
        )


def in_words(dtype: str) -> str:
    """What is worth knowing of adapters that are trained on such a base."""
    whole = "the dtype of its files" if dtype == "auto" else dtype
    return (
        "trainings load the base model in 4 bit (NF4), and their dev losses are measured on that; "
        f"what is merged, scored and served stands on the base model in {whole}"
    )


def refuse(model: PreTrainedModel) -> None:
    """Raise InputError for a model whose weights somebody else reads than its linear layers."""
    from transformers.pytorch_utils import Conv1D

    why = ""
    if any(isinstance(one, Conv1D) for one in model.modules()):
        why = "keeps them as inputs x outputs, which in 4 bit are turned around"
    elif model.config.model_type in MAMBA:
        why = "has kernels that read them past the layers"
    if why:
        raise InputError(
            f"a base of the family '{model.config.model_type}' cannot have its weights in 4 bit: "
            f"it {why}",
            where=WHERE,
            remedy="take load_in_4bit out, or choose another base model",
        )


def asked_of_transformers(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told, for products in this dtype on this device."""
    from transformers import BitsAndBytesConfig

    require()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def settle(model: PreTrainedModel) -> None:
    """Make a model that was just loaded in 4 bit fit for training."""
    for module in model.modules():
        if is_quantized(module):
            # On a CPU with bfloat16 instructions, a pass without gradients would repack the weights
            # for a kernel that has no way back: gradients would be lost in silence from then on.
            module.support_avx512bf16_for_cpu = False
    if model.device.type == "cpu":
        # What is not quantized maps the file still, and with it all that was read of it.
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.clone()
        gc.collect()


def is_quantized(module: nn.Module) -> bool:
    """Whether it is a linear layer whose weights are in 4 bit."""
    return type(module).__name__ == "Linear4bit" and type(module).__module__.startswith(PACKAGE)
