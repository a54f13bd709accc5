"""What a valid specification means: defaults, overrides, candidates, and that it is frozen."""

from __future__ import annotations

import pickle
from datetime import date
from decimal import Decimal

import pytest
from pydantic import ValidationError

from koinize.errors import InputError
from koinize.ledger.prices import price_book
from koinize.settings import EvaluationSection, LoraSpec, TrainingSpec
from koinize.spec.grid import PAPERS_EIGHT


def test_the_defaults(loaded, good):
    spec = loaded(good)
    assert spec.lora.of("de") == LoraSpec()
    assert spec.training == TrainingSpec()
    assert spec.evaluation == EvaluationSection()
    assert spec.baselines == ("base", "indv", "cross", "comb", "mean")
    assert [one.describe() for one in spec.merge.settings] == [
        f"{recipe} density {density}"
        for recipe in ("ties", "dare-ties", "knots-ties", "knots-dare-ties")
        for density in ("0.5", "1")
    ]
    assert spec.merge.mean_scales == (1.0, 1.5, 2.0)
    assert (spec.price, spec.margins, spec.adapters) == (None, {}, {})
    assert (spec.machine.executor, spec.machine.workers, spec.machine.threads) == (
        "local",
        "auto",
        "auto",
    )


def test_languages_are_sorted(loaded, good):
    assert loaded(good.replace("[de, en]", "[zh-Hant, en, de]")).languages == (
        "de",
        "en",
        "zh-Hant",
    )


def test_an_override_changes_what_it_names_and_nothing_else(loaded, good):
    """Also where it names a default that the common settings left."""
    spec = loaded(good + "lora: {r: 4, alpha: 8, overrides: {de: {r: 16}}}\n")
    assert spec.lora.of("de") == LoraSpec(r=16, alpha=8)
    assert spec.lora.of("en") == LoraSpec(r=4, alpha=8)
    assert spec.lora.of("") == LoraSpec(r=4, alpha=8)
    assert spec.model_dump(mode="json")["lora"]["overrides"] == {"de": {"r": 16}}


def test_it_survives_the_way_to_a_worker(loaded, good):
    spec = loaded(good + "lora: {r: 4, overrides: {de: {r: 16}}}\n")
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert again.lora.of("de") == LoraSpec(r=16)
    assert type(again.tasks["mood"]) is type(spec.tasks["mood"])


def test_it_is_frozen(loaded, good):
    spec = loaded(good)
    with pytest.raises(ValidationError):
        spec.name = "other"


@pytest.mark.parametrize(
    ("candidates", "described"),
    [
        ("[ties]", ["ties density 1"]),
        ("[mean, mean]", ["mean"]),
        (
            "[{recipe: [ties, knots-ties], density: [0.3, 1.0]}]",
            [
                "ties density 0.3",
                "ties density 1",
                "knots-ties density 0.3",
                "knots-ties density 1",
            ],
        ),
        (
            "[{recipe: ties, density: [0.5, 1.0]}, ties]",  # `ties` is there already
            ["ties density 0.5", "ties density 1"],
        ),
        (
            "[{recipe: mean, weights: [{de: 2}, {en: 3}]}]",
            ["mean weights de=2", "mean weights en=3"],
        ),
        (
            "[{recipe: mean, groups: [[en, de]], scale: [1.0, 2.0]}]",
            ["mean groups de+en", "mean groups de+en scale 2"],
        ),
    ],
)
def test_candidates(loaded, good, candidates, described):
    spec = loaded(f"{good}merge: {{candidates: {candidates}}}\n")
    assert [one.describe() for one in spec.merge.settings] == described


def test_the_papers_eight():
    assert len(PAPERS_EIGHT) == 8
    assert {entry["density"] for entry in PAPERS_EIGHT} == {0.5, 1.0}


@pytest.mark.parametrize(
    ("merge", "update"),
    [
        ("{}", "keep"),
        ("{update: choose}", "choose"),
        ("{candidates: [ties], scale: search}", "choose"),
        ("{choose: halving}", "choose"),
    ],
)
def test_an_update_keeps_the_recipe_where_it_can(loaded, good, merge, update):
    assert loaded(f"{good}merge: {merge}\n").merge.update == update


@pytest.mark.parametrize("searched", ["scale: search", "choose: halving"])
def test_keeping_what_a_search_finds_is_refused_only_where_it_is_stated(loaded, good, searched):
    with pytest.raises(InputError, match="can be kept; leave it out"):
        loaded(f"{good}merge: {{{searched}, update: keep}}\n")


def test_a_price_may_come_from_the_book_and_the_users_own_wins(loaded, good):
    price = loaded(good + "price: {machine: aws-g5-xlarge}\n").price
    assert (price.machine, price.per_hour) == ("aws-g5-xlarge", Decimal("1.006"))
    assert price.record() == price_book()["aws-g5-xlarge"].record()
    own = "per_hour: 0.7, currency: EUR, source: a contract, date: 2026-10-01"
    price = loaded(good + f"price: {{machine: aws-g5-xlarge, {own}}}\n").price
    assert price.record() == {
        "per_hour": "0.7",
        "currency": "EUR",
        "source": "a contract",
        "date": "2026-10-01",
    }


def test_a_price_is_exact_and_says_where_it_stands(loaded, good):
    """Also when it is written as a number: 0.1 is a tenth, not the nearest binary fraction."""
    price = loaded(good + "price: {per_hour: 0.1, source: a list, date: 2026-01-31}\n").price
    assert (price.per_hour, price.date) == (Decimal("0.1"), date(2026, 1, 31))
    assert price.record() == {
        "per_hour": "0.1",
        "currency": "USD",
        "source": "a list",
        "date": "2026-01-31",
    }


def test_true_and_false_and_numbers_where_text_is_wanted(loaded, good):
    spec = loaded(good.replace("[good, bad]", "[1, true]") + "lora: {rslora: true}\n")
    assert spec.tasks["mood"].labels == ("1", "true")
    assert spec.lora.rslora is True
