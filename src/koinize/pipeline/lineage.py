"""What changed rows mean for a training: the adapter there is kept, trained on, or made anew.

The graph makes every training as it would be from the base. What stands in its place follows from
what the store's names say was current (decisions 005 and 006).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from koinize.digest import digest, short
from koinize.errors import BrokenError, KoinizeError
from koinize.files import parse_json, read_bytes
from koinize.ledger.address import Address
from koinize.model.manner import ENCODING
from koinize.pipeline.inputs import Inputs, examples_of
from koinize.pipeline.step import NO_NUMBER, PARENT, TRY, Step, Uses
from koinize.pipeline.wording import is_reworded, rows_reworded
from koinize.settings import UpdateSpec
from koinize.spec import Spec
from koinize.store import Artifact, Manifest, Store
from koinize.store.typed import typed
from koinize.tasks import Example

EXAMPLES = "examples.json"
BASIS = ("base", ENCODING, "lora", "training")

Rows = Mapping[str, Sequence[str]]
"""Language -> the digests of its examples, as often as they stand there."""


@dataclass(frozen=True)
class Selection:
    """What training on sees: new rows and replayed ones. `old` counts the rows that were learnt
    and are still there, `gone` those that were learnt and are not.
    """

    new: Rows
    replayed: Rows
    old: int
    gone: int

    def rows(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """A label, its language and the digests of each kind of rows that there is."""
        for kind, rows in (("new", self.new), ("replayed", self.replayed)):
            for language, some in rows.items():
                if some:
                    yield f"{kind} rows {language}", language, some

    def pick(self, language: str, examples: Iterable[Example]) -> list[Example]:
        """Those of a language's examples that are new or replayed."""
        wanted = Counter([*self.new[language], *self.replayed[language]])
        picked = []
        for example in examples:
            if wanted[example.digest]:
                wanted[example.digest] -= 1
                picked.append(example)
        return picked


def select(today: Rows, learnt: Rows, parent: str, seed: int, replay: float) -> Selection:
    """The rows of today that the parent did not learn, and a share of those that it did.

    Which old rows are drawn depends on (seed, parent, language, row) alone, not on their order:
    another draw at every update of a chain, or some rows would never be seen again.
    """
    new, replayed, old, gone = {}, {}, 0, 0
    for language in sorted(today):
        now, before = Counter(today[language]), Counter(learnt.get(language, ()))
        new[language] = sorted((now - before).elements())
        copies = [(row, nth) for row, times in (now & before).items() for nth in range(times)]
        order = sorted((digest([seed, parent, language, *copy]), copy[0]) for copy in copies)
        replayed[language] = sorted(row for _, row in order[: round(replay * len(order))])
        old += len(copies)
        gone += (before - now).total()
    return Selection(new, replayed, old, gone)


def together(today: Rows, learnt: Rows) -> dict[str, list[str]]:
    """What an adapter has learnt after an update: a row that is gone stays learnt."""
    return {
        one: sorted((Counter(today[one]) | Counter(learnt.get(one, ()))).elements())
        for one in sorted(today)
    }


def ancestors(step: Step, store: Store) -> Iterator[str]:
    """The adapters that a continued one stands on, the last first, as far as they are known."""
    parent: str | None = step.uses.parent
    while parent:
        yield parent
        before = store.manifest(parent)
        parent = before.inputs.get(PARENT) if before else None


def read_learnt(artifact: Artifact) -> dict[str, list[str]]:
    """The rows that a training saw. Raises BrokenError for a file that does not say it."""
    try:
        return typed(dict[str, list[str]], parse_json(read_bytes(artifact.path(EXAMPLES))))
    except (ValueError, KoinizeError) as error:
        what = f"its file {EXAMPLES} is no list of examples"
        raise BrokenError(what, where=str(artifact.folder), remedy="run again") from error


def write_learnt(folder: Path, learnt: Rows) -> None:
    """Keep the rows that a training saw beside its adapter."""
    text = json.dumps(learnt, indent=0, sort_keys=True) + "\n"
    (folder / EXAMPLES).write_text(text, encoding="utf-8")


def keep(fresh: Step, earlier: Manifest | None, *, languages_may_change: bool) -> Step:
    """The COMB step: what is there already, when nothing but training rows changed since.

    Training on everything again whenever one language changes is the cost that merging saves, so
    the reference is trained once and again only when asked, or when every language is worded
    otherwise (decision 005). Of a generation that holds for a language that comes or goes, too.
    """
    if earlier is None or is_reworded(fresh, earlier):
        return fresh
    before, known = earlier.inputs, earlier.inputs.keys() - {TRY}
    if not (languages_may_change or known == fresh.inputs.keys()):
        return fresh
    labels = sorted(fresh.inputs.keys() | known)
    changed = tuple(one for one in labels if before.get(one) != fresh.inputs.get(one))
    if not all(label.startswith("train rows ") for label in changed):
        return fresh
    words = rows_reworded(fresh, earlier)
    stale = tuple(words.get(label, label) for label in changed)
    return replace(fresh, inputs=dict(before), stale=stale)


