"""Text to token ids: one way for training, scoring and generating, so that they all agree.

A tokenizer with a chat template gets the prompt as a user message and the target as the
assistant's answer; any other gets the plain text. Prompt and target are tokenized apart: what
generation continues from is then, token for token, what training and scoring saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from koinize.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

# Stands for an answer while the template's own end of an answer is looked up.
_PROBE = "koine"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of one prompt and of the texts that may follow it."""

    prompt: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]
    truncated: bool

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest target."""
        return len(self.prompt) + max((len(target) for target in self.targets), default=0)

    @property
    def total(self) -> int:
        """Tokens of the prompt and of all targets."""
        return len(self.prompt) + sum(map(len, self.targets))


class Encoder:
    """Encodes prompts and targets with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: Sequence[int] = ()) -> None:
        """`end_tokens` are further ids that end a text, such as a generation config's."""
        self.tokenizer = tokenizer
        self.is_chat = bool(getattr(tokenizer, "chat_template", None))
        self.end_token = self._end_token()
        self.end_tokens = frozenset({self.end_token, tokenizer.eos_token_id, *end_tokens} - {None})
        self.pad_token: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def encode(
        self,
        prompt: str,
        targets: Sequence[str],
        *,
        max_length: int,
        end: bool = False,
        reserve: int = 0,
        where: str = "",
    ) -> Tokens:
        """Token ids of `prompt` and of each text that may follow it.

        A prompt too long for `max_length` loses tokens from its middle, so that the instruction
        at its head and the cue at its tail stay; a target is never cut. `reserve` keeps room for
        that many generated tokens, `end` appends the end-of-text token to every target. Raises
        InputError for an empty target, and for one that leaves no room for a prompt.
        """
        text, moved = self._split(prompt)
        ending = (self.end_token,) if end else ()
        encoded = tuple(self._target(self._answer(moved, target)) + ending for target in targets)
        if not all(encoded):
            raise InputError("a target has no text", where=where, expected="at least one token")
        room = max_length - max([reserve, *map(len, encoded)])
        if room < 1:
            raise InputError(
                f"a target of {max_length - room} tokens leaves no room for its prompt",
                where=where,
                expected=f"fewer than max_length = {max_length} tokens",
                remedy="raise max_length or shorten the target",
            )
        ids = self._prompt(text)
        return Tokens(_cut_middle(ids, room), encoded, truncated=len(ids) > room)

    def unconditional(self) -> tuple[int, ...]:
        """The prompt that says nothing: what is left of an empty one."""
        return self._prompt("")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _split(self, prompt: str) -> tuple[str, str]:
        # Tokenizers of base models join a space to the word that follows it; " yes" after
        # "Answer:" is text they know, "yes" after "Answer: " is not. A chat keeps its messages.
        if self.is_chat:
            return prompt, ""
        text = prompt.rstrip(" ")
        return text, prompt[len(text) :]

    def _answer(self, moved: str, target: str) -> str:
        # In a chat the answer opens a message, so the space that joins it to a prompt goes.
        return target.lstrip(" ") if self.is_chat else moved + target

    def _prompt(self, text: str) -> tuple[int, ...]:
        if self.is_chat:
            messages = [{"role": "user", "content": text}]
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            return self._target(rendered)
        ids = tuple(self.tokenizer(text).input_ids)
        if ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        # Something must stand before a target, or its first token would have no prediction.
        return ids or (self.end_token,)

    def _target(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _end_token(self) -> int:
        if self.is_chat:
            messages = [
                {"role": "user", "content": _PROBE},
                {"role": "assistant", "content": _PROBE},
            ]
            rendered: str = self.tokenizer.apply_chat_template(messages, tokenize=False)
            tail = self._target(rendered.rpartition(_PROBE)[2])
            if tail:
                return tail[0]
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no end-of-text token",
                expected="an eos_token in tokenizer_config.json",
                remedy="add one, or choose another base model",
            )
        end: int = self.tokenizer.eos_token_id
        return end


def buckets(items: Sequence[T], length: Callable[[T], int], budget: int) -> Iterator[list[T]]:
    """Cuts items, longest first, into batches of at most `budget` padded tokens.

    A batch costs its number of items times its longest item; a single item may exceed the
    budget. Longest first: a batch that does not fit into memory fails at once, not at the end.
    """
    batch: list[T] = []
    for item in sorted(items, key=length, reverse=True):
        if batch and length(batch[0]) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _cut_middle(ids: tuple[int, ...], room: int) -> tuple[int, ...]:
    if len(ids) <= room:
        return ids
    head = room // 2
    return ids[:head] + ids[len(ids) - (room - head) :]
