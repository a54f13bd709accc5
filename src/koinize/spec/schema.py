"""The JSON Schema of koinize.yaml, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from koinize.merge.recipe import RECIPES, MergeSettings
from koinize.metrics import metrics
from koinize.spec.grid import AVERAGE
from koinize.spec.merging import NAME
from koinize.spec.shape import Spec
from koinize.tasks import tasks

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{model}"


def schema() -> dict[str, Any]:
    """The schema, with every known task kind, recipe and metric by name."""
    whole: dict[str, Any] = {"$schema": DIALECT, **Spec.model_json_schema(ref_template=REFERENCE)}
    definitions = whole["$defs"]
    kinds = [_task(name, definitions) for name in tasks.names()]
    whole["properties"]["tasks"]["patternProperties"] = {NAME: {"oneOf": kinds}}
    whole["properties"]["tasks"]["additionalProperties"] = False
    del definitions["Task"]
    whole["properties"]["margins"]["propertyNames"] = {"enum": list(metrics.names())}
    candidates = definitions["MergeSection"]["properties"]["candidates"]
    recipes = list(RECIPES.names())
    candidates["items"] = {"anyOf": [{"enum": ["paper", AVERAGE, *recipes]}, _grid()]}
    candidates["default"] = ["paper"]
    explored = definitions["Space"]["properties"]["recipe"]
    explored["items"]["enum"] = recipes
    explored["anyOf"] = [{"enum": recipes}, {"type": explored.pop("type")}]
    del definitions["MergeSettings"]
    return whole


def _task(name: str, definitions: dict[str, Any]) -> dict[str, str]:
    """Add a task kind's schema to the definitions; returns a reference to it."""
    kind = tasks.get(name)
    block = kind.model_json_schema(ref_template=REFERENCE)
    definitions.update(block.pop("$defs", {}))
    block["required"] = sorted({"kind", *block.get("required", ())})
    fitting = [one for one in metrics.names() if metrics.get(one).reads in kind.answered()]
    block["properties"]["metrics"]["items"]["enum"] = fitting
    definitions[block["title"]] = block
    return {"$ref": REFERENCE.format(model=block["title"])}


def _grid() -> dict[str, Any]:
    """Merge settings in which every value may be a list of values."""
    grid = MergeSettings.model_json_schema(ref_template=REFERENCE)
    properties = grid["properties"]
    properties["recipe"]["enum"] = list(RECIPES.names())
    for name, value in properties.items():
        many = {"type": "array", "items": value, "minItems": 1}
        properties[name] = {"anyOf": [value, many]}
    return grid
