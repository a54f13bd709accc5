"""What holds for every task kind by being in the catalog; a new kind is tested by existing.

The samples are those of docs/data.md: a kind that is not documented there has no example to test.
"""

import json
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from koinize.data import Row
from koinize.errors import InputError, ManyErrors
from koinize.metrics import metrics
from koinize.tasks import Task, tasks

DOCS = Path(__file__).parents[2] / "docs" / "data.md"

pytestmark = pytest.mark.parametrize("name", tasks.names())


def block(name: str, language: str) -> str:
    """The first fenced block of this kind's section of the documentation."""
    section = re.search(
        rf"^### {name}\n(.*?)^##", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert section, f"docs/data.md has no section '### {name}'"
    found = re.search(rf"^```{language}\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    assert found, f"the section '### {name}' of docs/data.md has no block '{language}'"
    return found[1]


def sample(name: str) -> tuple[Task, list[Row]]:
    settings = YAML(typ="safe").load(block(name, "yaml task"))
    lines = enumerate(block(name, "jsonl rows").splitlines(), start=1)
    return tasks.get(name).model_validate(settings), [
        Row(json.loads(line), f"{name}.jsonl:{number}") for number, line in lines
    ]


def test_it_says_what_it_is(name):
    task, rows = sample(name)

    assert tasks.get(name).model_fields["kind"].default == task.kind == name
    assert task.mode in ("options", "text")
    assert task.describe().startswith(f"{name}: ")
    assert "\n" not in task.describe()
    assert len(rows) >= 4


def test_every_setting_is_described_in_the_schema(name):
    schema = tasks.get(name).model_json_schema()

    described = {key for key, value in schema["properties"].items() if "description" in value}
    assert described == set(schema["properties"]) - {"kind"}
    assert schema["properties"]["kind"]["const"] == name


def test_it_is_frozen_and_closed(name):
    task, _ = sample(name)

    with pytest.raises(ValidationError, match="Instance is frozen"):
        task.key = "other"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        tasks.get(name).model_validate({**task.model_dump(), "promt": "{text}"})


def test_it_survives_json_and_pickle(name):
    task, rows = sample(name)

    again = tasks.get(name).model_validate(json.loads(json.dumps(task.model_dump(mode="json"))))
    assert again == task == pickle.loads(pickle.dumps(task))
    examples = task.examples(rows, "en")
    assert pickle.loads(pickle.dumps(examples)) == examples


def test_its_metrics_exist_and_read_its_result_rows(name):
    task, _ = sample(name)

    defaults = tasks.get(name).model_fields["metrics"].default
    for metric in {*task.metrics, *defaults}:
        assert metrics.get(metric).reads == task.mode


def test_examples_are_what_their_mode_says(name):
    task, rows = sample(name)

    for example in task.examples(rows, "en"):
        assert example.language == "en"
        assert example.prompt.strip()
        assert example.target.strip()
        if task.mode == "text":
            assert (example.options, example.labels, example.gold) == ((), (), -1)
            continue
        assert len(example.options) == len(example.labels) >= 2
        assert len(set(example.options)) == len(set(example.labels)) == len(example.labels)
        assert all(option.strip() for option in example.options)
        assert example.target == example.options[example.gold]
        assert example.gold >= 0


def test_the_order_of_rows_and_columns_changes_nothing(name):
    task, rows = sample(name)
    rows = [*rows, *rows[:2]]
    examples = task.examples(rows, "en")

    assert len(examples) == len(rows)
    for seed in range(10):
        shuffled = [
            Row(dict(reversed(row.columns.items())), f"elsewhere:{seed}")
            for row in random.Random(seed).sample(rows, len(rows))
        ]
        assert task.examples(shuffled, "en") == examples


def test_keys_are_unique_and_sorted_in_their_order(name):
    task, rows = sample(name)

    once = [example.key for example in task.examples(rows, "en")]
    twice = [example.key for example in task.examples(rows * 2, "en")]

    assert once == sorted(set(once))
    assert twice == [key for first in once for key in (first, f"{first}-2")]


def test_a_column_that_it_does_not_name_changes_nothing(name):
    task, rows = sample(name)
    noted = [Row({**row.columns, "a note": number}, row.where) for number, row in enumerate(rows)]

    assert task.examples(noted, "en") == task.examples(rows, "en")


def test_every_value_that_it_names_changes_the_examples(name):
    task, rows = sample(name)
    examples = task.examples(rows, "en")

    for column in rows[0].columns:
        changed = {**rows[0].columns, column: rows[1].columns[column]}
        try:
            assert task.examples([Row(changed, "f:1"), *rows[1:]], "en") != examples
        except InputError:
            continue  # such as an answer that is none of the other row's options


def test_all_bad_rows_are_named_at_once(name):
    task, rows = sample(name)
    bad = [Row({}, f"bad.jsonl:{number}") for number in range(1, 26)]

    with pytest.raises(ManyErrors) as caught:
        task.examples([*rows, *bad], "en")

    *lines, rest = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [f"bad.jsonl:{n}" for n in range(1, 21)]
    assert all("which the prompt names" in line for line in lines)
    assert rest == "and 5 more like these"


def test_a_mistyped_column_of_the_template_is_found(name):
    task, rows = sample(name)
    column, *_ = rows[0].columns
    mistyped = {f"{key}s" if key == column else key: one for key, one in rows[0].columns.items()}

    with pytest.raises(ManyErrors) as caught:
        task.examples([Row(mistyped, "x.jsonl:3")], "en")

    assert str(caught.value) == (
        f"x.jsonl:3 there is no column '{column}', which the prompt names; "
        f"expected one of: {', '.join(mistyped)}; did you mean '{column}s'?"
    )


def test_its_checks_find_a_copy_in_another_split_and_language(name):
    task, rows = sample(name)
    clean = {("en", "train"): rows[:2], ("en", "dev"): rows[2:3], ("ja", "test"): rows[3:]}

    assert task.check(clean) == ()
    (leak,) = task.check({**clean, ("ja", "test"): [*rows[3:], rows[0]]})
    assert (leak.kind, leak.other) == ("leak", rows[0].where)


def test_it_loads_without_torch(name):
    code = f"import sys; from koinize.tasks import tasks; tasks.get({name!r}); " + (
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'pyarrow', 'datasets'} & {*sys.modules}))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
