"""What the plan says of test rows that are too few."""

from koinize.pipeline.power import too_few_rows


def test_a_plan_says_how_many_rows_it_takes(small, monkeypatch):
    """Three test rows a language; a margin of 2 points takes 209 (tests/test_gate.py)."""
    (few,) = too_few_rows(small.project(monkeypatch))
    assert (few.rows, few.margin) == ({"en": 3, "de": 3}, 2.0)
    assert str(few) == (
        "mood: with 3 test rows of de, en, even equal answers do not show that less than 2 points "
        f"of macro-f1 were lost, only less than {few.smallest:g}; with 209 rows a language they do"
    )


def test_only_the_languages_that_have_too_few(small, monkeypatch):
    small.rows("de", "test", [f"text {n}" for n in range(209)])
    (few,) = too_few_rows(small.project(monkeypatch))
    assert few.rows == {"en": 3}


def test_enough_rows_are_nothing_to_speak_of(small, monkeypatch):
    for language in ("de", "en"):
        small.rows(language, "test", [f"{language} text {n}" for n in range(209)])
    assert list(too_few_rows(small.project(monkeypatch))) == []
