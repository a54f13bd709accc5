"""Label language: the share of written answers that are no other language's label."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from koinize.digest import digest, short
from koinize.metrics._metric import MeanMetric, ResultRow


@dataclass(frozen=True)
class LabelLanguage(MeanMetric):
    """100 x (1 - rows whose text is a verbalizer of another language and none of theirs / rows).

    `elsewhere` has the verbalizers of all languages.
    """

    name = "label-language"
    reads = "free"
    also = ("written",)
    elsewhere: frozenset[str] = frozenset()

    def among(self, texts: Mapping[str, Sequence[str]]) -> LabelLanguage:
        """This metric over the verbalizers of these languages."""
        every = (text for some in texts.values() for text in some)
        return replace(self, elsewhere=frozenset(map(_plain, every)))

    def settings(self) -> Mapping[str, object]:
        """The number of verbalizers with the digest of them."""
        return {"texts": f"{len(self.elsewhere)}-{short(digest(sorted(self.elsewhere)))}"}

    def refusal(self, languages: Sequence[str]) -> str:  # noqa: ARG002
        """Where no language has verbalizers of its own."""
        if self.elsewhere:
            return ""
        return f"{self.name} needs `verbalizers` per language: with one set for all none is foreign"

    def row_score(self, row: ResultRow) -> float:
        """0 for a label of another language."""
        return float(row["answer"] != "" or _plain(row["written"]) not in self.elsewhere)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


metric = LabelLanguage()
