"""A chat template as text: what a server sends before an answer, and what stands around the answer.

A server renders the messages with the template's generation prompt and lets the model go on. What
the model should then write is what the template itself writes for an answer: perhaps a channel or
an empty block of thoughts, the answer, and a mark that ends it. So each text here is a rendering,
and nothing is known of any family of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING

from koinize.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Sequence[tuple[str, str]]
"""Role and text of each message."""

# Stand for texts while it is looked up what a template puts around them. The first two begin
# differently, so that no more than the template's own text is common to their renderings.
_PROBE, _OTHER_PROBE = "koine", "dialect"
_ASKED = (("user", _PROBE),)

# A template that asks for today's date gets this day, or what was trained would depend on when.
_DAY = {
    "%-d": "1",
    "%d": "01",
    "%-m": "1",
    "%m": "01",
    "%b": "Jan",
    "%B": "January",
    "%y": "25",
    "%Y": "2025",
    "%a": "Wed",
    "%A": "Wednesday",
    "%H": "12",
    "%M": "00",
    "%S": "00",
}
_NOW = "strftime_now"
_FIXED_NOW = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _DAY.items())
    # The empty text keeps Jinja from taking a line break after the macro for a part of it.
    + " }}{% endmacro %}{{ '' }}"
)


@dataclass(frozen=True, slots=True)
class Opening:
    """What stands before an answer: what a server sends, and what the template puts after it."""

    prompt: str
    lead: str


class Chat:
    """The chat template of one tokenizer.

    `unsaid` is the end of the generation prompt that the template's own answers lack: a server
    sends it, and training does not. `tail` is what follows an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, object]) -> None:
        """Raises InputError for a template that shows no answer."""
        self._tokenizer, self._arguments = tokenizer, dict(arguments)
        text: str = tokenizer.get_chat_template()
        self._template = _FIXED_NOW + text if _NOW in text else text
        self._knows_system = self._shows_system()
        asked = self._render(_ASKED, "", ask=True)
        answered = [self._answered(_ASKED, one, "") for one in (_PROBE, _OTHER_PROBE)]
        prompt = commonprefix([asked, *answered])  # noqa: RUF071 - characters are meant
        self.unsaid = asked[len(prompt) :]
        lead, found, self.tail = answered[0][len(prompt) :].partition(_PROBE)
        if not found:
            raise InputError(
                "the chat template does not show what an assistant says",
                expected="a template for conversations of a user and an assistant",
            )
        self._usual = Opening(prompt, lead)

    def opening(self, turns: Turns, where: str) -> Opening:
        """What stands before the answer to these messages. Raises InputError."""
        prompt = self._render(turns, where, ask=True).removesuffix(self.unsaid)
        answered = self._answered(turns, _PROBE, where)
        if not answered.startswith(prompt):
            # The template writes a question in another way once it is answered (Mistral's leave
            # the system message out); a server sends what it writes before.
            return Opening(prompt, self._usual.lead)
        return Opening(prompt, answered[len(prompt) :].partition(_PROBE)[0])

    def answer(self, turns: Turns, opening: Opening, text: str, where: str) -> tuple[str, str]:
        """The lead and the text of an answer, as the template writes them.

        The lead is the opening's, unless the answer brings along what would be there, such as
        thoughts of its own: then it is empty, and the text has all. Raises InputError.
        """
        answered = self._answered(turns, text, where)
        if answered.startswith(opening.prompt):
            rest = answered[len(opening.prompt) :]
        else:
            rest = self._answered(_ASKED, text, where)[len(self._usual.prompt) :]
        if not rest.endswith(self.tail):
            raise InputError(
                "the chat template ends this answer as it ends no other",
                where=where,
                expected=f"{self.tail!r} after it",
            )
        rest = rest[: len(rest) - len(self.tail)]
        if not rest.startswith(opening.lead):
            return "", rest
        return opening.lead, rest[len(opening.lead) :]

    def _answered(self, turns: Turns, text: str, where: str) -> str:
        return self._render((*turns, ("assistant", text)), where, ask=False)

    def _shows_system(self) -> bool:
        turns = (("system", _OTHER_PROBE), *_ASKED)
        self._knows_system = True
        try:
            return _OTHER_PROBE in self._render(turns, "", ask=True)
        except InputError:
            return False

    def _render(self, turns: Turns, where: str, *, ask: bool) -> str:
        if turns[0][0] == "system" and not self._knows_system:
            (_, system), (_, first), *others = turns
            turns = (("user", f"{system}\n\n{first}"), *others)
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                [{"role": role, "content": text} for role, text in turns],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=ask,
                **self._arguments,
            )
        except Exception as error:  # a template is a program, and may fail as any other
            raise InputError(
                f"the chat template refuses these messages: {error}",
                where=where,
                remedy="leave the row out, or choose another base model",
            ) from error
        return rendered
