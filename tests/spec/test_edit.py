"""Editing koinize.yaml: what changes means what it should, and every other byte stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from koinize.errors import InputError
from koinize.spec import load
from koinize.spec.edit import Edit, add_language, remove_language, update_language
from koinize.spec.splice import YamlText, scalar

HEAD = """\
# What the shop's customers say.
koinize: 1
name: shop   # also the folder
base: {model: base, dtype: float32}
"""
LANGUAGES = (
    "languages: [de, en, ja]\n",
    "languages: [de,en,ja] # sorted\n",
    "languages: [ 'de', 'en', 'ja', ]\n",
    'languages: ["de",\n            "en",\n            "ja"]\n',
    "languages: [\n  de,  # German\n  en,  # English\n  ja  # Japanese\n]\n",
    "languages: [\n  de,\n  en,\n  ja,\n]\n",
    "languages:\n  - de\n  - en  # the first\n\n  # from 2025 on\n  - ja\n\n# the work\n",
    "languages:\n- ja\n-   en\n- de\n",
)
DATA = (
    "",
    "    data: data/{language}.{split}.jsonl\n",
    "    data: rows/{language}/{split}.csv  # from the export\n",
    "    data: 'rows/{language}/{split}.csv'\n",
    "    data:\n      de: d/{split}.jsonl\n      en: e/{split}.jsonl # two\n"
    "      ja: {train: a, dev: b, test: c}\n",
    "    data: {de: 'd/{split}.jsonl', en: 'e/{split}.jsonl', ja: 'j/{split}.jsonl'}\n",
    "    data:\n      ja:\n        train: a.csv\n        dev: b.csv\n        test: c.csv\n\n"
    "      # the others\n      de: d/{split}.jsonl\n      en: e/{split}.jsonl\n",
)
PROMPT = (
    '    prompt: "{text} ="\n',
    "    prompt: |\n      {text}\n      Mood:\n\n",
    '    prompt:\n      de: "{text} ?"\n      en: |-\n        {text} =\n      # polite\n'
    '      ja: "{text} :"\n      sw: "{text}"\n',
)
FLOW_TASK = (
    'tasks: {mood: {kind: classify, labels: [good, bad], prompt: "{text} ="}}\n',
    'tasks:\n  mood: {kind: classify, data: "d/{language}.{split}.jsonl", labels: [good, bad],\n'
    '         prompt: "{text} ="}\n',
)
REST = (
    "",
    "lora:\n  r: 4\n  overrides:\n    ja: {r: 8}  # harder\n    de:\n      r: 2\n"
    "merge:\n  candidates:\n    - ties\n    - recipe: ties\n      density: 0.5\n"
    "      weights:\n        ja: 2\n    - {recipe: sum, weights: [{ja: 2}, {en: 3}]}\n"
    "    - weights: {ja: 3}\n      recipe: knots-ties\n"
    "adapters:\n  mood:\n    ja: elsewhere/ja\n",
    "lora: {overrides: {ja: {r: 8}}}\nmerge: {candidates: [{recipe: ties, overrides: "
    "{'layers.0.*': {weights: {ja: 2}}}}]}\n# the end",
)
SOURCES = (
    None,
    "data/sw.{split}.jsonl",
    "rows/sw/{split}.csv",
    "hf:owner/sw@2f1c0de#{split}",
    {"train": "t x.csv", "dev": "d.csv", "test": "e.csv"},
)


@st.composite
def specs(draw: st.DrawFn) -> str:
    block = draw(st.booleans())
    task = (
        "tasks:\n  mood:\n    kind: classify  # two classes\n    labels: [good, bad]\n"
        + draw(st.sampled_from(DATA))
        + draw(st.sampled_from([one for one in PROMPT if "sw:" not in one]))
        if block
        else draw(st.sampled_from(FLOW_TASK))
    )
    parts = [draw(st.sampled_from(LANGUAGES)), task, draw(st.sampled_from(REST))]
    text = HEAD + "".join(parts)
    if draw(st.booleans()) and not text.endswith("Mood:\n\n"):
        text = text.rstrip("\n")  # but not where the line break belongs to a prompt
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def edited(text: str) -> YamlText:
    return YamlText(text, "koinize.yaml")


def plain(text: str) -> dict:
    return YAML(typ="safe", pure=True).load(text)


def loaded(text: str, folder: Path) -> object:
    (folder / "koinize.yaml").write_bytes(text.encode())
    return load(folder / "koinize.yaml")


@settings(max_examples=40)
@given(specs(), st.sampled_from(SOURCES))
def test_adding_and_removing_gives_the_same_bytes(text: str, source: object) -> None:
    added = add_language(edited(text), "sw", {"mood": source} if source else {}).file
    assert added.text != text
    assert plain(added.text)["languages"] == [*plain(text)["languages"], "sw"]
    assert remove_language(added, "sw").file.text == text


@settings(max_examples=25)
@given(specs(), st.sampled_from(SOURCES[1:]))
def test_pointing_elsewhere_and_back_gives_the_same_bytes(text: str, source: object) -> None:
    """Where data were one template: what is spelled out for it is folded again."""
    data = plain(text)["tasks"]["mood"].get("data", "data/{language}.{split}.jsonl")
    there = update_language(edited(text), "en", {"mood": source}).file
    back = data if isinstance(data, str) else data["en"]
    assert update_language(there, "en", {"mood": back}).file.text == text


@settings(max_examples=25)
@given(specs(), st.sampled_from(["de", "en", "ja"]))
def test_removing_touches_only_lines_that_speak_of_the_language(text: str, gone: str) -> None:
    lines = text.splitlines()
    after = remove_language(edited(text), gone).file.text.splitlines()
    assert gone not in plain("\n".join(after))["languages"]
    kept = [line for line in lines if line.lstrip().startswith("#")]
    assert [line for line in after if line.lstrip().startswith("#")] == kept
    new = [line for line in after if line not in lines]
    assert len(new) <= 4  # the flow lines that held it among others


@pytest.mark.parametrize(
    ("groups", "left"),
    [
        ("[[de, en], [ja]]", "groups: [[de, en]]"),
        ("[[de, ja], [en]]", "groups: [[de], [en]]"),
        ("[[ja]]", "recipe: mean}"),
        ("[[de, en]]", "groups: [[de, en]]"),
    ],
)
def test_a_removed_language_leaves_its_group(groups: str, left: str) -> None:
    text = HEAD + "languages: [de, en, ja]\ntasks: {mood: {kind: classify, labels: [a, b]}}\n"
    text += f"merge: {{candidates: [sum, {{recipe: mean, groups: {groups}}}]}}\n"
    done = remove_language(edited(text), "ja")
    assert left in done.file.text
    assert "ja" not in done.file.text


def test_the_whole_of_a_removal(tmp_path: Path) -> None:
    text = HEAD + LANGUAGES[6] + "tasks:\n  mood:\n    kind: classify\n    labels: [good, ja]\n"
    text += PROMPT[2] + '    verbalizers: {good: "+", ja: "-"}\n' + REST[1]
    done = remove_language(edited(text), "ja")
    assert done.changes == (
        "languages: ja removed",
        "tasks.mood.prompt.ja removed",
        "lora.overrides.ja removed",
        "merge.candidates[1].weights.ja removed",
        "merge.candidates[2].weights[0].ja removed",
        "merge.candidates[3].weights.ja removed",
        "adapters.mood.ja removed",
    )
    assert done.file.text == (
        "# What the shop's customers say.\nkoinize: 1\nname: shop   # also the folder\n"
        "base: {model: base, dtype: float32}\nlanguages:\n  - de\n  - en  # the first\n\n"
        "  # from 2025 on\n\n# the work\ntasks:\n  mood:\n    kind: classify\n"
        '    labels: [good, ja]\n    prompt:\n      de: "{text} ?"\n      en: |-\n'
        '        {text} =\n      # polite\n      sw: "{text}"\n'
        '    verbalizers: {good: "+", ja: "-"}\n'
        "lora:\n  r: 4\n  overrides:\n    de:\n      r: 2\n"
        "merge:\n  candidates:\n    - ties\n    - recipe: ties\n      density: 0.5\n"
        "    - {recipe: sum, weights: [{en: 3}]}\n    - recipe: knots-ties\n"
    )
    assert loaded(done.file.text, tmp_path).languages == ("de", "en")


def test_verbalizers_of_a_language_go_those_of_a_label_stay() -> None:
    text = "languages: [de, ja]\ntasks: {t: {verbalizers: {de: {a: x}, ja: {a: y}}}}\n"
    assert remove_language(edited(text), "ja").file.text == (
        "languages: [de]\ntasks: {t: {verbalizers: {de: {a: x}}}}\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: add_language(file, "x!", {}),
            "'x!' is no language; expected a language code such as en or zh-Hant",
        ),
        (
            lambda file: add_language(file, "en", {}),
            "koinize.yaml 'en' is one of its languages already; `koinize language update en` "
            "changes its data",
        ),
        (
            lambda file: remove_language(file, "dee"),
            "koinize.yaml there is no language 'dee'; did you mean 'de'?",
        ),
        (
            lambda file: update_language(file, "sw", {}),
            "koinize.yaml there is no language 'sw'; choose one of: de, en",
        ),
        (
            lambda file: remove_language(remove_language(file, "de").file, "en"),
            "koinize.yaml 'en' is the only language; add another one first, or delete the "
            "project's folder",
        ),
    ],
)
def test_refusals(change, message: str) -> None:
    with pytest.raises(InputError) as caught:
        change(edited("languages: [de, en]\ntasks: {}\n"))
    assert str(caught.value) == message


def test_what_an_anchor_holds_together_is_left_to_people() -> None:
    text = "languages: &all [de, en]\nname: x\nalso: *all\ntasks: {}\n"
    with pytest.raises(InputError) as caught:
        add_language(edited(text), "sw", {})
    assert str(caught.value) == (
        "koinize.yaml 'languages' is written in a way that koinize cannot edit; edit it by hand"
    )


def test_data_that_a_merge_key_brings_in_are_left_to_people() -> None:
    # Spelled out, the other languages would silently read the default template's files.
    text = (
        "languages: [de, en]\n"
        "shared: &shared\n"
        "  data: {de: 'd/{split}.jsonl', en: 'e/{split}.jsonl'}\n"
        "tasks:\n"
        "  mood:\n"
        "    <<: *shared\n"
        "    kind: classify\n"
    )
    with pytest.raises(InputError) as caught:
        update_language(edited(text), "de", {"mood": "new/{split}.jsonl"})
    assert str(caught.value) == (
        "koinize.yaml 'tasks.mood.data' may come from elsewhere by '<<'; edit it by hand"
    )


def test_nothing_to_change_is_no_change() -> None:
    text = "languages: [de, en]\ntasks:\n  t:\n    data: d/{language}.{split}.csv\n"
    done = update_language(edited(text), "en", {"t": "d/en.{split}.csv"})
    assert done == Edit(edited(text))


@given(st.text(max_size=12), st.booleans(), st.sampled_from(["", '"', "'"]))
def test_a_scalar_means_its_text(value: str, flow: bool, like: str) -> None:
    printable = "".join(one for one in value if one.isprintable())
    written = scalar(printable, flow=flow, like=like)
    assert plain(f"[{written}, 1]" if flow else f"- {written}\n- 1") == [printable, 1]
