"""Text to token ids: one way for training, scoring and generating, so that they all agree.

A tokenizer with a chat template gets the prompt as a user message and the target as the
assistant's answer (see `chat`); any other gets the plain text. Prompt and target are tokenized
apart: what generation continues from is then, token for token, what training and scoring saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from koinize.errors import InputError
from koinize.model.chat import Chat, Turns
from koinize.model.manner import check_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

_WORD = "koine"
# How a space is written in the names of tokens: by SentencePiece, and byte by byte.
_SPACES = ("\u2581", "\u0120")
# Characters of what comes before a text that are enough to tokenize the text as it goes on.
_CONTEXT = 64


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
    """Encodes prompts and targets with one tokenizer.

    `chat` is its chat template, None without one. `end_token` ends a text that is learnt;
    `end_tokens` are all that end one that is generated.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: Iterable[int] = (),
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """`end_tokens` are further ids that end a text, such as a generation config's;
        `arguments` are passed to the chat template. Raises InputError.
        """
        self.tokenizer = tokenizer
        self.is_chat = bool(getattr(tokenizer, "chat_template", None))
        check_arguments(arguments or {}, tokenizer.get_chat_template() if self.is_chat else "")
        self.chat = Chat(tokenizer, arguments or {}) if self.is_chat else None
        first = tokenizer.convert_ids_to_tokens(self._tokens(_WORD)[:1])
        self._prefixes = bool(first) and first[0].startswith(_SPACES)
        ends = {tokenizer.eos_token_id, *end_tokens} - {None}
        self._ending, self.end_token = self._end(ends)
        self.end_tokens = frozenset({self.end_token, *ends})
        self.pad_token: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def encode(
        self,
        prompt: str,
        targets: Sequence[str],
        *,
        turns: Turns = (),
        max_length: int,
        end: bool = False,
        reserve: int = 0,
        further: int = 0,
        where: str = "",
    ) -> Tokens:
        """Token ids of `prompt` and of each text that may follow it.

        With a chat template `prompt` is what a user says, unless `turns` has the messages. What
        the template writes between a server's prompt and the answer belongs to the prompt, but to
        the target where `end` says that the target is learnt as a text of the model's own: then
        the model has to write it, and the end of the text too. Put together they are the same.

        A prompt too long for `max_length` loses tokens from its middle, so that the instruction
        at its head and the cue at its tail stay; a target is never cut. `reserve` keeps room for
        that many generated tokens, `further` for that many after the longest target. Raises
        InputError for an empty target, and for one that leaves no room for a prompt.
        """
        if self.chat:
            ids, encoded = self._chatted(turns or (("user", prompt),), targets, end, where)
        else:
            ids, encoded = self._continued(prompt, targets, end)
        if not all(encoded):
            raise InputError("a target has no text", where=where, expected="at least one token")
        room = max_length - max([reserve, *(len(one) + further for one in encoded)])
        if room < 1:
            raise InputError(
                f"a target of {max_length - room} tokens leaves no room for its prompt",
                where=where,
                expected=f"fewer than max_length = {max_length} tokens",
                remedy="raise max_length or shorten the target",
            )
        return Tokens(_cut_middle(ids, room), encoded, truncated=len(ids) > room)

    def unconditional(self) -> tuple[int, ...]:
        """The prompt that says nothing: what is left of an empty one."""
        if self.chat:
            return self._chatted((("user", ""),), [], end=False, where="")[0]
        return self._continued("", [], end=False)[0]

    def asked(self, prompt: str, turns: Turns = ()) -> tuple[str, tuple[int, ...]]:
        """What a server gives the model before the first token of an answer: text and tokens.

        Rendered by the chat template where there is one, else the text, whose tokens have what the
        tokenizer puts first. Raises InputError for messages that the template refuses.
        """
        if self.chat:
            opening = self.chat.opening(turns or (("user", prompt),), "")
            text = opening.prompt + self.chat.unsaid
            return text, self._tokens(text)
        return prompt.rstrip(" "), self._continued(prompt, [], end=False)[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def spelt(self, ids: Sequence[int]) -> str:
        """The text of ids as it is, with special tokens."""
        text: str = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def between(self, prompt: str, target: str, turns: Turns = ()) -> str:
        """What stands between a prompt, or what a server sends, and an answer."""
        if self.chat:
            return self.chat.opening(turns or (("user", prompt),), "").lead
        text = prompt + target
        return text[len(prompt.rstrip(" ")) : len(text) - len(target.lstrip(" "))]

    def _chatted(
        self, turns: Turns, targets: Sequence[str], end: bool, where: str
    ) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        assert self.chat  # noqa: S101
        opening = self.chat.opening(turns, where)
        asked = self._tokens(opening.prompt)
        # A space before an answer is one with its first word to most tokenizers.
        lead = opening.lead.rstrip(" ")
        led = self._after(opening.prompt, lead)
        before = opening.prompt + lead
        encoded = []
        for target in targets:
            # In a chat the answer opens a message: the space that joins it to a prompt goes.
            own, text = self.chat.answer(turns, opening, target.lstrip(" "), where)
            if own == opening.lead:
                answer = self._after(before, own[len(lead) :] + text + self._ending * end)
                encoded.append(led + answer if end else answer)
            elif end:
                encoded.append(self._after(opening.prompt, text + self._ending))
            else:
                raise InputError(
                    "the chat template writes this option in another way than others",
                    where=where,
                    expected=f"{opening.lead!r} before it",
                )
        if end and not self._ending:
            encoded = [(*one, self.end_token) for one in encoded]
        return (asked if end else asked + led), tuple(encoded)

    def _continued(
        self, prompt: str, targets: Sequence[str], end: bool
    ) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        # Tokenizers of base models join a space to the word that follows it; " yes" after
        # "Answer:" is text they know, "yes" after "Answer: " is not.
        text = prompt.rstrip(" ")
        moved = prompt[len(text) :]
        ids = tuple(self.tokenizer(text).input_ids)
        if ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        ending = (self.end_token,) if end else ()
        encoded = tuple(self._after(text, moved + target) + ending for target in targets)
        # Something must stand before a target, or its first token would have no prediction.
        return ids or (self.end_token,), encoded

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _after(self, before: str, text: str) -> tuple[int, ...]:
        """The tokens of a text that goes on from another one.

        Tokenizers in the manner of SentencePiece put a space before the first word of all that
        they are given. So they are given what comes before, too, and that is taken off again.
        """
        if self._prefixes and text:
            for context in (before[-_CONTEXT:], "\n", _WORD):
                head, whole = self._tokens(context), self._tokens(context + text)
                if whole[: len(head)] == head:
                    return whole[len(head) :]
        return self._tokens(text)

    def _end(self, ends: set[int]) -> tuple[str, int]:
        """What follows an answer up to where the text ends, and the token that ends it.

        The text is empty where the template writes no such token: then the tokenizer's is put
        right after the answer.
        """
        if self.chat:
            for token in self._after(_WORD, self.chat.tail):
                if token in ends or token in self._marks():
                    mark: str = self.tokenizer.convert_ids_to_tokens(token)
                    before, found, _ = self.chat.tail.partition(mark)
                    if found:
                        return before + mark, token
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no end-of-text token",
                expected="an eos_token in tokenizer_config.json",
                remedy="add one, or choose another base model",
            )
        return "", int(self.tokenizer.eos_token_id)

    def _marks(self) -> set[int]:
        """The special tokens that may end a turn: all but those for what is unknown or padded."""
        added = self.tokenizer.added_tokens_decoder.items()
        marks = {*self.tokenizer.all_special_ids, *(n for n, token in added if token.special)}
        other = (self.tokenizer.unk_token_id, self.tokenizer.pad_token_id)
        return marks - {*other, self.tokenizer.bos_token_id}


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