class History:
    """What was trained before, and so what a training of today comes down to."""

    def __init__(
        self,
        spec: Spec,
        inputs: Inputs,
        root: Path,
        store: Store,
        *,
        retrain_comb: bool = False,
        new_generation: bool = False,
        choose_again: bool = False,
    ) -> None:
        self.spec, self.inputs, self.root, self.store = spec, inputs, root, store
        self.retrain_comb, self.new_generation = retrain_comb, new_generation
        self.choose_again = choose_again
        self.update = spec.training.update

    @cached_property
    def _names(self) -> dict[str, str]:
        return self.store.names()

    @cached_property
    def _present(self) -> set[str]:
        return self.store.ids()

    def as_made(self, step: Step, former: Mapping[str, str]) -> Step:
        """The step as an earlier koinize made it, where only that is in the store.

        `former` has the digests that some of its inputs had by an earlier formula.
        """
        if former.items() <= step.inputs.items():
            return step
        earlier = replace(step, inputs={**step.inputs, **former})
        known = earlier.id in self._present and step.id not in self._present
        return earlier if known else step

    def last(self, fresh: Step) -> Manifest | None:
        """What stood in this step's place last, also if it broke since and was removed."""
        return self._last(fresh.name)

    def made(self, fresh: Step, last: Manifest) -> Step:
        """The step that made `last`, in the place of today's."""
        return _made(fresh, last)

    def chosen(self, choice: Address) -> str:
        """The title of what was chosen last; empty where nothing was."""
        last = self._current(str(choice))
        return str(last.facts.get("chosen", "")) if last else ""

    def before(self, fresh: Step, artifact_id: str) -> Step | None:
        """The step that made this artifact in the place of today's; None where nobody can tell."""
        made = self.store.manifest(artifact_id) if artifact_id else None
        if made is None:
            return None
        step = fresh if made.id == fresh.id else _kept(fresh, made)
        return step if step.id == made.id else None

    def there(self, step: Step) -> bool:
        """Whether its artifact is in the store."""
        return step.id in self._present

    def comb(self, fresh: Step) -> Step:
        """COMB: the one that is there while nothing but rows changed, unless it was asked for, or
        is there already for another reason, such as being a trunk.
        """
        if fresh.id in self._present:
            return fresh
        earlier = None if self.retrain_comb else self._current(fresh.name)
        has_trunk = self.spec.training.has_trunk
        return keep(fresh, earlier, languages_may_change=has_trunk)

    def comb_continued(self, fresh: Step, comb: Step) -> Step | None:
        """COMB trained on with the rows that are new to it; None where it is COMB itself."""
        continued = fresh.at(role="comb-continued")
        last = self._last(continued.name)
        if last and PARENT in last.inputs and (same := self._same(continued, last)):
            return same
        if not comb.stale:
            return None
        known = [*self._parents(last), self._current(comb.name)]
        return self._updated(continued, [one for one in known if one])

    def adapter(self, fresh: Step) -> Step:
        """A language's own training, by the way that `training.update` names."""
        if self.update.mode == "retrain" or not (last := self._last(fresh.name)):
            return fresh
        return self._same(fresh, last) or self._updated(fresh, self._parents(last))

    def _current(self, name: str) -> Manifest | None:
        return _useful(self.store.manifest(self._names[name])) if name in self._names else None

    def _last(self, name: str) -> Manifest | None:
        """What was current, also if it broke since and was removed."""
        return self._known(self._names.get(name))

    def _parents(self, last: Manifest | None) -> list[Manifest]:
        """What an update can go on from: the last adapter, or where that broke, its own parent."""
        while last is not None and last.id not in self._present:
            last = self._known(last.inputs.get(PARENT))
        return [last] if last else []

    def _known(self, artifact_id: str | None) -> Manifest | None:
        if artifact_id is None:
            return None
        return _useful(self.store.manifest(artifact_id) or self.store.lost(artifact_id))

    def _same(self, fresh: Step, last: Manifest) -> Step | None:
        """The step that made `last`, if that was on today's rows, however it was made."""
        if _basis(last.inputs) != _basis(fresh.inputs):
            return None
        if _train_rows(last.inputs) != _train_rows(fresh.inputs):
            return None
        step = _made(fresh, last)
        return step if step.id == last.id else None

    def _updated(self, fresh: Step, parents: Sequence[Manifest]) -> Step:
        """Trained on from the parent that knows most of today's rows, or from the base."""
        if fresh.id in self._present:
            return fresh
        if not parents:
            return replace(fresh, why="retrained from the base: the last adapter is lost")
        obstacles = [_obstacle(fresh, one) for one in parents]
        usable = [one for one, why in zip(parents, obstacles, strict=True) if not why]
        if not usable:
            return replace(fresh, why=f"retrained from the base: {obstacles[-1]}")
        sizes = {one: self._sizes(fresh, one) for one in fresh.languages}
        found = [(one, self._selected(sizes, one)) for one in usable]
        parent, selection = min(found, key=lambda pair: _distance(pair[1]))
        if _distance(selection) == (0, 0):  # rows that were gone for a while came back
            return _made(fresh, parent)
        if why := _unlearnable(selection, self.update):
            return replace(fresh, why=f"retrained from the base: {why}")
        return self._continued(fresh, parent, selection, sizes)

    def _sizes(self, fresh: Step, language: str) -> list[tuple[str, int]]:
        """The digest of each training row of today, and its bytes."""
        task = self.spec.tasks[fresh.task]
        expected = fresh.inputs[f"train rows {language}"]
        is_chat = self.inputs.manner.is_chat
        found = examples_of(task, self.root, language, "train", expected, is_chat=is_chat)
        return [(one.digest, one.bytes) for one in found]

    def _selected(self, sizes: Mapping[str, list[tuple[str, int]]], parent: Manifest) -> Selection:
        today = {language: [row for row, _ in some] for language, some in sizes.items()}
        learnt = read_learnt(self.store.open(parent.id))
        seed, replay = self.spec.training.seed, self.update.replay
        return select(today, learnt, parent.id, seed, replay)

    def _continued(
        self,
        fresh: Step,
        parent: Manifest,
        selection: Selection,
        sizes: Mapping[str, list[tuple[str, int]]],
    ) -> Step:
        training = self.spec.training.continued
        settings = self.update.model_dump(
            mode="json", exclude={"mode", "gone"}, exclude_defaults=True
        )
        inputs, rows = {**fresh.inputs, "update": digest(settings)}, dict(fresh.rows)
        units = 0
        for label, language, some in selection.rows():
            inputs[label], rows[label] = digest(some), len(some)
            size = dict(sizes[language])
            units += sum(size[row] for row in some) * training.epochs
        if training.patience is not None:
            for one in fresh.languages:
                facts = self.inputs.splits[fresh.task, one, "dev"]
                inputs[f"dev rows {one}"], rows[f"dev rows {one}"] = facts.digest, facts.rows
        return replace(
            fresh,
            inputs=inputs,
            uses=Uses(parent=parent.id),
            rows=rows,
            units=units,
            why=_said(parent, selection, units / fresh.units),
        )


