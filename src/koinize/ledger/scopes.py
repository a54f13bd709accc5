"""What an update of a language pays for, and retraining COMB in its place: three scopes.

Each contains the one before it, and in each both sides pay for the same things. `plan` and the
report speak of these and of no others, so a figure means the same in both:

    training   loading the model, training, and merging what would be released. COMB: loading and
               training.
    testing    what would be released is scored on test, in every language. COMB likewise.
    choosing   the recipe is chosen anew: the other candidates are merged, all are scored on dev.
               COMB has nothing to choose.

Where tasks share an adapter, an update of one is tested and chosen in all of them.

What only a report wants (MEAN, each language's adapter, the other candidates on test) is in none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from koinize.ledger.address import BRANCH, SEARCH, Address

Scope = Literal["training", "testing", "choosing"]

SCOPES: tuple[Scope, ...] = ("training", "testing", "choosing")

WORDS: dict[Scope, str] = {
    "training": "training and merging",
    "testing": "the same and testing",
    "choosing": "the same, testing and choosing anew",
}


def within(scope: Scope | None, wider: Scope) -> bool:
    """Whether what is paid for in one scope is paid for in a wider one."""
    return scope is not None and SCOPES.index(scope) <= SCOPES.index(wider)


def loading(scoring: float, workers: int, load: float) -> int:
    """How many of so many workers load the model for so many seconds of scoring, after one of them
    has trained with it: another one where as much work is left for it as loading takes.

    A run does it likewise (`pipeline.warm`).
    """
    count = 1
    # Of one more, each has (scoring + count x load) / (count + 1) to do, loading included.
    while count < workers and scoring >= (count + 2) * load:
        count += 1
    return count


@dataclass(frozen=True)
class Released:
    """What a task would release: the title of a system, among the titles of all candidates.

    `trunk`: languages are branches, and an adapter from the base is a baseline.
    """

    chosen: str
    candidates: Collection[str]
    trunk: bool = False

    def scope(self, step: Address) -> Scope | None:
        """The narrowest scope in which an update pays for a step; None for what no update needs."""
        if step.seed:  # it repeats a comparison
            return None
        own, title = step.role in ("", SEARCH), step.system.title
        match step.kind:
            case "anchors":
                return "training"
            case "train" | "import":
                return "training" if step.role == (BRANCH if self.trunk else "") else None
            case "merge" if step.role == "" and title == self.chosen:
                return "training"
            case "merge" | "evaluate" | "judge" if step.role == SEARCH:
                return "choosing"
            case "merge" if own and title in self.candidates:
                return "choosing"
            case "evaluate" | "judge" if step.split == "test":
                return "testing" if own and title == self.chosen else None
            case "evaluate" | "judge" if own and title in self.candidates:
                return "choosing"
            case "search" | "select" if own:
                return "choosing"
        return None
