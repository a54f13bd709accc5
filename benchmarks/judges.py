"""What three real judges notice: an encoder, a model of entailment and one of names.

    pip install onnx bert-score
    python examples/judges/build.py JUDGES && python examples/debian/build.py
    python benchmarks/judges.py JUDGES > benchmarks/results/judges.md

Answers are made out of the test rows of Debian's summary task: the reference itself, or that of
another row, for a share of the rows. A judge is worth something where its figure falls with that
share. Names are filled into sentences, so that the right figure is known by counting.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from koinize.metrics import metrics
from koinize.metrics._calibrated import CalibratedMetric
from koinize.metrics._judged import JudgedMetric
from koinize.model.judge import JudgeSpec, Reader, load_reader

DATA = Path(__file__).resolve().parents[1] / "examples" / "debian" / "data" / "summary"
LANGUAGES = ("de", "en", "fr", "ja", "zh")
DEV, TEST = 60, 100
SHARES = (0.0, 0.3, 0.6, 1.0)
LAYER = 9  # of twelve; no other was tried
FALSE_ALARM = 0.1
PEOPLE = (
    ("Anna", "Keller"), ("Marie", "Dubois"), ("John", "Carter"), ("Peter", "Hansen"),
    ("Laura", "Moreau"), ("David", "Wright"), ("Julia", "Fischer"), ("Paul", "Bernard"),
)  # fmt: skip
CITIES = ("Berlin", "Paris", "London", "Vienna", "Madrid", "Boston", "Chicago", "Lyon")
SENTENCES = {
    "en": ("My name is {0} {1} and I moved to {2} in May.", "{0} {1} lives in {2}."),
    "de": ("Ich heiße {0} {1} und zog im Mai nach {2}.", "{0} {1} wohnt in {2}."),
    "fr": ("Je m'appelle {0} {1} et j'habite à {2} depuis mai.", "{0} {1} habite à {2}."),
}
Row = dict[str, str]


def rows(language: str, split: str, count: int) -> list[Row]:
    """Texts of packages with their titles as references and as answers."""
    lines = (DATA / f"{language}.{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {
            "key": one["id"],
            "language": language,
            "prompt": one["text"],
            "reference": one["summary"],
            "prediction": one["summary"],
        }
        for one in map(json.loads, lines[:count])
    ]


def made_up(given: Sequence[Row], share: float) -> list[Row]:
    """The same, of which this share answers with the next row's title."""
    order = random.Random(0).sample(range(len(given)), len(given))
    changed = set(order[: round(share * len(given))])
    return [
        {**row, "prediction": given[(place + 1) % len(given)]["reference"]}
        if place in changed
        else row
        for place, row in enumerate(given)
    ]


def judge(name: str, folder: Path, **options: object) -> tuple[JudgedMetric, JudgeSpec, Reader]:
    """A metric with its model in memory."""
    metric = metrics.get(name)
    if not isinstance(metric, JudgedMetric):
        raise TypeError(name)
    spec = JudgeSpec.model_validate({"model": str(folder), **options})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if why := metric.unfit(spec, config):
        sys.exit(f"error: {folder} {why}")
    return metric, spec, load_reader(folder, spec, metric.architecture)


def table(head: Sequence[str], lines: Iterator[Sequence[str]]) -> None:
    """A Markdown table, line by line as it comes."""
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for line in lines:
        print("| " + " | ".join(line) + " |", flush=True)
    print()


def by_share(figure: Mapping[float, float]) -> list[str]:
    """The figures of growing shares."""
    return [f"{figure[share]:.1f}" for share in SHARES]


def likeness(judges: Path) -> Iterator[list[str]]:
    """bert-score by the share of made-up titles."""
    metric, spec, reader = judge("bert-score", judges / "encoder", layer=LAYER)
    for language in LANGUAGES:
        given = rows(language, "test", TEST)
        scores = {
            share: 100 * fmean(metric.judged(reader, spec, made_up(given, share)))
            for share in SHARES
        }
        yield [language, *by_share(scores)]


def translations(judges: Path) -> str:
    """Titles beside those of the same packages in English, and beside other packages'."""
    metric, spec, reader = judge("bert-score", judges / "encoder", layer=LAYER)
    english = {row["key"]: row["reference"] for row in every("en")}
    same = [
        {**row, "reference": english[row["key"]]}
        for language in LANGUAGES
        if language != "en"
        for row in every(language)
        if row["key"] in english
    ]
    own = [100 * one for one in metric.judged(reader, spec, same)]
    other = [100 * one for one in metric.judged(reader, spec, shifted(same))]
    above = np.mean(np.subtract.outer(own, other) > 0)
    return (
        f"{len(same)} titles beside that of the same package in English: {fmean(own):.1f}, from "
        f"{min(own):.1f} to {max(own):.1f}; beside another package's: {fmean(other):.1f}, from "
        f"{min(other):.1f} to {max(other):.1f}. Of two such pairs the right one is the larger in "
        f"{above:.1%}."
    )


