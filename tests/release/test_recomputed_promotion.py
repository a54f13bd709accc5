"""What the gate decides, against an oracle that reads result rows, releases and the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.promotion import promotion
from tests.oracle.report import differences
from tests.reliability.arena import Arena
from tests.report.test_recomputed import INLINE, edit, said_by

WORDS = ("signature", "truth", "incumbent", "candidate", "prompt")
"""What of a verdict or of a lost row is no figure."""


def plain(said: Any) -> Any:
    """Without words in the rows of lists."""
    if isinstance(said, list):
        return [plain(one) for one in said]
    if isinstance(said, dict):
        words = WORDS if "language" in said else ()
        return {key: plain(one) for key, one in said.items() if key not in words}
    return said


def promoted(arena: Arena, root: Path) -> dict[str, Any]:
    """What is said of an attempt, which the oracle says, too."""
    ended = arena.koinize("promote", "--no-score", "--json", cwd=root)
    assert ended.code in (0, 3), ended.output
    json_begins = ended.output.index("{\n")  # what goes to standard error stands around it
    said: dict[str, Any] = json.JSONDecoder().raw_decode(ended.output, json_begins)[0]
    look = promotion(root / ".koinize", said_by(arena, root), "mood", said["incumbent"])
    if said["switched"]:
        evidence = root / said["folder"] / "evidence" / "evidence.json"
        spent, found = json.loads(evidence.read_text())["cost"], look.cost()
        assert float(spent["machine_seconds"]) == pytest.approx(float(found["machine_seconds"]))
        assert spent["wall_seconds"] == pytest.approx(float(found["wall_seconds"]))
        assert float(spent["money"]["USD"]) == pytest.approx(float(found["money"]), abs=5e-7)
        assert spent["intervals"] == found["intervals"]
    if said["incumbent"]:
        found = look.results()
        assert differences(plain({key: said[key] for key in found}), found) == []
    return said


def other_test_rows(path: Path) -> None:
    """One with another label, one more, and one less."""
    first, _, *rest = path.read_text(encoding="utf-8").splitlines()
    first = first.replace('"good"', '"bad"')
    lines = [first, *rest, '{"text": "test 77 gut gut", "label": "good"}']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_attempts_that_pass_and_that_do_not(real: Arena, tmp_path: Path) -> None:
    assert real.koinize("init", "--example", "tiny", "project", cwd=tmp_path).code == 0
    root = tmp_path / "project"
    spec = root / "koinize.yaml"
    text = spec.read_text()
    price = text[text.index("price:") :]
    merge = "merge: {candidates: [ties], mean_scales: [1.0, 1.5]}\nbaselines: [comb, mean]\n"
    text = f"{text[: text.index('merge:')]}{merge}{INLINE}{price}"
    spec.write_text(f"{text}margins: {{macro-f1: 75, accuracy: 75}}\n")
    passed = []
    for language in ("", "ja", "de", "en"):
        if language:
            edit(root, language)
        if language == "de":
            spec.write_text(f"{text}margins: {{macro-f1: 3}}\n")
        if language == "en":
            other_test_rows(root / "data" / "de.test.jsonl")
        assert real.koinize("run", cwd=root).code == 0
        passed.append(promoted(real, root))
    assert [one["passes"] for one in passed] == [True, True, False, False]
    assert [one["trial"] and one["trial"]["number"] for one in passed] == [None, 1, 1, 2]
    assert passed[-1]["rows"]["de"] == {"common": 16, "new": 1, "gone": 1, "changed": 1}
    assert passed[2]["lost"]
    assert passed[-1]["drift"]["anchor"] == 1
    again = promoted(real, root)
    assert again["trial"] == passed[-1]["trial"]  # the same test
