"""Metrics that need a model, from koinize.yaml to a release: judged once, in steps of their own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from koinize.api.reporting import report_results
from koinize.data import read_rows
from koinize.errors import InputError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.ledger import LOAD
from koinize.metrics import metrics
from koinize.model.judge import JudgeSpec, load_reader
from koinize.pipeline.report_input import gather
from koinize.pipeline.results import Results, value
from koinize.pipeline.whatif import Question, inquire
from koinize.release import Releases, promote
from koinize.report.results import results
from koinize.tracking.rows import answers
from tests.judges import write_names_judge, write_overlap_judge
from tests.oracle.report import disagreements
from tests.pipeline.conftest import Small
from tests.pipeline.test_run import Recorder

NLI = ("entailment", "not_entailment")
SPEC = """\
koinize: 1
name: judged
base: {model: base, dtype: float32}
languages: [de, en]
tasks:
  sum:
    kind: generate
    prompt: "{text} ="
    target: label
    max_new_tokens: 4
    metrics: [METRICS]
lora: {r: 2, alpha: 4}
training: {epochs: 1, learning_rate: 2.0e-2, batch_size: 4, max_length: 128}
merge: {candidates: [ties, mean]}
baselines: [base]
margins: {bert-score: 50}
judges:
  bert-score: {model: other, layer: 2}
  not-hallucinated: {model: nli, false_alarm: 0.4}
  entity-precision: {model: ner}
