"""What should be served, the prompts that are drawn, and the scales that servers give."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from koinize.errors import InputError
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.model.encoding import Encoder
from koinize.release import Releases
from koinize.serving import of_folders, of_project
from koinize.serving.prompts import drawn, wordings
from koinize.serving.server import Named
from koinize.serving.subject import Subject
from koinize.serving.vocabulary import Vocabulary
from koinize.serving.weights import weights_of
from tests.peft_folders import configured
from tests.pipeline.conftest import SPEC, Small
from tests.serving.lying import ALPHA, RANK, TEMPLATE, write_adapter

DIGEST = "a" * 64


@pytest.fixture
def project(kit, tmp_path):
    """A project with a base model, and a release of the adapter `mine`, v2, after `older`, v1."""
    small = Small(tmp_path)
    shutil.copytree(kit / "base", tmp_path / "base")
    small.spec(SPEC.replace("{model: base}", "{model: base, dtype: float32}"))
    project = small.real()
    releases = released(project, {1: kit / "older", 2: kit / "mine"})
    releases.switch(releases.channel("production").promoted(1).promoted(2))
    return project


def released(project, adapters):
    """The releases of the project's task, with these adapters added, by version."""
    releases = Releases(project.home, "mood")
    for version, adapter in adapters.items():
        settings = {"base": project.spec.base.model_dump(mode="json"), "evaluation": {}}
        record = {
            **dict.fromkeys(("identity", "candidate", "adapter"), DIGEST),
            **dict.fromkeys(("channel", "created", "koinize", "system"), "x"),
            "task": "mood",
            "languages": ["de", "en"],
            "settings": settings,
            "artifacts": {},
        }
        releases.add(
            version,
            record,
            lambda folder, adapter=adapter: shutil.copytree(adapter, folder, dirs_exist_ok=True),
        )
    return releases


def test_the_release_in_use(project):
    found = of_project(project)
    assert found.title == "release v2 of mood"
    assert found.adapter == project.home / "releases" / "mood" / "v2"
    assert list(found.others) == ["release v1"]
    assert found.base == project.spec.base
    assert {one: len(examples) for one, examples in found.examples.items()} == {"en": 2, "de": 2}
    assert found.examples["en"][0].prompt.startswith("en dev ")


def test_another_release_or_a_folder(project, kit):
    found = of_project(project, release="v1", split="test")
    assert (found.title, list(found.others)) == ("release v1 of mood", ["release v2"])
    assert found.examples["en"][0].prompt.startswith("en test ")
    by_folder = of_project(project, adapter=kit / "mine")  # of which release v2 is a copy
    assert (by_folder.adapter, list(by_folder.others)) == (kit / "mine", ["release v1"])


def test_the_same_files_are_one_release(project, kit, tmp_path):
    """v1 and v3 are `older`, v2 and v4 are `mine`: of two that are the same the newer is named."""
    released(project, {3: kit / "older", 4: kit / "mine"})
    assert list(of_project(project, release="v4").others) == ["release v3"]
    assert list(of_project(project, release="v1").others) == ["release v4"]
    third = write_adapter(tmp_path / "third", kit / "base", 3)
    assert list(of_project(project, adapter=third).others) == ["release v4", "release v3"]


def test_the_newest_others_are_three_different_ones(project, kit, tmp_path):
    more = {one: write_adapter(tmp_path / f"a{one}", kit / "base", one) for one in (3, 4)}
    released(project, {**more, 5: more[4], 6: more[4]})
    assert list(of_project(project, release="v1").others) == [
        "release v6", "release v3", "release v2",
    ]  # fmt: skip


def test_a_broken_release_is_no_explanation(project, kit, tmp_path):
    more = write_adapter(tmp_path / "third", kit / "base", 3)
    config = released(project, {3: more}).folder / "v3" / "adapter_config.json"
    config.chmod(0o644)
    config.write_text("{")
    assert list(of_project(project).others) == ["release v1"]


def test_nothing_in_use(project):
    with pytest.raises(InputError) as caught:
        of_project(project, channel="staging")
    assert str(caught.value) == (
        "nothing is in use in staging of task 'mood'; promote a release, or name another adapter "
        "with --release, --system or --adapter"
    )


def test_a_system_is_named_and_made(project):
    with pytest.raises(InputError, match="there is no system 'ties'; choose one of: dare-ties"):
        of_project(project, system="ties")
    with pytest.raises(InputError, match=r"was not made: .* is missing; run `koinize run` first"):
        of_project(project, system="knots-ties density 1")


def test_an_adapter_is_named_once(project, kit):
    with pytest.raises(InputError, match="the adapter is named twice"):
        of_project(project, release="v1", adapter=kit / "mine")


