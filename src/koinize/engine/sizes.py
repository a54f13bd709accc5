"""How large the adapters of a merge are: one that was never trained is merged like the others."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from koinize.adapter import Factors

SAMPLED = 16  # modules of which norms are taken, spread evenly: of all they would cost a tenth
GOLDEN = (math.sqrt(5) - 1) / 2  # whose multiples, past the point, lie evenly at any number
APART = 10.0  # how often larger or smaller than the others is worth a word


class Sizes:
    """Which updates are zero, and norms over the same few modules of every adapter.

    of: what warnings call an update, which may be a difference from a trunk.
    """

    def __init__(self, modules: Sequence[str], of: str = "update") -> None:
        self._of = of
        # Even steps would meet one kind of module only: layers have seven, or another few.
        places = {int(index * GOLDEN % 1 * len(modules)) for index in range(SAMPLED)}
        self._sampled = frozenset(modules[place] for place in places if modules)
        self._modules = len(modules)
        self._zero: dict[str, set[str]] = defaultdict(set)
        self._alive: dict[str, set[str]] = defaultdict(set)
        self._squares: dict[str, dict[str, float]] = defaultdict(dict)

    def note(self, module: str, updates: dict[str, Factors], trunk: Factors | None = None) -> None:
        """What the updates of a module are, by language; from any thread, and more than once.

        With a trunk, what their differences from it are.
        """
        from koinize.merge.linalg import gram
        from koinize.merge.trunk import difference, is_equal

        for language, update in updates.items():
            alive = update.bound if trunk is None else not is_equal(update, trunk)
            (self._alive if alive else self._zero)[language].add(module)
            if module in self._sampled and update.rank:
                one = update if trunk is None else difference(update, trunk)
                square = float((gram(one.B) * gram(one.A.T)).sum())
                self._squares[language][module] = max(0.0, square)

    @property
    def dead(self) -> list[str]:
        """The languages whose every update is zero."""
        return sorted(language for language in self._zero if not self._alive[language])

    @property
    def untrained(self) -> list[str]:
        """The modules that no adapter changes."""
        alive = set[str]().union(*self._alive.values())
        return sorted(set[str]().union(*self._zero.values()) - alive)

    def changed(self, module: str) -> bool:
        """Whether an adapter changes this module."""
        return any(module in modules for modules in self._alive.values())

    def warnings(self) -> Iterator[str]:
        """Adapters that do nothing, modules that nothing is done to, and sizes that are apart."""
        dead = self.dead
        for language in dead:
            yield f"{language} changes nothing: every {self._of} is zero, so it was never trained"
        untrained = self.untrained
        if untrained and len(untrained) < self._modules:
            places = sorted({f"'{module.partition('.layers.')[0]}'" for module in untrained})
            yield (
                f"no adapter changes {len(untrained)} of {self._modules} modules, in "
                f"{', '.join(places)}: they were adapted and not trained"
            )
        yield from self._apart({one for one in self._alive if one not in dead})

    def _apart(self, languages: set[str]) -> Iterator[str]:
        norms = {
            language: math.sqrt(sum(self._squares[language].values()))
            for language in sorted(languages)
            if self._squares[language]
        }
        middle = statistics.median_high(norms.values()) if norms else 0.0
        for language, norm in norms.items():
            if norm and middle and not 1 / APART <= norm / middle <= APART:
                yield (
                    f"{language} is {norm / middle:.2g} times as large as the others (Frobenius "
                    "norm): look at its training, its alpha and its rank"
                )
