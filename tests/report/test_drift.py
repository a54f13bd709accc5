"""Drift over releases, counted on paper."""

from dataclasses import replace

from koinize.report import ReleaseInput, results
from tests.report.test_results import TASK, rows, source


def release(version, task="t", **right):
    """A release that answers so many of four rows rightly, per language."""
    answered = {language: rows(language, n) for language, n in right.items()}
    created = f"2026-0{version}-01T00:00:00+00:00"
    return ReleaseInput(task, version, ("production",), created, answered)


def drift_of(*releases):
    return results(source(releases=releases))["releases"]


def row(found, version, language):
    (scores,) = (one["scores"] for one in found)
    keys = {(one["version"], one["language"]): one for one in scores}
    return keys[version, language]


def test_without_releases_there_is_nothing():
    assert drift_of() == []
    assert drift_of(release(1, task="another", de=4)) == []


def test_every_language_is_compared_with_the_first_release_that_served_it():
    found = drift_of(release(1, de=4), release(2, de=2, en=1), release(3, de=3, en=3))
    assert found[0]["metric"] == "accuracy"
    assert [one["version"] for one in found[0]["releases"]] == [1, 2, 3]
    assert (row(found, 1, "de")["value"], row(found, 1, "de")["drift"]) == (100.0, None)
    assert row(found, 2, "de")["drift"]["difference"] == -50.0
    assert row(found, 3, "de")["drift"]["difference"] == -25.0
    assert row(found, 2, "en")["drift"] is None
    assert row(found, 3, "en")["drift"]["difference"] == 50.0
    assert row(found, 3, "en")["drift"]["n"] == 4


def test_only_rows_that_both_answered_with_one_truth_count():
    first, later = release(1, de=4), release(2, de=0)
    kept = [
        later.rows["de"][0],  # wrong now, right then
        {**later.rows["de"][1], "gold": "b"},  # its truth was corrected
        {**later.rows["de"][2], "key": "new"},
    ]
    found = drift_of(first, replace(later, rows={"de": kept}))
    assert row(found, 2, "de")["drift"]["n"] == 1
    assert row(found, 2, "de")["drift"]["difference"] == -100.0


def test_rows_in_common_may_be_none():
    first, later = release(1, de=4), release(2, de=4)
    renamed = [{**one, "key": f"other {one['key']}"} for one in later.rows["de"]]
    found = drift_of(first, replace(later, rows={"de": renamed}))
    assert row(found, 2, "de")["drift"] is None
    assert TASK.name == found[0]["task"]
