"""Task kinds: what a row of data means to a model, as a prompt and what should follow it.

A kind is one file of this package whose attribute `task` is a subclass of `Task`; its name is the
file's. `docs/data.md` describes the rows that each kind reads.
"""

from __future__ import annotations

from koinize.catalog import Catalog
from koinize.tasks._task import Example, Task

tasks = Catalog[type[Task]]("koinize.tasks", "task")

__all__ = ["Example", "Task", "tasks"]
