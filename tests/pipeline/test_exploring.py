"""Exploring a space with Optuna as a part of a project: proposals are steps of it."""

from __future__ import annotations

import pytest

from koinize.errors import InputError
from koinize.pipeline.searching import exploring_found
from koinize.pipeline.step import Step
from koinize.pipeline.work import Job
from koinize.spec import load
from tests.pipeline.conftest import SPEC, Small, done_by
from tests.pipeline.test_searching import DEV, Searched, by_name, perform, rows_label

pytest.importorskip("optuna", reason="the extra koinize[search] is not installed")

EXPLORED = SPEC.replace(
    "merge: {candidates: [paper], mean_scales: [1.0, 2.0]}",
    "merge: {candidates: [ties], choose: halving, explore: "
    "{recipe: [ties, knots-ties], density: [0.5, 0.8], scale: {low: 0.5, high: 8.0}, trials: 8}}\n"
    "baselines: [base]",
)


def project(small: Small) -> Searched:
    for language in ("de", "en"):
        small.rows(language, "dev", [f"{language} dev {n}" for n in range(DEV)])
    small.spec(EXPLORED)
    return Searched(small)


@pytest.fixture
def explored(small: Small, monkeypatch: pytest.MonkeyPatch) -> Searched:
    done_by(monkeypatch, perform)
    return project(small)


def looked_at(explored: Searched) -> list[str]:
    """The candidates in the order in which they were proposed."""
    found: list[str] = []
    for step in explored.small.steps(explored.store).values():
        if "explore" in step.settings:
            found = list(step.settings["explore"]["points"])
    return found


@pytest.mark.slow
def test_it_asks_four_times_and_halves_what_was_proposed(explored: Searched) -> None:
    first = explored.small.steps(explored.store)
    assert by_name(first, "search") == ["search/mood/proposals, after 1 candidates"]
    assert first["select/mood"].waits
    explored.finish()
    steps = explored.small.steps(explored.store)
    assert by_name(steps, "search") == [
        *(f"search/mood/proposals, after {1 + 2 * n} candidates" for n in range(4)),
        *(f"search/mood/rung {n}, {m} candidates" for n, m in ((1, 9), (2, 5), (3, 3), (4, 2))),
    ]
    answered = sum(
        step.rows[rows_label(step)]
        for step in steps.values()
        if step.kind == "evaluate" and step.address.role == "search"
    )
    assert answered / (2 * DEV) <= 4.0
    (left,) = steps["select/mood"].uses.candidates
    assert left.title in {"ties density 1", *looked_at(explored)}
    assert explored.missing() == []
    asked = [one for one in steps.values() if "explore" in one.settings]
    facts = [explored.store.open(one.id).facts for one in asked]
    assert exploring_found(facts) == "Optuna proposed 8 merges in 4 rounds"
    parts: dict[tuple[str, str], list[int]] = {}
    for step in explored.small.steps(explored.store).values():
        if "part" in step.settings:
            name, place = step.system.title.rpartition(", part ")[0], step.settings["part"]
            own = parts.setdefault((name, step.language), [])
            own += range(place["first"], place["last"])
    assert len(parts) == 9 * 2
    assert all(rows == list(range(len(rows))) for rows in parts.values())


