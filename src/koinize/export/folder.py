"""One release, written into a folder for one tool: whole or not at all."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koinize import __version__
from koinize.adapter import ADAPTER_FILES
from koinize.digest import file_digest
from koinize.engine.fuse import fuse_adapter
from koinize.engine.proof import prove_fused
from koinize.errors import InputError, StepError, did_you_mean
from koinize.export.llama_cpp import write_gguf
from koinize.export.server import CHAT_TEMPLATE, COMMANDS, SCRIPT, Served, script, shown, vllm_of
from koinize.export.source import Source
from koinize.model.base import is_hub_id
from koinize.shown import code, markdown
from koinize.store import NewFolder, refuse_own_folder

MANIFEST = "export.json"
CARD = "README.md"

Progress = Callable[[int, int], None] | None
"""Called with how many modules are done, and how many there are."""


@dataclass(frozen=True)
class Exported:
    """What was written: `record` is its manifest; `says` what a user has to know, in lines."""

    out: Path
    record: Mapping[str, Any]
    says: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """What one tool needs besides: keys of the manifest, lines of the card, notes."""

    facts: Mapping[str, Any]
    use: tuple[str, ...]
    notes: tuple[str, ...] = ()


def export(source: Source, target: str, out: Path, progress: Progress = None) -> Exported:
    """Write a release for one tool, one of `FILL`, into a new folder.

    Raises InputError where `out` exists or lies in koinize's own folder, for an unknown tool, and
    for what that could not take.
    """
    if target not in FILL:
        raise InputError(f"there is no export to '{target}'", remedy=did_you_mean(target, FILL))
    refuse_own_folder(out)
    fill = FILL[target]
    try:
        with closing(NewFolder(out)) as draft:
            part = fill(source, draft.folder, out, progress)
            record = {"format": 1, "koinize": __version__, "to": target, "name": source.name}
            record |= {**source.record(), **part.facts, "notes": list(part.notes)}
            (draft.folder / CARD).write_text(_card(source, part), encoding="utf-8")
            record["files"] = _digests(draft.folder)
            (draft.folder / MANIFEST).write_text(
                json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            draft.commit()
    except OSError as error:
        raise StepError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return Exported(out, record, (*part.use, *part.notes))


def _peft(source: Source, draft: Path, out: Path, _: Progress) -> _Part:
    _copy(source, draft)
    base, folder = source.base, str(out.absolute() / source.name)
    dtype = "" if base.dtype == "auto" else f", dtype={base.dtype!r}"
    revision = f", revision={base.revision!r}" if base.revision else ""
    use = (
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        f"base = AutoModelForCausalLM.from_pretrained({_place(source)!r}{revision}{dtype})",
        f"model = PeftModel.from_pretrained(base, {folder!r})",
    )
    return _Part({}, use, tuple(_other_base(source)))


def _fused(source: Source, draft: Path, out: Path, progress: Progress) -> _Part:
    base, adapter, folder = source.base_folder(), source.release.folder, draft / source.name
    if not source.base_is_trained_on():
        raise InputError(
            f"is not the base model that release {source.release.name} was trained on",
            where=str(base),
            expected="the same files",
        )
    report = fuse_adapter(adapter, base, out=folder, progress=progress)
    proof = prove_fused(adapter, base, folder)
    facts = {
        "modules": proof.modules,
        "unchanged": proof.unchanged,
        "share": proof.share,
        "lost_to_rounding": report.loss,
    }
    notes = [
        f"{proof.modules} tensors compared with the base and the adapter: they hold "
        f"{proof.share:.1%} of its update; rounding is {report.loss:.1%} of it"
    ]
    if proof.unchanged:
        notes.append(
            f"{proof.unchanged} of them are as in the base: their update is below its rounding"
        )
    use = shlex.join(vllm_of(str(out.absolute() / source.name), source.base))
    return _Part(facts, (use,), tuple(notes))


def _gguf(source: Source, draft: Path, out: Path, _: Progress) -> _Part:
    name = f"{source.name}.gguf"
    found = write_gguf(source.header(), source.base_folder(), draft / name)
    use = shlex.join(["llama-server", "--model", "BASE.gguf", "--lora", str(out.absolute() / name)])
    notes = [
        f"BASE.gguf stands for {source.base.model} as llama.cpp converts it",
        *_other_base(source),
        *_template_arguments(source),
    ]
    if found.folded:
        notes.append(
            f"{found.folded} of {found.modules} modules have a part of their scale in lora_b: "
            "llama.cpp has one alpha for all"
        )
    facts = {"alpha": found.alpha, "modules": found.modules, "folded": found.folded}
    return _Part(facts, (use,), tuple(notes))


def _vllm(source: Source, draft: Path, out: Path, _: Progress) -> _Part:
    return _server(source, draft, out, "vllm")


def _sglang(source: Source, draft: Path, out: Path, _: Progress) -> _Part:
    part = _server(source, draft, out, "sglang")
    notes = [f"requests name it BASE:{source.name}, BASE being what /v1/models calls the base"]
    return replace(part, notes=(*part.notes, *notes, *_template_arguments(source)))


def _server(source: Source, draft: Path, out: Path, target: str) -> _Part:
    _copy(source, draft)
    template, base = source.template(), _place(source)
    if template.text:
        (draft / CHAT_TEMPLATE).write_text(template.text, encoding="utf-8")
    served = Served(source.name, source.base, source.header(), bool(template.text))
    command = COMMANDS[target](served)
    (draft / SCRIPT).write_text(script(command, base, _title(source)), encoding="utf-8")
    (draft / SCRIPT).chmod(0o755)
    notes = [*_other_base(source), template.says()]
    if template.text != template.base:
        notes.append(f"{SCRIPT} gives the server the one from training")
    use = shown(command, out, base)
    return _Part({"chat_template": template.record(), "command": use}, (use,), tuple(notes))


FILL: Mapping[str, Callable[[Source, Path, Path, Progress], _Part]] = {
    "peft": _peft,
    "fused": _fused,
    "gguf": _gguf,
    "vllm": _vllm,
    "sglang": _sglang,
}
"""What writes each one's files: (release, the folder that is written, its later name, progress)."""


