"""What a report is made from: plain frozen values that the pipeline collects and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from koinize.ledger import Address, Interval, Stated
from koinize.report.blocks import Tone
from koinize.report.figures import Inspection, SystemKind


@dataclass(frozen=True)
class System:
    """Something that was scored: a base model, with or without an adapter.

    `chosen` marks the candidate that won on dev. `same_as` names an earlier system with the same
    weights. `rank` is that of the written adapter; `truncation_error` the share of the merged
    update's norm that this rank could not hold (0 to 1). `made` is the step that merged it.
    """

    name: str
    kind: SystemKind
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = False
    same_as: str | None = None
    rank: int | None = None
    truncation_error: float | None = None
    made: Address | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result rows of one system on one language's split.

    `signature` names prompt, decoding and data by their digests: scores under different
    signatures do not compare. `split` is dev or test. `seed` is 0 for the seed that is released.
    """

    task: str
    system: str
    language: str
    split: str
    rows: Sequence[Mapping[str, Any]]
    signature: str
    seed: int = 0


@dataclass(frozen=True)
class TaskInput:
    """One task: its systems, their evaluations, and what verdicts are measured against.

    The first metric selects the candidate; `margins` (metric -> points) say what may be lost
    before a language counts as worse than `reference`. `interference` is what inspecting the
    languages' adapters found, as plain values; None where there are not two. `branches` are the
    languages that left the trunk of the task's generation; None where there is no trunk. `joint`
    says of a trunk whether it learnt all rows, so that it can be released as it is.
    `halved` is the number of candidates of which halving left the one that is shown, 0 without it.
    `label_texts` has what stands for the labels in each language, where that is not one for all.
    `changed_since` says which rows changed since the reference was trained; `stated` what the
    margins were when they were first recorded, None where nobody did; `judges` the identity of the
    judge in each language of each metric that needs a model. `repeated` are the evaluations on test
    with further seeds, of those systems that are compared over seeds.
    """

    name: str
    kind: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    margins: Mapping[str, float]
    reference: str
    systems: Sequence[System]
    evaluations: Sequence[Evaluation]
    interference: Inspection | None = None
    branches: tuple[str, ...] | None = None
    joint: bool = True
    changed_since: tuple[str, ...] = ()
    halved: int = 0
    stated: Stated | None = None
    label_texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    repeated: Sequence[Evaluation] = ()


@dataclass(frozen=True)
class ReleaseInput:
    """A release of one task: its version, the channels that it was ever put on, when it was made
    (UTC, ISO 8601), and its result rows on test by language.
    """

    task: str
    version: int
    channels: tuple[str, ...]
    created: str
    rows: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class ReportInput:
    """Everything a report says comes from here.

    `created` is UTC in ISO 8601; `intervals` is the whole ledger; `current` maps the steps whose
    artifacts the present results stand on to their artifacts' ids, by which work on an earlier
    version of the same step is told apart; `releases` is in the order of their versions;
    `continued` maps the trainings that went on from an earlier adapter to the ids of all adapters
    that they stand on; `tries` has the ids of the other tries at a training, by the id of the one
    that stands; `tones` are the colours of the kinds of steps; `price` is the project's
    price now (per_hour, currency, source, date) or None.
    """

    project: str
    created: str
    version: str
    spec: Mapping[str, Any]
    price: Mapping[str, str] | None
    tasks: Sequence[TaskInput]
    intervals: Sequence[Interval]
    current: Mapping[Address, str]
    notes: Sequence[str] = ()
    releases: Sequence[ReleaseInput] = ()
    continued: Mapping[Address, Sequence[str]] = field(default_factory=dict)
    tries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tones: Mapping[str, Tone] = field(default_factory=dict)

    def sharing(self, task: str) -> list[str]:
        """The tasks that one adapter serves (`merge.across`), this one first; it alone where it has
        its own.
        """
        across: Sequence[str] = self.spec.get("merge", {}).get("across", [])
        return [task, *(one for one in across if one != task)] if task in across else [task]
