"""How far a run is, where more is planned while it goes on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from koinize.cli.progress import Lines
from tests.pipeline.steps import step_named


def plan(*names: str) -> SimpleNamespace:
    return SimpleNamespace(
        missing=[SimpleNamespace(step=step_named(name), seconds=2.0) for name in names]
    )


def test_steps_that_follow_are_counted_with_those_that_are_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    lines.planned(plan("train/t/de", "train/t/en", "select/t"))
    lines.ended(step_named("train/t/de"), 1.0, "")
    lines.ended(step_named("train/t/en"), 1.0, "")
    lines.planned(plan("merge/t/mean", "select/t"))
    lines.ended(step_named("merge/t/mean"), 1.0, "")
    counts = [line.partition(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert counts == ["[1/3]", "[2/3]", "[3/4]"]
    assert lines.expected == 8.0
