"""The settings of a merge on the command line: every option is that of `MergeSettings`.

A mapping is said in several options, one for each of its entries.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from koinize.cli.words import NUMBERS, key_values, number_or_word
from koinize.errors import InputError
from koinize.files import parse_json
from koinize.merge.recipe import MergeSettings, merge_settings

RECIPE = "knots-ties"  # if none is named
WEIGHT_FORM = "LANGUAGE=NUMBER"
SET_FORM = "PATTERN:OPTION=VALUE"
GROUP_FORM = "LANGUAGE,LANGUAGE"
# Of an option that has a name of its own here: that name, and the form of each of its entries.
REPEATED = {
    "weights": ("--weight", WEIGHT_FORM),
    "groups": ("--group", GROUP_FORM),
    "overrides": ("--set", SET_FORM),
}


def taking_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every setting, before its others, instead of `**options`."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    first = [one for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    others = [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]

    @wraps(command)
    def taking(**given: Any) -> None:  # noqa: ANN401
        command(**given)

    whole = inspect.Signature([*first, *_settings_parameters(), *others])
    taking.__signature__ = whole  # type: ignore[attr-defined]
    return taking


def flag(name: str) -> str:
    """What an option of `MergeSettings` is called on the command line."""
    return REPEATED[name][0] if name in REPEATED else f"--{name}"


def settings_of(options: Mapping[str, Any]) -> MergeSettings:
    """The settings of what was given; None is what was not. Raises InputError or ManyErrors."""
    given = {name: value for name, value in options.items() if value is not None}
    if "weights" in given:
        pairs = key_values(given["weights"], WEIGHT_FORM)
        given["weights"] = {key: number_or_word(text) for key, text in pairs.items()}
    if "groups" in given:
        given["groups"] = [languages.split(",") for languages in given["groups"]]
    if "overrides" in given:
        given["overrides"] = _overrides(given["overrides"])
    if "rank" in given:
        given["rank"] = number_or_word(given["rank"])
    return merge_settings(**given)


def words_of(settings: MergeSettings) -> Iterator[str]:
    """The settings as they are typed, each that is no default."""
    for name, value in settings.given().items():
        if name == "weights":
            entries = [f"{language}={weight}" for language, weight in value.items()]
        elif name == "groups":
            entries = [",".join(group) for group in value]
        elif name == "overrides":
            entries = [
                f"{pattern}:{option}={json.dumps(one) if isinstance(one, dict) else one}"
                for pattern, options in value.items()
                for option, one in options.items()
            ]
        else:
            entries = [str(value)]
        for entry in entries:
            yield from (flag(name), entry)


def _settings_parameters() -> Iterator[inspect.Parameter]:
    for name, field in MergeSettings.model_fields.items():
        kind: Any = field.annotation if field.annotation in NUMBERS else str
        meaning = (field.description or "").replace("`", "")
        if name in REPEATED:
            kind, meaning = list[str], f"{REPEATED[name][1]}: {meaning}"
        meaning = meaning[:1].upper() + meaning[1:]
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=RECIPE if name == "recipe" else None,
            annotation=Annotated[kind | None, typer.Option(flag(name), help=f"{meaning}.")],
        )


def _overrides(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for place, text in key_values(given, SET_FORM).items():
        pattern, colon, option = place.rpartition(":")
        if not (pattern and colon and option):
            raise InputError(f"'{place}={text}' cannot be read", expected=SET_FORM)
        found.setdefault(pattern, {})[option] = _option_value(text)
    return found


def _option_value(text: str) -> Any:  # noqa: ANN401 - as various as the options are
    """A number, a word, or a JSON object such as the weights of some languages."""
    if not text.startswith("{"):
        return number_or_word(text)
    try:
        return parse_json(text)
    except ValueError:
        raise InputError(f"'{text}' cannot be read", expected='JSON such as {"en": 2}') from None
