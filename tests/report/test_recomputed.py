"""The figures of a report, against an oracle that reads the raw rows, ledger and manifests."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from koinize.metrics import metrics
from koinize.pipeline import Project
from koinize.pipeline.report_input import gather
from koinize.report import results
from tests.oracle.report import disagreements
from tests.oracle.texts import MEANS
from tests.oracle.verdicts import METRICS
from tests.reliability.arena import Arena
from tests.reliability.conftest import write_project

FORMER = sorted((Path(__file__).parents[1] / "pipeline" / "projects").glob("*.tar.xz"))


@pytest.mark.slow
@pytest.mark.parametrize("archive", FORMER, ids=[one.name for one in FORMER])
def test_a_project_of_a_former_version(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    said = results(gather(Project.at(folder / "koinize.yaml")))
    assert disagreements(folder / ".koinize", said) == []


def edit(root: Path, language: str) -> None:
    """One row more to train on."""
    rows = root / "data" / f"{language}.train.jsonl"
    line = rows.read_text(encoding="utf-8").splitlines()[0]
    with rows.open("a", encoding="utf-8") as file:
        file.write(line.replace('"text": "', '"text": "more ') + "\n")


def said_by(arena: Arena, root: Path) -> dict[str, Any]:
    ended = arena.koinize("report", "--json", cwd=root)
    assert ended.code == 0, ended.output
    said: dict[str, Any] = json.loads(ended.output)
    return said


@pytest.mark.slow
def test_set_up_and_updates_of_every_language(fake: Arena, tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_project(root)
    with (root / "koinize.yaml").open("a", encoding="utf-8") as file:
        file.write('price: {per_hour: "0.36", source: an assumption, date: 2026-01-01}\n')
    assert fake.koinize("run", cwd=root).code == 0
    for language in ("de", "en"):
        edit(root, language)
        assert fake.koinize("run", cwd=root).code == 0
    assert fake.koinize("run", "--retrain-comb", cwd=root).code == 0
    said = said_by(fake, root)
    assert disagreements(root / ".koinize", said) == []
    assert len(said["costs"]["runs"]) == 4


def test_every_metric_is_written_down_in_the_oracle() -> None:
    assert set(METRICS) == set(metrics.names())


WRITTEN = (
    ("pt-BR", "A cafeteira chegou ontem e funciona muito bem, obrigado pela entrega rápida."),
    ("nb", "Kaffetrakteren kom i går og virker veldig bra, takk for rask levering hjem til meg."),
    ("nb", "Die Kaffeemaschine kam gestern an und funktioniert sehr gut, vielen Dank dafür."),
    ("yue", "咖啡机昨天到了，用起来非常好，谢谢你们这么快就送到我家里来。"),
    ("ja", "The coffee machine arrived yesterday and works very well, thank you for it."),
    ("de", "X-200"),
)


@pytest.mark.slow
def test_the_language_of_a_text_is_the_same_for_both() -> None:
    metric = metrics.get("output-language")
    rows = [{"language": one, "reference": "", "prediction": text} for one, text in WRITTEN]
    ours = [metric.statistics([row])[0, 0] for row in rows]
    assert ours == [MEANS["output-language"](row) for row in rows] == [1, 1, 0, 1, 0, 1]


@pytest.mark.slow
def test_a_figure_that_nobody_recomputes_is_found(fake: Arena, tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_project(root)
    assert fake.koinize("run", cwd=root).code == 0
    said = said_by(fake, root)
    said["tasks"][0]["costs"]["luck"] = 7
    said["tasks"][0]["scores"][0]["value"] += 0.001
    wrong = disagreements(root / ".koinize", said)
    assert len(wrong) == 2
    assert "costs/luck: 7 and not 'nothing'" in wrong[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["choices", "trunk", "texts", "part", "seeds", "search", "across"])
def test_a_project_that_is_really_trained(kind: str, real: Arena, tmp_path: Path) -> None:
    change, runs = KINDS[kind]
    assert real.koinize("init", "--example", "tiny", "project", cwd=tmp_path).code == 0
    root = tmp_path / "project"
    shutil.copytree(root / "data", root / "sign")  # of a second task
    spec = root / "koinize.yaml"
    spec.write_text(change(spec.read_text()))
    for again in range(runs):
        if again:
            edit(root, "ja")
        assert real.koinize("run", cwd=root).code == 0
        if kind == "trunk":
            assert real.koinize("promote", "--no-score", cwd=root).code == 0
        said = said_by(real, root)
        assert disagreements(root / ".koinize", said) == []
        spent = [one["machine_seconds"] for one in said["costs"]["breakdown"]]
        ran = [one["machine_seconds"] + one["idle_seconds"] for one in said["costs"]["runs"]]
        assert sum(spent) == pytest.approx(sum(ran))  # each second in one bar
        if kind == "seeds":
            assert any(len(one["by_seed"]) == 2 for one in said["tasks"][0]["pooled"])
            report = real.koinize("report", cwd=root).output
            assert "ties density 1 (one seed)" in report
            assert "INDV (one seed)" not in report
        if kind in ("choices", "seeds"):
            assert any("is kept from the choice" in one for one in said["notes"]) == bool(again)
        if kind == "choices":
            found = [s for s in said["tasks"][0]["scores"] if s["metric"] == "label-language"]
            assert min(one["value"] for one in found) < 100
        if kind == "trunk":
            assert len(said["releases"][0]["releases"]) == again + 1


INLINE = "machine: {executor: inline}\n"


def with_a_trunk(spec: str) -> str:
    """As the reviews have it: one merge, and COMB is the trunk."""
    spec = spec[: spec.index("\nmerge:\n")] + f"\nmargins: {{macro-f1: 90}}\n{INLINE}"
    spec = spec.replace("kind: classify", "kind: classify\n    free: true")
    return spec.replace("max_length: 128", "max_length: 128, trunk: joint")


def with_a_part(spec: str) -> str:
    """A trunk on some of the rows, and nobody trained COMB; PAPER has the candidates' names."""
    spec = spec[: spec.index("\nmerge:\n")] + f"\nbaselines: [base, paper]\n{INLINE}"
    return spec.replace("max_length: 128", "max_length: 128, trunk: 0.4")


