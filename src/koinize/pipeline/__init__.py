"""From a specification to a finished report: what is missing, why, and doing just that.

`inputs` surveys the data, `graph` spells out every step with its identity, `plan` compares them
with the store, `run` does the missing ones through `work`, and `outcome` gathers the results.
"""

from __future__ import annotations

from koinize.pipeline.plan import Missing, Plan
from koinize.pipeline.project import Project
from koinize.pipeline.run import Outcome, Watcher
from koinize.pipeline.step import Step

__all__ = ["Missing", "Outcome", "Plan", "Project", "Step", "Watcher"]
