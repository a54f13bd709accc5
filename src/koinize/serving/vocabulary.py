"""The tokens that a server names, found among those of the base model's tokenizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from koinize.model.encoding import Encoder
from koinize.serving.server import Named


@dataclass(frozen=True)
class Vocabulary:
    """All tokens of one tokenizer; `size` is the number that the model has logits for."""

    encoder: Encoder
    size: int

    def place(self, named: Named) -> int | None:
        """The token's id; None where its text could be that of no token, or of several."""
        if named.id is not None:
            return named.id if named.id < self.size else None
        found = self._by_text.get(_text(named), ())
        return next(iter(found)) if len(found) == 1 else None

    def placed(self, logprobs: Mapping[Named, float]) -> dict[int, float]:
        """Log-probabilities by id, of those that can be placed."""
        ids = {named: self.place(named) for named in logprobs}
        return {one: logprobs[named] for named, one in ids.items() if one is not None}

    @cached_property
    def _by_text(self) -> Mapping[str, set[int]]:
        """Ids by their text: as it stands alone, and as it goes on from another one, since some
        tokenizers take a space off the first word of a text, and servers write either.
        """
        count = min(len(self.encoder.tokenizer), self.size)
        before = self.encoder.asked("koine")[1][-1:] if not self.encoder.chat else ()
        said = self.encoder.spelt(before)
        found: dict[str, set[int]] = defaultdict(set)
        for one in range(count):
            found[self.encoder.spelt((one,))].add(one)
            after = self.encoder.spelt((*before, one))
            if after.startswith(said):
                found[after[len(said) :]].add(one)
        return found


def _text(named: Named) -> str:
    if named.bytes is not None:
        return named.bytes.decode("utf-8", "replace")
    return named.text
