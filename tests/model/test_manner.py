"""What the files of a base model tell of how it is given texts, against the loaded tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koinize.model.encoding import Encoder
from koinize.model.manner import PLAIN, Manner, manner
from tests.model.chat_templates import SHAPES, TOKENIZERS, tokenizer


@pytest.mark.parametrize("template", [None, SHAPES["ChatML"].template])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_files_tell_what_the_tokenizer_does(
    tmp_path: Path, kind: str, template: str | None
) -> None:
    made = tokenizer(kind, template)
    made.save_pretrained(tmp_path)

    puts_space = made.tokenize("koine") != made.tokenize("\nkoine")[-len(made.tokenize("koine")) :]
    assert manner(tmp_path) == Manner(is_chat=template is not None, prefixes=puts_space)
    assert Encoder(made).is_chat == manner(tmp_path).is_chat


@pytest.mark.parametrize(
    ("parts", "prefixes"),
    [
        ({}, False),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}}, True),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}}, False),
        ({"pre_tokenizer": {"type": "Metaspace", "add_prefix_space": False}}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, True),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend"}]}}, True),
        ({"normalizer": None, "decoder": {"type": "Metaspace"}}, False),
        ({"model": {"vocab": {"normalizer": 1, "Prepend": 2}}}, False),
    ],
)
def test_each_way_to_put_a_space_first(
    tmp_path: Path, parts: dict[str, object], prefixes: bool
) -> None:
    for indent in (None, 2):
        (tmp_path / "tokenizer.json").write_text(json.dumps(parts, indent=indent))
        assert manner(tmp_path) == Manner(prefixes=prefixes)


def test_a_template_may_stand_in_either_file(tmp_path: Path) -> None:
    assert manner(tmp_path) == PLAIN
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert manner(tmp_path).is_chat
    (tmp_path / "tokenizer_config.json").write_text("[")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert manner(tmp_path).is_chat


def test_without_the_fast_file_sentencepiece_is_taken_to_put_spaces(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    assert manner(tmp_path) == Manner(prefixes=True)


def test_plain_text_leaves_no_trace() -> None:
    assert PLAIN.settings({}) == {}
    assert Manner(prefixes=True).settings({}) == {"first space": 2}
    assert Manner(is_chat=True, prefixes=True).settings({"a": 1}) == {
        "chat": 2,
        "template": {"a": 1},
    }