def _copy(source: Source, draft: Path) -> None:
    """The adapter with its card, under its name."""
    folder = draft / source.name
    folder.mkdir()
    for name in (*ADAPTER_FILES, CARD):
        shutil.copyfile(source.release.folder / name, folder / name)


def _place(source: Source) -> str:
    """What a tool finds the base model by: its hub id, else its folder."""
    folder = source.base_folder()
    return source.base.model if is_hub_id(source.base, source.project.root) else str(folder)


def _other_base(source: Source) -> Iterator[str]:
    if not source.base_is_trained_on():
        yield f"the base model is not the one that release {source.release.name} was trained on"


def _template_arguments(source: Source) -> Iterator[str]:
    """For a server that has no flag for them."""
    if source.base.template:
        arguments = json.dumps(dict(source.base.template), ensure_ascii=False)
        yield f'every chat request has to carry "chat_template_kwargs": {arguments}'


def _title(source: Source) -> str:
    return f"Release {source.release.name} of {source.task}, exported by koinize {__version__}"


def _card(source: Source, part: _Part) -> str:
    record = source.record()
    in_use = f", in use in {', '.join(source.channels)}" if source.channels else ""
    lines = [
        f"# {_title(source)}",
        "",
        f"Adapter `{record['adapter']}` ({code(record['system'])}){in_use}, for the languages "
        f"{', '.join(record['languages'])}, on the base model {code(source.base.model)}"
        + (f" at {code(source.base.revision)}" if source.base.revision else "")
        + f" in {source.base.dtype}.",
        "",
        "```",
        *part.use,
        "```",
        "",
        *(f"- {markdown(one)}" for one in part.notes),
        f"- `{MANIFEST}` has the digests of the release and of every file here.",
    ]
    return "\n".join(lines) + "\n"


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
