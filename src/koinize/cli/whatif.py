"""The command that asks what a merge would be without a language, or with another weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koinize.cli.options import PROJECT, AsJson, Place, SpecFile, TaskName, open_project, print_json

if TYPE_CHECKING:
    from koinize.pipeline import Plan
    from koinize.pipeline.whatif import Answer, Inquiry, Question

Without = Annotated[
    list[str] | None, typer.Option("--without", help="Leave this language out; repeatable.")
]
Weight = Annotated[list[str] | None, typer.Option("--weight", help="LANGUAGE=NUMBER; repeatable.")]
Each = Annotated[bool, typer.Option("--each", help="Leave out each language in turn.")]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Change this candidate, not the chosen one.")
]


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command(rich_help_panel=PROJECT)(whatif)


def whatif(
    without: Without = None,
    weight: Weight = None,
    each: Each = False,
    recipe: RecipeName = None,
    task: TaskName = None,
    place: Place = None,
    spec: SpecFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask what the merge would be without a language.

    Or with another weight for one. It is merged and scored on dev, without any training.
    """
    from koinize.pipeline.whatif import inquire, merged_languages
    from koinize.release import task_of

    project = open_project(place, spec)
    name = task_of(project, task) if each else ""
    every = merged_languages(project, name) if each else ()
    questions = _questions(without or [], weight or [], every)
    if not questions and not recipe:
        from koinize.errors import InputError

        raise InputError(
            "nothing is asked", expected="--without LANGUAGE, --weight LANGUAGE=NUMBER or --each"
        )
    inquiry = inquire(project, task_of(project, task), questions, recipe)
    todo = _run(inquiry, quiet=as_json)
    answers = inquiry.answers()
    if as_json:
        print_json(_json(inquiry, answers, todo))
    else:
        typer.echo("\n".join(_matrix(inquiry, answers) if each else _tables(inquiry, answers)))


def _questions(
    without: Sequence[str], weights: Sequence[str], languages: Sequence[str]
) -> list[Question]:
    from koinize.errors import InputError
    from koinize.pipeline.whatif import Question, leave_one_out

    if languages:
        if without or weights:
            raise InputError("--each leaves out one language after the other; give it alone")
        return leave_one_out(languages)
    if not without and not weights:
        return []
    pairs: dict[str, float] = {}
    for language, weight in map(_weight, weights):
        if language in pairs:
            expected = "each once, as --weight LANGUAGE=NUMBER"
            raise InputError(f"'{language}' is given twice", expected=expected)
        pairs[language] = weight
    return [Question(tuple(sorted(set(without))), pairs)]


def _weight(text: str) -> tuple[str, float]:
    from koinize.errors import InputError

    language, _, number = text.partition("=")
    try:
        return language, float(number)
    except ValueError:
        expected = "LANGUAGE=NUMBER, such as ja=2"
        raise InputError(f"--weight '{text}' has no number", expected=expected) from None


def _run(inquiry: Inquiry, *, quiet: bool) -> Plan:
    """Say what it will take, and do what is missing."""
    from koinize.cli.plan_view import estimate
    from koinize.cli.progress import watching
    from koinize.errors import StepError

    def announce(todo: Plan) -> None:
        if not quiet:
            typer.echo(f"{len(todo.missing)} steps and no training: {estimate(todo)}")

    project = inquiry.results.project
    todo = project.plan(asked=inquiry.steps)
    if not todo.missing:
        return todo
    with watching(quiet=quiet) as watcher:
        todo, outcome = project.run(watcher, announce, inquiry.steps)
    if outcome.failed:
        raise StepError("\n".join(outcome.failed.values()))
    return todo


def _tables(inquiry: Inquiry, answers: Sequence[Answer]) -> Iterator[str]:
    """Per question: every language before and after."""
    from koinize.release.text import aligned

    against = f"{inquiry.chosen.title}, the merge chosen on dev"
    for answer in answers:
        yield f"{inquiry.results.task}: {inquiry.subject.title}, {answer.variant.question.name}"
        yield f"{inquiry.metric.name} on dev in points, against {against}"
        head = ["language", "", "now", "then", "change", "95 % interval", "rows", "verdict"]
        rows = [
            [
                one.language,
                "left out" if one.left_out else "",
                f"{one.before:.2f}",
                f"{one.after:.2f}",
                f"{one.change.difference:+.2f}",
                f"{one.change.low:+.2f} to {one.change.high:+.2f}",
                str(one.change.n),
                one.change.verdict,
            ]
            for one in answer.effects
        ]
        mean = answer.mean
        span = f"{mean.low:+.2f} to {mean.high:+.2f}"
        rows.append([_mean_of(answer), "", "", "", f"{mean.value:+.2f}", span, str(mean.n), ""])
        yield from (f"  {line}" for line in aligned(head, rows))


def _mean_of(answer: Answer) -> str:
    return "mean of the others" if answer.variant.question.without else "mean"


def _matrix(inquiry: Inquiry, answers: Sequence[Answer]) -> Iterator[str]:
    """Who hurts whom: a row for each language left out, a column for each language scored."""
    from koinize.release.text import aligned

    languages = list(inquiry.reference)
    yield f"{inquiry.results.task}: {inquiry.subject.title}, each language left out in turn"
    yield (
        f"{inquiry.metric.name} on dev: change in points against {inquiry.chosen.title}, the merge "
        "chosen on dev"
    )
    rows = [
        [
            ", ".join(answer.variant.question.without) or "none",
            "",
            *(_cell(one.change.difference, one.change, out=one.left_out) for one in answer.effects),
            _cell(answer.mean.value, answer.mean, out=False),
        ]
        for answer in answers
    ]
    rows.append(["rows", "", *(str(one.change.n) for one in answers[0].effects), ""])
    head = ["left out", "", *languages, "mean of the others"]
    yield from (f"  {line}" for line in aligned(head, rows))
    yield "+ without it, that language gains: it hurts there; * the 95 % interval excludes 0"
    yield "() the language itself is left out"


def _cell(value: float, span: Any, *, out: bool) -> str:  # noqa: ANN401 - whatever has low and high
    star = "*" if span.low > 0 or span.high < 0 else " "
    return f"({value:+.2f}{star})" if out else f"{value:+.2f}{star} "


def _json(inquiry: Inquiry, answers: Sequence[Answer], todo: Plan) -> dict[str, Any]:
    from koinize.cli.plan_view import plan_json

    return {
        "task": inquiry.results.task,
        "metric": inquiry.metric.name,
        "split": "dev",
        "changed": inquiry.subject.title,
        "compared_with": inquiry.chosen.title,
        "answers": [_answer_json(one) for one in answers],
        "done": plan_json(todo, inquiry.results.project),
    }


def _answer_json(answer: Answer) -> dict[str, Any]:
    variant = answer.variant
    return {
        "question": variant.question.name,
        "without": list(variant.question.without),
        "weights": dict(variant.question.weights),
        "merge": variant.merge.id,
        "languages": [
            {
                "language": one.language,
                "left_out": one.left_out,
                "before": one.before,
                "after": one.after,
                **one.change.to_dict(),
            }
            for one in answer.effects
        ],
        "mean": {key: getattr(answer.mean, key) for key in ("value", "low", "high", "n")},
    }
