"""Trimming in one pass gives, bit for bit, what exact thresholds give in two."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koinize.merge.combine.elect import combine as elect
from koinize.merge.combine.mean import combine as mean
from koinize.merge.select import SMALL, magnitude_threshold
from koinize.merge.sparsify import _trimmed
from koinize.merge.sparsify._trimmed import Waiting, shrink
from koinize.merge.sparsify.trim import sparsify
from koinize.merge.stack import Stack

ROWS, COLUMNS, LANGUAGES = 261, 257, ("de", "en", "fr")
assert ROWS * COLUMNS > SMALL


def entries(kind, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(len(LANGUAGES), ROWS, COLUMNS)).astype(np.float32)
    if kind == "ties":
        X = np.round(X, 1)
    if kind == "zeros":
        X *= random.random(X.shape) < 0.05
    if kind == "rows of all sizes":
        X *= np.logspace(-2, 2, ROWS, dtype=np.float32)[:, None]
    return torch.from_numpy(X)


def stack_of(X, sample):
    def block(index, rows):
        return X[index][rows].clone()

    samples = {
        "fair": lambda index: X[index].reshape(-1)[::61],
        "misleading": lambda _: torch.full((500,), 9.0),
    }
    return Stack("m", LANGUAGES, (ROWS, COLUMNS), block, group=3, sample=samples[sample])


def in_two_passes(X, count, combine):
    """Each X_i trimmed at its exact threshold, then combined whole."""
    trimmed = [shrink(x.clone(), magnitude_threshold(x.clone(), count)) for x in X]
    whole = Stack("m", LANGUAGES, (ROWS, COLUMNS), lambda i, rows: trimmed[i][rows].clone())
    return combine(whole)


COMBINES = {
    "mean": lambda stack: mean(stack, [1.0, 2.0, 0.5]),
    "elect": lambda stack: elect(stack, [1.0, 2.0, 0.5]),
    "elect by majority": lambda stack: elect(
        stack, [1.0, 1.0, 1.0], sign="frequency", normalize="count", zero_sign="majority"
    ),
}


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("sample", ["fair", "misleading"])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "rows of all sizes"])
@pytest.mark.parametrize("density", [1e-4, 0.2, 0.5, 0.99])
def test_one_pass_is_two(monkeypatch, kind, sample, combine, density):
    monkeypatch.setattr("koinize.merge.stack.TILE_ELEMENTS", 5000)
    monkeypatch.setattr(_trimmed, "PIECE", 700)
    X = entries(kind)
    count = int(density * ROWS * COLUMNS)
    merged = COMBINES[combine](sparsify(stack_of(X, sample), density=density))
    assert torch.equal(merged, in_two_passes(X, count, COMBINES[combine]))


@pytest.mark.slow
@settings(max_examples=25)
@given(seed=st.integers(0, 2**20), density=st.floats(0.001, 0.999), tile=st.integers(1, 3 * SMALL))
def test_tiles_change_no_bit(seed, density, tile):
    X = entries("normal", seed)
    count = int(density * ROWS * COLUMNS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("koinize.merge.stack.TILE_ELEMENTS", tile)
        merged = COMBINES["elect"](sparsify(stack_of(X, "fair"), density=density))
    assert torch.equal(merged, in_two_passes(X, count, COMBINES["elect"]))


def test_every_entry_is_asked_for_once():
    X, asked = entries("normal"), []
    stack = stack_of(X, "fair")

    def block(index, rows):
        asked.append((index, rows.start, rows.stop))
        return X[index][rows].clone()

    counted = Stack("m", LANGUAGES, stack.shape, block, group=3, sample=stack.sample)
    COMBINES["elect"](sparsify(counted, density=0.5))
    tiles = list(stack.rows())
    assert sorted(asked) == [(i, rows.start, rows.stop) for i in range(3) for rows in tiles]


def test_a_block_by_itself_is_trimmed_at_the_exact_threshold():
    X = entries("normal")
    count = int(0.3 * ROWS * COLUMNS)
    trimmed = sparsify(stack_of(X, "fair"), density=0.3)
    for index, x in enumerate(X):
        kept = shrink(x.clone(), magnitude_threshold(x.clone(), count))
        assert int(kept.count_nonzero()) == count
        assert torch.equal(trimmed.block(index, slice(5, 40)), kept[5:40])


def test_no_zero_waits():
    """Neither an adapter that leaves the module alone, nor one that is nearly all zeros."""
    nothing, little = torch.zeros(30, 40), torch.zeros(30, 40)
    little[3, 4:7] = torch.tensor([1.0, -2.0, 3.0])
    waiting = Waiting([(0.0, 0.0), (0.0, 2.5)])
    waiting.look(0, [nothing, little])
    assert waiting.places().tolist() == [124, 125]  # the 3 lies above its bracket
    assert waiting.thresholds(600) == [0.0, 0.0]
    assert waiting.thresholds(2) == [0.0, 2.0]


@pytest.mark.parametrize("magnitude", [0.0, 1.0])
def test_equal_magnitudes_do_not_pile_up(monkeypatch, magnitude):
    """Where all of an adapter's entries tie they are not set aside one by one."""
    X = entries("normal")
    X[1] = magnitude * X[1].sign()
    kept = []
    look = Waiting.look
    monkeypatch.setattr(
        Waiting, "look", lambda self, *given: (kept.append(self), look(self, *given))
    )
    count = int(0.5 * ROWS * COLUMNS)
    monkeypatch.setattr("koinize.merge.stack.TILE_ELEMENTS", 5000)
    merged = COMBINES["elect"](sparsify(stack_of(X, "fair"), density=0.5))
    assert torch.equal(merged, in_two_passes(X, count, COMBINES["elect"]))
    assert kept[0].number < 0.8 * ROWS * COLUMNS
