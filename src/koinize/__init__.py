"""koinize: one LoRA adapter per language, merged into one, re-merged when one language changes.

`koinize.Project.open(folder).plan().run()` is the whole job, `koinize.merge_adapters` the merge
engine alone; docs/api.md has the rest. Whatever goes wrong is a `KoinizeError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koinize.api import (
        Costs,
        Estimate,
        LanguageChange,
        Plan,
        PlannedStep,
        Progress,
        Project,
        Results,
        Run,
        Score,
        Server,
        TaskResults,
        Verdict,
    )
    from koinize.engine import MergeReport, merge_adapters
    from koinize.errors import (
        BrokenError,
        GateError,
        InputError,
        Interrupted,
        KoinizeError,
        LimitError,
        ManyErrors,
        StepError,
    )
    from koinize.release import Promotion, Release

__version__ = "0.1.0"
__all__ = [
    "BrokenError",
    "Costs",
    "Estimate",
    "GateError",
    "InputError",
    "Interrupted",
    "KoinizeError",
    "LanguageChange",
    "LimitError",
    "ManyErrors",
    "MergeReport",
    "Plan",
    "PlannedStep",
    "Progress",
    "Project",
    "Promotion",
    "Release",
    "Results",
    "Run",
    "Score",
    "Server",
    "StepError",
    "TaskResults",
    "Verdict",
    "__version__",
    "merge_adapters",
]

_ROOMS = {
    "koinize.api": "Costs Estimate LanguageChange Plan PlannedStep Progress Project Results Run "
    "Score Server TaskResults Verdict",
    "koinize.engine": "MergeReport merge_adapters",
    "koinize.errors": "BrokenError GateError InputError Interrupted KoinizeError LimitError "
    "ManyErrors StepError",
    "koinize.release": "Promotion Release",
}
_ROOM = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Whatever is exported, imported on first use so that the package itself stays light."""
    if name in _ROOM:
        return getattr(import_module(_ROOM[name]), name)
    raise AttributeError(f"module 'koinize' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What is exported, also before its first use."""
    return sorted({*globals(), *__all__})
