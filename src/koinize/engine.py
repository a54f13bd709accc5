"""Merging adapter folders: PEFT folders in, one PEFT folder out, and the base is never read.

Plan, validate, apply: everything that can be wrong is found in file headers before the first tensor
is read. Then one module after the other is read, merged and written, so memory is bounded by the
largest module. The output's bytes depend on the adapters and the settings alone: not on the order
of the inputs, nor on the number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.adapter import Adapter, AdapterHeader, AdapterWriter, ModuleShape, read_header
from koinize.adapter.header import CONFIG_FILE
from koinize.adapter.writer import refuse_existing
from koinize.card import render_card
from koinize.digest import digest, file_digest
from koinize.errors import InputError, ManyErrors, StepError, did_you_mean
from koinize.recipe import RECIPES, MergeSettings, merge_settings

if TYPE_CHECKING:
    from koinize.merge.linalg import Approximation

NOTABLE_ERROR = 0.1
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """One merged module: its rank, and what reaching it lost, as squared Frobenius norms."""

    name: str
    rank: int
    lost: float
    total: float

    @property
    def error(self) -> float:
        """Relative Frobenius error; 0 if nothing was cut."""
        return _relative(self.lost, self.total)


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did; `inputs` are the adapters' digests by language."""

    out: Path
    settings: MergeSettings
    modules: tuple[ModuleReport, ...]
    inputs: Mapping[str, str]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def error(self) -> float:
        """Relative Frobenius error of the change of rank, over all modules together."""
        lost = sum(module.lost for module in self.modules)
        return _relative(lost, sum(module.total for module in self.modules))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know: an input's peculiarity, a large error, an unservable rank."""
        found = list(self.notes)
        if self.error > NOTABLE_ERROR:
            found.append(f"the change of rank lost {self.error:.1%} of the merge (Frobenius norm)")
        if not self.vllm_flags:
            found.append(f"rank {self.rank} is above vLLM's limit of {VLLM_RANKS[-1]}")
        return tuple(found)

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(module.rank for module in self.modules)

    @property
    def vllm_flags(self) -> str:
        """The flags that vLLM needs for this adapter; empty if its rank is beyond vLLM's limit."""
        return vllm_flags(self.rank)


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
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    card: Mapping[str, object] | None = None,
    **options: object,
) -> MergeReport:
    """Merge PEFT LoRA folders, by language, into a new folder `out`.

    Give either `settings` or its fields as keywords (`recipe="knots-ties", density=0.5`).
    threads: modules merged at once; it changes no byte. progress: called with (done, all) modules.
    card: more keys for the front matter of the model card, for example {"license": "apache-2.0"}.

    Raises InputError (or ManyErrors) for adapters or settings that cannot be merged, before a
    tensor is read; StepError if the output cannot be written. `out` exists only after success.
    """
    started = time.monotonic()
    chosen = settings if settings is not None else merge_settings(**options)
    refuse_existing(Path(out))
    headers = plan_merge(adapters, chosen)
    with ThreadPoolExecutor(max(1, threads), initializer=_single_threaded) as pool:
        inputs = dict(zip(headers, pool.map(adapter_digest, headers.values()), strict=True))
        try:
            merged = _Merge(headers, chosen, pool, 2 * max(1, threads))
            writer = AdapterWriter(out, merged.shapes(), dtype=chosen.dtype)
            with merged, writer:
                modules = merged.run(writer, progress)
                notes = tuple(note for header in headers.values() for note in header.warnings)
                report = MergeReport(Path(out), chosen, modules, inputs, notes)
                writer.finish(headers.values(), card=_card(report, headers, card or {}))
        except OSError as error:
            raise StepError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return replace(report, seconds=time.monotonic() - started)


def plan_merge(
    adapters: Mapping[str, Path | str], settings: MergeSettings
) -> dict[str, AdapterHeader]:
    """The headers of all adapters, sorted by language, after every check that needs no tensor."""
    if not adapters:
        raise InputError("there is no adapter to merge", expected="at least one LANGUAGE=FOLDER")
    headers: dict[str, AdapterHeader] = {}
    errors: list[InputError] = []
    for language in sorted(adapters):
        try:
            headers[language] = read_header(adapters[language])
        except InputError as error:
            errors.append(error)
    errors += [*_weight_errors(sorted(adapters), settings), *_mismatches(headers)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)
    return headers


def adapter_digest(header: AdapterHeader) -> str:
    """The identity of an adapter: its weights and its configuration, not its place."""
    return digest(
        {
            "config": file_digest(header.folder / CONFIG_FILE),
            "weights": file_digest(header.weights),
        }
    )


def _weight_errors(languages: list[str], settings: MergeSettings) -> Iterator[InputError]:
    for language in settings.weights:
        if language not in languages:
            yield InputError(
                f"there is a weight for '{language}' but no adapter",
                remedy=did_you_mean(language, languages),
            )
    weights = [settings.weights.get(language, 1.0) for language in languages]
    if not any(weights):
        yield InputError("all weights are 0", remedy="give at least one language a weight")
    elif RECIPES.get(settings.recipe).combine == "mean" and abs(sum(weights)) < 1e-9:
        yield InputError(
            "the weights sum to 0, and a mean divides by their sum",
            remedy="use recipe 'sum' for differences",
        )


