"""Groups of languages that are merged first: as two merges by hand give it, in one."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from koinize.cli import application
from koinize.engine import merge_adapters
from koinize.engine.verify import verify_adapter
from koinize.errors import InputError, ManyErrors
from tests.peft_folders import SHAPES, Q, V, deltas, save

GROUPS = [["ja", "zh"], ["en", "de", "fr"]]
RECIPES = ["mean", "sum", "knots-ties", "knots-dare-ties", "core-ties", "core-dare-ties", "tsv"]


@pytest.fixture
def adapters(tmp_path):
    names = ("de", "en", "fr", "ja", "zh")
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(names)}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("with_trunk", [False, True])
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_two_merges_one_after_the_other(tmp_path, adapters, recipe, with_trunk):
    options = {"recipe": recipe, "trunk": save(tmp_path / "trunk", 50) if with_trunk else None}
    if "ties" in recipe or recipe == "tsv":
        options["density"] = 0.5
    found = merge_adapters(
        adapters, **options, groups=GROUPS, weights={"en": 2.0}, scale=0.5, out=tmp_path / "found"
    )
    first = {
        name: merge_adapters(
            {one: adapters[one] for one in name.split("+")},
            **options, weights={"en": 2.0} if "en" in name else {}, out=tmp_path / name,
        ).out
        for name in ("de+en+fr", "ja+zh")
    }  # fmt: skip
    second = merge_adapters(first, **options, scale=0.5, out=tmp_path / "second")
    for module, expected in deltas(second.out).items():
        # The folders between the two are float32 too; entries of nearly 0 may elect the other sign.
        apart = np.abs(deltas(found.out)[module] - expected)
        assert (apart > 1e-4 * np.abs(expected).max()).mean() <= 0.02


@pytest.mark.parametrize("recipe", ["mean", "knots-dare-ties"])
def test_the_order_changes_no_byte_and_verify_repeats_it(tmp_path, adapters, recipe):
    options = {"recipe": recipe, "rank": 4}
    one = merge_adapters(adapters, **options, groups=GROUPS, out=tmp_path / "one")
    turned = [group[::-1] for group in GROUPS[::-1]]
    other = dict(reversed(adapters.items()))
    two = merge_adapters(other, **options, groups=turned, out=tmp_path / "two", threads=2)
    assert contents(one.out) == contents(two.out)
    stated = 'Merged first, and then with one another: [["de", "en", "fr"], ["ja", "zh"]]'
    assert f"- {stated}\n" in (one.out / "README.md").read_text()
    assert verify_adapter(one.out, adapters).mismatches == ()
    plain = merge_adapters(adapters, **options, out=tmp_path / "plain")
    assert contents(plain.out) != contents(one.out)


def test_the_stated_error_is_the_measured_one(tmp_path, adapters):
    options = {"recipe": "core-ties", "density": 0.5, "groups": GROUPS}
    full = deltas(merge_adapters(adapters, **options, out=tmp_path / "full").out)
    report = merge_adapters(adapters, **options, rank=3, out=tmp_path / "cut")
    cut = deltas(report.out)
    lost = sum(np.square(full[one] - cut[one]).sum() for one in full)
    total = sum(np.square(one).sum() for one in full.values())
    assert report.error == pytest.approx((lost / total) ** 0.5, rel=1e-4)


def test_the_command_line(tmp_path, adapters):
    given = [f"{name}={folder}" for name, folder in adapters.items()]
    groups = ["--group", "de,en,fr", "--group", "ja,zh"]
    out = str(tmp_path / "out")
    done = CliRunner().invoke(
        application(), ["merge", *given, *groups, "-o", out, "--recipe", "mean", "--json"]
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["settings"]["groups"] == [["de", "en", "fr"], ["ja", "zh"]]


def test_a_card_whose_groups_are_none(tmp_path, adapters):
    out = merge_adapters(adapters, recipe="mean", groups=GROUPS, out=tmp_path / "out").out
    card = out / "README.md"
    card.write_text(card.read_text().replace('"groups": [', '"groups": [7, ', 1))
    with pytest.raises(InputError, match=r"groups\['0'\] is 7; expected a valid tuple"):
        verify_adapter(out, adapters)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([["de", "en"], ["fr", "ja", "it"]], {}, [
            "a group names 'it', which has no adapter; choose one of: de, en, fr, ja, zh",
            "'zh' is in no group; expected each language in one group, which may be its own",
        ]),
        ([["de", "en", "fr", "ja"], ["zh", "ja"]], {}, [
            "'ja' stands 2 times in the groups; expected each language in one group, which may be "
            "its own",
        ]),
        (GROUPS, {"recipe": "ties"}, [
            "recipe 'ties' merges in space 'dense', where what a group becomes has no exact "
            "factors of a low rank; merge groups in space 'knots' or 'core', or by recipe 'mean' "
            "or 'sum'",
        ]),
        (GROUPS, {"recipe": "knots-ties", "density": 0.5, "scope": "adapter"}, [
            "recipe 'knots-ties' trims over whole adapters, and what a group becomes is none yet; "
            "set scope to module",
        ]),
        ([["de", "en"], []], {}, [
            "a group is empty; leave it out, or name its languages",
        ]),
    ],
)  # fmt: skip
def test_bad_groups(tmp_path, adapters, groups, options, message):
    with pytest.raises((InputError, ManyErrors)) as caught:
        merge_adapters(
            adapters, **{"recipe": "mean", **options}, groups=groups, out=tmp_path / "out"
        )
    assert str(caught.value).splitlines() == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_module_that_a_whole_group_lacks(tmp_path, recipe):
    """The group takes part with rank 0, as its merge by hand would, which lacks the module too."""
    lacking = {Q: SHAPES[Q]}
    adapters = {
        name: save(tmp_path / name, seed, shapes=lacking if name in ("ja", "zh") else SHAPES)
        for seed, name in enumerate(("de", "en", "fr", "ja", "zh"))
    }
    options = {"recipe": recipe} | ({"density": 0.5} if recipe not in ("mean", "sum") else {})
    found = merge_adapters(adapters, **options, groups=GROUPS, out=tmp_path / "found").out
    first = {
        name: merge_adapters(
            {one: adapters[one] for one in name.split("+")}, **options, out=tmp_path / name
        ).out
        for name in ("de+en+fr", "ja+zh")
    }
    second = deltas(merge_adapters(first, **options, out=tmp_path / "second").out)
    assert deltas(found).keys() == second.keys()
    apart = np.abs(deltas(found)[V] - second[V])
    assert (apart > 1e-4 * np.abs(second[V]).max()).mean() <= 0.02


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"ja": 0.0, "zh": 0.0}, "all weights of group ja+zh are 0; give at least one language of"),
        ({"ja": 1.0, "zh": -1.0}, "the weights of group ja+zh sum to 0, and a mean divides by"),
    ],
)
def test_weights_that_leave_nothing_of_a_group(tmp_path, adapters, weights, said):
    with pytest.raises(InputError, match=re.escape(said)):
        merge_adapters(
            adapters, recipe="mean", groups=GROUPS, weights=weights, out=tmp_path / "out"
        )
