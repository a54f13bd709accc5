"""The JSON Schema says of a file what reading it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import koinize
from koinize.merge.recipe import RECIPES
from koinize.metrics import metrics
from koinize.spec import schema
from koinize.tasks import tasks
from tests.oracle.json_schema import faults

EXAMPLES = sorted((Path(koinize.__file__).parent / "examples").rglob("koinize.yaml"))


def parsed(text: str):
    """The values of a YAML text as JSON has them: dates are text."""
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(text), default=str))


@pytest.fixture(scope="module")
def whole():
    return schema()


def test_it_is_json_and_every_reference_leads_somewhere(whole):
    assert json.loads(json.dumps(whole)) == whole
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    text = json.dumps(whole)
    named = {piece.partition('"')[0] for piece in text.split('"#/$defs/')[1:]}
    assert named == set(whole["$defs"])


def test_it_names_every_plug_in(whole):
    kinds = {
        whole["$defs"][one["$ref"].removeprefix("#/$defs/")]["properties"]["kind"]["const"]
        for of_name in whole["properties"]["tasks"]["patternProperties"].values()
        for one in of_name["oneOf"]
    }
    assert kinds == set(tasks.names())
    candidates = whole["$defs"]["MergeSection"]["properties"]["candidates"]
    assert candidates["items"]["anyOf"][0]["enum"] == ["paper", "average", *RECIPES.names()]
    assert candidates["default"] == ["paper"]
    assert whole["properties"]["margins"]["propertyNames"]["enum"] == list(metrics.names())
    offered = whole["$defs"]["Generate"]["properties"]["metrics"]["items"]["enum"]
    assert offered == [name for name in metrics.names() if metrics.get(name).reads == "text"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_fit(whole, path):
    assert faults(parsed(path.read_text(encoding="utf-8")), whole, whole) == []


GENEROUS = """\
lora: {targets: [q_proj], rslora: true, overrides: {de: {r: 2}}}
training: {patience: 2, epochs: 1}
machine: {workers: auto, threads: 2, executor: inline}
store: {url: "s3://shared/small", cache_gigabytes: 0.5}
merge:
  candidates:
    - paper
    - ties
    - {recipe: [ties, dare-ties], density: [0.5, 1.0], weights: {de: 2}, rank: [full, 8, 0.9]}
margins: {accuracy: 1.5}
adapters: {mood: {de: elsewhere}}
price: {per_hour: "0.10", source: x, date: 2026-01-31}
"""


def test_a_file_with_everything_fits_and_loads(whole, good, loaded):
    assert faults(parsed(good + GENEROUS), whole, whole) == []
    assert loaded(good + GENEROUS).name == "small"


def test_a_price_of_the_book_fits_and_loads(whole, good, loaded):
    text = f"{good}price: {{machine: aws-g5-xlarge}}\n"
    assert faults(parsed(text), whole, whole) == []
    assert loaded(text).price.record()["per_hour"] == "1.006"


@pytest.mark.parametrize("recipe", ["ties", "[ties, sum]"])
def test_a_generation_that_is_explored_fits_and_loads(whole, good, loaded, recipe):
    text = (
        f"{good}training: {{trunk: joint, retries: 2}}\n"
        f"merge: {{candidates: [average], choose: halving, explore: {{recipe: {recipe}, "
        "scale: [1, 2], weights: {low: 0.5, high: 2}}}\n"
        "price: {machine: aws-g5-xlarge, devices: {T4: {machine: aws-g4dn-xlarge}}}\n"
    )
    assert faults(parsed(text), whole, whole) == []
    assert loaded(text).merge.averages


def test_the_candidates_that_the_example_suggests_fit_and_load(whole, loaded):
    """They are there as a comment, the average among them, which is the default there."""
    (path,) = (one for one in EXAMPLES if one.parent.name == "reviews")
    text = path.read_text(encoding="utf-8").replace("# merge:\n#   cand", "merge:\n  cand")
    assert faults(parsed(text), whole, whole) == []
    assert loaded(text).merge.averages


def test_an_address_alone_is_a_store(whole, good, loaded):
    text = f"{good}store: gs://shared/small/\n"
    assert faults(parsed(text), whole, whole) == []
    assert loaded(text).store.url == "gs://shared/small"


@pytest.mark.parametrize(
    "added",
    [
        "trainings: {}",
        "training: {epochs: three}",
        "training: {epochs: 0}",
        "lora: {overrides: {de: {rr: 2}}}",
        "lora: {dropout: 1}",
        "merge: {candidates: []}",
        "merge: {candidates: [tise]}",
        "merge: {choose: halving, explore: {recipe: [tise], scale: [1, 2]}}",
        "merge: {choose: halving, explore: {recipe: tise, scale: [1, 2]}}",
        "merge: {candidates: [{recipe: ties, densty: 1}]}",
        "merge: {candidates: [{recipe: ties, density: [0.5, 7]}]}",
        "merge: {candidates: [{recipe: ties, density: []}]}",
        "margins: {f1: 1}",
        "machine: {workers: 0}",
        "baselines: [all]",
        "price: {per_hour: 1}",
        "price: {machine: aws-g5-xlarge, sorce: x}",
        "store: {cache_gigabytes: -1, url: s3://shared/small}",
        "store: [s3://shared/small]",
    ],
)
def test_what_reading_refuses_the_schema_refuses(whole, good, refused, added):
    assert len(refused(f"{good}{added}\n")) == 1 + (added == "price: {per_hour: 1}")
    assert faults(parsed(f"{good}{added}\n"), whole, whole)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("koinize: 1", "koinize: 2"),
        ("kind: classify, ", ""),
        ("classify", "clasify"),
        ("[good, bad]", "[good]"),
        ('"{text}"', '"{text}", metrics: [rouge-l]'),
        ("name: small", ""),
        ("[de, en]", "[]"),
    ],
)
def test_what_reading_refuses_in_the_first_lines_the_schema_refuses(whole, good, refused, old, new):
    assert len(refused(good.replace(old, new))) == 1
    assert faults(parsed(good.replace(old, new)), whole, whole)
