"""The expected calibration error by hand, what few rows do to it, and what the section says."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from koinize.report import results
from koinize.report.blocks import Figure, Paragraph, Table
from koinize.report.calibration import calibration, is_shown
from koinize.report.reliability import reliability
from koinize.report.render import sections
from tests.report.conftest import report_input, task_input

LABELS = ("a", "b")


def answer(probability, is_right, prediction="a"):
    """A row answered with this label, which has this probability; scores need not add up to 1."""
    share = probability if prediction == "a" else 1 - probability
    scores = [log(share) - 7.0, log(1 - share) - 7.0]
    gold = prediction if is_right else "ba"[LABELS.index(prediction)]
    return {"gold": gold, "prediction": prediction, "scores": scores}


def drawn(n, gap, seed):
    """n answers that are right less often than their probability, by this gap."""
    generator = np.random.default_rng(seed)
    probabilities = generator.uniform(0.6, 1.0, n)
    hits = generator.random(n) < probabilities - gap
    return [answer(one, hit) for one, hit in zip(probabilities.tolist(), hits, strict=True)]


def test_on_paper():
    # Bin of .9: mean .91, 1 of 2 right. Bin of .6: mean .65, both right.
    rows = [answer(0.90, True), answer(0.92, False), answer(0.62, True), answer(0.68, True, "b")]
    found = calibration(LABELS, rows)
    assert found["n"] == 4
    assert found["confidence"] == pytest.approx(78.0)
    assert found["accuracy"] == pytest.approx(75.0)
    # Half of the rows are off by 41 points and half by 35.
    assert found["error"] == pytest.approx(38.0)
    assert [(one["n"], one["accuracy"]) for one in found["bins"]] == [(2, 100.0), (2, 50.0)]
    assert [one["confidence"] for one in found["bins"]] == pytest.approx([65.0, 91.0])


def test_a_probability_of_one_is_in_the_last_bin_and_a_tenth_begins_its_own():
    sure = {"gold": "a", "prediction": "a", "scores": [0.0, -1000.0]}
    found = calibration(LABELS, [sure, sure])
    assert (found["error"], found["low"], found["high"]) == (0.0, 0.0, 0.0)
    assert [one["n"] for one in found["bins"]] == [2]
    even = {"gold": "a", "prediction": "a", "scores": [-3.0, -3.0]}
    (only,) = calibration(LABELS, [even])["bins"]
    assert only["confidence"] == 50.0
    assert (only["calibrated_low"], only["calibrated_high"]) == (0.0, 100.0)


def test_what_a_calibrated_model_shows_is_that_of_all_outcomes():
    """Two answers of .5, .5: the gap is 0 in half of the outcomes and 50 points in the others."""
    even = {"gold": "a", "prediction": "a", "scores": [0.0, 0.0]}
    found = calibration(LABELS, [even, even])
    # A mean of 1,000 draws with a deviation of 25 each: .8 points; four of them.
    assert found["calibrated"] == pytest.approx(25.0, abs=3.2)
    assert found["calibrated_high"] == 50.0


def test_what_a_calibrated_model_may_well_show_is_not_called_miscalibrated():
    """Three answers, all right: the largest error there is, in 8 % of the draws. Summed in another
    order this one is 7e-15 points above theirs.
    """
    rows = [
        {"gold": "a", "prediction": "a", "scores": [log(one), *[log((1 - one) / 2)] * 2]}
        for one in (0.433, 0.435, 0.436)
    ]
    found = calibration(("a", "b", "c"), rows)
    assert found["error"] == pytest.approx(found["calibrated_high"], abs=1e-12)
    assert not is_shown(found["error"], found["calibrated_high"])
    assert found["low"] == 0.0


def test_few_rows_of_a_calibrated_model_are_corrected_and_not_called_miscalibrated():
    """Of 40 such sets about 2.5 % are called so: six or more have a probability below .1 %."""
    found = [calibration(LABELS, drawn(40, 0.0, seed)) for seed in range(40)]
    assert sum(one["error"] > one["calibrated_high"] for one in found) < 6
    counted, corrected = (np.mean([one[key] for one in found]) for key in ("error", "corrected"))
    assert corrected < counted
    assert counted == pytest.approx(np.mean([one["calibrated"] for one in found]), abs=2.0)
    calibrated = [one for one in found if one["error"] <= one["calibrated_high"]]
    assert {one["low"] for one in calibrated} == {0.0}


def test_a_gap_of_20_points_is_found_and_held_by_the_interval():
    found = calibration(LABELS, drawn(1000, 0.2, seed=3))
    assert found["error"] > found["calibrated_high"]
    assert 0.0 < found["low"] < 20.0 < found["high"]
    assert found["corrected"] == pytest.approx(20.0, abs=4.0)


def test_the_order_of_rows_changes_nothing():
    rows = drawn(30, 0.1, seed=5)
    assert calibration(LABELS, rows) == calibration(LABELS, rows[::-1])


@pytest.mark.parametrize("scores", [None, [], [0.0], [0.0, 0.0, 0.0]])
def test_rows_without_a_score_for_every_label_say_nothing(scores):
    row = {"gold": "a", "prediction": "a"}
    odd = row if scores is None else {**row, "scores": scores}
    assert calibration(LABELS, [answer(0.7, True), odd]) is None
    assert calibration(LABELS, []) is None


def test_the_diagram_puts_a_dot_where_it_belongs():
    drawing = str(reliability(calibration(LABELS, [answer(0.5, True)])["bins"], "d"))
    # Half of 87 % beside 10 %; all of them right: at the top, 8 pixels down.
    assert 'cx="53.50%" cy="8" r="8.0"' in drawing
    assert "1 answers" not in drawing


def with_scores(task):
    """The same task, its answers given with a probability of 80 %."""
    labels = task.labels

    def scored(row):
        at = labels.index(row["prediction"])
        return {**row, "scores": [log(0.8 if place == at else 0.1) for place in range(3)]}

    evaluations = [replace(one, rows=[scored(row) for row in one.rows]) for one in task.evaluations]
    return replace(task, evaluations=evaluations)


def test_the_section_has_all_rows_and_each_language():
    task = with_scores(task_input(test_rows=20, dev_rows=2))
    found = results(report_input(tasks=[task]))
    rows = found["tasks"][0]["calibration"]
    languages = [None, "de", "en", "fr", "ja", "zh"]
    assert [one["language"] for one in rows] == 2 * languages
    assert [one["n"] for one in rows] == 2 * [100, 20, 20, 20, 20, 20]
    first = rows[0]
    assert first["confidence"] == pytest.approx(80.0)
    assert first["error"] == pytest.approx(abs(80.0 - first["accuracy"]))
    _, figure, table = sections.get("calibration").data(found)
    assert isinstance(figure, Figure)
    assert [title for title, _ in figure.panels] == [
        "knots-ties density 0.5, 100 rows",
        "COMB, 100 rows",
    ]
    assert isinstance(table, Table)
    assert [row[0].text for row in table.rows[:2]] == [
        "knots-ties density 0.5: all rows",
        "knots-ties density 0.5: de",
    ]
    said = {row[-1].text for row in table.rows}
    assert said <= {"not shown", "miscalibrated"}


def test_what_was_not_recorded_is_said(realistic):
    _, said = sections.get("calibration").data(realistic)
    assert said == Paragraph(
        "Scores of the labels were not recorded, so nothing is known of calibration."
    )