def _useful(made: Manifest | None) -> Manifest | None:
    """None for a training that ended without an adapter, too."""
    return None if made and NO_NUMBER in made.facts else made


def _kept(fresh: Step, last: Manifest) -> Step:
    """The same as it was made then; what it used is in its inputs."""
    changed = tuple(label for label, one in fresh.identity.items() if last.inputs.get(label) != one)
    return replace(fresh, inputs=dict(last.inputs), uses=Uses(), stale=changed)


def _made(fresh: Step, last: Manifest) -> Step:
    """The step that made `last`."""
    inputs = {label: one for label, one in last.inputs.items() if label != PARENT}
    uses = Uses(parent=last.inputs.get(PARENT, ""))
    return replace(fresh, inputs=inputs, uses=uses, rows=last.facts.get("rows", {}))


def _basis(inputs: Mapping[str, str]) -> list[str | None]:
    return [inputs.get(label) for label in BASIS]


def _train_rows(inputs: Mapping[str, str]) -> dict[str, str]:
    return {label: one for label, one in inputs.items() if label.startswith("train rows ")}


def _obstacle(fresh: Step, last: Manifest) -> str:
    """Why this adapter cannot be trained on; empty when it can."""
    if "training" not in last.inputs:
        return "the last adapter was trained elsewhere"
    if changed := [one for one in BASIS if last.inputs.get(one) != fresh.inputs.get(one)]:
        return f"{' and '.join(changed)} changed"
    if _train_rows(last.inputs).keys() != _train_rows(fresh.inputs).keys():
        return "the languages changed"
    if replace(fresh, inputs=last.inputs, uses=Uses()).id != last.id:
        return "koinize trains differently now"
    return "" if EXAMPLES in last.files else "the last adapter keeps no list of its rows"


def _distance(selection: Selection) -> tuple[int, int]:
    return sum(map(len, selection.new.values())), selection.gone


def _unlearnable(selection: Selection, update: UpdateSpec) -> str:
    """Why these changes need a fresh start; empty when training on can follow them."""
    learnt = selection.old + selection.gone
    gone = f"learnt rows that are gone: {selection.gone} of {learnt}"
    if selection.gone > update.gone * learnt:
        return gone
    return "" if any(selection.new.values()) else f"{gone}, and none is new"


def _said(parent: Manifest, selection: Selection, share: float) -> str:
    new, replayed = (sum(map(len, rows.values())) for rows in (selection.new, selection.replayed))
    text = (
        f"{new} new {'row' if new == 1 else 'rows'}: continued from {short(parent.id)} with "
        f"{replayed} of {selection.old} old ones, {share:.0%} of a retraining"
    )
    gone = f"; learnt rows that are gone and stay learnt: {selection.gone}"
    return text + gone if selection.gone else text
