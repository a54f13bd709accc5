"""One example as the base model gets it: its text, its tokens, and which of them are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from koinize.data import SPLITS
from koinize.errors import InputError, did_you_mean
from koinize.model import base
from koinize.pipeline.inputs import examples_of
from koinize.pipeline.project import Project
from koinize.tasks import Example

if TYPE_CHECKING:
    from koinize.model.encoding import Encoder


@dataclass(frozen=True)
class Part:
    """Tokens and the text of each; a character of several tokens is the last one's."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it, special tokens too."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Exhibit:
    """An example in tokens.

    `target` is what is learnt after `prompt`. `between` stands between what is asked (of a chat
    model: what a server sends) and the answer, and `unsaid` is what only a server sends. `options`
    are what is scored after `before_options`; none where a text is generated. `written` has the
    tokens that are also written after it, at most; 0 where none are.
    """

    key: str
    rows: int
    is_chat: bool
    prompt: Part
    target: Part
    between: str
    unsaid: str
    before_options: Part
    options: tuple[Part, ...]
    labels: tuple[str, ...]
    gold: int
    truncated: bool
    written: int


def exhibit(project: Project, task: str, language: str, split: str) -> Exhibit:
    """The first example of a split. Loads the tokenizer of the base model, and no weights.

    Raises InputError for names that the project does not know, and for rows that make no example.
    """
    for what, name, known in (
        ("task", task, list(project.spec.tasks)),
        ("language", language, project.spec.languages),
        ("split", split, SPLITS),
    ):
        if name not in known:
            raise InputError(f"unknown {what} '{name}'", remedy=did_you_mean(name, known))
    encoder = _encoder(project)
    kind = project.spec.tasks[task]
    is_chat = encoder.is_chat
    found = examples_of(kind, project.root, language, split, None, is_chat=is_chat)
    settings = kind.evaluation(project.spec.evaluation, split)
    shown = _exhibit(encoder, found, project.spec.training.max_length)
    room = max([settings.max_new_tokens, *(len(one.ids) + 1 for one in shown.options)])
    return replace(shown, written=room if settings.free else 0)


def _encoder(project: Project) -> Encoder:
    from koinize.model.encoding import Encoder
    from koinize.model.loading import load_tokenizer

    spec = project.spec.base
    tokenizer, ends = load_tokenizer(base.prepare(spec, project.root, base.user_cache()))
    return Encoder(tokenizer, ends, spec.template)


def _exhibit(encoder: Encoder, found: Sequence[Example], max_length: int) -> Exhibit:
    one = found[0]
    where = f"example {one.key}"
    encode = partial(
        encoder.encode, one.prompt, turns=one.turns, max_length=max_length, where=where
    )
    learnt, scored = encode([one.target], end=not one.options), encode(one.options)
    return Exhibit(
        key=one.key,
        rows=len(found),
        is_chat=encoder.is_chat,
        prompt=_part(encoder, (), learnt.prompt),
        target=_part(encoder, learnt.prompt, learnt.targets[0]),
        between=encoder.between(one.prompt, one.target, one.turns),
        unsaid=encoder.chat.unsaid if encoder.chat else "",
        before_options=_part(encoder, (), scored.prompt),
        options=tuple(_part(encoder, scored.prompt, option) for option in scored.targets),
        labels=one.labels,
        gold=one.gold,
        truncated=learnt.truncated,
        written=0,
    )


def _part(encoder: Encoder, before: tuple[int, ...], ids: tuple[int, ...]) -> Part:
    """The tokens with their texts as they go on from the tokens before them."""
    pieces, said = [], encoder.spelt(before)
    for count in range(1, len(ids) + 1):
        now = encoder.spelt((*before, *ids[:count]))
        whole = not now.endswith("\N{REPLACEMENT CHARACTER}") or count == len(ids)
        pieces.append(now[len(said) :] if whole else "")
        said = now if whole else said
    return Part(ids, tuple(pieces))
