"""The rows of the three tasks, made from the texts of one language and one split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from families import Families
from neighbours import Neighbourhood, overlap
from texts import Text, cut, letters

from koinize.digest import digest

Row = dict[str, object]

SECTIONS = {
    "games": "games",
    "media": "graphics sound video",
    "network": "comm httpd mail net news web",
    "programming": "cli-mono devel golang haskell interpreters introspection java javascript"
    " libdevel libs lisp ocaml perl php python ruby rust vcs",
    "system": "admin database kernel otherosfs shells utils",
    "text": "editors fonts localization tex text",
}
"""Topic -> the archive's sections in it. Texts of other sections have no topic."""

TOPIC_OF = {section: topic for topic, names in SECTIONS.items() for section in names.split()}

TOPIC_COLUMNS = 240
"""Columns of the long description that a topic row shows after the short one."""

LONG_COLUMNS = 480
"""Columns of the long description that choice and summary rows show."""

POOL = 2000
"""Most texts that choice rows and their distractors are looked for in."""

CANDIDATES = 60
"""Nearest neighbours that are tried as distractors before a row is given up."""

NEAR_EQUAL = 0.5
"""Overlap from which two short descriptions would both be right."""


def topic_of(text: Text) -> str | None:
    """The topic a text is labelled with, None where its section is in no topic."""
    return TOPIC_OF.get(text.section)


def spread(texts: Iterable[Text], families: Families, seed: int) -> list[Text]:
    """Texts in a seeded order in which every family comes once before any comes twice."""
    shuffled = sorted(texts, key=lambda text: digest([seed, text.language, text.package]))
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int, Text]] = []
    for position, text in enumerate(shuffled):
        family = families.of(text.package)
        turns.append((seen[family], position, text))
        seen[family] += 1
    return [text for _, _, text in sorted(turns, key=lambda turn: turn[:2])]


def balanced(texts: Iterable[Text], count: int) -> list[Text]:
    """At most `count` texts, one of each topic in turn for as long as the topic has any."""
    waiting: defaultdict[str, list[Text]] = defaultdict(list)
    for text in texts:
        waiting[TOPIC_OF[text.section]].append(text)
    queues = [waiting[topic] for topic in sorted(waiting)]
    longest = max(map(len, queues), default=0)
    turns = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    return turns[:count]


def topic_rows(texts: Sequence[Text], families: Families) -> list[Row]:
    """Classify: short description and the first lines of the long one -> topic."""
    return [
        _start(text, families, f"{text.short}\n{cut(text.long, TOPIC_COLUMNS)}")
        | {"label": TOPIC_OF[text.section]}
        for text in texts
    ]


def has_open_title(text: Text) -> bool:
    """Whether the part of the long description that is shown does not give the short one away."""
    return letters(text.short) not in letters(cut(text.long, LONG_COLUMNS))


def summary_rows(texts: Sequence[Text], families: Families) -> list[Row]:
    """Generate: long description -> short description."""
    return [
        _start(text, families, cut(text.long, LONG_COLUMNS)) | {"summary": text.short}
        for text in texts
    ]


def choice_rows(texts: Sequence[Text], families: Families, seed: int, count: int) -> list[Row]:
    """Choose: long description -> which of four short descriptions is its own.

    `texts` are those of one language and split in the order of their use; distractors come from
    the same texts. A text without three good distractors is passed over. Texts whose own short
    description fits best by n-grams alone are used last, the clearest at the very end: a
    likelihood would find the answer without understanding anything.
    """
    shown = [cut(text.long, LONG_COLUMNS) for text in texts]
    neighbourhood = Neighbourhood([text.short for text in texts], shown)
    found: list[tuple[float, int, list[str]]] = []
    for position, text in enumerate(texts):
        near = neighbourhood.nearest(position, CANDIDATES)
        chosen = pick_distractors(text, [(other, texts[other]) for other in near], families)
        if len(chosen) == 3:
            best = max(neighbourhood.fit(position, other) for other in chosen)
            lead = max(neighbourhood.fit(position, position) - best, 0.0)
            found.append((lead, position, [texts[other].short for other in chosen]))
    hardest = sorted(sorted(found)[:count], key=lambda row: row[1])
    return [
        _choice(texts[position], shown[position], distractors, families, seed)
        for _, position, distractors in hardest
    ]


def pick_distractors(text: Text, near: Iterable[tuple[int, Text]], families: Families) -> list[int]:
    """Up to three of the numbered near texts whose short descriptions are wrong for `text`.

    None is of the text's own family or of one another's, none is nearly the right one or one
    another, and none stands in the text itself.
    """
    taken = {families.of(text.package)}
    shorts = [text.short]
    chosen: list[int] = []
    own = letters(text.long)
    for number, other in near:
        family = families.of(other.package)
        if family in taken or letters(other.short) in own:
            continue
        if any(overlap(other.short, short) >= NEAR_EQUAL for short in shorts):
            continue
        taken.add(family)
        shorts.append(other.short)
        chosen.append(number)
        if len(chosen) == 3:
            break
    return chosen


def _choice(text: Text, shown: str, distractors: list[str], families: Families, seed: int) -> Row:
    # The digest scatters the right answer over the four places without a generator's state.
    answer = int(digest([seed, "answer", text.language, text.package])[:8], 16) % 4
    options = [*distractors[:answer], text.short, *distractors[answer:]]
    return _start(text, families, shown) | {"options": options, "answer": answer}


def _start(text: Text, families: Families, shown: str) -> Row:
    return {"id": text.package, "family": families.of(text.package), "text": shown}
