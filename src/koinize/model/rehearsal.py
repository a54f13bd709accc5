"""Whether PEFT loads an adapter, tried on a model of its base's shapes without any memory.

What a configuration says is a stranger's: its `target_modules` may be a regular expression that
takes for ever. So a process of its own tries it, this module as a program, and is ended in time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

from koinize.adapter import AdapterHeader
from koinize.model.loading import BASE_CONFIG, refuse_size, without_weights

SECONDS = 300.0  # a sound adapter takes some ten, most of them to import PEFT
FAULTS = 200  # characters of a library's message that are handed on


def refused_by_peft(header: AdapterHeader) -> str | None:
    """Why PEFT does not load an adapter; empty if it does, None where its base is not known here.

    The base is known by its configuration alone: in the folder that the adapter names, or in the
    local cache of the Hugging Face hub. Remote code never runs. Raises InputError for a base of
    more layers than anybody built.
    """
    base = configured_in(header)
    if base is None:
        return None
    refuse_size(base)
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", __name__, str(header.folder), str(base)],
            capture_output=True,
            check=False,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {SECONDS:g} s"
    if child.returncode:
        return f"it ended the process with code {child.returncode}"
    found: str | None = json.loads(child.stdout.splitlines()[-1])
    return found


def configured_in(header: AdapterHeader) -> Path | None:
    """The folder with the configuration of the adapter's base."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(header.base_model)
    try:
        if (folder / BASE_CONFIG).is_file():
            return folder
        found = try_to_load_from_cache(header.base_model, BASE_CONFIG, revision=header.revision)
    except (OSError, ValueError, HFValidationError):
        return None
    return Path(found).parent if isinstance(found, str) else None


def _tried(folder: str, base: str) -> str | None:
    """Why PEFT does not load it, empty if it does, None for a base that nobody knows a class of."""
    from peft import PeftModel

    why = None
    for seeing in (False, True):
        try:
            model = without_weights(base, seeing=seeing)
        except (OSError, ValueError):  # the base has no such class, or its shapes make none
            continue
        try:
            # Tensors that find no module would leave zeros behind and a warning only.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            PeftModel.from_pretrained(model, folder, low_cpu_mem_usage=True, local_files_only=True)
        except Exception as error:  # noqa: BLE001 - whatever PEFT says of a stranger's file
            why = why or (str(error).splitlines() or [""])[0][:FAULTS] or type(error).__name__
            continue
        return ""
    return why


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(json.dumps(_tried(*sys.argv[1:])))  # noqa: T201 - to the process that asked
