"""The model card of a release for a hub: what a stranger has to know before using the adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from pydantic import ValidationError

from koinize.data.hub import SOURCE
from koinize.errors import InputError
from koinize.export.source import Source
from koinize.model.base import is_hub_id
from koinize.release.promotion import CARD, EVIDENCE
from koinize.report.formats import duration
from koinize.shown import code, json_text, markdown
from koinize.spec.shape import LICENCE

FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
OWN = ("trainer", "trunk")  # settings that may hold a command or a path of somebody's machine
TASKS = {
    "classify": "text-classification",
    "choose": "multiple-choice",
    "generate": "text-generation",
}
"""The kind of a task as the hub calls it."""


def licence_of(source: Source, given: str | None) -> str:
    """The licence of the adapter: the given one, or that of koinize.yaml. Raises InputError."""
    found = given or source.project.spec.license
    if found is None:
        raise InputError(
            "the model card has no licence",
            expected="`license: apache-2.0`, or another, in koinize.yaml, or --license",
            remedy="see what the licence of the base model and of the data allows",
        )
    if not re.search(LICENCE, found):
        raise InputError(
            f"the licence '{found}' is no name that a hub knows", expected="such as apache-2.0"
        )
    return found


def base_of(source: Source, given: str | None) -> str:
    """The hub's name of the base model. Raises InputError for a folder, a file or a package."""
    found = given or source.base.model
    try:
        validate_repo_id(found)
        known = given is not None or is_hub_id(source.base, source.project.root)
    except HFValidationError:
        known = False
    if not known:
        raise InputError(
            f"the base model '{found}' has no place on a hub that a card could name",
            expected="--base-model with its name there, such as google/gemma-3-270m",
        )
    return found


def model_card(source: Source, licence: str, base: str) -> str:
    """README.md: what a hub reads, scores, recipe, rows, costs and limits, and the merge's card."""
    said, evidence = source.release.record, source.release.read_json(EVIDENCE)
    languages = [str(one) for one in said["languages"]]
    settings = said["settings"]
    data = ModelCardData(
        base_model=base,
        language=sorted({re.split("[-_]", one)[0].lower() for one in languages}),
        library_name="peft",
        license=licence,
        model_name=f"{source.project.spec.name}-{source.task}",
        pipeline_tag="text-generation",
        tags=["koinize", "lora", *(["merge"] if settings.get("merge") else [])],
        eval_results=list(_results(source, evidence)),
        base_model_relation="adapter",
    )
    kept = FRONT.sub("", (source.release.folder / CARD).read_text(encoding="utf-8"))
    lines = [
        *("---", data.to_yaml(), "---", ""),
        f"# {markdown(source.project.spec.name)}: {markdown(source.task)}, {source.release.name}",
        "",
        f"One LoRA adapter of `{base}` for {', '.join(languages)}: {code(str(said['system']))}, "
        f"made and tested with koinize {said['koinize']}.",
        "",
        *("## Scores", "", *_scores(evidence), ""),
        *("## How it was made", "", *_recipe(settings, evidence), ""),
        *("## What it took", "", *_cost(evidence["cost"]), ""),
        *("## Limits", "", *_limits(evidence), ""),
        *("## The adapter and the release", "", kept.lstrip("\n")),
    ]
    return "\n".join(lines)


def _results(source: Source, evidence: Mapping[str, Any]) -> Iterator[EvalResult]:
    """Every score, by language, with its interval."""
    kind = source.release.record["settings"].get("task", {}).get("kind")
    for one in evidence["scores"]:
        place = SOURCE.fullmatch(_rows(source, one["language"]))
        yield EvalResult(
            task_type=TASKS.get(kind, "text-generation"),
            task_name=source.task,
            dataset_type=place["path"] if place else f"{source.project.spec.name}-{source.task}",
            dataset_name=f"{source.task} in {one['language']}",
            dataset_config=one["language"],
            dataset_split="test",
            dataset_revision=place["revision"] if place else None,
            metric_type=one["metric"],
            metric_name=one["metric"],
            metric_value=round(one["value"], 4),
            metric_args={
                "low": round(one["low"], 4),
                "high": round(one["high"], 4),
                "rows": one["n"],
                "signature": one["signature"],
            },
        )


