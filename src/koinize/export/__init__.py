"""A release in the form that the tools of others take, and the test rows, too.

`source` is the release with its base model and its chat template; `folder` writes one for a tool,
whole or not at all, with a manifest of what it is. Of the tools, PEFT takes the adapter as it is;
`server` has the commands of vLLM and SGLang, `llama_cpp` writes GGUF. Fused weights are written and
proven by `engine.fuse` and `engine.proof`. `card` is the model card for a hub, which `hub` sends.
`lm_eval` writes the test rows as tasks of lm-evaluation-harness, with `koinize_task`, which goes
along.
"""

from __future__ import annotations

from koinize.export.folder import FILL, Exported, export
from koinize.export.lm_eval import Tasks, export_tasks
from koinize.export.source import Source, source

__all__ = ["FILL", "Exported", "Source", "Tasks", "export", "export_tasks", "source"]
