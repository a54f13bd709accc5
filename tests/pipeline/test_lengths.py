"""Rows that the base model cannot be given whole: counted before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from koinize.errors import InputError, ManyErrors
from koinize.evaluate.free import write_freely
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.model import rows
from koinize.model.loaded import load_model
from koinize.model.rows import CUT, FITS, Text, fitted
from koinize.pipeline import Project, project
from koinize.pipeline.inputs import examples_of, survey
from koinize.pipeline.lengths import Lengths, Use, measure, uses, warnings
from koinize.spec import load
from tests.pipeline.conftest import SPEC, Small


def limited(length: int) -> str:
    return SPEC.replace("epochs: 2", f"epochs: 2, max_length: {length}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token is a byte, and one begins a text."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_base(folder)
    return folder


@pytest.mark.slow
def test_texts_are_counted_as_they_are_encoded(tokenizer: Path) -> None:
    """1 + 5 tokens of the prompt, 3 of the target; an end of text is one more."""
    texts = [
        Text("12345", ["abc"], (), 9),
        Text("12345", ["abc"], (), 9, end=True),
        Text("12345", ["abc"], (), 4),
        Text("12345", ["abc"], (), 3),
        Text("12345", ["a", "abc"], (), 8),
        Text("12345", [], (), 9, reserve=3),
        Text("12345", [], (), 9, reserve=4),
        Text("12345", [""], (), 9),
    ]
    no_room = "a target of 3 tokens leaves no room for its prompt"
    assert fitted(tokenizer, {}, texts) == [
        *(FITS, CUT, CUT, no_room, CUT, FITS, CUT, "a target has no text")
    ]


@pytest.mark.slow
def test_a_tokenizer_that_is_none_or_ends_never(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        fitted(tokenizer, {"enable_thinking": False}, [Text("a", ["b"], (), 9)])
    with pytest.raises(InputError, match="holds no tokenizer"):
        fitted(tmp_path, {}, [Text("a", ["b"], (), 9)])
    monkeypatch.setattr(rows, "SECONDS", 0.0)
    with pytest.raises(InputError, match="takes more than 0 s for the rows"):
        fitted(tokenizer, {}, [Text("a", ["b"], (), 9)])


class Counting:
    """A tokenizer that makes a token of every character, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, texts: Sequence[Text]) -> list[str]:
        self.asked += 1
        return [self._said(one) for one in texts]

    def _said(self, text: Text) -> str:
        longest = max([text.reserve, *(len(one) + text.further for one in text.targets)])
        room = text.max_length - longest
        if room < 1:
            return "no room"
        return CUT if len(text.prompt) > room else FITS


def counted(small: Small, encode: Counting) -> dict[Use, Lengths]:
    spec = load(small.root / "koinize.yaml")
    inputs = survey(spec, small.root, small.root / "memory.json")
    steps = small.steps().values()
    return measure(spec, small.root, inputs, steps, small.root / "lengths.json", encode)


def test_a_split_of_short_rows_needs_no_tokenizer(small: Small) -> None:
    encode = Counting()
    found = counted(small, encode)
    assert encode.asked == 0
    assert {one.cut for one in found.values()} == {0}
    assert {(use.split, use.training) for use in found} == {
        *(("train", True), ("dev", True), ("dev", False), ("test", False))
    }
    assert found[Use("mood", "de", "train", training=True)] == Lengths(4)
    assert not (small.root / "lengths.json").exists()


def test_long_rows_are_counted_once_and_named(small: Small) -> None:
    """A prompt is "{text} =", a target " good" or " bad"."""
    small.spec(limited(30))
    small.rows("de", "train", ["a" * 23, "b" * 25, "c", "d" * 99])
    encode = Counting()
    first = counted(small, encode)
    use = Use("mood", "de", "train", training=True)
    places = ("data/de.train.jsonl:2", "data/de.train.jsonl:4")
    assert first[use] == Lengths(4, cut=2, first=places)
    assert warnings(first) == [
        "mood: train rows de, trained on: 2 of 4 prompts are too long and lose tokens from their "
        "middle, first data/de.train.jsonl:2, data/de.train.jsonl:4; see training.max_length"
    ]
    assert counted(small, encode) == first
    assert encode.asked == 1
    # The same examples in another order may stand elsewhere.
    small.rows("de", "train", ["c", "d" * 99, "a" * 23, "b" * 25])
    assert counted(small, encode)[use].first == places
    small.spec(limited(31))
    assert counted(small, encode)[use].cut == 1
    assert encode.asked == 3


