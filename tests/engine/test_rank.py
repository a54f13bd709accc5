"""A rank that is asked for is delivered, up to the module's own."""

import pytest

from koinize.engine import merge_adapters
from tests.peft_folders import Q, deltas, merged, save

SHAPES = {Q: (40, 36)}
DENSE = {"recipe": "ties", "density": 0.5, "weights": {}}


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed, SHAPES) for seed, name in enumerate(("en", "fr"))}


@pytest.mark.parametrize(("rank", "got"), [("full", 6), (4, 4), (20, 20), (36, 36), (64, 36)])
def test_a_rank_above_the_sum_of_the_ranks(tmp_path, adapters, rank, got):
    """Two adapters of rank 3; their election in the dense space has the module's rank, 36."""
    report = merge_adapters(adapters, out=tmp_path / "out", **DENSE, rank=rank)
    assert report.rank == got
    assert (report.error < 1e-6) == (got == 36)


@pytest.mark.parametrize("share", [0.9, 0.999, 0.9999999])
def test_a_share_of_the_energy_is_that_share(tmp_path, adapters, share):
    report = merge_adapters(adapters, out=tmp_path / "out", **DENSE, rank=share)
    assert report.error <= (1 - share) ** 0.5
    one_less = merge_adapters(adapters, out=tmp_path / "less", **DENSE, rank=report.rank - 1)
    assert one_less.error > (1 - share) ** 0.5


@pytest.mark.parametrize("recipe", ["mean", "knots-ties", "core-ties", "dare-linear"])
def test_no_rank_is_made_of_rounding(tmp_path, adapters, recipe):
    """Where the merge itself has rank 6, more is not written."""
    whole = merge_adapters(adapters, out=tmp_path / "whole", recipe=recipe)
    report = merge_adapters(adapters, out=tmp_path / "out", recipe=recipe, rank=20)
    assert report.rank == 6
    assert abs(deltas(report.out)[Q] - deltas(whole.out)[Q]).max() < 1e-5


def test_full_says_what_it_lost_and_what_would_keep_more(tmp_path, adapters):
    report = merge_adapters(adapters, out=tmp_path / "out", **DENSE)
    lost = f"the change of rank lost {report.error:.1%} of the merge (Frobenius norm)"
    assert report.warnings == (f"{lost}; a number or a share as rank may keep more",)
    cut = merge_adapters(adapters, out=tmp_path / "cut", **DENSE, rank=4)
    assert cut.warnings == (
        f"the change of rank lost {cut.error:.1%} of the merge (Frobenius norm)",
    )


def test_a_merge_of_such_a_rank_takes_no_more_memory_than_is_said(tmp_path, adapters):
    """The bytes are those of a merge without a limit."""
    free = merged(tmp_path, adapters, **DENSE, rank=20)
    with pytest.raises(Exception, match="needs") as caught:
        merge_adapters(adapters, out=tmp_path / "out", **DENSE, rank=20, max_memory=1)
    needed = str(caught.value).partition("needs ")[2].partition(" in")[0]
    tight = merge_adapters(adapters, out=tmp_path / "out", **DENSE, rank=20, max_memory=needed)
    assert deltas(tight.out)[Q].tobytes() == deltas(free)[Q].tobytes()
