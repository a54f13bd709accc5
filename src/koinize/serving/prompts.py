"""The prompts that are asked, and the ways in which a server may put them before the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from koinize.errors import InputError
from koinize.model.encoding import Encoder
from koinize.serving.server import Prompt, Way
from koinize.serving.subject import Subject
from koinize.tasks import Example

Ids = tuple[int, ...]
Kind = Literal["right", "bos", "end", "template", "truncated"]

POOL = 50  # rows of which one is drawn: among them the longest is looked for
SHORTEST, MOST_LIMITS = 16, 5  # tokens, and powers of two, that prompts may be cut to

TEMPLATES: Mapping[str, str] = {
    "ChatML": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "Llama 2's [INST]": "[INST] {} [/INST]",
    "Llama 3's": "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "Gemma's": "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "Alpaca's": "Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\n{}\n\n### Response:\n",
}
"""What servers put around a prompt whose model has no template, or another one."""


@dataclass(frozen=True)
class Asked:
    """One prompt: what users say, the text that should reach the model, and its tokens."""

    key: str
    language: str
    said: str
    turns: tuple[tuple[str, str], ...]
    text: str
    ids: Ids

    def sent(self, way: Way) -> Prompt:
        """The prompt as it is sent."""
        if way == "tokens":
            return list(self.ids)
        if way == "text":
            return self.text
        turns = self.turns or (("user", self.said),)
        return [{"role": role, "content": content} for role, content in turns]


@dataclass(frozen=True)
class Wording:
    """One way in which all prompts reach the model, in tokens."""

    kind: Kind
    name: str
    ids: tuple[Ids, ...]


def drawn(subject: Subject, encoder: Encoder, count: int) -> list[Asked]:
    """So many prompts a language: the first by key, which is as good as by chance, and in the place
    of the last one the longest, which is the first that a server would cut.

    Raises InputError where a language has none.
    """
    found: list[Asked] = []
    for language, examples in subject.examples.items():
        pool = [_asked(one, encoder) for one in examples[: POOL * count]]
        fitting = [one for one in pool if len(one.ids) <= subject.max_length]
        if not fitting:
            what = f"language '{language}' has no prompt of at most {subject.max_length} tokens"
            raise InputError(what)
        some = fitting[:count]
        longest = max(fitting, key=lambda one: len(one.ids))
        found += some if longest in some else [*some[:-1], longest]
    return found


def _asked(example: Example, encoder: Encoder) -> Asked:
    text, ids = encoder.asked(example.prompt, example.turns)
    return Asked(example.key, example.language, example.prompt, tuple(example.turns), text, ids)


def wordings(
    asked: Sequence[Asked], encoder: Encoder, way: Way, counts: Sequence[int | None]
) -> list[Wording]:
    """The right one first, then every other that differs from those before it in some prompt.

    `counts` is how many tokens the server says that it read of each prompt.
    """
    right = Wording("right", "the prompt as in training", tuple(one.ids for one in asked))
    found = {right.ids: right}
    others = [] if way == "tokens" else [*_ends(asked, encoder), *_templates(asked, encoder)]
    for other in [*others, *_cut(asked, counts)]:
        if all(other.ids):
            found.setdefault(other.ids, other)
    return list(found.values())


def _ends(asked: Sequence[Asked], encoder: Encoder) -> Iterator[Wording]:
    bos, eos = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
    if bos is not None:
        begins = all(one.ids[0] == bos for one in asked)
        name = "a second BOS token" if begins else "a BOS token that was not there in training"
        yield Wording("bos", name, tuple((bos, *one.ids) for one in asked))
        if begins:
            yield Wording("bos", "no BOS token", tuple(one.ids[1:] for one in asked))
    if eos is not None:
        name = "an end-of-text token after the prompt"
        yield Wording("end", name, tuple((*one.ids, eos) for one in asked))


def _templates(asked: Sequence[Asked], encoder: Encoder) -> Iterator[Wording]:
    def tokens(template: str) -> tuple[Ids, ...]:
        texts = [template.replace("{}", one.said.rstrip(" ")) for one in asked]
        return tuple(tuple(encoder.tokenizer(text).input_ids) for text in texts)

    if encoder.chat:
        yield Wording("template", "the prompt without the chat template", tokens("{}"))
    for name, template in TEMPLATES.items():
        yield Wording("template", f"{name} template", tokens(template))


def _cut(asked: Sequence[Asked], counts: Sequence[int | None]) -> Iterator[Wording]:
    lengths = [len(one.ids) for one in asked]
    stated = [
        count if count is not None and 0 < count < length else length
        for count, length in zip(counts, lengths, strict=True)
    ]
    yield from _kept(asked, stated, "of as many tokens as the server counts")
    power = 1 << (max(lengths) - 1).bit_length()
    for _ in range(MOST_LIMITS):
        power //= 2
        if power >= SHORTEST:
            yield from _kept(asked, [min(power, one) for one in lengths], f"of {power} tokens")


def _kept(asked: Sequence[Asked], lengths: Sequence[int], many: str) -> Iterator[Wording]:
    """The prompts cut to these lengths, where they are longer, in three ways."""
    pairs = [(one.ids, length) for one, length in zip(asked, lengths, strict=True)]
    last = tuple(ids[len(ids) - n :] for ids, n in pairs)
    with_first = (ids if n == len(ids) else ids[:1] + ids[len(ids) - n + 1 :] for ids, n in pairs)
    yield Wording("truncated", f"the end {many}", last)
    yield Wording("truncated", f"the first token and the end {many}", tuple(with_first))
    yield Wording("truncated", f"the beginning {many}", tuple(ids[:n] for ids, n in pairs))
