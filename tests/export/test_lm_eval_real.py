"""lm-evaluation-harness itself, on what is exported for it: the scores are those of koinize.

It runs in this Python where it is installed, else in the one that KOINIZE_LM_EVAL_PYTHON names,
which has transformers and PEFT, too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from koinize.evaluate import evaluate
from koinize.export import export_tasks
from koinize.model.loaded import load_model
from koinize.pipeline import Project
from koinize.pipeline.inputs import examples_of
from koinize.pipeline.results import Results, value
from tests.pipeline.conftest import Small
from tests.release.releasing import Quiet
from tests.serving.lying import write_base

PYTHON = os.environ.get("KOINIZE_LM_EVAL_PYTHON") or (
    sys.executable if importlib.util.find_spec("lm_eval") else ""
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="no lm-evaluation-harness: name its Python in KOINIZE_LM_EVAL_PYTHON"
    ),
]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """What loading a model tells the libraries ends with the test."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")


def run(command: str, folder: Path) -> dict[str, dict[str, float]]:
    """Runs a printed command; points by task and metric, without intervals."""
    words = shlex.split(command)
    assert words[0] == "lm_eval"
    here = ["--device", "cpu", "--output_path", str(folder)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    env |= {"HF_HOME": str(folder / "cache")}
    done = subprocess.run(
        [PYTHON, "-m", *words, *here], env=env, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = folder.rglob("results_*.json")
    found = json.loads(file.read_text())["results"]
    return {
        name.removeprefix("koinize_"): {
            metric.removesuffix(",none"): 100 * points
            for metric, points in one.items()
            if metric.endswith(",none") and "_stderr" not in metric
        }
        for name, one in found.items()
    }


def test_the_tiny_example(tmp_path):
    """A merge and a language's own adapter, trained and scored by koinize."""
    from koinize.examples import tiny

    tiny.write(tmp_path)
    project = Project.at(tmp_path / "koinize.yaml")
    project.run(Quiet(), lambda _: None)
    done = export_tasks(project, "mood", tmp_path / "out")
    assert done.otherwise == 0
    merge = Results(project, "mood").chosen().title
    (tmp_path / "merge").mkdir()
    (command,) = done.commands[merge]
    found = run(command, tmp_path / "merge")
    for language, scores in done.scores[merge].items():
        theirs = found[f"mood_{language}"]
        assert {name.replace("-", "_") for name in scores} <= theirs.keys()
        for name, points in scores.items():
            assert theirs[name.replace("-", "_")] == pytest.approx(points, abs=1e-9), language
    mean = sum(one["macro-f1"] for one in done.scores[merge].values()) / 3
    assert found["mood"]["macro_f1"] == pytest.approx(mean, abs=1e-9)
    (tmp_path / "own").mkdir()
    own = next(one for one in done.commands["INDV"] if one.endswith("koinize_mood_de"))
    theirs = run(own, tmp_path / "own")["mood_de"]
    assert theirs["macro_f1"] == pytest.approx(done.scores["INDV"]["de"]["macro-f1"], abs=1e-9)


SPEC = """\
koinize: 1
name: chat
base: {model: base, dtype: float32}
languages: [en]
tasks:
  pick:
    kind: choose
    data: "data/pick.{language}.{split}.jsonl"
    prompt: "{text}\\n{options}\\nAnswer:"
  said:
    kind: generate
    data: "data/said.{language}.{split}.jsonl"
    prompt: "{text}"
    max_new_tokens: 8
    stop: ["q", "\\n"]
    metrics: [exact-match, chrf]
"""


def test_options_and_texts_of_a_chat_model(tmp_path):
    """The bare base model, whose own texts are the references of every other row."""
    small = Small(tmp_path)
    small.spec(SPEC)
    loaded = load_model(write_base(tmp_path / "base", chat=True), "float32")
    texts = [f"row {n} of {n * n}" for n in range(24)]
    picks = [{"text": one, "options": ["yes", "no way", "who"], "answer": n % 3}
             for n, one in enumerate(texts)]  # fmt: skip
    written = [{"text": one, "target": "nothing like it"} for one in texts]
    for split in ("train", "dev", "test"):
        small_rows(tmp_path / "data" / f"pick.en.{split}.jsonl", picks, split)
        small_rows(tmp_path / "data" / f"said.en.{split}.jsonl", written, split)
    first = {one["prompt"]: one["prediction"] for one in rows_of(small.real(), "said", loaded)}
    for n, one in enumerate(written):
        said = first[f"test {one['text']}"]
        one["target"] = said if n % 2 and said else one["target"]
    small_rows(tmp_path / "data" / "said.en.test.jsonl", written, "test")
    project = small.real()
    for name, several in (("pick", ["accuracy"]), ("said", ["exact-match", "chrf"])):
        done = export_tasks(project, name, tmp_path / f"{name}-out")
        (tmp_path / name).mkdir()
        found = run(done.commands["BASE"][0], tmp_path / name)[f"{name}_en"]
        rows = rows_of(project, name, loaded)
        for one in several:
            ours = value(Results(project, name).metrics[one], rows)
            assert 0 < ours < 100
            assert found[one.replace("-", "_")] == pytest.approx(ours, abs=1e-4), one


def small_rows(path: Path, rows: list[dict[str, object]], split: str) -> None:
    """Rows that stand in one split only."""
    lines = [json.dumps({**one, "text": f"{split} {one['text']}"}) for one in rows]
    path.write_text("\n".join(lines) + "\n")


def rows_of(project: Project, task: str, loaded: object) -> list[dict[str, object]]:
    definition = project.spec.tasks[task]
    examples = examples_of(definition, project.root, "en", "test", None, is_chat=True)
    settings = definition.evaluation(project.spec.evaluation, "test")
    return evaluate(loaded, examples, definition.mode, settings)
