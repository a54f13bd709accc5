"""Running a merge: modules read, merged and handed on one after the other, a few at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from koinize.adapter import Adapter, AdapterWriter, Factors, ModuleShape
from koinize.adapter.factors import LARGEST_ENTRY, magnitude
from koinize.adapter.names import is_expert
from koinize.adapter.writer import NotFiniteError
from koinize.digest import digest
from koinize.engine.plan import THE_TRUNK, Inputs, quoted, saved_conflict
from koinize.engine.sizes import Sizes
from koinize.engine.workers import in_order
from koinize.errors import InputError, KoinizeError, StepError
from koinize.merge.recipe import MergeSettings
from koinize.merge.slots import SPARSIFIERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from koinize.merge.approximation import Approximation

T = TypeVar("T")

# Sums, rescaling and the change of rank make entries larger by far less than this.
GROWTH = 1e6


def identity(adapter: Adapter) -> str:
    """Digest of an open adapter: of its weights, and of the configuration that was read with it."""
    return digest({"config": adapter.header.config_digest, "weights": adapter.digest()})


class MergeStream:
    """The open inputs of one merge, and its modules as they get done."""

    def __init__(
        self,
        inputs: Inputs,
        settings: MergeSettings,
        pool: ThreadPoolExecutor,
        ahead: int,
        device: torch.device,
    ) -> None:
        self._inputs, self._settings, self._pool = inputs, settings, pool
        self._ahead, self._device = ahead, device
        self.modules = inputs.modules
        self._open = ExitStack()
        self._adapters: dict[str, Adapter] = {}
        # Decompositions, by module, that a library got wrong at first.
        self.repeated: Counter[str] = Counter()
        of = "update" if inputs.trunk is None else "difference from the trunk"
        self.sizes = Sizes(self.modules, of)
        self._trunk: Adapter | None = None

    def __enter__(self) -> MergeStream:
        for language, header in self._inputs.adapters.items():
            self._adapters[language] = self._open.enter_context(Adapter(header))
        if self._inputs.trunk is not None:
            self._trunk = self._open.enter_context(Adapter(self._inputs.trunk))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._open.close()

    def shapes(self) -> Iterator[ModuleShape]:
        """The largest that every module may become."""
        for name in self.modules:
            present = self._inputs.of_module(name)
            rank = self._inputs.largest_rank(name, self._settings)
            if is_expert(name):
                rank = self._largest_rank
            yield ModuleShape(name, present[0].outputs, present[0].inputs, rank)

    def digests(self) -> tuple[dict[str, str], str | None]:
        """The identity of every open adapter, by language, and of the trunk."""
        found = self._pool.map(identity, self._adapters.values())
        trunk = None if self._trunk is None else identity(self._trunk)
        return dict(zip(self._adapters, found, strict=True)), trunk

    def refuse_changes(self) -> None:
        """Raise InputError if an adapter is no longer the one whose digest was taken."""
        for adapter in (*self._adapters.values(), *([self._trunk] if self._trunk else [])):
            adapter.refuse_changes()

    def check_saved(self) -> None:
        """Whole modules have to be the same bytes in all adapters. Raises InputError."""
        (first_name, first), *others = [(quoted(key), one) for key, one in self._adapters.items()]
        if self._trunk is not None:
            others.append((THE_TRUNK, self._trunk))
        for name, other in others:
            for tensor in first.header.saved:
                pairs = zip(first.saved(tensor), other.saved(tensor), strict=True)
                if any(one != piece for one, piece in pairs):
                    raise saved_conflict(tensor, name, first_name, other.header)

    def copy_saved(self, writer: AdapterWriter) -> None:
        """Carry over the whole modules, which all adapters share."""
        writer.copy(next(iter(self._adapters.values())))

    @cached_property
    def _largest_rank(self) -> int:
        """The most that any module may get."""
        return max(self._inputs.largest_rank(one, self._settings) for one in self.modules)

    def merged(self) -> Iterator[tuple[str, Approximation]]:
        """Every module's merge, in sorted order.

        PEFT stacks the factors of experts that it finds fused in today's models, and looks for the
        one rank that stands in the configuration: theirs are filled up to it with zeros.
        """
        if not any(map(is_expert, self.modules)):
            yield from self._merged()
            return
        rank = self._largest_rank
        if any(isinstance(self._settings.of_module(one).rank, float) for one in self.modules):
            # Shares of the energy are known when all is merged; then it is done again, and written.
            rank = max(merged.factors.rank for _, merged in self._merged())
        for name, merged in self._merged():
            filled = merged.factors.filled(rank) if is_expert(name) else merged.factors
            yield name, replace(merged, factors=filled)

    def _merged(self) -> Iterator[tuple[str, Approximation]]:
        from koinize.merge.compose import merge_module
        from koinize.merge.groups import merge_groups

        facts = self._facts()
        # Where no module is cut, the error over all is 0 whatever their norms are.
        some_cut = any(self._settings.of_module(one).rank != "full" for one in self.modules)

        def work(module: str) -> Approximation:
            settings, (updates, trunk) = self._settings.of_module(module), self._read(module)
            if groups := self._inputs.groups:
                merged = merge_groups(module, groups, updates, settings, trunk=trunk, norm=some_cut)
            else:
                merged = merge_module(module, updates, settings, facts, trunk=trunk, norm=some_cut)
            return replace(merged, factors=merged.factors.to("cpu"))

        yield from self._each(work)

    def _each(self, work: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        """(module, work(module)) in order. Raises as `explained` does."""
        from koinize.merge.decompose import repeats

        def noted(module: str) -> T:
            with self.explained(module), repeats() as repeated:
                result = work(module)
            self.repeated[module] += len(repeated)
            return result

        yield from in_order(self._pool, noted, self.modules, self._ahead)

    @contextmanager
    def explained(self, module: str) -> Iterator[None]:
        """Says what is to blame where the arithmetic of a module fails.

        Raises InputError where a number that the user gave is too large, StepError where a device's
        memory is full, or where nothing that the user gave explains it.
        """
        import torch
        from numpy.linalg import LinAlgError

        from koinize.merge.decompose import UnsolvedError

        try:
            yield
        except torch.OutOfMemoryError as error:
            raise StepError(
                f"the memory of device '{self._device}' is too small for module '{module}'",
                remedy="use device cpu, or a max-memory that keeps fewer modules in flight",
            ) from error
        except UnsolvedError as error:
            raise _ours(module, str(error)) from error
        except (NotFiniteError, LinAlgError) as error:  # LinAlgError: of numbers not finite
            raise self._overflow(module) from error

    def _overflow(self, module: str) -> KoinizeError:
        """Why the merge of a module is not finite."""
        settings, (updates, trunk) = self._settings.of_module(module), self._read(module)
        sizes = {
            quoted(language): abs(settings.weights.get(language, 1.0) * settings.scale)
            * update.rank * magnitude(update.B) * magnitude(update.A)
            for language, update in updates.items()
            if update.rank
        }  # fmt: skip
        if trunk is not None:
            size = trunk.rank * magnitude(trunk.B) * magnitude(trunk.A)
            sizes[THE_TRUNK] = max(1.0, abs(settings.scale)) * size
        largest = max(sizes, key=sizes.__getitem__)
        if sizes[largest] * GROWTH < LARGEST_ENTRY:
            return _ours(module, f"it is not finite, though no entry is above {sizes[largest]:.0e}")
        return InputError(
            f"the merge of module '{module}' is not finite, or may have entries beyond "
            f"{LARGEST_ENTRY:.0e}",
            remedy=f"give smaller weights and a smaller scale, or leave out {largest}, whose "
            f"entries may be {sizes[largest]:.0e} with them",
        )

    def _read(self, module: str) -> tuple[dict[str, Factors], Factors | None]:
        """All languages' factors, and the trunk's.

        A language that does not adapt the module takes part with rank 0; of a trunk that does not,
        there is None, for D_T is 0 then.
        """
        present = {
            language: adapter.factors(module, self._device)
            for language, adapter in self._adapters.items()
            if module in adapter.header.modules
        }
        trunk = None
        if self._trunk is not None and module in self._trunk.header.modules:
            trunk = self._trunk.factors(module, self._device)
        self.sizes.note(module, present, trunk)
        like = next(iter(present.values()))
        nothing = Factors(B=like.B[:, :0], A=like.A[:0])
        return {language: present.get(language, nothing) for language in self._adapters}, trunk

    def _facts(self) -> dict[str, object]:
        """What the slots of this merge ask for besides settings, of all modules."""
        settings, sparsify = self._settings, self._settings.composition().sparsify
        scoped = any(SPARSIFIERS[name].scoped for name in sparsify) and settings.density < 1.0
        if scoped and settings.resolve("scope") == "adapter":
            return {"thresholds": self._thresholds()}
        return {}

    def _thresholds(self) -> dict[str, float]:
        """By language, the magnitude at which trimming over the whole adapter cuts."""
        settings = self._settings
        from koinize.merge import scope
        from koinize.merge.compose import stacks

        def counted(count: Callable[..., dict[str, Tensor]], *more: object) -> dict[str, Tensor]:
            def work(module: str) -> dict[str, Tensor]:
                updates, trunk = self._read(module)
                # An adapter that leaves the module alone has no entries there.
                present = [one for one, update in updates.items() if update.rank]
                local = settings.of_module(module)
                counts = count(stacks(module, updates, local, trunk), present, *more)
                return {language: one.cpu() for language, one in counts.items()}

            return scope.added(counts for _, counts in self._each(work))

        upper = counted(scope.upper_counts)
        groups = scope.wanted_groups(upper, settings.density, settings.resolve("extra"))
        lower = counted(scope.lower_counts, {key: group for key, (group, _) in groups.items()})
        return scope.thresholds(groups, lower)


def _ours(module: str, why: str) -> StepError:
    """A failure that no adapter is to blame for."""
    return StepError(
        f"the merge of module '{module}' failed: {why}",
        remedy="the adapters are sound; merge by another recipe, and report this as a fault of "
        "koinize or of its libraries",
    )
