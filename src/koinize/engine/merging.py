"""Merging adapter folders into one, module after module, and what the merge came to."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from koinize.adapter import AdapterHeader, AdapterWriter, open_adapter
from koinize.engine.card import GROUPS, TRUNK, render_card
from koinize.engine.device import merge_device
from koinize.engine.memory import byte_count, modules_at_once
from koinize.engine.plan import THE_TRUNK, Inputs, plan_merge
from koinize.engine.stream import MergeStream, identity
from koinize.engine.workers import worker_pool
from koinize.errors import InputError, StepError
from koinize.merge.recipe import RECIPES, MergeSettings, merge_settings
from koinize.merge.slots import COMBINES, SPACES
from koinize.shown import code
from koinize.store import refuse_existing

NOTABLE_ERROR = 0.1
NEARLY_CANCELLED = 0.01  # the sum of the weights, as a share of their magnitudes
SIGNIFICANT_BITS = {"float32": 24, "bfloat16": 8, "float16": 11}
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """One merged module: its rank, and what reaching it lost, as squared Frobenius norms.

    zero: whether nothing is left of updates, or of differences, that were something.
    """

    name: str
    rank: int
    lost: float
    total: float
    zero: bool = False

    @property
    def error(self) -> float:
        """Relative Frobenius error; 0 if nothing was cut."""
        return _relative(self.lost, self.total)


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did; `inputs` are the adapters' digests by language, `dtype` the output's.

    repeated: by module, decompositions that a library got wrong at first and another one right. The
    card does not state them, because they depend on the processor. odd_adapters: sentences on those
    that do nothing, or are far larger or smaller than the others.
    trunk: the digest of the adapter that the differences were taken from, if there was one.
    """

    out: Path
    settings: MergeSettings
    dtype: str
    modules: tuple[ModuleReport, ...]
    inputs: Mapping[str, str]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    repeated: Mapping[str, int] = field(default_factory=dict)
    odd_adapters: tuple[str, ...] = ()
    trunk: str | None = None

    @property
    def error(self) -> float:
        """Relative Frobenius error of the change of rank, over all modules together."""
        lost = sum(module.lost for module in self.modules)
        return _relative(lost, sum(module.total for module in self.modules))

    @property
    def precision(self) -> str:
        """The dtype of the written factors, and what it keeps of an entry."""
        return f"{self.dtype}, {SIGNIFICANT_BITS[self.dtype]} significant bits"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know: an input's peculiarity, a large error, an unservable rank."""
        found = [*self.notes, *self.settings.warnings(), *self._odd_inputs(), *self.odd_adapters]
        if zero := sum(module.zero for module in self.modules):
            nothing = "adds nothing to the trunk" if self.trunk else "is zero"
            found.append(
                f"the merge {nothing} in {zero} of {len(self.modules)} modules that adapters "
                "change: the density keeps nothing there, or they cancel"
            )
        if self.error > NOTABLE_ERROR:
            more = "; a number or a share as rank may keep more" if self._cut_to_sum() else ""
            lost = f"the change of rank lost {self.error:.1%} of the merge (Frobenius norm)"
            found.append(lost + more)
        if not self.vllm_flags:
            found.append(f"rank {self.rank} is above vLLM's limit of {VLLM_RANKS[-1]}")
        return tuple(found)

    def _cut_to_sum(self) -> bool:
        """Whether "full" was less than the merge has, as of an election in the dense space."""
        return self.settings.rank == "full" and SPACES[self.settings.composition().space].full

    def _odd_inputs(self) -> Iterator[str]:
        """Adapters that are the same one, and weights that a mean can hardly be divided by."""
        languages: dict[str, list[str]] = {}
        for language, digest in self.inputs.items():
            languages.setdefault(digest, []).append(language)
        for same in languages.values():
            if same[1:]:
                yield f"{', '.join(same)} are one and the same adapter"
        weights = [self.settings.weights.get(language, 1.0) for language in self.inputs]
        mean = COMBINES[self.settings.composition().combine].divides
        if mean and abs(sum(weights)) < NEARLY_CANCELLED * sum(map(abs, weights)):
            yield f"the weights nearly cancel: a mean divides by their sum, {sum(weights):g}"

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(module.rank for module in self.modules)

    @property
    def vllm_flags(self) -> str:
        """The flags that vLLM needs for this adapter; empty if its rank is beyond vLLM's limit."""
        return vllm_flags(self.rank)


