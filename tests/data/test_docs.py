"""The blocks of docs/data.md do what the page says."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from koinize.data import SPLITS, Row, read_rows, refuse_leaks
from koinize.errors import InputError
from koinize.model.base import BaseSpec
from koinize.tasks import tasks
from koinize.tasks.classify import Classify

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def settings(kind: str) -> list[dict[str, object]]:
    return [YAML(typ="safe").load(text) for text in blocks(kind)]


def documented(**changes) -> Classify:
    (sample,) = [one for one in settings("yaml task") if one["kind"] == "classify"]
    return Classify.model_validate({**sample, **changes})


def test_every_block_belongs_to_a_test():
    kinds = set(re.findall(r"^```(.+)$", PAGE, re.MULTILINE))

    tested = {"yaml data", "yaml prompt", "yaml key", "yaml task", "yaml base", "jsonl rows"}
    assert kinds == tested | {"text bad-row", "text leak"}


def test_every_kind_is_documented():
    assert sorted(one["kind"] for one in settings("yaml task")) == list(tasks.names())


def test_the_forms_of_data():
    common, per_language, per_split = (documented(**one) for one in settings("yaml data"))

    assert common == documented()
    assert per_language.source("en", "dev") == "data/en.dev.csv"
    assert per_language.source("ja", "dev") == "hf:owner/reviews-ja@2f1c0de#dev"
    assert per_split.source("ja", "dev") == "hf:owner/reviews-ja#validation"
    per_split.check_languages(["en", "ja"])
    assert len({per_split.source(one, split) for one in ("en", "ja") for split in SPLITS}) == 6


def test_the_prompts():
    one, several = (documented(**prompt) for prompt in settings("yaml prompt"))
    row = Row({"title": "T", "text": "x", "label": "positive"}, "f:1")

    assert one.examples([row], "en")[0].prompt == "T\nx\nSentiment:"
    assert several.examples([row], "ja")[0].prompt == "x\n感情："


def test_the_rows_without_a_template():
    completion, messages = (
        Row(json.loads(text), "f:1") for text in blocks("jsonl rows") if text.count("\n") == 1
    )
    task = documented(prompt=None, verbalizers=None)

    (example,) = task.examples([completion], "en")
    assert (example.prompt, example.target) == ("Great coffee!\nSentiment:", " positive")
    (example,) = task.examples([messages], "en")
    assert example.prompt == "Name the sentiment.\n\nGreat coffee!"
    assert example.labels[example.gold] == "positive"


def test_the_message_for_a_bad_row(tmp_path):
    rows = next(row for row in blocks("jsonl rows") if '"label"' in row).splitlines()
    rows[1] = '{"text": "Fine.", "label": "postive"}'
    (tmp_path / "data").mkdir()
    (tmp_path / "data/en.train.jsonl").write_text("\n".join(rows))
    task = documented()

    with pytest.raises(InputError) as caught:
        task.examples(read_rows(task.source("en", "train"), tmp_path), "en")

    assert f"{caught.value}\n" == blocks("text bad-row")[0]


def test_the_message_for_a_leak():
    row = {"text": "Great coffee!", "label": "positive"}
    rows = {
        ("en", split): [Row(row, f"{documented().source('en', split)}:1")]
        for split in ("train", "test")
    }

    with pytest.raises(InputError) as caught:
        refuse_leaks(documented().check(rows))

    assert f"{caught.value}\n" == blocks("text leak")[0]


def test_the_key():
    (key,) = settings("yaml key")
    task = documented(**key)
    english = {"text": "Great coffee!", "label": "positive", "product": "mug"}
    japanese = {"text": "良い", "label": "positive", "product": "mug"}

    (leak,) = task.check(
        {("en", "test"): [Row(english, "en")], ("ja", "train"): [Row(japanese, "ja")]}
    )

    assert (leak.severity, leak.what) == ("error", "the same product, 'mug'")


def test_the_arguments_of_a_chat_template():
    (block,) = settings("yaml base")

    assert BaseSpec.model_validate(block["base"]).template == {"enable_thinking": False}


def test_a_list_in_csv(tmp_path):
    (written,) = re.findall(r'`"(\[.*?\])"`', PAGE)
    text = f'question,options,answer\nWhich is a river?,"{written}",A\n'
    (tmp_path / "a.csv").write_text(text)

    task = tasks.get("choose").model_validate({"prompt": "{question}"})

    assert task.examples(read_rows("a.csv", tmp_path), "en")[0].target == " Elbe"


def test_what_stands_between():
    quoted = re.findall(r"`\"(.*?)\"`", PAGE[PAGE.index("### What stands between") :])
    latin, answer, japanese, next_answer, korean, last_answer = quoted[:6]
    generate = tasks.get("generate")
    pairs = (latin, answer.rstrip(", .")), (japanese, next_answer), (korean, last_answer)

    for prompt, target in pairs:
        task = generate.model_validate({"prompt": f"{{text}}{prompt}"})
        row = Row({"text": "x", "target": target.strip()}, "f:1")
        assert task.examples([row], "en")[0].target == target