machine: {executor: inline}
"""
JUDGED = SPEC.replace("METRICS", "bert-score, rouge-l")
SET = SPEC.replace("METRICS", "bert-score, rouge-l, not-hallucinated, entity-precision")
"""With a metric whose judge is set on the references of dev: two in each language."""


def written(root: Path, spec: str = JUDGED) -> Small:
    small = Small(root)
    small.spec(spec)
    return small


def run(small: Small) -> Recorder:
    watcher = Recorder()
    _, outcome = small.real().run(watcher, lambda _: None)
    assert outcome.failed == {}
    return watcher


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged") / "project"
    root.mkdir()
    small = written(root, SET)
    write_tiny_base(root / "base")
    write_tiny_base(root / "other", 5)
    write_overlap_judge(root / "nli", ["good", "bad", "de", "en"], NLI)
    write_names_judge(root / "ner", ["good", "bad"], ["good"], ["O", "PER"])
    run(small)
    return root


@pytest.fixture
def small(finished: Path, tmp_path: Path) -> Small:
    """A copy that a test may change."""
    found = object.__new__(Small)
    found.root = Path(shutil.copytree(finished, tmp_path / "project"))
    return found


@pytest.mark.slow
def test_scores_are_the_judges_and_no_reader_loads_it(small, monkeypatch):
    project = small.real()
    reader = load_reader(small.root / "other", JudgeSpec(model="other", layer=2), "AutoModel")
    metric, spec = metrics.get("bert-score"), JudgeSpec(model="other", layer=2)
    monkeypatch.setattr("koinize.model.judge.load_reader", None)
    shown = results(gather(project))["tasks"][0]
    task = Results(project, "sum")
    for (system, language, split), step in task.evaluations.items():
        rows = task.rows(step)
        expected = 100 * sum(metric.judged(reader, spec, rows)) / len(rows)
        (found,) = (
            row
            for row in shown["scores"]
            if (row["system"], row["language"], row["split"], row["metric"])
            == (system.title, language, split, "bert-score")
        )
        assert found["value"] == pytest.approx(expected, abs=1e-3)
        assert found["signature"].startswith(
            f"bert-score|judge:{project.judging.judges['bert-score'][:12]}|"
        )
    dev = {
        system.title: [
            value(task.metric, task.rows(step)) for step in task.of_split(system, "dev").values()
        ]
        for system in task.choice().uses.candidates
    }
    assert task.chosen().title == max(dev, key=lambda one: sum(dev[one]))
    row = next(answers(task))
    assert set(row) >= {"bert-score", "rouge-l"}


@pytest.mark.slow
def test_a_second_metric_is_judged_without_training_or_answering_again(small):
    assert small.real().plan().missing == ()
    text = (small.root / "koinize.yaml").read_text()
    small.spec(text.replace("layer: 2", "layer: 1"))
    todo = small.real().plan()
    assert {one.step.kind for one in todo.missing} == {"judge", "select"}
    judged = next(one for one in todo.missing if one.step.split == "dev")
    assert judged.why == "judge.layer changed from 2 to 1"
    assert todo.wall.value > 0


@pytest.mark.slow
def test_its_loading_is_in_the_ledger_and_its_costs_are_counted(small):
    project = small.real()
    lines = project.intervals()
    judging = [one for one in lines if one.kind == "judge"]
    once = 2 * 2 + 2 * 3  # languages x (candidates on dev, systems on test)
    assert Counter(one.address.metric for one in judging) == {
        "bert-score": once,
        "entity-precision": once,
        "not-hallucinated": once + 2,  # and references
    }
    loads = {one.artifact for one in lines if one.kind == LOAD}
    assert loads & {one.artifact for one in judging}
    assert disagreements(project.home, report_results(project)) == []


@pytest.mark.slow
def test_a_question_and_a_release_are_judged_too(small):
    project = small.real()
    asked = inquire(project, "sum", [Question(without=("de",))])
    _, outcome = project.run(Recorder(), lambda _: None, asked.steps)
    assert outcome.failed == {}
    (answer,) = asked.answers()
    assert {effect.language for effect in answer.effects} == {"de", "en"}
    first = promote(project, "sum", "production", Recorder())
    assert first.switched
    release = Releases(project.home, "sum").open(1)
    kept = json.loads((release.folder / "evidence/rows/de.jsonl").read_text().splitlines()[0])
    assert kept["bert-score"]["judge"] == project.judging.judges["bert-score"]
    said = report_results(small.real())
    assert said["releases"][0]["scores"]
    assert disagreements(project.home, said) == []
    # Another adapter and another judge: the answers of the release in use are judged anew.
    small.rows("de", "train", ["other rows", "than before"])
    small.spec(SET.replace("layer: 2", "layer: 1"))
    run(small)
    watcher = Recorder()
    second = promote(small.real(), "sum", "production", watcher)
    named = [name for name, _ in watcher.ends]
    assert named == ["judge/sum/v1/de/test/bert-score", "judge/sum/v1/en/test/bert-score"]
    compared = {one.metric for one in second.judgement.comparisons}
    assert compared == {"bert-score", "rouge-l", "not-hallucinated", "entity-precision"}
    said = report_results(small.real())
    assert len(said["releases"]) == second.switched  # version 1 was judged by another
    assert disagreements(project.home, said) == []


@pytest.mark.slow
def test_a_judge_that_is_set_on_references_says_where_and_on_what(small, monkeypatch):
    project, metric = small.real(), metrics.get("not-hallucinated")
    spec = project.spec.judges["not-hallucinated"]
    reader = load_reader(small.root / "nli", spec, metric.architecture)
    monkeypatch.setattr("koinize.model.judge.load_reader", None)
    task, whole = Results(project, "sum"), results(gather(project))
    for language in ("de", "en"):
        examples = project.spec.tasks["sum"].examples(
            read_rows(f"data/{language}.dev.jsonl", small.root), language
        )
        gold = [
            {"key": one.key, "prompt": one.prompt.removesuffix(" =")}
            | {"reference": one.target, "prediction": one.target.strip()}
            for one in examples
        ]
        limit = min(metric.judged(reader, spec, gold))  # floor(3 x .4) = 1, the smallest of two
        (note,) = (one for one in whole["notes"] if f"not-hallucinated: in {language} " in one)
        assert note == (
            f"sum: not-hallucinated: in {language} a text is called hallucinated where nli gives "
            f"it a probability below {100 * limit:.3g} % of following from its prompt. The 2 "
            "references of dev set this limit: of texts as right as these, about 40 in 100 or "
            "fewer are called hallucinated by mistake; what 2 references tell with 95 % certainty "
            "is that it is no more than 78"  # 1 - sqrt(.05)
        )
        rows = task.rows(task.of_split(task.chosen(), "test")[language])
        bare = [{**row, "prompt": row["prompt"].removesuffix(" =")} for row in rows]
        found = [metric.passed(one, limit) for one in metric.judged(reader, spec, bare)]
        assert [row["not-hallucinated"]["score"] for row in rows] == found


def test_a_judge_that_is_set_on_references_is_another_one_where_they_change(tmp_path):
    small = written(tmp_path, SET.replace(", entity-precision]", "]"))
    for name in ("base", "other"):
        write_tiny_base(tmp_path / name)
    write_overlap_judge(tmp_path / "nli", ["good"], NLI)
    before = small.real().judging.of_task("sum")
    small.rows("de", "dev", ["other rows", "than before", "and more"])
    after = small.real().judging.of_task("sum")
    assert before["bert-score"] == after["bert-score"]
    ours, theirs = before["not-hallucinated"], after["not-hallucinated"]
    assert ours["en"] == theirs["en"] != ours["de"] != theirs["de"]
    metric = metrics.get("not-hallucinated")
    row = {"key": "1", "language": "de", metric.name: {"judge": ours["de"], "score": 1.0}}
    assert metric.has(row)
    assert metric.by(ours).has(row)
    assert not metric.by(theirs).has(row)
    assert not metric.by(ours).has({**row, "language": "en"})
    steps = [one for one in small.real().steps if one.kind == "judge"]
    assert {one.uses.references for one in steps if one.language == "de"} >= {theirs["de"]}


def test_who_asks_for_no_such_metric_has_the_steps_of_before(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = SPEC.replace("METRICS", "rouge-l").replace("margins: {bert-score: 50}\n", "")
    before, _, rest = plain.partition("judges:")
    without = before + rest[rest.index("machine:") :]
    ours = written(tmp_path / "a", plain).steps()
    before = written(tmp_path / "b", without).steps()
    assert {one: step.id for one, step in ours.items()} == {
        one: step.id for one, step in before.items()
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{model: other, layer: 2}", "{model: none/at/all, layer: 2}"), "no model 'none/at/all'"),
        (("layer: 2", "layer: 3"), "judges.bert-score: other has 2 layers, and not 3"),
        (("{model: other, layer: 2}", "{model: far/away, layer: 2}"), "set judges.bert-score.rev"),
    ],
)
def test_a_model_that_cannot_judge_is_refused_by_a_plan(tmp_path, change, said):
    small = written(tmp_path, JUDGED.replace(*change))
    write_tiny_base(tmp_path / "base")
    write_tiny_base(tmp_path / "other")
    with pytest.raises(InputError, match=said):
        small.real().plan()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("false_alarm: 0.4", "false_alarm: 0.3"), "sum: the 2 dev rows of de are too few for "
            "not-hallucinated: a false-alarm rate of 0.3 takes 3; give more, raise "
            "judges.not-hallucinated.false_alarm, or take the metric out"),
        (("model: nli", "model: other"), "judges.not-hallucinated: other classifies no texts; take "
            "a model of entailment (NLI)"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_on_references_is_refused_by_a_plan(tmp_path, change, said):
    small = written(tmp_path, SET.replace(", entity-precision]", "]").replace(*change))
    for name in ("base", "other"):
        write_tiny_base(tmp_path / name)
    write_overlap_judge(tmp_path / "nli", ["good"], NLI)
    with pytest.raises(InputError) as refused:
        small.real().plan()
    assert str(refused.value) == said


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    small = written(tmp_path)
    write_tiny_base(tmp_path / "base")
    write_tiny_base(tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "is_encoder_decoder": True}))
    with pytest.raises(InputError, match="is an encoder with a decoder"):
        small.real().plan()