def written_dtype(given: Inputs, settings: MergeSettings) -> str:
    """The output's dtype: "auto" is bfloat16 if all factors are, and float32 else.

    Not float16 for float16, because the factors of a merge may leave its narrow range.
    """
    if settings.dtype != "auto":
        return settings.dtype
    headers = [*given.adapters.values(), *([given.trunk] if given.trunk else [])]
    modules = [module for header in headers for module in header.modules.values()]
    tags = {factor.dtype for module in modules for factor in (module.A, module.B)}
    return "bfloat16" if tags == {"BF16"} else "float32"


def _relative(lost: float, total: float) -> float:
    return math.sqrt(lost / total) if lost > 0.0 else 0.0


def vllm_flags(rank: int) -> str:
    """`--enable-lora --max-lora-rank N` for an adapter of this rank, or "" above vLLM's limit."""
    fitting = [limit for limit in VLLM_RANKS if limit >= rank]
    return f"--enable-lora --max-lora-rank {fitting[0]}" if fitting else ""


def merge_adapters(
    adapters: Mapping[str, Path | str],
    settings: MergeSettings | None = None,
    *,
    out: Path | str,
    trunk: Path | str | None = None,
    threads: int = 1,
    max_memory: int | str | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    card: Mapping[str, object] | None = None,
    **options: object,
) -> MergeReport:
    """Merge PEFT LoRA folders, by language, into a new folder `out`.

    Give either `settings` or its fields as keywords (`recipe="knots-ties", density=0.5`).
    trunk: an adapter that all of them were trained on from. The recipe then merges the differences
    from it, and the result is the trunk, whole, plus scale times that merge.
    threads: modules merged at once. max_memory: bytes, or text such as "1.5GB", that the tensors
    in work may take; fewer modules are then in flight. Neither changes a byte. device: "cpu",
    "cuda", "cuda:N" or "auto"; CUDA gives the CPU's result within float32 rounding, CPUs of one
    kind give the same bytes. progress: called with (done, all) modules.
    card: more keys for the front matter of the model card, for example {"license": "apache-2.0"}.

    Raises InputError (or ManyErrors) for adapters or settings that cannot be merged, before a
    tensor is read, and for one that changed while it was; StepError if the output cannot be
    written. `out` exists only after success.
    """
    started = time.monotonic()
    chosen = settings if settings is not None else merge_settings(**options)
    refuse_existing(Path(out))
    place = merge_device(device)
    given = plan_merge(adapters, chosen, trunk)
    limit = None if max_memory is None else byte_count(max_memory)
    ahead = modules_at_once(given, chosen, limit, max(1, threads), place.type == "cpu")
    with worker_pool(threads) as pool:
        try:
            merged = MergeStream(given, chosen, pool, ahead, place)
            report = _written(merged, given, chosen, Path(out), place.type, progress, card or {})
        except OSError as error:
            raise StepError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return replace(
        report,
        seconds=time.monotonic() - started,
        repeated=dict(sorted((+merged.repeated).items())),  # + leaves out what is 0
        odd_adapters=tuple(merged.sizes.warnings()),
    )


def _written(
    merged: MergeStream,
    given: Inputs,
    settings: MergeSettings,
    out: Path,
    device: str,
    progress: Callable[[int, int], None] | None,
    card: Mapping[str, object],
) -> MergeReport:
    """Write the folder, which appears when all of it is there, and say what is in it."""
    saved = next(iter(given.adapters.values())).saved
    dtype = written_dtype(given, settings)
    writer = AdapterWriter(out, merged.shapes(), dtype=dtype, saved=saved)
    with merged, writer:
        inputs, trunk = _digests(merged, given)
        modules, notes = _write(merged, writer, progress), _notes(given, device)
        report = MergeReport(out, settings, dtype, modules, inputs, notes, trunk=trunk)
        writer.finish(
            given.adapters.values(), card=lambda files: _card(report, given.adapters, card, files)
        )
    return report


