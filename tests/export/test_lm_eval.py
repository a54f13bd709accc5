"""Tasks for lm-evaluation-harness: rows as the model reads them, koinize's scores, and commands."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from koinize.errors import InputError
from koinize.export import export_tasks, koinize_task
from koinize.metrics import metrics
from koinize.pipeline import Project
from koinize.pipeline.results import value
from koinize.release import Releases
from tests.pipeline.conftest import SPEC, Small
from tests.release.releasing import ONE_MERGE, finish, prepared
from tests.serving.conftest import kit  # noqa: F401 - a fixture

RELEASE = {
    **dict.fromkeys(("identity", "candidate", "adapter"), "a" * 64),
    **dict.fromkeys(("task", "channel", "created", "koinize", "system"), "x"),
    "languages": ["de"],
    "settings": {"base": {}, "evaluation": {}},
    "artifacts": {},
}


def of(root: Path, base: Path, spec: str = SPEC, **task: object) -> Project:
    """A project that nobody has run."""
    root.mkdir(exist_ok=True)
    small = Small(root)
    small.spec(spec.replace("{model: base}", f"{{model: {base}, dtype: float32}}"))
    return small.real()


def read(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


class Functions(yaml.SafeLoader):
    """`!function file.name` as the text that it is."""


Functions.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def test_a_task_is_a_file_for_each_language(kit, tmp_path):  # noqa: F811
    done = export_tasks(of(tmp_path / "p", kit / "base"), "mood", tmp_path / "out")
    written = yaml.load((tmp_path / "out" / "koinize_mood_de.yaml").read_text(), Functions)  # noqa: S506
    assert written["task"] == "koinize_mood_de"
    assert written["output_type"] == "multiple_choice"
    assert written["dataset_kwargs"] == {"file": "koinize_mood_de.jsonl"}
    functions = {written["custom_dataset"], written["process_results"]}
    functions |= {one["aggregation"] for one in written["metric_list"]} - {"mean"}
    for one in functions:
        module, _, name = one.partition(".")
        assert (tmp_path / "out" / f"{module}.py").is_file()
        assert callable(getattr(koinize_task, name))
    group = yaml.safe_load((tmp_path / "out" / "koinize_mood.yaml").read_text())
    assert (group["group"], group["task"]) == (
        "koinize_mood",
        ["koinize_mood_de", "koinize_mood_en"],
    )
    rows = read(tmp_path / "out", "koinize_mood_de")
    assert sorted(one["prompt"] for one in rows) == [f"de test {n} =" for n in range(3)]
    by_prompt = {one["prompt"]: one for one in rows}
    # A byte is a token here: a space and four letters, or three.
    assert by_prompt["de test 1 ="] == {
        "key": by_prompt["de test 1 ="]["key"],
        "prompt": "de test 1 =",
        "options": [" good", " bad"],
        "labels": ["good", "bad"],
        "lengths": [5, 4],
        "gold": 1,
        "normalize": "none",
    }
    assert (done.rows, done.otherwise) == (6, 0)
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == done.record()


def test_the_prompts_of_a_chat_are_as_its_template_has_them(kit, tmp_path):  # noqa: F811
    done = export_tasks(of(tmp_path / "p", kit / "chat"), "mood", tmp_path / "out")
    rows = read(tmp_path / "out", "koinize_mood_en")
    tokenizer = AutoTokenizer.from_pretrained(kit / "chat")
    for n in range(3):
        asked = [{"role": "user", "content": f"en test {n} ="}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert text in {one["prompt"] for one in rows}
    assert all(one["options"] == ["good", "bad"] for one in rows)
    assert done.otherwise == 0


def test_white_space_that_is_scored_with_every_option(kit, tmp_path):  # noqa: F811
    """lm-evaluation-harness takes it off the prompt: a sum does not mind, a mean does."""
    spec = SPEC.replace('"{text} ="', '"{text}\\n"')
    done = export_tasks(of(tmp_path / "p", kit / "base", spec), "mood", tmp_path / "out")
    assert done.otherwise == 0
    spec += "evaluation: {normalize: length}\n"
    done = export_tasks(of(tmp_path / "q", kit / "base", spec), "mood", tmp_path / "means")
    assert done.otherwise == done.rows == 6
    assert "6 of 6 rows are cut into other tokens there: scores may differ" in done.notes


def test_a_tokenizer_that_joins_a_prompt_with_its_answer(kit, tmp_path):  # noqa: F811
    base = shutil.copytree(kit / "base", tmp_path / "base")
    told = json.loads((base / "tokenizer.json").read_text())
    told["model"]["vocab"]["=+"] = size = len(told["model"]["vocab"])
    told["model"]["merges"].append(["=", "+"])
    (base / "tokenizer.json").write_text(json.dumps(told))
    labels = "    labels: [good, bad]\n"
    spec = SPEC.replace(labels, labels + '    verbalizers: {good: "+", bad: "-"}\n')
    done = export_tasks(of(tmp_path / "p", base, spec), "mood", tmp_path / "out")
    assert done.otherwise == 6
    assert f"the model has {size} tokens and its tokenizer {size + 1}: " in done.notes[-1]


GENERATE = """\
    kind: generate
    target: label
    max_new_tokens: 7
    stop: ["\\n", "|"]
