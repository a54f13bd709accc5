"""The gate: its verdicts on paper, its error rates by simulation, its refusals in full."""

import json
import math
import random
from collections import Counter
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom

from koinize.errors import InputError
from koinize.gate import (
    Verdict,
    better_somewhere,
    budget_after,
    compare,
    fewest_rows,
    holm,
    in_every_language,
    level_of,
    outcome,
    rows_needed,
    smallest_margin,
)
from koinize.metrics import Paired, metrics

ACCURACY = metrics.get("accuracy")
ROUGE = metrics.get("rouge-l")


def hits(right: list[bool]) -> list[dict[str, object]]:
    """Rows that are right or wrong, keyed by position."""
    return [
        {"key": f"{i:04}", "gold": "a", "prediction": "a" if hit else "b"}
        for i, hit in enumerate(right)
    ]


def sides(both: int, lost: int, won: int) -> tuple[list, list]:
    """Candidate and reference with so many rows right in both, lost and won."""
    candidate = hits([True] * both + [False] * lost + [True] * won)
    reference = hits([True] * both + [True] * lost + [False] * won)
    return candidate, reference


def judge(both: int, lost: int, won: int, margin: float = 2.0) -> Verdict:
    return compare(*sides(both, lost, won), ACCURACY, margin)


@pytest.mark.parametrize(
    ("p_value", "p_better", "high", "expected"),
    [
        (0.001, 0.025, 3.0, "better"),
        (0.025, 0.026, 3.0, "not worse"),
        (0.001, 0.5, -0.1, "not worse"),  # a loss for certain, and for certain within the margin
        (0.026, 0.99, -0.1, "worse"),
        (0.026, 0.03, 0.0, "inconclusive"),
        (0.5, 0.9, 9.0, "inconclusive"),
    ],
)
def test_the_p_values_decide(p_value: float, p_better: float, high: float, expected: str) -> None:
    assert outcome(p_value, p_better, high) == expected


def test_a_lower_level_asks_for_more() -> None:
    assert outcome(0.02, 0.5, 3.0, level=0.025) == "not worse"
    assert outcome(0.02, 0.5, 3.0, level=0.01) == "inconclusive"
    candidate, reference = sides(940, 30, 30)
    at = {
        level: compare(candidate, reference, ACCURACY, 2.0, level=level) for level in (0.025, 0.001)
    }
    assert [one.verdict for one in at.values()] == ["not worse", "inconclusive"]
    assert at[0.001].level == 0.001
    assert at[0.001].p_value == at[0.025].p_value


def test_the_levels_of_all_attempts_are_a_budget_of_5_percent() -> None:
    assert [level_of(n) for n in (1, 2, 3, 4)] == pytest.approx(
        [0.025, 0.05 / 6, 0.05 / 12, 0.0025]
    )
    for spent in (1, 2, 10, 1_000):
        assert sum(level_of(n) for n in range(1, spent + 1)) == pytest.approx(
            0.05 - budget_after(spent)
        )
    assert budget_after(0) == 0.05


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((860, 20, 120), "better"),
        ((970, 15, 15), "not worse"),
        ((840, 120, 40), "worse"),
        ((80, 10, 10), "inconclusive"),
    ],
)
def test_the_four_verdicts(counts: tuple[int, int, int], expected: str) -> None:
    verdict = judge(*counts)
    assert verdict.verdict == expected
    assert verdict.passes == (expected in ("better", "not worse"))
    assert (verdict.rows_needed is not None) == (expected == "inconclusive")


def test_numbers_agree_with_the_normal_approximation() -> None:
    verdict = judge(850, 90, 60)
    # d = -30 / 1000; variance of one pair = share that differs - d^2.
    error = 100 * math.sqrt((0.15 - 0.03**2) / 1000)
    assert verdict.difference == pytest.approx(-3.0)
    assert verdict.n == 1000
    # Error of a 2.5th percentile of 10,000 draws: about 2.7 % of the deviation; 4 sigma of it, and
    # the steps of .1 points in which an accuracy over 1,000 rows moves.
    tolerance = 4 * 0.027 * error + 0.1
    assert verdict.low == pytest.approx(-3.0 - 1.96 * error, abs=tolerance)
    assert verdict.high == pytest.approx(-3.0 + 1.96 * error, abs=tolerance)
    below = NormalDist(-3.0, error).cdf(-2.0)
    assert verdict.p_value == pytest.approx(below, abs=4 * 0.5 / 100 + 0.1 / error * 0.4)
    assert verdict.p_better == pytest.approx(NormalDist(-3.0, error).cdf(0.0), abs=0.02)


def test_the_p_value_is_never_kinder_than_the_interval() -> None:
    for lost in range(5, 40, 5):
        verdict = judge(700, lost, 20)
        assert verdict.low > -2.0 or verdict.p_value > 0.025
        assert verdict.low > 0.0 or verdict.p_better > 0.025


