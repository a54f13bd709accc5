"""What an older koinize made, and how it is mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koinize.pipeline import project as projects
from koinize.release.doctor import examine, mend
from tests.pipeline.conftest import SPEC, Small
from tests.release.releasing import project_of

TEXTS = SPEC.replace("kind: classify", "kind: generate\n    target: label").replace(
    "    labels: [good, bad]\n", "    metrics: [exact-match, number-precision]\n"
)


@pytest.mark.slow
def test_evaluations_without_prompts_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """koinize 0.1.0 kept none, and its evaluations have the ids of today."""
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    small = Small(tmp_path)
    small.spec(TEXTS)
    project = project_of(small)
    old = [one for one in project.steps if one.kind == "evaluate" and one.language == "de"]
    for step in project.steps:
        if step.id in project.store.ids():
            continue
        with project.store.building(step.id, step.name, step.identity) as draft:
            row = {"key": "k", "language": "de", "reference": "a", "prediction": "a"}
            row |= {} if step in old else {"prompt": "b"}
            (draft.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    first, *more = dict.fromkeys(one.id for one in old)
    lacks = "its rows lack 'prompt', which number-precision reads"
    (found,) = [one for one in examine(small.root) if one.what == "evaluations"]
    assert (found.state, f"{lacks} and {len(more)} more; " in found.detail) == ("broken", True)
    done = mend(small.root)
    assert sum(one.endswith(f"{lacks}; `koinize run` makes it again") for one in done) == len(
        {first, *more}
    )
    missing = {one.step.id for one in project_of(small).plan().missing}
    assert missing == {first, *more}
    assert not [one for one in examine(small.root) if one.what == "evaluations"]
