"""The whole job as Python: what `import koinize` offers, on the very functions of the commands.

What is in here: `project`, one koinize.yaml and all that can be asked of it; `planned`, what is
missing and what it will cost, with `running`, which does just that and tells of its progress;
`found`, scores, verdicts and costs as typed values; `languages`, which come, change and go; and
`reporting`, the results of a project as its report says them; `server`, one that serves what is
promoted. Nothing here prints, and what goes
wrong is one of koinize's own errors. docs/api.md has it all with a worked notebook.
"""

from __future__ import annotations

from koinize.api.found import Costs, Results, Score, TaskResults, Verdict
from koinize.api.planned import Plan, PlannedStep
from koinize.api.project import LanguageChange, Project
from koinize.api.running import Progress, Run
from koinize.api.server import Server
from koinize.pipeline.estimate import Estimate

__all__ = [
    "Costs",
    "Estimate",
    "LanguageChange",
    "Plan",
    "PlannedStep",
    "Progress",
    "Project",
    "Results",
    "Run",
    "Score",
    "Server",
    "TaskResults",
    "Verdict",
]