def shifted(given: Sequence[Row]) -> list[Row]:
    """Every answer beside the next row's reference."""
    return [
        {**row, "reference": after["reference"]}
        for row, after in zip(given, [*given[1:], given[0]], strict=True)
    ]


def every(language: str) -> list[Row]:
    """The rows of all splits."""
    return [row for split in ("train", "dev", "test") for row in rows(language, split, 1000)]


def beside_the_package(judges: Path) -> str:
    """The differences to bert-score 0.3 with the same encoder and layer, in points.

    It lets a token be met by the other text's special tokens, too.
    """
    from bert_score import score

    metric, spec, reader = judge("bert-score", judges / "encoder", layer=LAYER)
    given = [row for language in LANGUAGES for row in made_up(rows(language, "test", TEST), 1.0)]
    ours = np.array([100 * one for one in metric.judged(reader, spec, given)])
    texts, references = zip(*((row["prediction"], row["reference"]) for row in given), strict=True)
    folder = str(judges / "encoder")
    *_, found = score(list(texts), list(references), model_type=folder, num_layers=LAYER)
    theirs = 100 * found.numpy()
    apart = np.abs(ours - theirs)
    together = np.corrcoef(ours, theirs)[0, 1]
    return (
        f"{len(given)} pairs: {(apart > 0.01).sum()} are more than .01 points apart, "
        f"{apart.max():.2f} at most; correlation {together:.4f}"
    )


def entailment(judges: Path) -> Iterator[list[str]]:
    """not-hallucinated by the share of made-up titles, its limit set on dev."""
    metric, spec, reader = judge("not-hallucinated", judges / "nli", false_alarm=FALSE_ALARM)
    if not isinstance(metric, CalibratedMetric):
        raise TypeError("not-hallucinated")
    for language in LANGUAGES:
        dev, test = rows(language, "dev", DEV), rows(language, "test", TEST)
        limit = metric.threshold(spec, list(metric.judged(reader, spec, dev)))
        found = {
            share: 100
            * fmean(
                metric.passed(one, limit)
                for one in metric.judged(reader, spec, made_up(test, share))
            )
            for share in SHARES
        }
        yield [language, f"{limit:.3f}", *by_share(found)]


def named(language: str, share: float) -> list[Row]:
    """Sentences about people, of which this share has another city in the answer."""
    source, answer = SENTENCES[language]
    made = []
    for place, (given, surname) in enumerate(PEOPLE):
        for number, city in enumerate(CITIES):
            wrong = (place * len(CITIES) + number) % 10 < 10 * share
            other = CITIES[(number + 1) % len(CITIES)] if wrong else city
            right = answer.format(given, surname, city)
            row = {"key": f"{place}-{number}", "language": language, "reference": right}
            row["prompt"] = source.format(given, surname, city)
            made.append({**row, "prediction": answer.format(given, surname, other)})
    return made


def entities(judges: Path) -> Iterator[list[str]]:
    """entity-precision by the share of wrong cities: of three names in a text one is wrong then."""
    metric, spec, reader = judge("entity-precision", judges / "names")
    for language in SENTENCES:
        found, counted = {}, {}
        for share in SHARES:
            given = named(language, share)
            found[share] = 100 * fmean(metric.judged(reader, spec, given))
            wrong = sum(row["prediction"] != row["reference"] for row in given)
            counted[share] = 100 * (1 - wrong / len(given) / 3)
        yield [language, *by_share(found)]
        yield [f"{language}, counted", *by_share(counted)]


def main() -> None:
    """Every judge's table."""
    judges = Path(sys.argv[1])
    shares = [f"{share:.0%}" for share in SHARES]
    print("# What real judges notice\n\n    python benchmarks/judges.py JUDGES")
    print(f"\n## bert-score: multilingual-e5-small, layer {LAYER}")
    print(f"\n{TEST} titles a language, of which a share is another package's.")
    table(["language", *shares], likeness(judges))
    print(translations(judges))
    print(f"\nBeside the package bert-score: {beside_the_package(judges)}.")
    print("\n## not-hallucinated: a DeBERTa-v3-xsmall")
    print(f"\nThe limit from {DEV} dev rows at {FALSE_ALARM:.0%} false alarms; {TEST} test rows.")
    table(["language", "limit", *shares], entailment(judges))
    print("## entity-precision: Rampart")
    print(f"\n{len(PEOPLE) * len(CITIES)} sentences, of which a share has another city.")
    table(["language", *shares], entities(judges))


if __name__ == "__main__":
    main()
