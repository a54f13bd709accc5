"""Models of metrics in koinize.yaml: every mistake has one message, before anything is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.spec import load

GOOD = """\
koinize: 1
name: small
base: {model: base}
languages: [de, en]
tasks:
  sum: {kind: generate, prompt: "{text}", target: label, metrics: [bert-score]}
judges: {bert-score: {model: judge, layer: 1}}
"""


def refused(tmp_path: Path, old: str, new: str) -> str:
    file = tmp_path / "koinize.yaml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as error:
        load(file)
    return str(error.value).removeprefix("koinize.yaml:")


def test_a_metric_with_its_model_is_read(tmp_path):
    (tmp_path / "koinize.yaml").write_text(GOOD)
    judge = load(tmp_path / "koinize.yaml").judges["bert-score"]
    assert (judge.model, judge.layer, judge.dtype) == ("judge", 1, "float32")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "judges: {bert-score: {model: judge, layer: 1}}\n",
            "",
            "6:68 tasks.sum.metrics[0]: 'bert-score' needs a model; name one under judges, such "
            "as `judges: {bert-score: {model: FOLDER, layer: ...}}`",
        ),
        (", layer: 1", "", "7:10 judges.bert-score: 'layer' is missing"),
        ("layer: 1", "layer: -1", "7:37 judges.bert-score.layer: expected a number from "
            "0 up, not -1"),
        ("{model: judge, layer", "{layer", "7:10 missing key 'model' in judges.bert-score; add "
            "'model: ...'"),
        ("judges: {bert-score", "judges: {rouge-l: {model: a}, bert-score", "7:10 judges: "
            "'rouge-l' needs no model; expected one of: bert-score, entity-precision, "
            "not-hallucinated"),
        ("layer: 1}", "layer: 1}, not-hallucinated: {model: nli, layer: 2}", "7:79 "
            "judges.not-hallucinated: 'layer' is none of its settings; remove it"),
        ("layer: 1}", "layer: 1}, not-hallucinated: {model: nli, false_alarm: 0}", "7:79 "
            "judges.not-hallucinated.false_alarm: expected a number above 0, not 0"),
        ("layer: 1", "layer: 1, false_alarm: 0.1", "7:47 judges.bert-score: 'false_alarm' is none "
            "of its settings; remove it"),
        ("metrics: [bert-score]", "metrics: [bert-score, not-hallucinated]", "6:80 "
            "tasks.sum.metrics[1]: 'not-hallucinated' needs a model; name one under judges, such "
            "as `judges: {not-hallucinated: {model: FOLDER}}`"),
        ("judges: {bert-score", "judges: {bert-scor: {model: a}, bert-score", "7:10 "
            "judges.bert-scor: unknown metric 'bert-scor'; did you mean 'bert-score'?"),
        ("generate, prompt: \"{text}\", target: label", "classify, labels: [a, b], prompt: "
            "\"{text}\"", "6:69 tasks.sum.metrics[0]: 'bert-score' does not fit a task of kind "
            "'classify'; choose one of: accuracy, accuracy-normalized, free-accuracy, "
            "free-macro-f1, label-language, macro-f1, parsed, precision, recall"),
    ],
)  # fmt: skip
def test_a_mistake_has_one_message(tmp_path, old, new, message):
    assert refused(tmp_path, old, new) == message