@pytest.mark.slow
def test_killed_anywhere_it_looks_at_the_same_and_chooses_the_same(
    explored: Searched, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    explored.finish()
    whole, chosen = looked_at(explored), explored.chosen("select/mood")

    again = Small(tmp_path_factory.mktemp("again"))
    stopped, left, runs = project(again), 0, 0

    def stopping(job: Job) -> dict[str, object]:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return perform(job)

    done_by(monkeypatch, stopping)
    while stopped.missing():
        left, runs = 11, runs + 1
        try:
            stopped.run()
        except KeyboardInterrupt:
            continue
    assert runs > 5
    stopped.store.point({n: one.id for n, one in again.steps(stopped.store).items()})
    assert looked_at(stopped) == whole
    assert stopped.chosen("select/mood") == chosen


@pytest.mark.slow
def test_weights_and_a_profile_over_depth_are_settings_like_any_other(explored: Searched) -> None:
    explored.small.spec(
        EXPLORED.replace(
            "trials: 8",
            "trials: 8, weights: {low: 0.5, high: 2.0}, "
            "modules: {'layers.0.*': {low: 0.5, high: 2.0}}",
        )
    )
    explored.finish()
    steps = explored.small.steps(explored.store).values()
    merges = [one.merge for one in steps if one.kind == "merge" and one.merge.overrides]
    assert len(merges) >= 8
    for one in merges:
        assert set(one.weights) <= {"de", "en"}
        assert 0.24 < one.overrides["layers.0.*"]["scale"] < 16.1


@pytest.mark.parametrize(
    ("budget", "said", "proposed"),
    [
        # Each step takes 3.6 s, so the listed candidate took .003 h: more than .01 in the end.
        ("hours: 0.01", "and 0.01 are allowed", 0),
        ("hours: 1000", "", 8),
        ("cost: '0.01'", "and 0.01 is allowed", 0),
    ],
)
def test_a_budget_ends_the_proposals_and_what_is_there_is_halved(
    explored: Searched, budget: str, said: str, proposed: int
) -> None:
    price = "\nprice: {per_hour: '1', source: an assumption, date: 2026-11-21}"
    explored.small.spec(EXPLORED.replace("trials: 8", f"trials: 8, {budget}") + price)
    explored.finish()
    steps = explored.small.steps(explored.store).values()
    facts = [explored.store.open(one.id).facts for one in steps if "explore" in one.settings]
    assert sum(len(one["points"]) for one in facts) == proposed
    assert said in exploring_found(facts)


def test_a_budget_counts_with_the_dearest_machine(explored: Searched) -> None:
    """Enough at the price of most machines, and not at that of those with another device."""
    price = (
        "\nprice: {per_hour: '1', source: an assumption, date: 2026-11-21, devices: {H100: "
        "{per_hour: '9999', source: an assumption, date: 2026-11-21}}}"
    )
    explored.small.spec(EXPLORED.replace("trials: 8", "trials: 8, cost: 10") + price)
    explored.finish()
    steps = explored.small.steps(explored.store).values()
    facts = [explored.store.open(one.id).facts for one in steps if "explore" in one.settings]
    assert "and 10 is allowed" in exploring_found(facts)


def test_a_small_space_is_searched_whole(explored: Searched) -> None:
    explored.small.spec(
        EXPLORED.replace("{low: 0.5, high: 8.0}", "[1.0]").replace("[0.5, 0.8]", "[0.5]")
    )
    explored.finish()
    steps = explored.small.steps(explored.store).values()
    asked = [one for one in steps if "explore" in one.settings]
    facts = [explored.store.open(one.id).facts for one in asked]
    assert sum(len(one["points"]) for one in facts) == 2  # recipes
    assert "and no more since the space has no others" in exploring_found(facts)


def test_without_optuna_the_plan_says_what_to_install(
    explored: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = explored.small.project(monkeypatch)
    assert planned.plan().missing
    monkeypatch.setattr("koinize.search.proposals.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'koinize\[search\]'"):
        planned.plan()


@pytest.mark.parametrize("text", ["explored", "listed"])
def test_too_few_dev_rows_are_refused(explored: Searched, text: str) -> None:
    """A seventh, or a third, of one row in each of two languages is none."""
    for language in ("de", "en"):
        explored.small.rows(language, "dev", ["only one"])
    listed = SPEC.replace(
        "[paper]", "[{recipe: ties, density: [0.5, 0.6, 0.7, 0.8, 0.9]}], choose: halving"
    )
    explored.small.spec(EXPLORED if text == "explored" else listed)
    with pytest.raises(InputError, match="of so few dev rows the first share, by which"):
        explored.small.steps(explored.store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("trials: 8", "trials: 0"), "merge.explore.trials: expected a number from 8 up, not 0"),
        (("[ties, knots-ties]", "[]"), "merge.explore.recipe: expected "),
        (("[ties, knots-ties]", "[tie]"), "unknown recipe 'tie'; did you mean 'ties'?"),
        (("[0.5, 0.8], scale: {low: 0.5, high: 8.0}", "[0.5]"), "merge.explore: "),
        (("{low: 0.5, high: 8.0}", "{low: 2, high: 1}"), "low is 2 and high 1"),
        (("{low: 0.5, high: 8.0}", "often"), "'often' gives no values; write a list, or"),
        (("choose: halving, ", ""), "explore: so many merges are chosen among on growing shares"),
        (("trials: 8", "trials: 8, cost: 2"), "merge.explore.cost: nobody knows it without a"),
        (("trials: 8", "trials: 8, hours: 0"), "merge.explore.hours: expected a number above 0"),
        (("[0.5, 0.8]", "[0.5, 1.8]"), "density is 1.8"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(
    explored: Searched, change: tuple[str, str], said: str
) -> None:
    old, new = change
    text = EXPLORED.replace(old, new)
    assert text != EXPLORED
    explored.small.spec(text)
    if "[0.5]" in new:
        text = text.replace("[ties, knots-ties]", "[ties]")
        explored.small.spec(text)
        said = "nothing varies in this space; give a list of two, or a range"
    with pytest.raises(InputError) as caught:
        load(explored.small.root / "koinize.yaml")
    assert said in str(caught.value)


def test_an_existing_search_is_as_it_was(explored: Searched) -> None:
    """Rungs of candidates that are listed have the identity that they had before."""
    explored.small.spec(
        SPEC.replace(
            "[paper]", "[{recipe: ties, density: [0.5, 0.6, 0.7, 0.8, 0.9]}], choose: halving"
        )
    )
    steps: dict[str, Step] = explored.small.steps(explored.store)
    rung = steps["search/mood/rung 1, 5 candidates"].settings["rung"]
    assert next(iter(rung["candidates"])) == "ties density 0.5, part 1"
    assert len(rung["candidates"]) == 5