def test_what_cannot_be_used_refuses_the_plan(
    small: Small, monkeypatch: pytest.MonkeyPatch, tokenizer: Path
) -> None:
    monkeypatch.setattr(project, "fitted", lambda _folder, _template, texts: Counting()(texts))
    monkeypatch.setattr(project, "refuse_unfit", lambda *_: None)
    monkeypatch.setattr(Project, "_base_here", tokenizer)
    small.spec(limited(5))
    with pytest.raises(ManyErrors) as refused:
        small.project(monkeypatch).plan()
    assert sorted(map(str, refused.value.errors)) == sorted(
        f"mood: {split} rows {language}, trained on: {number} of {rows} cannot be used: {places}; "
        "raise training.max_length, or shorten or leave out these rows"
        for language in ("en", "de")
        for split, number, rows in (("train", 2, 4), ("dev", 1, 2))
        for places in [
            ", ".join(f"data/{language}.{split}.jsonl:{2 * n + 1} (no room)" for n in range(number))
        ]
    )
    small.spec(limited(6))
    found = small.project(monkeypatch).plan().lengths
    assert found is not None
    assert sum(one.cut for one in found.values()) == 2 * 4 + 2 * 2


def test_only_rows_that_something_missing_needs_are_looked_at(small: Small) -> None:
    store = small.made()
    steps = [one for one in small.steps(store).values() if one.id not in store.ids()]
    assert not any(use.training for use in uses(load(small.root / "koinize.yaml"), steps))


def test_of_a_trunk_on_a_share_only_the_drawn_rows_count(small: Small) -> None:
    small.spec(limited(30).replace("epochs: 2", "epochs: 2, trunk: 0.5"))
    small.rows("de", "train", [name * 99 for name in "abcdefgh"])
    found = counted(small, Counting())
    use = Use("mood", "de", "train", training=True, share=0.5)
    assert (found[use].rows, found[use].cut) == (4, 4)


def test_texts_that_are_written_keep_room(small: Small) -> None:
    """A prompt of 9 + 2 characters, and 20 tokens that are kept for the answer."""
    small.spec(
        SPEC.replace(
            "kind: classify", "kind: generate\n    target: label\n    max_new_tokens: 20"
        ).replace("    labels: [good, bad]\n", "")
        + "evaluation: {max_length: 30}\n"
    )
    found = counted(small, Counting())
    use = Use("mood", "de", "test", training=False)
    assert (found[use].rows, found[use].cut) == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("letters", "fitting"), [(14, 28), (15, 29), (30, 44)])
def test_a_label_that_is_written_has_a_token_more(
    small: Small, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, letters: int, fitting: int
) -> None:
    """1 + 11 tokens of a prompt, and of a space and a verbalizer one more, if that is above 16: the
    plan counts what `write_freely` will cut.
    """
    labels = (
        f"[good, bad]\n    free: true\n    verbalizers: {{good: ' {'g' * letters}', bad: ' b'}}"
    )
    use = Use("mood", "de", "test", training=False)
    base = load_model(tokenizer, "float32", "cpu")
    for length, cut in ((fitting, 0), (fitting - 1, 3)):
        small.spec(SPEC.replace("[good, bad]", labels) + f"evaluation: {{max_length: {length}}}\n")
        found = counted(small, lambda texts: fitted(tokenizer, {}, texts))
        assert (found[use].rows, found[use].cut) == (3, cut)
        spec = load(small.root / "koinize.yaml")
        task = spec.tasks["mood"]
        examples = examples_of(task, small.root, "de", "test", None)
        settings = task.evaluation(spec.evaluation, "test")
        written = Mock(return_value=())
        monkeypatch.setattr("koinize.evaluate.free.generate", written)
        list(write_freely(base, examples, settings))
        _, prompts, _ = written.call_args.args
        assert {len(one) for one in prompts} == {12 - bool(cut)}


@pytest.mark.slow
def test_the_base_models_own_tokenizer_is_asked(small: Small) -> None:
    """A token begins the text, and then each byte is one: 1 + 23 + 2 of a prompt, 5 of " good"."""
    write_tiny_base(small.root / "base")
    small.rows("de", "train", ["a" * 23, "b", "c" * 24])
    use = Use("mood", "de", "train", training=True)
    for length, cut in ((32, 0), (31, 1), (30, 2)):
        small.spec(limited(length))
        found = small.real().plan().lengths
        assert found is not None
        assert found[use].cut == cut
    small.spec(limited(5))
    with pytest.raises(ManyErrors, match="a target of 5 tokens leaves no room for its prompt"):
        small.real().plan()
