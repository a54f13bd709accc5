"""What of a model an adapter is put on: linear layers, and experts where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from koinize.errors import InputError
from koinize.model.families import MAMBA
from koinize.model.quantized import is_quantized
from koinize.settings import LoraSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear_targets(model: PreTrainedModel, lora: LoraSpec) -> str | list[str]:
    """The layers that PEFT is asked to adapt: linear ones, and no experts of a mixture.

    Experts are parameters, which PEFT adds to "all-linear" in some families. Adapters of them cost
    rank times the number of experts, so they are adapted where `lora.targets` names them and not
    otherwise. Raises InputError for a name that PEFT reads as one of them and the model has not.
    """
    from peft import LoraConfig

    if lora.targets == "all-linear":
        asked: str | list[str] = lora.targets
    else:
        bare = bare_parameters(model, lora)
        asked = [one for one in lora.targets if one not in bare]
    routers = {name for name, one in model.named_modules() if _routes(one)}
    if asked == "all-linear" and (routers or model.config.model_type in MAMBA):
        output = model.get_output_embeddings()
        linear = (name for name, one in model.named_modules() if _is_linear(one)
                  and one is not output)  # fmt: skip
        left_out = {"out_proj"} if model.config.model_type in MAMBA else set()
        return sorted({name.rpartition(".")[2] for name in linear} - left_out)
    config = LoraConfig(target_modules=asked)
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

        convert_peft_config_for_transformers(config, model=model, conversions=None)
    except ImportError:  # of a PEFT that maps nothing
        return asked
    except ValueError as error:
        raise _expert_targets(str(error), model) from error
    if not config.target_parameters:
        return asked
    if asked != "all-linear":
        read = ", ".join(sorted(config.target_parameters))
        raise _expert_targets(f"PEFT reads them as {read}", model)
    return sorted(config.target_modules)


def bare_parameters(model: PreTrainedModel, lora: LoraSpec) -> list[str]:
    """The names among `lora.targets` that are of parameters with a matrix for each expert, sorted.

    Raises InputError for one that linear layers of other names end in as well, and for dropout,
    which no product with such a matrix has a place for.
    """
    if lora.targets == "all-linear":
        return []
    found = {end for end in lora.targets if any(_ends(one, end) for one in _of_experts(model))}
    for name, module in model.named_modules():
        for end in found:
            if isinstance(module, nn.Linear) and _ends(name, end):
                raise InputError(
                    f"names '{end}', which is a parameter of experts and the linear layer '{name}'",
                    where="lora.targets",
                    expected="a name that tells them apart, such as "
                    f"experts.{end} or {'.'.join(name.split('.')[-2:])}",
                )
    if found and lora.dropout:
        raise InputError(
            f"is {lora.dropout:g}, and {', '.join(sorted(found))} are parameters of experts, which "
            "PEFT adapts without dropout",
            where="lora.dropout",
            remedy="set it to 0",
        )
    return sorted(found)


def _of_experts(model: PreTrainedModel) -> list[str]:
    """The parameters that have a matrix for each expert; a layer's own are called weight."""
    named = model.named_parameters()
    return [name for name, one in named if one.dim() == 3 and not name.endswith("weight")]


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")


def _is_linear(module: nn.Module) -> bool:
    """Whether it gives its product and no more."""
    return type(module) is nn.Linear or is_quantized(module)


def _routes(module: nn.Module) -> bool:
    """Whether a linear layer is a mixture's router, which gives more than its product."""
    return isinstance(module, nn.Linear) and "router" in type(module).__name__.lower()


def _expert_targets(why: str, model: PreTrainedModel) -> InputError:
    parameters = sorted({name.rpartition(".")[2] for name in _of_experts(model)})
    return InputError(
        f"names the experts of a mixture: {why}",
        where="lora.targets",
        expected="linear layers" + (f", or parameters: {', '.join(parameters)}" * bool(parameters)),
        remedy="use 'all-linear', which leaves the experts out, or q_proj, k_proj, v_proj, o_proj",
    )