def with_seeds(spec: str) -> str:
    """The comparison is made twice; one candidate is kept from the choice among two."""
    return spec.replace("training: {", "training: {seeds: 2, ") + INLINE


def searching(spec: str) -> str:
    """Scales are looked for on dev, again after an update, by rows whose sums do not decide."""
    spec = f"{spec[: spec.index('merge:')]}merge: {{candidates: [ties], scale: search}}\n{INLINE}"
    metrics = "[accuracy-normalized, macro-f1]"
    spec = spec.replace("kind: classify", f"kind: classify\n    metrics: {metrics}")
    return f"{spec}evaluation: {{normalize: pmi}}\n"


def sharing(spec: str) -> str:
    """Two tasks of two kinds, whose adapters are merged into one that serves both."""
    second = (
        "  sign:\n    kind: generate\n    data: sign/{language}.{split}.jsonl\n"
        "    target: label\n    max_new_tokens: 6\n    metrics: [rouge-1]\n"
        '    margins: {rouge-1: 20}\n    prompt: "{text} :"\nlora:'
    )
    spec = spec[: spec.index("merge:")].replace("lora:", second).replace("epochs: 4", "epochs: 2")
    merges = "candidates: [{recipe: mean, weights: [{sign: 2}, {ja: 3}]}, knots-ties]"
    return f"{spec}merge: {{across: [mood, sign], {merges}}}\nbaselines: [comb, mean]\n{INLINE}"


def writing(spec: str) -> str:
    """As a Debian summary has it."""
    spec = spec.replace(
        "kind: classify", "kind: generate\n    max_new_tokens: 6\n    target: label"
    )
    metrics = (
        "rouge-l, rouge-1, rouge-2, rouge-lsum, chrf, exact-match, number-precision, "
        "number-recall, not-empty, not-copied, not-repeated, output-language"
    )
    start = spec.index("    labels:")
    spec = f"{spec[:start]}    metrics: [{metrics}]\n{spec[spec.index('    prompt:') :]}"
    return f"{spec[: spec.index('merge:')]}merge: {{candidates: [ties]}}\n{INLINE}"


def answering(spec: str) -> str:
    """The model also writes to each test row, in signs that each language has of its own."""
    words = {"de": "+-", "en": "yn", "ja": "ox"}
    each = [f'{one}: {{good: "{good}\\n", bad: "{bad}\\n"}}' for one, (good, bad) in words.items()]
    spec = spec.replace("kind: classify", "kind: classify\n    free: true")
    return spec.replace('{good: "+", bad: "-"}', f"{{{', '.join(each)}}}")


KINDS = {
    "choices": (answering, 2),
    "trunk": (with_a_trunk, 2),
    "texts": (writing, 1),
    "part": (with_a_part, 1),
    "seeds": (with_seeds, 2),
    "search": (searching, 2),
    "across": (sharing, 2),
}
"""What of the example is another, and how often it is run: again after an edit."""
