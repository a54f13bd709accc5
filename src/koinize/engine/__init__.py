"""Merging adapter folders: PEFT folders in, one PEFT folder out, and the base is never read.

Plan, validate, apply: everything that can be wrong is found in file headers before the first tensor
is read. Then one module after the other is read, merged and written, so memory is bounded by the
largest module. The output's bytes depend on the adapters and the settings alone: not on the order
of the inputs, nor on the number of threads.

What is in here: `merging`, the merge itself, with `plan` (all that headers tell), `naming` (one
layer by two names), `memory` (how many modules at once), `device`, `workers` and `stream` (modules
read, merged and handed on), `sizes` (which adapter is far from the others) and `card` (what the
folder says of itself). Beside it the tools: `verify` does a merge again and compares, `resize`
changes the rank of one adapter and `rescale` its scale, `fuse` (with `conv1d`) adds an adapter to
its base and `proof` shows that it did, and `inspect` (with `compare`) says what adapters hold and
where they disagree.

Two worked paths.

`koinize merge en=A de=B -o OUT --recipe knots-ties`: `merging.merge_adapters` reads the headers
(`plan.plan_merge`) and refuses what cannot be merged; `memory.modules_at_once` says how many
modules may be in work; `stream.MergeStream` hands on one merged module after the other, and an
`AdapterWriter` writes it; the card comes last, then OUT appears, and a `MergeReport` is returned.

`koinize verify OUT en=A de=B`: `verify` reads the card that OUT carries, compares the
digests of inputs and files with it, does the merge again into a temporary folder by the same
`merge_adapters`, and compares the bytes.
"""

from __future__ import annotations

from koinize.engine.merging import (
    MergeReport,
    ModuleReport,
    adapter_digest,
    merge_adapters,
    vllm_flags,
)

__all__ = ["MergeReport", "ModuleReport", "adapter_digest", "merge_adapters", "vllm_flags"]
