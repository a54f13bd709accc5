"""Which work an update pays for, and in which scope; what only a report wants is in none."""

from __future__ import annotations

import pytest

from koinize.ledger import Address, System
from koinize.ledger.address import BRANCH, SEARCH
from koinize.ledger.scopes import SCOPES, Released, loading, within

CHOSEN, OTHER, MEAN = map(System.named, ("ties", "knots-ties", "MEAN"))
PLAIN = Released("ties", ("ties", "knots-ties"))


@pytest.mark.parametrize(
    ("step", "scope"),
    [
        (Address("train", "t", language="ja"), "training"),
        (Address("merge", "t", CHOSEN), "training"),
        (Address("evaluate", "t", CHOSEN, "ja", "test"), "testing"),
        (Address("merge", "t", OTHER), "choosing"),
        (Address("evaluate", "t", CHOSEN, "ja", "dev"), "choosing"),
        (Address("evaluate", "t", OTHER, "ja", "dev"), "choosing"),
        (Address("select", "t"), "choosing"),
        (Address("merge", "t", OTHER, role=SEARCH), "choosing"),
        (Address("search", "t", OTHER), "choosing"),
        (Address("evaluate", "t", OTHER, "ja", "test"), None),
        (Address("merge", "t", System.named("mean")), None),
        (Address("select", "t", role="mean"), None),
        (Address("evaluate", "t", MEAN, "ja", "test"), None),
        (Address("evaluate", "t", System.named("INDV"), "ja", "test"), None),
        (Address("train", "t", role="comb"), None),
    ],
)
def test_the_narrowest_scope_of_a_step(step: Address, scope: str | None) -> None:
    assert PLAIN.scope(step) == scope


def test_with_a_trunk_a_branch_is_the_update_and_an_adapter_from_the_base_a_baseline() -> None:
    trunk = Released("ties", ("ties",), trunk=True)
    assert trunk.scope(Address("train", "t", language="ja", role=BRANCH)) == "training"
    assert trunk.scope(Address("train", "t", language="ja")) is None
    assert trunk.scope(Address("anchors", "t")) == "training"


def test_every_scope_holds_the_one_before_it() -> None:
    assert [[within(one, wider) for one in SCOPES] for wider in SCOPES] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert not within(None, "choosing")


@pytest.mark.parametrize(
    ("scoring", "workers", "expected"),
    [(0.0, 3, 1), (29.0, 3, 1), (30.0, 3, 2), (39.0, 3, 2), (40.0, 3, 3), (400.0, 2, 2)],
)
def test_another_worker_loads_for_as_much_scoring_as_loading_takes(
    scoring: float, workers: int, expected: int
) -> None:
    """Loading takes 10 s: of two, each has (30 + 10) / 2 = 20 s to do, loading included."""
    assert loading(scoring, workers, 10.0) == expected
