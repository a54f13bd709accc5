"""What holds for every metric by being in the catalog; a new metric is tested by existing."""

import json
import random
import re

import numpy as np
import pytest

from koinize.errors import InputError
from koinize.metrics import (
    RESAMPLES,
    SEED,
    JudgedMetric,
    Metric,
    Score,
    metrics,
    paired_differences,
    score,
)

LABELS = ("bad", "fair", "good")
TEXTS = {
    "The cat sat on the mat.": "en",
    "Der Zug fährt heute für alle später ab.": "de",
    "この製品は iPhone 15 と一緒に使えます。": "ja",
    "这家酒店的服务很好。": "zh",
    "Le café était fermé hier soir.": "fr",
    "!?": "en",
    "Gut": "de",
}
PROMPT = "Ecco un testo di prova che nessuno ha mai scritto prima di oggi."
WORST = {
    "number-precision": "77",
    "not-copied": PROMPT,
    "not-repeated": "so " * 203,
    "output-language": PROMPT,
}
"""Texts that score nothing, where the empty text does not."""
FLOOR = {"not-repeated": 100 / 200}
"""What the worst text scores, if that is not 0: of 200 equal runs one is the first."""

FOREIGN = "gut"

pytestmark = pytest.mark.parametrize(
    "metric", [metrics.get(name) for name in metrics.names()], ids=metrics.names()
)


def option_row(key: str, gold: str, prediction: str) -> dict[str, object]:
    scores = [-2.0 if label == prediction else -5.0 for label in LABELS]
    row = {"key": key, "language": "en", "gold": gold, "prediction": prediction}
    return {**row, "scores": scores, "lengths": [1, 1, 1]}


def free_row(key: str, gold: str, answer: str) -> dict[str, object]:
    """A label was written, or for none of ours that of another language."""
    written = {"written": answer or FOREIGN, "answer": answer}
    return {**option_row(key, gold, gold), **written}


def text_row(key: str, reference: str, prediction: str) -> dict[str, object]:
    row = {"key": key, "language": TEXTS.get(reference, "en"), "prompt": PROMPT}
    judged = {"judge": "", "score": float(reference == prediction)}
    row |= {name: judged for name in metrics.names() if isinstance(metrics.get(name), JudgedMetric)}
    return {**row, "reference": reference, "prediction": prediction, "tokens": 5}


MAKE = {"options": option_row, "free": free_row, "text": text_row}


def set_up(metric: Metric) -> Metric:
    return metric.over(LABELS).among({"de": [FOREIGN]})


def worst(metric: Metric) -> str:
    return WORST.get(metric.name, "")


