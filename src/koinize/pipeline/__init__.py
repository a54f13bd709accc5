"""From a specification to a finished report: what is missing, why, and doing just that.

What is in here: `project`, one koinize.yaml with what lies under `.koinize`; `inputs`, what the
data files hold now, and `lengths`, which of it is too long; `step`, the value that everything turns
on, with `graph`, which spells out every step of a project, and `systems`, who is scored and what is
merged; `lineage`, which decides what changed rows mean for an adapter that is there, and `wording`,
whether rows changed or the words around them; `generation`, the trunk that adapters start from;
`searching`, where what comes next depends on scores; and `keeping`, where a choice stands while
only training rows changed.
`trainings` spells out what a task trains, `tries` which training is repeated with another seed,
`seeds` how a whole comparison is, and `across` says what tasks are that share an adapter.
`overrides` refuses merges that contradict themselves, and `dry_run` what the base model could not
do, which the program `chain` tries without weights, and `judging` spells out which models judge
whose answers. `plan` compares the steps with the store and, with `experience` and `estimate`, says
what the missing ones will cost, which `limits` may refuse; `alternative` what retraining everything
would, `outlook` when a new trunk would pay, `memory` what its trainings need, and `power` what the
test rows can show at all by the `margins`. `run` does them, some at once as `joining` says, by as
many workers as are worth loading the model (`warm`), one interval each in the run's `account`,
where an `attempt` at a training counts by what it saved, on the machines of `nodes`, through
`work`, which finds in `kinds` (a table, one file for each kind) what to do, while its `meters`
measure; a `trainer` of the user's own is a `process` apart.
`results` is the one room where a finished task is read: by `report_input` (with `interference` and
`endings`), by `whatif`, and by releases. `exhibit` shows one example as the model gets it, and
`editing` changes koinize.yaml itself.

Two worked paths.

`koinize plan` after rows of ja changed: `Project.steps` surveys the data and makes the graph. The
step at `train/topic/ja` has another digest among its inputs, so another id, and so have the merges
that use it and the evaluations that use them. `plan` finds that the store lacks these ids and
compares each with the manifest that its name points to: "train rows ja changed, +120 rows".

`koinize run`: `Project.run` takes the lock, makes the same plan, and hands what is missing to
`run`. It gives a worker each step whose needs are there; `work.perform` opens the verified
artifacts that the step uses, the file of its kind fills a draft, and the store commits it under
the step's id. When all is done the names point to today's ids, and `report_input.gather` reads the
results for the report.
"""

from __future__ import annotations

from koinize.pipeline.plan import Missing, Plan
from koinize.pipeline.project import Project
from koinize.pipeline.run import Outcome, Watcher
from koinize.pipeline.step import Step

__all__ = ["Missing", "Outcome", "Plan", "Project", "Step", "Watcher"]