def test_order_of_rows_and_seed() -> None:
    candidate, reference = sides(300, 30, 20)
    shuffled = random.Random(0).sample(candidate, len(candidate))
    verdict = compare(candidate, reference, ACCURACY, 2.0)
    assert compare(shuffled, reference[::-1], ACCURACY, 2.0) == verdict
    assert compare(candidate, reference, ACCURACY, 2.0, seed=1) != verdict


def test_macro_f1_and_rouge_are_judged_too() -> None:
    candidate, reference = sides(300, 0, 60)
    f1 = compare(candidate, reference, metrics.get("macro-f1").over("ab"), 2.0)
    # Only 'a' has gold rows. Candidate: 100. Reference: 2 x 300 / (300 + 360).
    assert f1.difference == pytest.approx(100 - 100 * 600 / 660)
    assert f1.verdict == "better"
    texts = [{"key": str(i), "reference": "a b c d", "prediction": "a b c"} for i in range(50)]
    shorter = [{**row, "prediction": "a b"} for row in texts]
    rouge = compare(shorter, texts, ROUGE, 1.0)
    assert rouge.difference == pytest.approx(100 * (2 * 2 / 6 - 2 * 3 / 7))
    assert rouge.verdict == "worse"


def test_one_row_proves_nothing() -> None:
    for counts in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        assert judge(*counts).verdict == "inconclusive"


def test_rows_that_never_differ() -> None:
    """Of n rows that lose 2 % of the time none is lost with .98^n: 2.5 % at n = 183."""
    few, many = judge(180, 0, 0), judge(220, 0, 0)
    assert (few.difference, few.verdict, many.verdict) == (0.0, "inconclusive", "not worse")
    # The interval is the rule of three.
    assert (many.low, many.high) == pytest.approx((-300 / 220, 300 / 220))


def exact(n: int, lost: float, won: float) -> dict[float, float]:
    """The chance of p <= level, over levels, summed over every sample that can be drawn."""
    chance = dict.fromkeys([level_of(attempt) for attempt in (1, 2, 3, 5, 8, 12)], 0.0)
    losses, wins = (binom(n, rate).pmf(np.arange(n + 1)) for rate in (lost, won))
    for a in np.flatnonzero(losses > 1e-9):
        left = binom(n - a, won / (1 - lost)).pmf(np.arange(n - a + 1)) if won else [1.0]
        for b in np.flatnonzero(np.asarray(left) > 1e-9):
            p = tail(n, int(a), int(b))
            for level in chance:
                chance[level] += losses[a] * left[b] * (p <= level)
    assert wins.sum() == pytest.approx(1.0)
    return chance


def tail(n: int, lost: int, won: int) -> float:
    """The p-value without the bootstrap, of rows that are lost or won whole."""
    shares = np.array([lost + 1.0, n - lost - won, won + 1.0]) / (n + 2)
    points = np.array([-100.0, 0.0, 100.0])
    observed = 100.0 * (won - lost) / n
    return Paired(n, observed, np.array([np.inf]), points, shares, np.zeros(n)).p_value(-2.0)


@pytest.mark.parametrize(
    ("n", "lost", "won"),
    [(151, 0.02, 0.0), (500, 0.02, 0.0), (1_000, 0.02, 0.0), (400, 0.03, 0.01)],
)
def test_where_few_rows_differ_the_tail_alone_keeps_every_level(
    n: int, lost: float, won: float
) -> None:
    for level, chance in exact(n, lost, won).items():
        assert chance <= level


def test_the_error_of_a_tilted_population_on_paper() -> None:
    # One loss, one win and 98 rows alike, tilted to a mean of -2 points: with losses at rate a and
    # wins at rate b, a - b = .02 and a b = q^2 / 98^2 where q = 1 - a - b is the rest.
    found = Paired(
        100,
        0.0,
        np.zeros(1),
        np.array([-100.0, 0, 100]),
        np.array([0.01, 0.98, 0.01]),
        np.zeros(100),
    )
    a = next(a for a in np.arange(0.02, 0.03, 1e-8) if a * (a - 0.02) >= ((1.02 - 2 * a) / 98) ** 2)
    assert found.error_at(-2.0) == pytest.approx(
        math.sqrt(((2 * a - 0.02) * 1e4 - 4) / 100), rel=1e-5
    )
    assert found.error_at(0.0) == pytest.approx(math.sqrt(0.02 * 1e4 / 100))
    assert found.error_at(-100.0) == math.inf
    assert found.p_value(-100.0) == 0.5, "what no weights reach is undecided"


