"""A step's address: which step of a project it is, as a value with fields.

Its text is for logs, the store's names and people; nobody takes it apart but `read_address`, for
what was written before addresses were kept as fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise

WHATIF, TRUNK, BRANCH, RELEASE = "whatif", "trunk", "branch", "release"
"""Roles that the text of an address has before or in place of its kind, or leaves to it."""

COMB_ROLES = ("comb", "comb-continued")
SEARCH = "search"
"""The role of a merge, and of its scores, that a search looks at."""
REFERENCES = "references"
"""The role of the step in which a judge reads the references of dev, and no answers."""


@dataclass(frozen=True, order=True)
class System:
    """Whose answers are scored. `key` tells systems apart; `title` is what tables show.

    The key of a merge is the digest of its settings, so two that print alike are still two.
    """

    key: str
    title: str = field(default="", compare=False)

    @classmethod
    def named(cls, name: str) -> System:
        """A system that is known by its name alone, such as COMB."""
        return cls(name, name)


NOBODY = System("")


@dataclass(frozen=True, order=True)
class Address:
    """Which step: its kind, and what it is about. What does not apply is empty.

    `role` tells steps of one kind apart that are about the same: the choice among MEAN's scales,
    COMB's training, a branch beside an adapter from the base, an answer to a `whatif` question.
    `metric` is the one by whose model answers are judged.
    `seed` is the number of a further seed, with which the same is made for the comparison alone.
    """

    kind: str
    task: str = ""
    system: System = NOBODY
    language: str = ""
    split: str = ""
    role: str = ""
    metric: str = ""
    seed: str = ""

    def __str__(self) -> str:
        """Such as `evaluate/topic/COMB/ja/test`; unique among the steps of a project."""
        # An adapter from elsewhere stands where a training would.
        kind = "train" if self.kind == "import" and not self.role else self.kind
        opening = {
            WHATIF: (WHATIF, kind),
            TRUNK: (TRUNK,),
            BRANCH: (BRANCH,),
            RELEASE: (kind,),
        }
        parts = [
            *opening.get(self.role, (kind,)),
            self.task,
            f"seed {self.seed}" if self.seed else "",
            self.system.title,
            self.language,
            self.split,
            self.metric,
            "" if self.role in opening else self.role,
        ]
        return "/".join(part for part in parts if part)

    def record(self) -> dict[str, str]:
        """The fields that apply, as plain values."""
        fields = {**asdict(self), "system": self.system.key, "title": self.system.title}
        return {name: value for name, value in fields.items() if value}


def from_record(fields: Mapping[str, str]) -> Address:
    """The other way round."""
    plain = dict(fields)
    system = System(plain.pop("system", ""), plain.pop("title", ""))
    return Address(**plain, system=system)


def read_address(text: str, kind: str = "") -> Address:
    """The address behind the text that an older koinize wrote; `kind` where it was kept apart.

    A merge's settings are not to be had from it: its system's key is its title.
    """
    role = WHATIF if text.startswith(f"{WHATIF}/") else ""
    first, _, rest = text.removeprefix(f"{WHATIF}/").partition("/")
    if first in (TRUNK, BRANCH):
        task, _, language = rest.partition("/")
        return Address(kind or "train", task, language=language, role=first)
    kind = kind or first
    task, _, rest = rest.partition("/")
    match first:
        case "train" | "import":
            named = rest in COMB_ROLES
            return Address(kind, task, language="" if named else rest, role=rest if named else role)
        case "merge":
            return Address(kind, task, System.named(rest), role=role)
        case "evaluate" if rest.count("/") >= 2:
            title, language, split = rest.rsplit("/", 2)
            return Address(kind, task, System.named(title), language, split, role)
        case "select":
            return Address(kind, task, role=rest)
        case _:
            return Address(kind, task)


def alike(address: Address) -> str:
    """What tells the rates of one kind of work apart, where its interval does not say it.

    The task's name, since prompts and answers are as long as the task has them. Of a merge called
    `ties density 0.5 space knots` it is `ties knots`: a merge reads adapters and no row, and
    recipes, spaces and dialects differ a hundredfold.
    """
    if address.kind != "merge":
        return address.task
    words = address.system.title.replace(",", "").split()
    chosen = (value for name, value in pairwise(words) if name in ("space", "dialect"))
    return " ".join([*words[:1], *chosen])
