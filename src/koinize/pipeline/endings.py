"""Trainings whose dev loss rose: it is higher in the end than it was before their first step."""

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
                f"{step.name}: its dev loss rose to {after:.4g}, from {before:.4g} before its "
                "first step; fewer epochs, a lower learning rate or another seed may help"
            )
