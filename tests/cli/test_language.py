"""`koinize language`: what is written, and what is refused with nothing written."""

from __future__ import annotations

import json
from functools import partial

import pytest

from koinize.pipeline.run import locked
from koinize.store import Store
from tests.cli.conftest import Call
from tests.pipeline.conftest import SPEC, Small
from tests.pipeline.test_generation import JOINT, TRUNK, make


@pytest.fixture
def call(call: Call) -> Call:
    return partial(call, "language")


@pytest.fixture
def swahili(small: Small) -> None:
    write_language(small, "sw")


def write_language(small: Small, language: str, folder: str = "data") -> None:
    for split in ("train", "dev", "test"):
        small.rows("de", split, [f"de {split} {n}" for n in range(4)])
        small.rows(language, split, [f"{language} {split} {n}" for n in range(4)])
        if folder != "data":
            (small.root / folder).mkdir(exist_ok=True)
            made = small.root / "data" / f"{language}.{split}.jsonl"
            made.rename(small.root / folder / made.name)


def spec(small: Small) -> str:
    return (small.root / "koinize.yaml").read_text()


def train_rows(small: Small, language: str = "de") -> list[dict]:
    text = (small.root / "data" / f"{language}.train.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("swahili")
def test_a_language_that_the_template_covers(call: Call, small: Small) -> None:
    code, out, err = call("add", "sw")
    assert (code, err) == (0, "")
    assert spec(small) == SPEC.replace("[en, de]", "[en, de, sw]")
    first, summary, last = out.splitlines()
    assert first == "languages: sw added"
    steps = len(small.steps())
    assert summary.startswith(f"a run would do {steps} of {steps} steps: 1 base, 4 train, ")
    assert "(train/mood/de, train/mood/en, train/mood/sw, train/mood/comb); about " in summary
    assert last == "next: koinize plan, then koinize run"
    assert call("remove", "sw")[0] == 0
    assert spec(small) == SPEC


@pytest.mark.usefixtures("swahili")
def test_a_path_that_the_template_means_already(call: Call, small: Small) -> None:
    assert call("add", "sw", "data/sw.{split}.jsonl")[0] == 0
    assert spec(small) == SPEC.replace("[en, de]", "[en, de, sw]")


def test_data_elsewhere_are_spelled_out(call: Call, small: Small) -> None:
    write_language(small, "sw", "other")
    code, out, _ = call("add", "sw", "other/sw.{split}.jsonl")
    assert code == 0
    assert out.splitlines()[:2] == [
        "languages: sw added",
        "tasks.mood.data.sw: other/sw.{split}.jsonl",
    ]
    assert spec(small) == SPEC.replace("[en, de]", "[en, de, sw]").replace(
        '    prompt: "{text} ="\n',
        '    prompt: "{text} ="\n    data:\n      en: "data/{language}.{split}.jsonl"\n'
        '      de: "data/{language}.{split}.jsonl"\n      sw: "other/sw.{split}.jsonl"\n',
    )
    code, out, _ = call("remove", "sw")
    assert out.splitlines()[:3] == [
        "languages: sw removed",
        "tasks.mood.data.sw removed",
        "tasks.mood.data: data/{language}.{split}.jsonl for every language",
    ]
    assert spec(small) == SPEC


def test_splits_of_their_own(call: Call, small: Small) -> None:
    write_language(small, "sw", "other")
    paths = [f"--{split}=other/sw.{split}.jsonl" for split in ("train", "dev", "test")]
    assert call("add", "sw", *paths)[0] == 0
    wanted = '{train: "other/sw.train.jsonl", dev: "other/sw.dev.jsonl", '
    assert f'      sw: {wanted}test: "other/sw.test.jsonl"}}\n' in spec(small)


def test_a_dry_run_shows_the_diff(call: Call, small: Small) -> None:
    small.spec(SPEC + "lora: {overrides: {de: {r: 8}}}\n")
    before = spec(small)
    code, out, err = call("remove", "de", "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith(
        "--- koinize.yaml\n+++ koinize.yaml\n@@ -1,7 +1,7 @@\n koinize: 1\n name: small\n"
        " base: {model: base}\n-languages: [en, de]\n+languages: [en]\n tasks:\n   mood:\n"
        "     kind: classify\n@@ -10,4 +10,3 @@\n training: {epochs: 2}\n"
        " merge: {candidates: [paper], mean_scales: [1.0, 2.0]}\n"
        " machine: {executor: inline}\n-lora: {overrides: {de: {r: 8}}}\na run would do "
    )
    assert "next" not in out
    assert spec(small) == before


def test_json(call: Call, small: Small) -> None:
    told = json.loads(call("remove", "de", "--json")[1])
    assert told["written"]
    assert told["file"] == "koinize.yaml"
    assert told["changes"] == ["languages: de removed"]
    assert told["plan"]["total"] == len(small.steps())
    told = json.loads(call("update", "en", "data/en.{split}.jsonl", "--dry-run", "--json")[1])
    assert (told["written"], told["changes"], told["diff"]) == (False, [], "")


KEPT = "mood: the trunk was trained on 4 rows of de and still holds them; "


def test_removing_says_what_the_trunk_keeps(call: Call, small: Small) -> None:
    small.spec(JOINT)
    assert "the trunk" not in call("remove", "de", "--dry-run")[1]  # nothing is trained yet
    store = make(small, Store(small.root / ".koinize"))
    trunk = store.names()[TRUNK]
    code, out, err = call("remove", "de")
    assert (code, err) == (0, "")
    last = out.splitlines()[-1]
    assert last == KEPT + "`koinize run --new-generation` trains one that never saw them"
    assert spec(small) == JOINT.replace("[en, de]", "[en]")
    assert store.names()[TRUNK] == trunk


def test_removing_exactly_begins_a_generation(call: Call, small: Small) -> None:
    small.spec(JOINT)
    store = make(small, Store(small.root / ".koinize"))
    trunk = store.names()[TRUNK]
    code, out, _ = call("remove", "de", "--exact", "--dry-run")
    assert code == 0
    assert out.endswith("mood: a new generation would begin, without the 4 rows of de\n")
    assert (spec(small), store.names()[TRUNK]) == (JOINT, trunk)
    told = json.loads(call("remove", "de", "--exact", "--json")[1])
    assert told["trunk_rows"] == {"mood": 4}
    assert TRUNK in [one["step"] for one in told["plan"]["missing"]]
    assert TRUNK not in store.names()
    after = small.steps(store)[TRUNK]
    assert "train rows de" not in after.rows
    assert after.id != trunk


def test_exactly_is_refused_without_a_trunk_of_its_own(call: Call, small: Small) -> None:
    code, out, err = call("remove", "de", "--exact")
    assert (code, out) == (2, "")
    assert "--exact" in err
    assert spec(small) == SPEC


def test_nothing_changes_while_data_are_missing_or_bad(call: Call, small: Small) -> None:
    missing = "there is no such file; a path starts from the folder of koinize.yaml"
    assert call("add", "sw") == (
        2,
        "",
        "koinize: "
        + "".join(f"data/sw.{split}.jsonl {missing}\n" for split in ("train", "dev", "test")),
    )
    write_language(small, "sw")
    small.rows("sw", "dev", ["sw train 0"])
    assert call("add", "sw") == (
        2,
        "",
        "koinize: data/sw.dev.jsonl:1 leaks from data/sw.train.jsonl:1: the same text, "
        "'sw train 0'; keep it in one of the splits only\n",
    )
    assert spec(small) == SPEC


def test_nothing_changes_when_the_file_would_not_load(call: Call, small: Small) -> None:
    assert call("add", "sw", "data/sw.jsonl") == (
        2,
        "",
        "koinize: koinize.yaml:10:5 tasks.mood.data: 'data/sw.jsonl' would be the same file for "
        "every split; write {split} in it, or give a mapping\n",
    )
    assert spec(small) == SPEC
    prompts = SPEC.replace('"{text} ="', '{de: "{text}", en: "{text}"}')
    small.spec(prompts)
    code, _, err = call("add", "sw", "data/sw.{split}.jsonl")
    assert (code, err) == (
        2,
        "koinize: koinize.yaml:6:3 tasks.mood: there is no prompt for language 'sw'; expected one "
        "for every language; there is one for de, en; add 'sw: ...' under prompt\n",
    )
    assert spec(small) == prompts


def test_a_file_that_is_wrong_already_is_told_first(call: Call, small: Small) -> None:
    small.spec(SPEC.replace("epochs", "epoch"))
    assert call("remove", "de") == (
        2,
        "",
        "koinize: koinize.yaml:10:12 unknown key 'epoch' in training; did you mean 'epochs'?\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["add", "de"],
            "koinize.yaml 'de' is one of its languages already; `koinize language update de` "
            "changes its data",
        ),
        (["add", "x!"], "'x!' is no language; expected a language code such as en or zh-Hant"),
        (["remove", "fr"], "koinize.yaml there is no language 'fr'; choose one of: de, en"),
        (["update", "fr", "x"], "koinize.yaml there is no language 'fr'; choose one of: de, en"),
        (
            ["update", "de"],
            "nothing to update 'de' with; expected DATA or --append FILE; rows edited in place "
            "need no command: `koinize plan` sees them",
        ),
        (
            ["update", "de", "--train", "x"],
            "--train, --dev and --test come together, instead of DATA",
        ),
        (
            ["update", "de", "d", "--append", "x"],
            "--append adds to one file; leave the other data out",
        ),
        (
            ["update", "de", "--task", "mood"],
            "--task mood has no data; expected one task for DATA, or --task mood=DATA",
        ),
        (["update", "de", "x", "--task", "food"], "unknown task 'food'; did you mean 'mood'?"),
        (
            ["update", "fr", "--append", "x.jsonl"],
            "koinize.yaml there is no language 'fr'; choose one of: de, en",
        ),
        (
            ["update", "de", "--append", "x.jsonl"],
            "x.jsonl there is no such file; a path starts from the folder of koinize.yaml",
        ),
    ],
)
def test_bad_inputs(call: Call, small: Small, arguments: list[str], message: str) -> None:
    assert call(*arguments) == (2, "", f"koinize: {message}\n")
    assert spec(small) == SPEC