def test_rows_of_folders(kit, tmp_path):
    rows = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows.write_text(json.dumps({"messages": messages}) + "\n" + json.dumps({"prompt": "c"}))
    found = of_folders(kit / "mine", str(kit / "base"), {"en": rows})
    assert sorted(one.prompt for one in found.examples["en"]) == ["a", "c"]
    rows.write_text(json.dumps({"text": "a"}))
    with pytest.raises(InputError, match="the columns 'messages', or 'prompt' and 'completion'"):
        of_folders(kit / "mine", str(kit / "base"), {"en": rows})


def subject(kit, texts, max_length=10**6) -> Subject:
    rows = kit / "drawn.jsonl"
    rows.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    found = of_folders(kit / "mine", str(kit / "base"), {"en": rows})
    return Subject("x", found.adapter, found.base, found.root, found.examples, max_length)


def test_the_longest_prompt_is_among_those_drawn(kit):
    texts = [f"{n} " + "word " * (n % 7) for n in range(30)] + ["long " * 50]
    encoder = Encoder(tiny_tokenizer())
    found = drawn(subject(kit, texts), encoder, 5)
    assert len(found) == 5
    assert found[-1].said == "long " * 50
    assert found == drawn(subject(kit, texts[::-1]), encoder, 5)
    cut = drawn(subject(kit, texts, max_length=100), encoder, 5)
    assert all(len(one.ids) <= 100 for one in cut)
    with pytest.raises(InputError, match="language 'en' has no prompt of at most 1 tokens"):
        drawn(subject(kit, texts, max_length=1), encoder, 5)


def test_what_is_sent(kit):
    plain = drawn(subject(kit, ["ab "]), Encoder(tiny_tokenizer()), 5)[0]
    ids = tiny_tokenizer()("ab").input_ids
    assert (plain.sent("tokens"), plain.sent("text")) == (ids, "ab")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    chat = drawn(subject(kit, ["ab"]), Encoder(tokenizer), 5)[0]
    asked = [{"role": "user", "content": "ab"}]
    assert chat.sent("chat") == asked
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert chat.sent("tokens") == tokenizer(text, add_special_tokens=False).input_ids


def test_wordings_differ_and_nothing_is_cut_that_is_short(kit):
    encoder = Encoder(tiny_tokenizer())
    asked = drawn(subject(kit, ["ab", "cd"]), encoder, 5)
    for way in ("tokens", "text"):
        found = wordings(asked, encoder, way, [None, None])
        assert len({one.ids for one in found}) == len(found)
        assert found[0].kind == "right"
        assert "truncated" not in {one.kind for one in found}
    cut = wordings(asked, encoder, "tokens", [2, 3])  # each has three tokens
    assert [one.kind for one in cut] == ["right", *["truncated"] * 3]
    assert sorted(map(len, cut[1].ids)) == [2, 3]


def scales(adapter) -> dict[str, float]:
    """What each rule gives to a module of this rank, by name."""
    scale = json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"] / RANK
    return {
        one.name: one.rescale(RANK, scale)
        for one in weights_of(adapter, {})
        if one.rescale is not None
    }


def test_scales_without_rslora(kit, tmp_path):
    """alpha = 8 and r = 4, so the scale is 2; half of it is 1, which is not listed twice."""
    adapter = write_adapter(tmp_path / "plain", kit / "base", 1, rslora=False)
    assert scales(adapter) == {
        "alpha / sqrt(r) where the adapter says alpha / r": ALPHA / math.sqrt(RANK),
        "half the scale": 1.0,
        "lora_alpha, not divided by the rank": ALPHA,
    }


def test_patterns_that_a_server_ignores(kit, tmp_path):
    adapter = write_adapter(tmp_path / "plain", kit / "base", 1, rslora=False)
    configured(adapter, alpha_pattern={"q_proj": 4 * ALPHA})
    names = [one.name for one in weights_of(adapter, {"v1": kit / "older"})]
    assert names[:2] == ["the adapter", "the base model"]
    assert "rank_pattern and alpha_pattern ignored" in names
    assert names[-1] == "v1"


def test_tokens_are_placed_where_only_one_is_meant():
    encoder = Encoder(tiny_tokenizer())
    vocabulary = Vocabulary(encoder, 260)
    (letter,) = encoder.tokenizer("a", add_special_tokens=False).input_ids
    assert vocabulary.place(Named("a")) == letter
    assert vocabulary.place(Named("?", bytes=b"a")) == letter
    assert vocabulary.place(Named("?", id=7)) == 7
    assert vocabulary.place(Named("?", id=260)) is None
    assert vocabulary.place(Named("two")) is None
    assert vocabulary.place(Named("\N{REPLACEMENT CHARACTER}")) is None  # of many bytes
    assert vocabulary.placed({Named("a"): -1.0, Named("two"): -2.0}) == {letter: -1.0}
