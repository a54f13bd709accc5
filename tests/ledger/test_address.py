"""Addresses: text for people, fields for the ledger, and one reader of what was text alone."""

from __future__ import annotations

import pytest

from koinize.ledger.address import (
    BRANCH,
    RELEASE,
    TRUNK,
    WHATIF,
    Address,
    System,
    from_record,
    read_address,
)

COMB, TIES = System.named("COMB"), System("0123", "ties density 0.5")

CASES = [
    (Address("base"), "base"),
    (Address("train", "t", language="de"), "train/t/de"),
    (Address("train", "t", role="comb"), "train/t/comb"),
    (Address("train", "t", role="comb-continued"), "train/t/comb-continued"),
    (Address("train", "t", role=TRUNK), "trunk/t"),
    (Address("train", "t", language="de", role=BRANCH), "branch/t/de"),
    (Address("import", "t", language="de"), "train/t/de"),
    (Address("import", "t", language="v1", role=RELEASE), "import/t/v1"),
    (Address("merge", "t", TIES), "merge/t/ties density 0.5"),
    (Address("merge", "t", TIES, role=WHATIF), "whatif/merge/t/ties density 0.5"),
    (Address("evaluate", "t", COMB, "de", "test"), "evaluate/t/COMB/de/test"),
    (
        Address("evaluate", "t", TIES, "de", "dev", WHATIF),
        "whatif/evaluate/t/ties density 0.5/de/dev",
    ),
    (Address("select", "t"), "select/t"),
    (Address("select", "t", role="mean"), "select/t/mean"),
    (Address("gate", "t"), "gate/t"),
    (Address("load"), "load"),
]


@pytest.mark.parametrize(("address", "text"), CASES)
def test_text_and_fields(address: Address, text: str) -> None:
    assert str(address) == text
    assert from_record(address.record()) == address
    assert str(from_record(address.record())) == text


@pytest.mark.parametrize(("address", "text"), CASES)
def test_what_was_text_alone_is_read(address: Address, text: str) -> None:
    """Kind and text stood in old ledgers; a merge's settings did not."""
    read = read_address(text, address.kind)
    title = address.system.title
    fields = {**address.record(), "system": title, "title": title}
    if address.role == RELEASE:  # no ledger says more of it than of a language's adapter
        del fields["role"]
    assert read.record() == {name: value for name, value in fields.items() if value}


def test_titles_that_are_alike_do_not_make_systems_equal() -> None:
    assert System("a", "same") != System("b", "same")
    assert System("a", "one") == System("a", "another")
