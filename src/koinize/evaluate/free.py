"""Free answers: what the model writes where it also chooses, and which label that is, if any."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from koinize.evaluate.texts import generate
from koinize.model.loaded import Loaded
from koinize.settings import AFTER_A_LABEL, EvaluationSpec
from koinize.tasks import Example


def write_freely(
    loaded: Loaded, examples: Sequence[Example], settings: EvaluationSpec
) -> Iterator[tuple[int, dict[str, object]]]:
    """Index and columns of each example, in no promised order: `written`, the text; `answer`, the
    label that it is, empty where it is none; `tokens`, those generated.

    Call inside `torch.inference_mode()`.
    """
    prompts, room = [], settings.max_new_tokens
    for one in examples:
        tokens = loaded.encoder.encode(
            one.prompt,
            one.options,
            turns=one.turns,
            max_length=settings.max_length,
            reserve=settings.max_new_tokens,
            further=AFTER_A_LABEL,
            where=f"example {one.key}",
        )
        prompts.append(tokens.prompt)
        room = max([room, *(len(text) + AFTER_A_LABEL for text in tokens.targets)])
    longest = settings.model_copy(update={"max_new_tokens": room})
    for index, text, count in generate(loaded, prompts, longest):
        yield index, {"written": text, "answer": parse(text, examples[index]), "tokens": count}


def parse(text: str, example: Example) -> str:
    """The label whose text this is, to the letter: after NFC, without white space around it. Empty
    where it is none.
    """
    plain = _plain(text)
    texts = zip(example.options, example.labels, strict=True)
    return next((label for option, label in texts if _plain(option) == plain), "")


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
