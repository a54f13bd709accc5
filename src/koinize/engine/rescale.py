"""Another scale of an adapter that is there: its alpha is multiplied, and no weight is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from koinize.adapter import read_header
from koinize.adapter.config import CONFIG_FILE, parse_config
from koinize.adapter.header import WEIGHTS_FILE
from koinize.files import read_bytes


def rescale_adapter(adapter: Path | str, factor: float, folder: Path) -> None:
    """Write the adapter's update times a positive factor into a folder that is there.

    That is exact: its weights stay as they are, to the byte, and alpha / r is what a model
    multiplies them by. Raises InputError where there is no adapter.
    """
    header = read_header(adapter)
    path = header.folder / CONFIG_FILE
    config: dict[str, Any] = parse_config(path, read_bytes(path))
    config["lora_alpha"] *= factor
    patterns = config.get("alpha_pattern") or {}
    config["alpha_pattern"] = {module: alpha * factor for module, alpha in patterns.items()}
    shutil.copyfile(header.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8", newline="\n")