@pytest.mark.slow
@pytest.mark.parametrize(("n", "expected"), [(100, "inconclusive"), (1_000, "not worse")])
def test_losses_far_smaller_than_the_margin_are_as_no_losses(n: int, expected: str) -> None:
    # One text ends in another letter: far less than the margin of a point, whoever is better.
    chrf = metrics.get("chrf")
    text = "the quick brown fox jumps over the lazy dog again and again " * 4
    same = [
        {"key": f"{i:04}", "language": "en", "reference": text, "prediction": f"{text}x"}
        for i in range(n)
    ]
    other = [{**same[0], "prediction": f"{text}xy"}, *same[1:]]
    alike, differing = compare(same, same, chrf, 1.0), compare(other, same, chrf, 1.0)
    assert alike.verdict == differing.verdict == expected
    if alike.rows_needed is not None:
        assert differing.rows_needed == pytest.approx(alike.rows_needed, rel=0.05)


def test_rows_needed_on_paper() -> None:
    # d = 0 and margin 2: the distance is 2 points; (1.96 + .8416)^2 = 7.849; 10 % more to be safe.
    assert rows_needed(0.0, 2.0, 2.0, 100) == math.ceil(1.10 * 784.888)
    # d = -.5: it is nearer to show that the loss is within the margin (1.5 away) than real (.5).
    assert rows_needed(-0.5, 1.5, 2.0, 100) == math.ceil(1.10 * 784.888)
    # d = -1.5: it is nearer to show that the loss is real.
    assert rows_needed(-1.5, 1.5, 2.0, 100) == math.ceil(1.10 * 784.888)
    # d = -5, beyond the margin: only "worse" is left.
    assert rows_needed(-5.0, 5.0, 2.0, 100) == math.ceil(1.10 * 784.888)
    assert rows_needed(0.0, 0.1, 2.0, 100) == 101
    # At 0.5 % with 90 %: (2.5758 + 1.2816)^2 = 14.879.
    assert rows_needed(0.0, 2.0, 2.0, 100, 0.005, 0.9) == math.ceil(1.10 * 1487.939)
    # d = -1: both ends are 1 away; "worse" is said at 2.5 %, whatever the level of "not worse".
    assert rows_needed(-1.0, 1.0, 2.0, 100, 0.0001) == math.ceil(1.10 * 784.888)


def test_a_verdict_goes_through_json_and_carries_its_recipe() -> None:
    verdict = judge(80, 10, 10)
    assert Verdict(**json.loads(json.dumps(verdict.to_dict()))) == verdict
    assert verdict.signature == (
        "accuracy|paired:key|guard:win+loss|tail:tilted|margin:2|boot:10000|seed:12345|level:95|v:1"
    )


def simulated(n: int, lost: float, won: float, times: int = 1_000) -> Counter[str]:
    """Verdicts over samples of n rows that are lost and won with these probabilities."""
    draw = np.random.default_rng(7)
    found: Counter[str] = Counter()
    for seed in range(times):
        a, b, _ = (int(count) for count in draw.multinomial(n, [lost, won, 1 - lost - won]))
        pair = sides(n - a - b, a, b)
        verdict = compare(*pair, ACCURACY, 2.0, resamples=500, seed=seed)
        found[verdict.verdict] += 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "lost", "won"),
    [
        (300, 0.085, 0.065),  # both directions, as two good systems differ
        (151, 0.02, 0.0),  # hardly a row differs: the plain bootstrap errs in one of five samples
        (250, 0.02, 0.0),
        (500, 0.02, 0.0),
        (400, 0.03, 0.01),
    ],
)
def test_a_loss_of_the_margin_passes_in_at_most_5_percent(n: int, lost: float, won: float) -> None:
    found = simulated(n, lost, won)
    wrong = (found["better"] + found["not worse"]) / found.total()
    # Three standard errors of a rate of 5 % in 1,000 samples.
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1_000)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "lost", "won"), [(600, 0.03, 0.03), (800, 0.06, 0.07)])
def test_power_is_what_the_normal_approximation_predicts(n: int, lost: float, won: float) -> None:
    found = simulated(n, lost, won)
    passed = (found["better"] + found["not worse"]) / found.total()
    # The two added pairs draw the mean to 0 and add to the variance.
    share, mean = (n * (lost + won) + 2) / (n + 2), n * (won - lost) / (n + 2)
    spread = NormalDist(100 * (won - lost), 100 * math.sqrt((lost + won) / n))
    half_width = 1.96 * 100 * math.sqrt((share - mean**2) / n)
    predicted = 1 - spread.cdf(-2.0 + half_width)
    # Three standard errors of the simulation, and half a step of 100 / n points in the difference.
    step = 0.5 * 100 / n * spread.pdf(-2.0 + half_width)
    assert passed == pytest.approx(predicted, abs=3 * math.sqrt(0.25 / 1_000) + step)


@pytest.mark.slow
def test_a_false_better_is_rare() -> None:
    found = simulated(300, 0.05, 0.05, times=300)
    assert found["better"] / 300 <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 300)


