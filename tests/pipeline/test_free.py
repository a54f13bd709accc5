"""A classify task with `free`: what is scored anew, and what is not."""

from __future__ import annotations

from koinize.pipeline.lengths import Use, limits
from koinize.spec import load
from tests.pipeline.conftest import SPEC, Small

FREE = SPEC.replace('prompt: "{text} ="', 'prompt: "{text} ="\n    free: true')


def test_the_test_rows_are_answered_again_and_nothing_else(small: Small) -> None:
    before = small.steps()
    small.spec(FREE)
    after = small.steps()
    changed = {name for name, step in after.items() if step.id != before[name].id}
    assert changed == {name for name, step in after.items() if step.split == "test"}
    one = next(after[name] for name in changed)
    assert one.settings["evaluation"] == {"free": True, "max_new_tokens": 16, "stop": ["\n"]}


def test_the_plan_reckons_with_the_second_pass_and_learns_it_apart(small: Small) -> None:
    before = small.steps()
    small.spec(FREE)
    for name, step in small.steps().items():
        factor, sort = (2, "mood free") if step.split == "test" else (1, before[name].sort)
        assert (step.units, step.sort) == (factor * before[name].units, sort)


def test_a_metric_that_is_named_later_scores_nothing_again(small: Small) -> None:
    small.spec(FREE)
    before = {name: step.id for name, step in small.steps().items()}
    small.spec(FREE.replace("free: true", "free: true\n    metrics: [macro-f1, parsed]"))
    assert {name: step.id for name, step in small.steps().items()} == before


def test_room_is_kept_for_what_is_written_on_test(small: Small) -> None:
    small.spec(FREE)
    spec = load(small.root / "koinize.yaml")
    assert limits(spec, Use("mood", "de", "test", training=False)) == (512, 16)
    assert limits(spec, Use("mood", "de", "dev", training=False)) == (512, 0)


def test_who_names_no_metric_gets_those_that_read_it(small: Small) -> None:
    """Truth values of a file come as text, and are ones."""
    small.spec(FREE)
    task = load(small.root / "koinize.yaml").tasks["mood"]
    assert task.writes
    assert task.metrics[-3:] == ("free-accuracy", "free-macro-f1", "parsed")
