"""Related packages: found by union-find, and kept in one split over all languages and tasks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from texts import Text

from koinize.digest import digest

SPLITS = ("train", "dev", "test")

MOST_SOURCES_OF_A_STEM = 12
"""A name's beginning that more source packages share (python3-, fonts-) says nothing."""

LEAST_STEM = 4
"""Characters of a stem; shorter ones (x, go, tk) meet by chance."""

LEAST_PARAGRAPH = 30
"""Letters of a first paragraph below which two packages may share it by chance."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows wanted per language; `extra` are more training rows, for a later update."""

    train: int
    dev: int
    test: int
    extra: int

    @property
    def total(self) -> int:
        """All rows wanted of one language."""
        return self.train + self.dev + self.test + self.extra


class Families:
    """A union-find over package names; a family is called by the first name in it."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The family of a package; a name never seen is a family of its own."""
        root = name
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while name != root:  # shorten the path, so that the next look-up is direct
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, one: str, other: str) -> None:
        """Make two packages, and so all that are in their families, one family."""
        first, second = sorted((self.of(one), self.of(other)))
        self._parent[second] = first

    def join_by(self, keyed: Iterable[tuple[Hashable, str]]) -> None:
        """Join all packages that have a key in common, given (key, package) pairs."""
        representative: dict[Hashable, str] = {}
        for key, name in keyed:
            self.join(representative.setdefault(key, name), name)


def relate(texts: Iterable[Text], source: Mapping[str, str]) -> Families:
    """Families by source package, name stem, and first paragraph in any language."""
    families = Families()
    every = sorted(texts, key=lambda text: (text.package, text.language))
    families.join_by((source[text.package], text.package) for text in every)
    stem = stems({text.package: source[text.package] for text in every})
    families.join_by((stem[text.package], text.package) for text in every)
    families.join_by(
        ((text.language, text.first), text.package)
        for text in every
        if len(text.first) >= LEAST_PARAGRAPH
    )
    return families


def stems(source: Mapping[str, str]) -> dict[str, str]:
    """Package -> the shortest beginning of its name that is not common to many sources."""
    sources: defaultdict[str, set[str]] = defaultdict(set)
    for name, origin in source.items():
        for beginning in _beginnings(name):
            sources[beginning].add(origin)
    telling = {
        beginning
        for beginning, origins in sources.items()
        if len(origins) <= MOST_SOURCES_OF_A_STEM and len(beginning) >= LEAST_STEM
    }
    return {name: next((b for b in _beginnings(name) if b in telling), name) for name in source}


def assign(
    texts: Mapping[str, Sequence[Text]],
    families: Families,
    topic: Callable[[Text], str | None],
    sizes: Sizes,
    seed: int,
) -> dict[str, str]:
    """Family -> split, decided by `seed` and the family's name.

    A family counts for the scarcest language it has a text in. Language by language, families
    are dealt out in the order of their topic, each to the split that lacks most of its share, so
    that every split gets its part of every topic.
    """
    scarcest_first = sorted(texts, key=lambda code: (len(texts[code]), code))
    split: dict[str, str] = {}
    for language in scarcest_first:
        members: defaultdict[str, list[Text]] = defaultdict(list)
        for text in texts[language]:
            members[families.of(text.package)].append(text)
        usable = sum(topic(text) is not None for text in texts[language])
        shares = split_shares(usable, sizes)
        order = sorted(
            members,
            key=lambda family: (topic(members[family][0]) or "~", digest([seed, family])),
        )
        taken = dict.fromkeys(SPLITS, 0)
        for family in order:
            if family not in split:
                split[family] = _most_lacking(taken, shares, len(members[family]))
            taken[split[family]] += len(members[family])
    return split


def split_shares(usable: int, sizes: Sizes) -> dict[str, float]:
    """The part of a language's texts that goes to each split; train's holds the extra rows.

    In proportion to the sizes wanted where there is enough. Otherwise dev and test come first,
    with no more than a sixth and a third of the texts, and train has what is left.
    """
    if usable >= sizes.total:
        dev, test = sizes.dev / sizes.total, sizes.test / sizes.total
    else:
        some = max(usable, 1)
        dev, test = min(sizes.dev / some, 1 / 6), min(sizes.test / some, 1 / 3)
    return {"train": 1 - dev - test, "dev": dev, "test": test}


def _most_lacking(taken: Mapping[str, int], shares: Mapping[str, float], coming: int) -> str:
    total = sum(taken.values()) + coming
    return max(SPLITS, key=lambda split: shares[split] * total - taken[split])


def _beginnings(name: str) -> list[str]:
    # "libfoo2-bar-dev" -> "foo", "foo-bar", "foo-bar-dev": a library belongs to its program.
    parts = [re.sub(r"^lib(?=\w)|[\d.]+$", "", part) or part for part in name.split("-")]
    return ["-".join(parts[: count + 1]) for count in range(len(parts))]