def test_the_last_language_stays(call: Call) -> None:
    assert call("remove", "de")[0] == 0
    assert call("remove", "en") == (
        2,
        "",
        "koinize: koinize.yaml 'en' is the only language; add another one first, or delete the "
        "project's folder\n",
    )


def test_two_tasks_each_need_their_data(call: Call, small: Small) -> None:
    block = SPEC[SPEC.index("  mood:") : SPEC.index("training:")]
    more = block.replace("mood", "more") + "    data: more/{language}.{split}.jsonl\n"
    for language in ("de", "en"):
        write_language(small, language, "more")
        write_language(small, language)
    small.spec(SPEC.replace(block, block + more))
    before = spec(small)
    write_language(small, "sw", "far")
    assert call("add", "sw", "far/sw.{split}.jsonl")[2] == (
        "koinize: the project has 2 tasks; expected --task with one of: mood, more\n"
    )
    code, _, err = call("add", "sw", "far/sw.{split}.jsonl", "--task", "mood")
    assert code == 2
    assert err.startswith("koinize: more/sw.train.jsonl there is no such file;")
    assert spec(small) == before
    both = [f"--task={name}=far/sw.{{split}}.jsonl" for name in ("mood", "more")]
    code, out, _ = call("add", "sw", *both)
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()[:3]] == [
        "languages",
        "tasks.mood.data.sw",
        "tasks.more.data.sw",
    ]
    assert call("remove", "sw")[0] == 0
    assert spec(small) == before


