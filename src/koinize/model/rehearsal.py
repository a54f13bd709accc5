"""Whether PEFT loads an adapter, tried on a model of its base's shapes without any memory."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.adapter import AdapterHeader

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CONFIG_FILE = "config.json"


def refused_by_peft(header: AdapterHeader) -> str | None:
    """Why PEFT does not load an adapter; empty if it does, None where its base is not known here.

    The base is known by its configuration alone: in the folder that the adapter names, or in the
    local cache of the Hugging Face hub. Remote code never runs.
    """
    config = _configuration(header)
    if config is None:
        return None
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    why = ""
    for kind in (AutoModelForCausalLM, AutoModelForImageTextToText):
        try:
            with torch.device("meta"):
                model = kind.from_config(config, trust_remote_code=False)
        except (ValueError, KeyError, AttributeError, ImportError):
            continue  # the base has no such class
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore")
                # Tensors that find no module would leave zeros behind and a warning only.
                warnings.filterwarnings("error", message=".*missing adapter keys.*")
                PeftModel.from_pretrained(
                    model, str(header.folder), low_cpu_mem_usage=True, local_files_only=True
                )
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError, UserWarning) as error:
            why = why or (str(error).splitlines() or [type(error).__name__])[0]
            continue
        return ""
    return why or None


def _configuration(header: AdapterHeader) -> PretrainedConfig | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from transformers import AutoConfig

    folder = Path(header.base_model)
    try:
        found: object = folder / CONFIG_FILE
        if not (folder / CONFIG_FILE).is_file():
            found = try_to_load_from_cache(header.base_model, CONFIG_FILE, revision=header.revision)
        if not isinstance(found, str | Path):
            return None
        return AutoConfig.from_pretrained(Path(found).parent, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AttributeError, HFValidationError):
        return None