def rows_for(metric: Metric, n: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows of the metric's kind, at least a third of them right."""
    draw, values = random.Random(seed), tuple(TEXTS) if metric.reads == "text" else LABELS
    make = MAKE[metric.reads]
    rows = []
    for key in range(n):
        truth = draw.choice(values)
        others = [draw.choice(values)] + [worst(metric)] * (metric.reads != "options")
        rows.append(make(str(key), truth, draw.choice([truth, *others])))
    return rows


def perfect(metric: Metric, n: int) -> list[dict[str, object]]:
    make, rows = MAKE[metric.reads], rows_for(metric, n)
    return [make(row["key"], row[metric.truth], row[metric.truth]) for row in rows]


def wrong(metric: Metric, n: int) -> list[dict[str, object]]:
    if metric.reads == "text":
        said = worst(metric)
        return [text_row(str(key), "The 9 cats sat on the mat.", said) for key in range(n)]
    rows = rows_for(metric, n)
    if metric.reads == "free":
        return [free_row(row["key"], row["gold"], "") for row in rows]
    return [
        option_row(row["key"], row["gold"], LABELS[LABELS.index(row["gold"]) - 1]) for row in rows
    ]


def test_its_name_is_its_file(metric: Metric) -> None:
    assert metrics.get(metric.name) is metric


def test_it_equals_another_one_over_the_same_labels(metric: Metric) -> None:
    assert metric.over(LABELS) == metric.over(list(LABELS))
    assert hash(set_up(metric)) == hash(set_up(metric))


def test_perfect_rows_score_100_with_an_interval_of_no_width(metric: Metric) -> None:
    found = score(set_up(metric), perfect(metric, 40), resamples=50)
    assert (found.value, found.low, found.high, found.n) == (100.0, 100.0, 100.0, 40)


def test_wrong_rows_score_0(metric: Metric) -> None:
    found = score(set_up(metric), wrong(metric, 40), resamples=50)
    floor = FLOOR.get(metric.name, 0.0)
    assert (found.value, found.low, found.high) == pytest.approx((floor, floor, floor))


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_lies_in_0_to_100_and_holds_the_value(metric: Metric, seed: int) -> None:
    found = score(set_up(metric), rows_for(metric, 60, seed))
    assert 0.0 <= found.low < found.value < found.high <= 100.0


def test_one_row_is_its_own_interval(metric: Metric) -> None:
    found = score(set_up(metric), perfect(metric, 1))
    assert (found.value, found.low, found.high, found.n) == (100.0, 100.0, 100.0, 1)


def test_order_of_rows_changes_not_one_bit(metric: Metric) -> None:
    rows = rows_for(metric, 50)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert score(set_up(metric), shuffled) == score(set_up(metric), rows)


def test_a_row_twice_weighs_as_much_as_doubled_statistics(metric: Metric) -> None:
    bound, rows = set_up(metric), rows_for(metric, 20)
    statistics = bound.statistics(rows)
    counts = np.array([2.0] + [1.0] * (len(rows) - 1))
    # The two sums add at most 21 terms each in another order: 21 roundings, relative.
    tolerance = 21 * np.finfo(np.float64).eps * 100
    direct = bound.aggregate(bound.statistics([rows[0], *rows]).sum(axis=0))
    assert float(bound.aggregate(counts @ statistics)) == pytest.approx(direct, abs=tolerance)
    assert score(bound, [rows[0], *rows]).value == pytest.approx(direct, abs=tolerance)


def test_aggregate_takes_any_number_of_leading_axes(metric: Metric) -> None:
    bound = set_up(metric)
    statistics = bound.statistics(rows_for(metric, 12)).reshape(2, 3, 2, -1)
    sums = statistics.sum(axis=2)
    found = bound.aggregate(sums)
    assert found.shape == (2, 3)
    assert found[1, 2] == bound.aggregate(sums[1, 2])


def test_chunks_do_not_change_what_is_drawn(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_for(metric, 30)
    whole = score(set_up(metric), rows, resamples=100)
    monkeypatch.setattr("koinize.metrics._bootstrap.CHUNK_CELLS", 1)
    chunked = score(set_up(metric), rows, resamples=100)
    # Another matrix shape may sum 30 terms in another order.
    tolerance = 30 * np.finfo(np.float64).eps * 100
    assert chunked.low == pytest.approx(whole.low, abs=tolerance)
    assert chunked.high == pytest.approx(whole.high, abs=tolerance)


def test_the_seed_is_all_the_chance_there_is(metric: Metric) -> None:
    rows = rows_for(metric, 50)
    assert score(set_up(metric), rows) == score(set_up(metric), rows)
    assert score(set_up(metric), rows, seed=1) != score(set_up(metric), rows, seed=2)


def test_the_signature_names_metric_procedure_and_version(metric: Metric) -> None:
    found = score(set_up(metric), rows_for(metric, 5)).signature
    assert re.fullmatch(r"[a-z0-9-]+(\|[a-z]+:[a-z0-9.-]+)+", found)
    assert found.split("|")[0] == metric.name
    assert found.endswith(f"|boot:{RESAMPLES}|seed:{SEED}|level:95|v:{metric.version}")


def test_a_score_goes_through_json(metric: Metric) -> None:
    found = score(set_up(metric), rows_for(metric, 5))
    assert Score(**json.loads(json.dumps(found.to_dict()))) == found


def test_a_system_does_not_differ_from_itself_beyond_what_was_not_seen(metric: Metric) -> None:
    rows = rows_for(metric, 300)
    observed, resampled = paired_differences(
        set_up(metric), rows, rows, resamples=10_000, seed=SEED
    )
    assert observed == 0.0
    # Rule of three: a Poisson(1) less a Poisson(1) stays within +-3 with 95 %; 3 rows are 1 point.
    assert np.percentile(resampled, [2.5, 97.5]) == pytest.approx([-1.0, 1.0])


def test_swapping_the_systems_swaps_the_sign(metric: Metric) -> None:
    bound, ours, theirs = set_up(metric), rows_for(metric, 30), perfect(metric, 30)
    there, _ = paired_differences(bound, ours, theirs, resamples=5, seed=SEED)
    back, _ = paired_differences(bound, theirs, ours, resamples=5, seed=SEED)
    assert there == -back < 0


def test_no_rows_are_refused(metric: Metric) -> None:
    with pytest.raises(InputError) as refused:
        score(set_up(metric), [])
    assert str(refused.value) == (
        f"{metric.name} has no rows to score; expected at least one; "
        "check that the split is not empty"
    )


def test_rows_of_the_other_kind_are_refused(metric: Metric) -> None:
    row = option_row("k7", "a", "a") if metric.reads == "text" else text_row("k7", "a", "a")
    columns = " and ".join(f"'{one}'" for one in metric.columns)
    with pytest.raises(InputError) as refused:
        score(set_up(metric), [row])
    assert str(refused.value) == (
        f"{metric.name} cannot read column '{metric.truth}' of row 'k7'; expected rows of kind "
        f"'{metric.reads}' with text in {columns}; "
        "choose a metric that fits the task"
    )
