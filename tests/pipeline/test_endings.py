"""Trainings whose dev loss rose are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinize.pipeline.endings import bad_ends
from tests.pipeline.conftest import Small


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"dev_losses": [1.5, 1.0], "dev_loss_before": 1.0, "kept_epoch": 2}, ""),  # no worse
        ({"dev_losses": [1.5, 2.0], "dev_loss_before": 1.75, "kept_epoch": 2}, "2, from 1.75"),
        ({"dev_losses": [1.5, 2.0], "dev_loss_before": 1.75, "kept_epoch": 1}, ""),
        ({"dev_losses": [], "dev_loss_before": None, "kept_epoch": 2}, ""),
        ({"dev_losses": [2.0], "kept_epoch": 1}, ""),  # of an older koinize
    ],
)
def test_a_dev_loss_above_the_one_before_the_first_step(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: dict, said: str
) -> None:
    project = small.project(monkeypatch)
    step = next(one for one in project.steps if one.name == "train/mood/de")
    with project.store.building(step.id, step.name, step.identity) as draft:
        draft.facts.update(facts)
    expected = (
        f"train/mood/de: its dev loss rose to {said} before its first step; fewer epochs, a lower "
        "learning rate or another seed may help"
    )
    assert list(bad_ends(project)) == ([expected] if said else [])
    assert list(bad_ends(project, ["train/mood/en"])) == []
