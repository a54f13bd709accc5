"""Writing a PEFT folder that appears whole or not at all, with the same bytes every time."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from koinize.adapter.config import CONFIG_FILE
from koinize.adapter.experts import is_part, part_name, whole_name
from koinize.adapter.factors import LARGEST_ENTRY, Adapter, Factors, magnitude
from koinize.adapter.header import WEIGHTS_FILE, AdapterHeader
from koinize.adapter.scales import own_keys
from koinize.adapter.tensorfile import TensorSpec, TensorWriter
from koinize.digest import file_digest
from koinize.errors import InputError
from koinize.store import NewFolder

if TYPE_CHECKING:
    import torch

PIECE_ENTRIES = 1 << 17  # of a factor that is cast, checked and written at a time


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """The size of an update that is going to be written; `rank` is the largest it may get."""

    name: str
    outputs: int
    inputs: int
    rank: int


class AdapterWriter:
    """Writes modules in sorted order into a temporary folder, and renames it at the end.

    Use it as a context manager: `out` exists after a clean exit and at no other time. alpha / r is
    1 for every module; ranks that differ are stated in `rank_pattern` and `alpha_pattern`.
    `saved` are the tensors of whole modules that `copy` will append. Raises InputError if `out`
    exists already.
    """

    def __init__(
        self,
        out: Path | str,
        shapes: Iterable[ModuleShape],
        *,
        dtype: str = "float32",
        saved: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        self._draft = NewFolder(out)
        self._folder = self._draft.folder
        self._dtype = dtype
        self._ranks: dict[str, int] = {}
        self._stacks: dict[str, dict[str, Factors]] = {}  # experts that wait for the last of theirs
        largest: dict[str, tuple[int, ...]] = {}
        ordered = sorted(shapes, key=lambda shape: shape.name)
        self._experts = Counter(whole_name(one.name) for one in ordered if is_part(one.name))
        for shape in ordered:
            whole = whole_name(shape.name)
            rank = shape.rank * self._experts.get(whole, 1)
            largest[_tensor_name(whole, "A")] = (rank, shape.inputs)
            largest[_tensor_name(whole, "B")] = (shape.outputs, rank)
        self._tensors = TensorWriter(self._folder / WEIGHTS_FILE, largest, dtype, saved)

    def write(self, module: str, factors: Factors) -> float:
        """Append one module's factors, cast to the writer's dtype. Modules come in sorted order.

        An expert of a stack is written with the others, which have its rank. Returns a bound on the
        entries of the product. Raises NotFiniteError for what would be refused when it is read
        again, InputError for what float16 cannot hold.
        """
        self._ranks[module] = factors.rank
        if not is_part(module):
            return self._pair(module, factors)
        whole = whole_name(module)
        waiting = self._stacks.setdefault(whole, {})
        waiting[module] = factors
        if len(waiting) == self._experts[whole]:
            experts = [waiting[part_name(whole, index)] for index in range(len(waiting))]
            del self._stacks[whole]
            self._pair(whole, together(experts))
        return factors.rank * magnitude(factors.A) * magnitude(factors.B)

    def _pair(self, module: str, factors: Factors) -> float:
        largest_a = self._append(module, "A", factors.A)
        largest_b = self._append(module, "B", factors.B)
        bound = factors.rank * largest_a * largest_b
        if bound > LARGEST_ENTRY:
            raise NotFiniteError(module)
        return bound

    def copy(self, adapter: Adapter) -> None:
        """Append the whole modules of an adapter, as they are; after all `write`."""
        for name, spec in adapter.header.saved.items():
            self._tensors.write(name, spec.shape, adapter.saved(name))

    def _append(self, module: str, side: str, factor: torch.Tensor) -> float:
        """Write a factor, piece by piece so that it stays in the cache; its largest magnitude."""
        import torch

        largest = 0.0

        def pieces() -> Iterator[memoryview]:
            nonlocal largest
            rows = max(1, PIECE_ENTRIES // factor.shape[1])
            for piece in torch.split(factor, rows):
                cast = piece.to(getattr(torch, self._dtype)).contiguous()
                largest = max(largest, self._magnitude(module, cast))
                # Flat, because torch sees no bytes in a single column, whatever lies in between.
                yield cast.reshape(-1).view(torch.uint8).numpy().data

        self._tensors.write(_tensor_name(module, side), tuple(factor.shape), pieces())
        return largest

    def _magnitude(self, module: str, cast: torch.Tensor) -> float:
        """The largest magnitude. Raises NotFiniteError, or InputError for float16."""
        largest = magnitude(cast)
        if self._dtype == "float16" and math.isinf(largest):
            raise InputError(
                f"module '{module}' does not fit float16",
                expected="magnitudes below 65504",
                remedy="use bfloat16 or float32",
            )
        if not math.isfinite(largest):
            raise NotFiniteError(module)
        return largest

    def finish(
        self,
        like: Iterable[AdapterHeader],
        *,
        card: Callable[[Mapping[str, str]], str] | None = None,
    ) -> None:
        """Write `adapter_config.json` for the base that the inputs `like` share, and README.md.

        `card` makes the text of README.md from the digests of the other two files, by their names.
        """
        self._tensors.finish()
        config = peft_config(list(like), self._ranks)
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (self._folder / CONFIG_FILE).write_text(text, encoding="utf-8", newline="\n")
        if card is not None:
            config_digest = file_digest(self._folder / CONFIG_FILE)
            files = {CONFIG_FILE: config_digest, WEIGHTS_FILE: self._tensors.digest}
            (self._folder / "README.md").write_text(card(files), encoding="utf-8", newline="\n")

    def __enter__(self) -> AdapterWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._tensors.__exit__(kind, error, trace)
            if kind is None:
                self._draft.commit()
        finally:
            self._draft.close()


class NotFiniteError(ArithmeticError):
    """An update of this module has entries beyond what is computed and written, or none at all."""

    def __init__(self, module: str) -> None:
        self.module = module
        super().__init__(module)


def together(experts: Sequence[Factors]) -> Factors:
    """The factors of a stack's experts, in their order, as PEFT keeps them: A one below the other,
    and B with the experts' columns in turn.
    """
    import torch

    B = torch.stack([one.B for one in experts], dim=-1)  # (outputs, rank, experts)
    return Factors(B=B.reshape(len(B), -1), A=torch.cat([one.A for one in experts]))


def peft_config(inputs: list[AdapterHeader], ranks: Mapping[str, int]) -> dict[str, object]:
    """The `adapter_config.json` of an adapter with these ranks, for the base of the inputs.

    Experts have the largest rank of all, so that no pattern has to name their parameters.
    `r` is the largest rank, because a server that ignores `rank_pattern` allocates `r`.
    """
    rank = max(ranks.values())
    keys = own_keys(ranks)
    others = {keys[module]: number for module, number in ranks.items() if number != rank}
    tasks = {header.task_type for header in inputs}
    parameters = sorted({one for header in inputs for one in header.parameters})
    return {
        "alpha_pattern": others,
        "auto_mapping": None,
        "base_model_name_or_path": inputs[0].base_model or None,
        "bias": "none",
        "fan_in_fan_out": all(one.fan_in_fan_out for one in inputs),
        "inference_mode": True,
        # Never the inputs' own: an initialisation such as PiSSA would rewrite the base on loading.
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": list(inputs[0].modules_to_save) or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": others,
        "revision": next((one.revision for one in inputs if one.revision), None),
        "target_modules": _targets(inputs, ranks),
        **({"target_parameters": parameters} if parameters else {}),
        "task_type": tasks.pop() if len(tasks) == 1 else None,
        "use_dora": False,
        "use_rslora": False,
    }


def _targets(inputs: list[AdapterHeader], ranks: Mapping[str, int]) -> list[str] | str:
    """The inputs' own selection if they all made the same one, else every module by its name."""
    selections = {header.target_modules for header in inputs}
    modules = {tuple(header.modules) for header in inputs}
    only = selections.pop()
    if selections or len(modules) > 1 or only is None:
        return sorted(module for module in ranks if not is_part(module))
    return only if isinstance(only, str) else list(only)


def _tensor_name(module: str, side: str) -> str:
    return f"base_model.model.{module}.lora_{side}.weight"