def test_an_update_points_elsewhere_and_back(call: Call, small: Small) -> None:
    write_language(small, "de", "new")
    for split in ("train", "dev", "test"):
        small.rows("de", split, [f"old de {split} {n}" for n in range(4)])
    code, out, _ = call("update", "de", "new/de.{split}.jsonl")
    assert code == 0
    assert out.startswith("tasks.mood.data.de: new/de.{split}.jsonl\n")
    assert '      de: "new/de.{split}.jsonl"\n' in spec(small)
    assert call("update", "de", "new/de.{split}.jsonl")[1].startswith(
        "koinize.yaml says so already\n"
    )
    assert call("update", "de", "data/{language}.{split}.jsonl")[0] == 0
    assert spec(small) == SPEC


def test_bytes_links_and_modes_are_kept(call: Call, small: Small) -> None:
    file = small.root / "koinize.yaml"
    kept = small.root / "elsewhere.yaml"
    kept.write_bytes(("\ufeff" + SPEC).replace("\n", "\r\n").encode())
    kept.chmod(0o600)
    file.unlink()
    file.symlink_to(kept)
    assert call("remove", "de")[0] == 0
    assert file.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_bytes() == (
        ("\ufeff" + SPEC.replace("[en, de]", "[en]")).replace("\n", "\r\n").encode()
    )


@pytest.mark.parametrize("command", ["add", "remove", "update"])
def test_where_there_is_no_project_nothing_is_left(call: Call, small: Small, command: str) -> None:
    before = sorted(small.root.rglob("*"))
    code, _, err = call(command, "sw", "--spec", "nope/koinize.yaml")
    assert code == 2
    assert err == (
        "koinize: nope/koinize.yaml there is no such file; run `koinize init` to write a first "
        "one, or name the folder of one\n"
    )
    assert sorted(small.root.rglob("*")) == before


