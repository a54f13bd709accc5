"""A merged adapter checked by its card, and by doing the merge again."""

import hashlib
import re
import tempfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.adapter import read_header
from koinize.engine import adapter_digest
from koinize.engine.verify import Verification, verify_adapter
from koinize.errors import InputError, StepError
from tests.peft_folders import Q, V, merged, save


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr", "ja"))}


def test_verify_repeats_the_merge(tmp_path, adapters):
    out = merged(tmp_path, adapters, overrides={"v_proj": {"density": 0.9}})
    alone = ("2 modules: shapes and finite values", "2 file digests")
    assert verify_adapter(out) == Verification(alone, ())
    found = verify_adapter(out, adapters)
    assert found == Verification((*alone, "3 input digests", "the merge, done again"), ())


def test_verify_finds_a_changed_byte(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    path = out / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1  # the lowest bit of the last value
    path.write_bytes(data)
    alone = "adapter_model.safetensors does not have the digest that the card states"
    assert verify_adapter(out).mismatches == (alone,)
    assert verify_adapter(out, adapters).mismatches == (
        alone,
        "adapter_model.safetensors differs from what the settings in the card give",
    )


def updates(out):
    """The products of the factors, dense, in float64."""
    weights = load_file(out / "adapter_model.safetensors")
    return [
        (weights[name.replace("lora_A", "lora_B")].double() @ A.double())
        for name, A in sorted(weights.items())
        if "lora_A" in name
    ]


def rounded_otherwise(out, share):
    """Weights that differ by about this share, and a card that names them; by how much their
    products differ at most.
    """
    path, were = out / "adapter_model.safetensors", updates(out)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    random = torch.Generator().manual_seed(1)
    weights = {
        name: one * (1 + share * torch.randn(one.shape, generator=random))
        for name, one in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    card = out / "README.md"
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    card.write_text(card.read_text().replace(before, after))
    pairs = zip(updates(out), were, strict=True)
    return max(float((now - one).norm() / one.norm()) for now, one in pairs)


def test_a_merge_that_another_processor_rounded_otherwise_holds_and_how_far_is_said(
    tmp_path, adapters
):
    out = merged(tmp_path, adapters)
    apart = rounded_otherwise(out, 1e-6)
    assert 1e-7 < apart < 1e-5
    found = verify_adapter(out, adapters)
    assert found.mismatches == ()
    assert found.checked[-1] == (
        "the merge, done again: not byte for byte, but no update differs by more than about "
        f"{apart:.0e} of its norm, as on another processor or with another version of a library"
    )


def test_what_is_more_than_rounding_is_a_mismatch(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    apart = rounded_otherwise(out, 1e-2)
    assert apart > 1e-3
    assert verify_adapter(out, adapters).mismatches == (
        "adapter_model.safetensors differs from what the settings in the card give: an update by "
        f"{apart:.1%} of its norm",
    )


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        (rf"^(\| {re.escape(Q)} \| 3 \| 0\.[0-9]*)[0-9] \|", r"\g<1>5 |", True),
        (rf"^\| {re.escape(Q)} \| 3 \| 0\.", f"| {Q} | 3 | 9.", False),
        (rf"^\| {re.escape(V)} \| 3 \|", f"| {V} | 2 |", False),
        (r"^\| fr \| 2 \|", "| fr | 2.0001 |", False),
    ],
)
def test_beside_rounding_the_card_is_held_to_its_numbers(tmp_path, adapters, pattern, text, holds):
    """An error may differ in its last digit; a rank, or a weight that somebody set, may not."""
    out = merged(tmp_path, adapters)
    rounded_otherwise(out, 1e-6)
    edited(out, pattern, text)
    assert (verify_adapter(out, adapters).mismatches == ()) is holds


def test_verify_finds_an_edited_configuration(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    path = out / "adapter_config.json"
    path.write_text(path.read_text().replace("example/base", "example/other"))
    assert verify_adapter(out).mismatches == (
        "adapter_config.json does not have the digest that the card states",
    )


def test_verify_finds_a_changed_input(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    other = save(tmp_path / "other", 7)
    identity = adapter_digest(read_header(other))
    assert verify_adapter(out, {**adapters, "fr": other}).mismatches == (
        f"the card does not name 'fr' with digest {identity}",
    )


def test_the_card_states_what_sha256sum_says(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    card = (out / "README.md").read_text()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        identity = hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert f"\n| {name} | `{identity}` |\n" in card


def edited(out, pattern, text):
    """Change the one place in the card where the pattern is found; (that line before, after)."""
    path = out / "README.md"
    card = path.read_text()
    changed, count = re.subn(pattern, text, card, flags=re.MULTILINE)
    assert count == 1
    path.write_text(changed)
    pairs = zip(card.splitlines(), changed.splitlines(), strict=True)
    return next((one, other) for one, other in pairs if one != other)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\| fr \| 2 \|", "| fr | 7 |"),
        (rf"^\| {re.escape(Q)} \| 3 \| 0\.", f"| {Q} | 3 | 9."),
        (rf"^\| {re.escape(V)} \| 3 \|", f"| {V} | 2 |"),
    ],
)
def test_verify_finds_an_edited_row(tmp_path, adapters, pattern, text):
    """Only with the inputs: a card alone cannot tell that it was changed."""
    out = merged(tmp_path, adapters)
    before, after = edited(out, pattern, text)
    assert verify_adapter(out).mismatches == ()
    assert verify_adapter(out, adapters).mismatches == (
        f"the card states {after} where the merge gives {before}",
    )


def test_verify_names_one_row_of_many(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    before, after = edited(out, rf"^\| {re.escape(Q)} \| 3 \| 0\.", f"| {Q} | 3 | 9.")
    edited(out, rf"^\| {re.escape(V)} \| 3 \| 0\.", f"| {V} | 3 | 9.")
    assert verify_adapter(out, adapters).mismatches == (
        f"the card states {after} where the merge gives {before}, the first of 2 rows that differ",
    )


def test_verify_finds_a_row_too_few_and_one_too_many(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    card = (out / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith(f"| {Q} |"))
    (out / "README.md").write_text(card.replace(row + "\n", ""))
    assert verify_adapter(out, adapters).mismatches == (
        f"the card states nothing where the merge gives {row}",
    )
    more = f"| {Q}2 | 3 | 0.000000 |"
    (out / "README.md").write_text(card.replace(row, f"{row}\n{more}"))
    assert verify_adapter(out, adapters).mismatches == (
        f"the card states {more} where the merge gives nothing for {Q}2",
    )


def test_verify_finds_an_edited_overall_error(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    before, _ = edited(out, r"^- Lost by the change of rank: \d", "- Lost by the change of rank: 0")
    assert verify_adapter(out, adapters).mismatches == (
        f"the card does not state: {before.removeprefix('- ')}",
    )


def test_a_card_may_be_added_to(tmp_path, adapters):
    out = merged(tmp_path, adapters, card={"license": "apache-2.0"})
    with (out / "README.md").open("a") as card:
        card.write("\n| language | accuracy |\n|---|---|\n| en | 93.1 |\n")
    assert verify_adapter(out, adapters).mismatches == ()


def test_a_card_without_the_digest_of_a_file(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(re.sub(r"\| adapter_config.json \|.*\n", "", card))
    assert verify_adapter(out).mismatches == (
        "adapter_config.json does not have the digest that the card states",
    )


def test_an_adapter_without_a_card(adapters):
    """Nothing is stated, so that nothing but the tensors can be checked, and this is said."""
    assert verify_adapter(adapters["en"]) == Verification(
        ("2 modules: shapes and finite values",), ()
    )


def test_verify_needs_every_input(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    some = {name: folder for name, folder in adapters.items() if name != "ja"}
    assert verify_adapter(out, some).mismatches == (
        "the card also names 'ja', whose folder was not given",
    )


def test_inputs_without_a_card(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    (out / "README.md").unlink()
    with pytest.raises(InputError) as caught:
        verify_adapter(out, adapters)
    assert str(caught.value) == (
        f"{out}/README.md is not there, and only it says what the merge was made of; expected a "
        "card that koinize wrote"
    )


def test_verify_needs_a_card(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    card = out / "README.md"
    card.write_text(card.read_text().replace("```json", "```"))
    with pytest.raises(InputError) as caught:
        verify_adapter(out, adapters)
    assert str(caught.value) == (
        f"{card} has no settings to merge again with; expected a card that koinize wrote"
    )


def test_a_card_that_cannot_be_read(tmp_path, adapters):
    out = merged(tmp_path, adapters)
    card = out / "README.md"
    text = card.read_text()
    card.write_bytes(b"\xff\xfe" + text.encode())
    for inputs in (None, adapters):
        with pytest.raises(InputError) as caught:
            verify_adapter(out, inputs)
        assert str(caught.value) == (
            f"{card} is not UTF-8 text; expected a card that koinize wrote"
        )
    card.write_text(text.partition("```json")[0] + "```json\n" + "[" * 100_000 + "\n```\n")
    with pytest.raises(InputError) as caught:
        verify_adapter(out, adapters)
    assert str(caught.value) == (
        f"{card} has no settings to merge again with; expected a card that koinize wrote"
    )


def test_a_place_that_cannot_be_written(tmp_path, adapters, monkeypatch):
    out = merged(tmp_path, adapters)

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(StepError) as caught:
        verify_adapter(out, adapters)
    assert str(caught.value) == f"{out} cannot be checked: No space left on device"