def _mismatches(headers: Mapping[str, AdapterHeader]) -> Iterator[InputError]:
    """Adapters that are not of one base model, or not of one shape."""
    if not headers:
        return
    first_language, first = next(iter(headers.items()))
    shapes: dict[str, tuple[str, tuple[int, int]]] = {}
    for language, header in headers.items():
        if (header.base_model, header.revision) != (first.base_model, first.revision):
            yield InputError(
                f"'{language}' adapts {_base(header)}, '{first_language}' adapts {_base(first)}",
                where=str(header.folder),
                expected="adapters of one base model",
                remedy=f"if the two are the same, make both {CONFIG_FILE} say so",
            )
        elif header.fan_in_fan_out != first.fan_in_fan_out:
            yield InputError(
                f"fan_in_fan_out differs between '{language}' and '{first_language}'",
                where=str(header.folder),
                expected="adapters of one base model",
            )
        for module in header.modules.values():
            shape = (module.outputs, module.inputs)
            owner, known = shapes.setdefault(module.name, (language, shape))
            if shape != known:
                yield InputError(
                    f"module '{module.name}' is {shape[0]} x {shape[1]} in '{language}' "
                    f"and {known[0]} x {known[1]} in '{owner}'",
                    where=str(header.folder),
                    expected="adapters of one base model",
                )
                break  # one module says it; the others would only repeat it


def _base(header: AdapterHeader) -> str:
    name = header.base_model or "an unnamed base"
    return f"{name} at {header.revision}" if header.revision else name


def _single_threaded() -> None:
    """Modules run side by side; one product split over threads could differ in its last bit."""
    import torch

    torch.set_num_threads(1)


def _card(
    report: MergeReport, headers: Mapping[str, AdapterHeader], more: Mapping[str, object]
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
        recipe=f"`{settings.describe()}`. {recipe.title} {recipe.paper}.",
        settings=settings.model_dump(mode="json"),
        inputs=[
            (language, settings.weights.get(language, 1.0), report.inputs[language])
            for language in headers
        ],
        outcome=[
            f"Modules: {len(report.modules)}; rank: {report.rank}.",
            f"Lost by the change of rank: {report.error:.3%} of the Frobenius norm.",
            f"vLLM: `{report.vllm_flags}`." if report.vllm_flags else "vLLM: rank above its limit.",
            *report.notes,
        ],
        errors=[(module.name, module.rank, module.error) for module in report.modules],
    )


class _Merge:
    """The open inputs of one merge, and the stream of merged modules."""

    def __init__(
        self,
        headers: Mapping[str, AdapterHeader],
        settings: MergeSettings,
        pool: ThreadPoolExecutor,
        window: int,
    ) -> None:
        self._headers, self._settings, self._pool, self._window = headers, settings, pool, window
        names = {name for header in headers.values() for name in header.modules}
        self._modules = sorted(names)
        self._open = ExitStack()
        self._adapters: dict[str, Adapter] = {}

    def __enter__(self) -> _Merge:
        for language, header in self._headers.items():
            self._adapters[language] = self._open.enter_context(Adapter(header))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._open.close()

    def shapes(self) -> Iterator[ModuleShape]:
        """The largest that every module may become."""
        for name in self._modules:
            present = [h.modules[name] for h in self._headers.values() if name in h.modules]
            rank = sum(module.rank for module in present)
            if isinstance(self._settings.rank, int):
                rank = min(rank, self._settings.rank)
            yield ModuleShape(name, present[0].outputs, present[0].inputs, rank)

    def run(
        self, writer: AdapterWriter, progress: Callable[[int, int], None] | None
    ) -> tuple[ModuleReport, ...]:
        """Merge and write every module, in order."""
        done: list[ModuleReport] = []
        for name, merged in self._stream():
            writer.write(name, merged.factors)
            done.append(ModuleReport(name, merged.factors.rank, merged.lost, merged.total))
            if progress is not None:
                progress(len(done), len(self._modules))
        return tuple(done)

    def _stream(self) -> Iterator[tuple[str, Approximation]]:
        """Merged modules in sorted order, a few of them computed ahead."""
        names = iter(self._modules)
        waiting: list[tuple[str, Future[Approximation]]] = []
        waiting.extend((name, self._submit(name)) for name in islice(names, self._window))
        while waiting:
            name, future = waiting.pop(0)
            result = future.result()
            waiting.extend((later, self._submit(later)) for later in islice(names, 1))
            yield name, result

    def _submit(self, module: str) -> Future[Approximation]:
        return self._pool.submit(self._one, module)

    def _one(self, module: str) -> Approximation:
        from koinize.adapter import Factors
        from koinize.merge.compose import merge_module

        updates = {
            language: adapter.factors(module)
            for language, adapter in self._adapters.items()
            if module in adapter.header.modules
        }
        like = next(iter(updates.values()))
        nothing = Factors(B=like.B[:, :0], A=like.A[:0])
        everyone = {language: updates.get(language, nothing) for language in self._adapters}
        return merge_module(module, everyone, self._settings)
