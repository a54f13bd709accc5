"""Output language: the share of texts that are not certainly in another language than asked for.

The identifier is py3langid (`koinize[language]`; BSD, its model of 140 languages in the package):
naive Bayes over byte n-grams (Lui and Baldwin 2012, "langid.py"), whose probabilities are tempered
by the length of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from koinize.errors import InputError
from koinize.metrics._metric import MeanMetric, ResultRow

CERTAIN = 0.8
ALIKE = {"nb": "no", "nn": "no", "cmn": "zh", "yue": "zh", "wuu": "zh"}
"""Codes that are counted as another one: written forms of one language."""


class OutputLanguage(MeanMetric):
    """100 x (1 - texts that are another language with a probability of .8 or more / rows).

    Short texts, names and numbers are rarely so certain: they count as right.
    """

    name = "output-language"
    reads = "text"
    also = ("language",)

    def settings(self) -> dict[str, object]:
        """The identifier and when it is believed."""
        return {"id": "py3langid", "certain": CERTAIN}

    def refusal(self, languages: Sequence[str]) -> str:
        """Without the package, or for a language that it does not know."""
        if find_spec("py3langid") is None:
            return f"{self.name} needs py3langid; `pip install 'koinize[language]'`"
        known = {_plain(one) for one in _identifier().labels}
        if unknown := [one for one in languages if _plain(one) not in known]:
            return f"{self.name} cannot tell the language '{unknown[0]}'; take the metric out"
        return ""

    def row_score(self, row: ResultRow) -> float:
        """0 for a text that is certainly in another language."""
        if refused := self.refusal([row["language"]]):
            raise InputError(refused)
        language, probability = _identifier().classify(row["prediction"])
        return float(probability < CERTAIN or _plain(language) == _plain(row["language"]))


def _plain(code: str) -> str:
    """The language of a code such as pt-BR or zh_Hant."""
    primary = code.replace("_", "-").partition("-")[0].lower()
    return ALIKE.get(primary, primary)


@cache
def _identifier() -> Any:  # noqa: ANN401 - the package has no types
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


metric = OutputLanguage()