def test_somebody_else_works_here(call: Call, small: Small) -> None:
    with locked(small.root / ".koinize"):
        code, _, err = call("remove", "de")
    assert code == 2
    assert err.startswith("koinize: .koinize another koinize works here since ")
    assert spec(small) == SPEC


def new_rows(small: Small, *rows: dict) -> str:
    text = "\n".join(json.dumps(row) for row in rows)
    (small.root / "new.jsonl").write_text(text)
    return "new.jsonl"


def test_rows_are_appended(call: Call, small: Small) -> None:
    path = small.root / "data" / "de.train.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    before = path.read_text()
    file = new_rows(small, {"text": "schön", "label": "good"}, {"text": "öde", "label": "bad"})
    code, out, err = call("update", "de", "--append", file, "--dry-run")
    assert (code, err) == (0, "")
    assert out == (
        "--- data/de.train.jsonl\n+++ data/de.train.jsonl\n"
        '+{"text": "schön", "label": "good"}\n+{"text": "öde", "label": "bad"}\n'
    )
    assert path.read_text() == before
    code, out, err = call("update", "de", "--append", file)
    assert (code, err) == (0, "")
    assert out.startswith("data/de.train.jsonl: 2 rows added\na run would do ")
    assert path.read_text() == before + (
        '\n{"text": "schön", "label": "good"}\n{"text": "öde", "label": "bad"}\n'
    )
    assert spec(small) == SPEC


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "de train 0", "label": "good"},
            "new.jsonl:1 repeats data/de.train.jsonl:1: 'de train 0'",
        ),
        (
            {"text": "de train 0", "label": "bad"},
            "new.jsonl:1 contradicts data/de.train.jsonl:1: 'de train 0' is answered 'bad' here "
            "and 'good' there",
        ),
        (
            {"text": "en  test 1", "label": "bad"},
            "data/en.test.jsonl:2 leaks from new.jsonl:1: the same text, 'en test 1'",
        ),
    ],
)
def test_rows_that_are_there_already_are_refused(
    call: Call, small: Small, row: dict, message: str
) -> None:
    before = train_rows(small)
    file = new_rows(small, row, {"text": "neu", "label": "good"})
    assert call("update", "de", "--append", file) == (
        2,
        "",
        f"koinize: {message}; remove it from new.jsonl\n",
    )
    assert train_rows(small) == before


def test_a_key_of_another_split_is_refused(call: Call, small: Small) -> None:
    small.spec(SPEC.replace("    kind: classify\n", "    kind: classify\n    key: id\n"))
    for language in ("de", "en"):
        for split in ("train", "dev", "test"):
            path = small.root / "data" / f"{language}.{split}.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            texts = (json.dumps({**row, "id": row["text"][3:]}) for row in rows)
            path.write_text("".join(f"{text}\n" for text in texts))
    before = train_rows(small)
    file = new_rows(small, {"text": "neu", "label": "good", "id": "dev 1"})
    code, _, err = call("update", "de", "--append", file)
    assert code == 2
    assert err == (
        "koinize: data/de.dev.jsonl:2 leaks from new.jsonl:1: the same id, 'dev 1'; remove it from "
        "new.jsonl\ndata/en.dev.jsonl:2 leaks from new.jsonl:1: the same id, 'dev 1'; remove it "
        "from new.jsonl\n"
    )
    assert train_rows(small) == before


def test_a_row_that_makes_no_example_is_refused(call: Call, small: Small) -> None:
    before = train_rows(small)
    file = new_rows(small, {"text": "neu", "label": "goood"})
    code, _, err = call("update", "de", "--append", file)
    assert code == 2
    assert err == (
        "koinize: new.jsonl:1 the column 'label' holds 'goood', which is no label of the task; "
        "expected one of: good, bad; did you mean 'good'?\n"
    )
    assert train_rows(small) == before


def test_only_lines_can_be_added_to(call: Call, small: Small) -> None:
    (small.root / "data" / "de.train.csv").write_text("text,label\na,good\nb,bad\n")
    (small.root / "data" / "de.dev.csv").write_text("text,label\nc,good\n")
    (small.root / "data" / "de.test.csv").write_text("text,label\nd,good\n")
    assert call("update", "de", "data/de.{split}.csv")[0] == 0
    file = new_rows(small, {"text": "neu", "label": "good"})
    assert call("update", "de", "--append", file) == (
        2,
        "",
        "koinize: data/de.train.csv rows can only be added to a .jsonl file in UTF-8 with "
        "one object per line; change it there; "
        "`koinize plan` sees that by itself\n",
    )