def benchmark_results(source: Source, tasks: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the hub has under `.eval_results/`: of each of these languages (language -> the name
    that the benchmark, the hub's dataset of its test rows, gives to that task) the first metric.

    Format: https://huggingface.co/docs/hub/eval-results. Raises InputError for a language that was
    not tested, and for rows that are not from the hub.
    """
    first: dict[str, Mapping[str, Any]] = {}
    for one in source.release.read_json(EVIDENCE)["scores"]:
        first.setdefault(str(one["language"]), one)
    found = []
    for language, task in tasks.items():
        if language not in first:
            raise InputError(f"'{language}' was not tested", expected=f"one of {', '.join(first)}")
        place = SOURCE.fullmatch(_rows(source, language))
        if not place:
            raise InputError(
                f"the test rows of '{language}' are from no dataset of the hub, so they are no "
                "benchmark's",
                expected="a source such as hf:owner/name#test",
            )
        score, dataset = first[language], {"id": place["path"], "task_id": task}
        if place["revision"]:
            dataset["revision"] = place["revision"]
        low, high = (f"{score[end]:.2f}" for end in ("low", "high"))
        notes = f"{score['metric']} in {language}, {score['n']} rows, 95 % interval {low} to {high}"
        found.append({"dataset": dataset, "value": round(score["value"], 4), "notes": notes})
    return found


def _rows(source: Source, language: str) -> str:
    """Where the test rows stood when it was released; empty where that is not known any more."""
    now = source.project.spec.tasks.get(source.task)
    if now is None:
        return ""
    try:
        then = type(now).model_validate(source.release.record["settings"]["task"])
        return then.source(language, "test")
    except (InputError, ValidationError, KeyError):
        return ""


def _scores(evidence: Mapping[str, Any]) -> Iterator[str]:
    yield "On test, in points from 0 to 100, each with its 95 % bootstrap interval."
    yield from ("", "| language | metric | score | interval | rows |", "|---|---|---|---|---|")
    for one in evidence["scores"]:
        interval = f"{one['low']:.2f} to {one['high']:.2f}"
        yield (
            f"| {markdown(one['language'])} | {one['metric']} | {one['value']:.2f} | {interval} | "
            f"{one['n']} |"
        )


def _recipe(settings: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[str]:
    if data := evidence["data"]:
        yield from ("| rows | number | SHA-256 |", "|---|---|---|")
        for label, one in sorted(data.items()):
            yield f"| {markdown(label)} | {one['rows']} | `{one['digest']}` |"
        yield ""
    told = {key: dict(settings[key]) for key in ("lora", "training", "merge") if settings.get(key)}
    for key in OWN:
        told.get("training", {}).pop(key, None)
    yield from ("```json", json_text(told, indent=2), "```")


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    """What the ledger of the project says of all that the release stands on."""
    machine, wall = (
        duration(float(cost.get(f"{clock}_seconds", 0))) for clock in ("machine", "wall")
    )
    yield f"- Machine time: {machine}, in {wall} of wall time."
    for currency, amount in cost.get("money", {}).items():
        yield f"- Money: {currency} {amount}."
    if missing := cost.get("without_price"):
        yield f"- {missing} of {cost['intervals']} pieces of work had no price and are not in that."


def _limits(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What the figures do not say."""
    rows: dict[str, int] = {}
    for one in evidence["scores"]:
        rows[one["language"]] = int(one["n"])
    if rows:
        tested = ", ".join(f"{language} ({count} rows)" for language, count in rows.items())
        yield f"- Tested in {tested}, on this one task, and in no other language."
    yield (
        "- The scores are those of one prompt, one chat template and one way of decoding; others "
        "give others."
    )
    incumbent = evidence.get("gate", {}).get("incumbent")
    margins = evidence.get("margins", {})
    allowed = ", ".join(f"{value:g} points of {name}" for name, value in margins.items())
    if incumbent is None:
        yield "- It is the first release of its channel: it was compared with no other one."
    else:
        yield (
            f"- It was compared with release v{incumbent}. Margins, which a language may lose "
            f"unnoticed: {allowed}."
        )
    yield "- What the base model and the rows have of errors and biases, this may have, too."
    yield "- Training and test rows are not part of this repository."