def test_in_every_language_needs_every_language() -> None:
    good, bad, open_ = judge(970, 15, 15), judge(840, 120, 40), judge(80, 10, 10)
    won = judge(860, 20, 120)
    joint = in_every_language({"ja": good, "de": won})
    assert (joint.verdict, joint.worse, joint.inconclusive) == ("not worse", (), ())
    assert joint.p_value == max(good.p_value, won.p_value)
    joint = in_every_language({"zh": open_, "ja": bad, "fr": bad, "de": won})
    assert (joint.verdict, joint.worse, joint.inconclusive) == ("worse", ("fr", "ja"), ("zh",))
    assert in_every_language({"zh": open_, "de": won}).verdict == "inconclusive"
    with pytest.raises(InputError) as refused:
        in_every_language({})
    assert str(refused.value) == "there is no language to judge; expected at least one verdict"


def test_holm_on_paper() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made monotone.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.02})
    assert found == pytest.approx({"a": 0.04, "d": 0.06, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_better_somewhere_pays_for_the_search() -> None:
    won, even = judge(860, 20, 120), judge(970, 15, 15)
    assert better_somewhere({"ja": won, "de": even}) == ("ja",)
    barely = next(
        found
        for won_rows in range(20, 60)
        if (found := judge(900, 20, won_rows)).verdict == "better"
    )
    assert better_somewhere({"ja": barely}) == ("ja",)
    assert better_somewhere({"ja": barely, "de": even, "fr": even}) == ()


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_must_leave_room(margin: float) -> None:
    with pytest.raises(InputError) as refused:
        judge(10, 0, 0, margin)
    assert str(refused.value) == (
        f"margin {margin:g} cannot be tested; expected a number of points above 0; "
        "no number of rows shows a loss of exactly nothing"
    )


def test_rows_without_partner_are_refused() -> None:
    candidate, reference = sides(5, 0, 0)
    with pytest.raises(InputError) as refused:
        compare(candidate[1:], reference[:-1], ACCURACY, 2.0)
    assert str(refused.value) == (
        "2 rows have no partner, the first with key '0000'; expected the same keys on both sides, "
        "not 4 and 4 rows; evaluate both on the same split"
    )


def test_a_repeated_key_is_refused() -> None:
    candidate, reference = sides(5, 0, 0)
    with pytest.raises(InputError) as refused:
        compare(candidate, [*reference, reference[0]], ACCURACY, 2.0)
    assert str(refused.value) == (
        "the reference has two rows with key '0000'; expected one row per key; "
        "compare one language and one split at a time"
    )


def test_two_truths_for_one_row_are_refused() -> None:
    candidate, reference = sides(5, 0, 0)
    reference[3] = {**reference[3], "gold": "b"}
    with pytest.raises(InputError) as refused:
        compare(candidate, reference, ACCURACY, 2.0)
    assert str(refused.value) == (
        "row '0003' has two different values of 'gold'; expected the same example on both sides; "
        "evaluate both on the same version of the data"
    )


def test_what_rows_can_show_at_all() -> None:
    """Equal answers to as many rows decide, to fewer do not; a clear gain does with fewer, too."""
    fewest = fewest_rows(2.0)
    assert judge(fewest, 0, 0).verdict == "not worse"
    assert judge(fewest - 1, 0, 0).verdict == "inconclusive"
    margin = smallest_margin(42)
    assert judge(42, 0, 0, margin).verdict == "not worse"
    assert judge(42, 0, 0, margin - 0.1).verdict == "inconclusive"
    assert smallest_margin(1) > 100
    assert judge(40, 0, 20).verdict == "better"


def test_an_interval_above_the_margin_is_no_verdict_where_few_rows_differ() -> None:
    """The report says so beneath its verdicts."""
    found = judge(190, 0, 0)
    assert found.low > -2.0
    assert found.verdict == "inconclusive"


def test_worse_somewhere_has_to_survive_the_search_over_languages() -> None:
    """One language of ten that looks worse at 2 % is what chance brings; one at .01 % is not."""
    equal = {str(n): judge(400, 0, 0) for n in range(9)}
    doubtful = replace(judge(360, 40, 0), p_worse=0.02)
    certain = replace(doubtful, p_worse=1e-4)
    assert doubtful.verdict == "worse"
    assert in_every_language({"de": doubtful}).worse == ("de",)
    joint = in_every_language({**equal, "de": doubtful})
    assert (joint.verdict, joint.worse, joint.inconclusive) == ("inconclusive", (), ("de",))
    joint = in_every_language({**equal, "de": certain})
    assert (joint.verdict, joint.worse, joint.inconclusive) == ("worse", ("de",), ())
    former = replace(doubtful, p_worse=None)  # of a release that an older koinize judged
    assert in_every_language({**equal, "de": former}).worse == ("de",)
