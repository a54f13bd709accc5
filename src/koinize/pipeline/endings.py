"""Trainings that ended badly: with a higher dev loss than the one before their first step."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from koinize.pipeline.project import Project


def bad_ends(project: Project, names: Collection[str] | None = None) -> Iterator[str]:
    """What is to be said of them: of these steps, or of all that there are."""
    trained = {step.id: step for step in reversed(project.steps) if step.kind == "train"}
    for one, step in sorted(trained.items(), key=lambda pair: pair[1].name):
        manifest = project.store.manifest(one)
        if manifest is None or (names is not None and step.name not in names):
            continue
        losses, before = manifest.facts.get("dev_losses"), manifest.facts.get("dev_loss_before")
        if not losses or before is None:
            continue
        after = losses[manifest.facts["kept_epoch"] - 1]
        if after > before:
            yield (
                f"{step.name} ended badly: its dev loss is {after:.4g}, and was {before:.4g} "
                "before its first step; try another seed or a lower learning rate"
            )
