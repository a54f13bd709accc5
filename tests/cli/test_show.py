"""`koinize show`: the exact text of an example, and its tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koinize.examples.tiny.make_base import tiny_tokenizer
from tests.cli.conftest import Call
from tests.model.chat_templates import SHAPES, tokenizer
from tests.pipeline.conftest import SPEC, Small

GENERATE = """\
    kind: generate
    prompt: "{text}"
    target: label
training"""


def base(small: Small, made: object) -> None:
    """A base of no weights: none are read."""
    folder: Path = small.root / "base"
    folder.mkdir()
    made.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")


def test_a_task_of_options_without_a_chat_template(call: Call, small: Small) -> None:
    base(small, tiny_tokenizer())
    code, out, err = call("show", "mood", "de", "--split", "dev")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith(", the first of 2 dev rows")
    assert lines[1:9] == [
        "through no chat template",
        "",
        "prompt, 11 tokens",
        "<bos>de dev 0 =",
        "",
        "target, 5 tokens",
        " good",
        "",
    ]
    assert lines[9] == "between prompt and answer: ' '"
    assert lines[-2:] == ["* good: ' ' 'g' 'o' 'o' 'd'", "  bad: ' ' 'b' 'a' 'd'"]


def test_what_is_also_written(call: Call, small: Small) -> None:
    base(small, tiny_tokenizer())
    small.spec(SPEC.replace("labels: [good, bad]", "labels: [good, bad]\n    free: true"))
    assert call("show", "mood", "de", "--split", "test")[1].splitlines()[-1] == (
        "also written after it: a line of at most 16 tokens"
    )
    assert json.loads(call("show", "mood", "de", "--split", "test", "--json")[1])["written"] == 16
    assert json.loads(call("show", "mood", "de", "--split", "dev", "--json")[1])["written"] == 0


def test_a_text_through_a_chat_template(call: Call, small: Small) -> None:
    shape = SHAPES["Qwen 3"]
    base(small, tokenizer("lines", shape.template))
    small.spec(SPEC[: SPEC.index("    kind")] + GENERATE + SPEC.partition("training")[2])
    code, out, _ = call("show", "mood", "de", "--json")
    shown = json.loads(out)
    assert code == 0
    text = shown["prompt"]["text"].removesuffix("<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>user\nde train ")
    assert shown["target"]["text"] in (
        "<think>\n\n</think>\n\ngood<|im_end|>",
        "<think>\n\n</think>\n\nbad<|im_end|>",
    )
    assert (shown["chat"], shown["between"], shown["server_only"]) == (True, shape.lead, "")
    pieces = [piece for _, piece in shown["target"]["tokens"]]
    assert "".join(pieces) == shown["target"]["text"]
    assert pieces[-1] == "<|im_end|>"
    assert shown["options"] == []


def test_characters_of_several_tokens_are_shown_whole(call: Call, small: Small) -> None:
    base(small, tiny_tokenizer())
    small.rows("de", "train", ["良い😀"])
    code, out, _ = call("show", "mood", "de")
    assert code == 0
    assert "<bos>良い😀 =" in out.splitlines()
    assert "'<bos>' '' '' '良' '' '' 'い' '' '' '' '😀' ' ' '='" in out.splitlines()


def test_what_only_a_server_sends_is_shown(call: Call, small: Small) -> None:
    base(small, tokenizer("lines", SHAPES["DeepSeek R1"].template))
    _, out, _ = call("show", "mood", "en")
    assert r"a server sends this, too, before the answer: '<think>\n'" in out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mod", "de"), "unknown task 'mod'; did you mean 'mood'?"),
        (("mood", "fr"), "unknown language 'fr'; choose one of: de, en"),
        (("mood", "de", "--split", "tst"), "unknown split 'tst'; did you mean 'test'?"),
        (("mood", "de"), "base.model there is no base model 'base'; expected"),
    ],
)
def test_names_that_nobody_knows(
    call: Call, small: Small, arguments: tuple[str, ...], said: str
) -> None:
    if "base.model" in said:
        small.spec(SPEC.replace("model: base", "model: base/none/at/all"))
        said = said.replace("'base'", "'base/none/at/all'")
    code, out, err = call("show", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"koinize: {said}")