"""


def test_a_text_that_is_written(kit, tmp_path):  # noqa: F811
    spec = SPEC.replace("    kind: classify\n    labels: [good, bad]\n", GENERATE)
    done = export_tasks(of(tmp_path / "p", kit / "base", spec), "mood", tmp_path / "out")
    written = yaml.load((tmp_path / "out" / "koinize_mood_en.yaml").read_text(), Functions)  # noqa: S506
    assert written["output_type"] == "generate_until"
    assert written["generation_kwargs"] == {
        "until": ["\n", "|"],
        "do_sample": False,
        "max_gen_toks": 7,
    }
    assert {one["target"] for one in read(tmp_path / "out", "koinize_mood_en")} == {"good", "bad"}
    assert "lm-evaluation-harness does not compute: rouge-l, rouge-1" in done.notes


LABELS = ("a", "b", "c")


def answered(rows: int) -> list[dict[str, object]]:
    """Random sums over three options; `c` is never right, and often the answer."""
    draw = random.Random(5)
    return [
        {
            "gold": draw.randrange(2),
            "labels": list(LABELS),
            "lengths": [draw.randint(1, 6) for _ in LABELS],
            "sums": [draw.uniform(-9, 0) for _ in LABELS],
            "normalize": "none",
        }
        for _ in range(rows)
    ]


def test_scores_of_options_are_those_of_koinize():
    docs = answered(60)
    results = [koinize_task.classify(one, [(it, False) for it in one["sums"]]) for one in docs]
    rows = [
        {
            "gold": LABELS[one["gold"]],
            "prediction": max(zip(one["sums"], LABELS, strict=True))[1],
            "scores": one["sums"],
            "lengths": one["lengths"],
            "labels": list(LABELS),
        }
        for one in docs
    ]
    for name in ("accuracy", "accuracy-normalized", "macro-f1", "precision", "recall"):
        items = [one[name.replace("-", "_")] for one in results]
        together = getattr(koinize_task, name.replace("-", "_"), None)
        found = together(items) if together else sum(items) / len(items)
        assert 100 * found == pytest.approx(value(metrics.get(name).over(LABELS), rows)), name


def test_options_by_the_mean_over_their_tokens():
    doc = {"gold": 1, "lengths": [1, 4], "labels": ["x", "y"], "normalize": "length"}
    assert koinize_task.classify(doc, [(-2.0, False), (-4.0, False)]) == {
        "accuracy": 1.0,
        "accuracy_normalized": 1.0,
        "macro_f1": ("y", "y"),
        "precision": ("y", "y"),
        "recall": ("y", "y"),
    }
    assert koinize_task.choose({**doc, "normalize": "none"}, [(-2.0, False), (-4.0, False)]) == {
        "accuracy": 0.0,
        "accuracy_normalized": 1.0,
    }


def test_scores_of_texts_are_those_of_koinize():
    pairs = [("ein guter Tag", " ein  guter Tag"), ("cafe\u0301", "caf\u00e9"), ("no", "yes, no")]
    results = [koinize_task.write({"target": right}, [said]) for right, said in pairs]
    rows = [{"reference": right, "prediction": said.strip()} for right, said in pairs]
    exact = sum(one["exact_match"] for one in results) / 3
    assert 100 * exact == pytest.approx(value(metrics.get("exact-match"), rows)) == 200 / 3
    together = koinize_task.chrf([one["chrf"] for one in results])
    assert 100 * together == pytest.approx(value(metrics.get("chrf"), rows), abs=1e-4)


@pytest.mark.slow
def test_every_system_has_its_commands(kit, tmp_path):  # noqa: F811
    small = prepared(tmp_path)
    small.spec(ONE_MERGE.replace("{model: base}", f"{{model: {kit / 'base'}, dtype: float32}}"))
    project = finish(small, {"de": 40}, merged=kit / "mine")
    done = export_tasks(project, "mood", tmp_path / "out")
    assert {"BASE", "COMB", "INDV", "knots-ties density 1"} <= done.commands.keys()
    base = f"pretrained={kit / 'base'},dtype=float32"
    assert [shlex.split(one) for one in done.commands["BASE"]] == [
        [
            *("lm_eval", "run", "--model", "hf", "--model_args", base),
            *("--include_path", str(tmp_path / "out"), "--tasks", "koinize_mood"),
        ]
    ]
    names = [shlex.split(one)[-1] for one in done.commands["INDV"]]
    assert sorted(names) == ["koinize_mood_de", "koinize_mood_en"]
    (merge,) = done.commands["knots-ties density 1"]
    folder = Path(shlex.split(merge)[5].partition("peft=")[2])
    assert (folder / "adapter_model.safetensors").read_bytes() == (
        kit / "mine" / "adapter_model.safetensors"
    ).read_bytes()
    assert done.scores["knots-ties density 1"] == {
        "de": {"accuracy": 90.0},
        "en": {"accuracy": 100.0},
    }


def test_a_broken_release_is_left_out_and_the_others_are_not(kit, tmp_path):  # noqa: F811
    project = of(tmp_path / "p", kit / "base")
    releases = Releases(project.home, "mood")
    for version in (1, 2):
        record = {**RELEASE, "version": version}
        releases.add(version, record, lambda folder: (folder / "a.txt").write_text("a"))
    file = releases.folder / "v1" / "a.txt"
    file.chmod(0o644)
    file.write_text("b")
    done = export_tasks(project, "mood", tmp_path / "out")
    assert list(done.commands) == ["BASE", "release v2"]
    (said,) = [one for one in done.notes if one.startswith("left out: ")]
    assert "release v1 is broken: its file a.txt is missing or has changed" in said
    assert "restore that folder from a copy" in said
    assert said in json.loads((tmp_path / "out" / "export.json").read_text())["notes"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("{epochs: 2}", "{epochs: 2}\nevaluation: {normalize: pmi}", "evaluation.normalize 'pmi'"),
        ("{model: base}", "{model: 'a,b'}", "has a comma"),
    ],
)
def test_what_it_cannot_have(kit, tmp_path, before, after, said):  # noqa: F811
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a,b").symlink_to(kit / "base")
    with pytest.raises(InputError) as caught:
        export_tasks(
            of(tmp_path / "p", kit / "base", SPEC.replace(before, after)), "mood", tmp_path / "out"
        )
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_exists_stays(kit, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="exists already"):
        export_tasks(of(tmp_path / "p", kit / "base"), "mood", tmp_path / "p")
