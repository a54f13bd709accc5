"""The base model: what it is called, what it is (its digest), and how it becomes loadable fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from koinize.frozen import Frozen


class BaseSpec(Frozen):
    """The model that every adapter of a project sits on; it is only ever read."""

    model: str = Field(
        min_length=1,
        description="hub id, folder, .gguf file, or 'package:NAME' for an installed Python package "
        "whose `assemble(path)` writes one .gguf file",
    )
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub id")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