def adapter_digest(header: AdapterHeader) -> str:
    """The identity of an adapter: its weights and its configuration, not its place."""
    with open_adapter(header) as adapter:
        return identity(adapter)


def _digests(merged: MergeStream, given: Inputs) -> tuple[dict[str, str], str | None]:
    """The adapters' digests by language, and the trunk's.

    Raises InputError if the trunk is one of the adapters.
    """
    found, trunk = merged.digests()
    for language, one in found.items():
        if given.trunk is not None and one == trunk:
            raise InputError(
                f"is the trunk, and '{language}' too: their difference is 0",
                where=str(given.trunk.folder),
                expected="adapters that were trained on from the trunk",
                remedy=f"leave '{language}' out; the trunk is part of the result in any case",
            )
    return found, trunk


def _notes(given: Inputs, device: str) -> tuple[str, ...]:
    """What the adapters' headers warn of, each once, with the languages that it is about.

    And, last, that the bytes are those of another device than a CPU.
    """
    about: dict[str, list[str]] = {}
    named = {**given.adapters, **({THE_TRUNK: given.trunk} if given.trunk else {})}
    for language, header in named.items():
        for warning in header.warnings:
            about.setdefault(warning, []).append(language)
    stated = {header.revision for header in named.values()} - {None}
    if stated and (silent := [one for one, header in named.items() if not header.revision]):
        about[f"states no revision of the base, and is taken for one of {stated.pop()}"] = silent
    found = [f"{', '.join(languages)}: {warning}" for warning, languages in about.items()]
    if device != "cpu":
        found.append(f"Computed on {device}: other bytes than on a CPU.")
    return tuple(found)


def _structure(report: MergeReport) -> Iterator[str]:
    """What the adapters are to one another, where they are more than a list of languages."""
    if report.trunk:
        yield f"{TRUNK}`{report.trunk}`, the recipe merges differences from it."
    if groups := report.settings.groups:
        yield GROUPS + json.dumps(groups, ensure_ascii=False)


def _card(
    report: MergeReport,
    headers: Mapping[str, AdapterHeader],
    more: Mapping[str, object],
    files: Mapping[str, str],
) -> str:
    front = {
        "base_model": next(iter(headers.values())).base_model,
        "language": list(headers),
        "library_name": "peft",
        "tags": ["lora", "merge", "koinize"],
        **more,
    }
    settings = report.settings
    recipe = RECIPES.get(settings.recipe)
    return render_card(
        front,
        title=f"Merged adapter: {', '.join(headers)}",
        recipe=f"{code(settings.describe())}. {recipe.title} {recipe.paper}.",
        settings=settings.model_dump(mode="json"),
        inputs=[
            (language, settings.weights.get(language, 1.0), report.inputs[language])
            for language in headers
        ],
        outcome=[
            *_structure(report),
            f"Modules: {len(report.modules)}; rank: {report.rank}.",
            f"Lost by the change of rank: {report.error:.3%} of the Frobenius norm.",
            f"Written in {report.precision}.",
            f"vLLM: `{report.vllm_flags}`." if report.vllm_flags else "vLLM: rank above its limit.",
        ],
        notes=report.notes,
        errors=[(module.name, module.rank, module.error) for module in report.modules],
        files=files,
    )


def _write(
    merged: MergeStream, writer: AdapterWriter, progress: Callable[[int, int], None] | None
) -> tuple[ModuleReport, ...]:
    """Everything that comes from the inputs, which are compared once more after the last read."""
    merged.check_saved()
    done: list[ModuleReport] = []
    for name, result in merged.merged():
        with merged.explained(name):
            bound = writer.write(name, result.factors)
        zero = (bound == 0.0 or result.still) and merged.sizes.changed(name)
        done.append(ModuleReport(name, result.factors.rank, result.lost, result.total, zero))
        if progress is not None:
            progress(len(done), len(merged.modules))
    merged.copy_saved(writer)
    merged.refuse_changes()
    return tuple(done)
