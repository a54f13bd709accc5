"""ROUGE: equal texts are equal in every language, and the arithmetic is that of the paper."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.metrics import metrics, score
from koinize.metrics._rouge import common_subsequence

ROUGES = ["rouge-1", "rouge-2", "rouge-l", "rouge-lsum"]

SENTENCES = {
    "am": "ሰላም ለሁሉም ይሁን",
    "ar": "هذا كتاب جديد عن المدينة",
    "bn": "এটি একটি নতুন বই",
    "de": "Für die Straße wäre das schön.",
    "el": "Αυτό είναι ένα νέο βιβλίο",
    "en": "This is a new book about the city.",
    "fa": "این یک کتاب می‌خواهد",
    "fr": "L'été dernier, nous étions à Genève.",
    "he": "זה ספר חדש על העיר",
    "hi": "यह शहर के बारे में एक नई किताब है",
    "ja": "これは東京についての新しい本です。",
    "ka": "ეს არის ახალი წიგნი",
    "km": "នេះគឺជាសៀវភៅថ្មី",
    "ko": "이것은 도시에 관한 새 책입니다",
    "lo": "ນີ້ແມ່ນປຶ້ມໃໝ່",
    "my": "ဒါက စာအုပ်အသစ်ပါ",
    "ru": "Это новая книга о городе",
    "ta": "இது ஒரு புதிய புத்தகம்",
    "th": "นี่คือหนังสือเล่มใหม่",
    "tr": "Bu şehir hakkında yeni bir kitap, İstanbul'da",
    "vi": "Đây là một cuốn sách mới",
    "zh": "这是一本关于北京的新书。",
}


def f1(name: str, reference: str, prediction: str) -> float:
    row = {"key": "0", "reference": reference, "prediction": prediction}
    return score(metrics.get(name), [row], resamples=2).value


@pytest.mark.parametrize("name", ROUGES)
@pytest.mark.parametrize("language", SENTENCES)
def test_identical_texts_score_100(name: str, language: str) -> None:
    assert f1(name, SENTENCES[language], SENTENCES[language]) == 100.0


@pytest.mark.parametrize("language", SENTENCES)
def test_a_text_that_lacks_its_last_third_scores_between(language: str) -> None:
    text = SENTENCES[language]
    assert 0.0 < f1("rouge-1", text, text[: len(text) * 2 // 3]) < 100.0


@pytest.mark.parametrize("name", ROUGES)
def test_a_diacritic_is_a_letter(name: str) -> None:
    assert f1(name, "für", "fär") == 0.0


def test_english_on_paper() -> None:
    reference, prediction = "the cat sat on the mat", "the the the dog on a mat"
    assert f1("rouge-1", reference, prediction) == pytest.approx(100 * 8 / 13)  # the the on mat
    assert f1("rouge-2", reference, prediction) == 0.0
    assert f1("rouge-l", reference, prediction) == pytest.approx(100 * 6 / 13)  # the on mat
    # Pairs: police-killed killed-the the-gunman; of "police kill the gunman" only the last.
    assert f1("rouge-2", "police killed the gunman", "police kill the gunman") == pytest.approx(
        100 * 2 * 1 / 6
    )
    # Lin's example: order counts for the subsequence and not for the words.
    assert f1("rouge-1", "police killed the gunman", "the gunman kill police") == 75.0
    assert f1("rouge-l", "police killed the gunman", "the gunman kill police") == 50.0


def test_japanese_and_chinese_on_paper() -> None:
    # 東 京 は 晴 れ against 京 都 は 晴 れ: 京 は 晴 れ in common and in order, 5 tokens each.
    assert f1("rouge-1", "東京は晴れ", "京都は晴れ") == 80.0
    assert f1("rouge-l", "東京は晴れ", "京都は晴れ") == 80.0
    # Pairs は晴 and 晴れ of 4 each.
    assert f1("rouge-2", "東京は晴れ", "京都は晴れ") == 50.0
    # 我 爱 gpt4 against 我 用 gpt4: two of three.
    assert f1("rouge-1", "我爱 GPT4", "我用GPT4") == pytest.approx(100 * 4 / 6)


@pytest.mark.parametrize("name", ROUGES)
@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [("", "", 100.0), ("", "word", 0.0), ("word", "", 0.0), ("!", "!", 100.0), ("!", "?", 0.0)],
)
def test_texts_with_nothing_to_count(
    name: str, reference: str, prediction: str, expected: float
) -> None:
    assert f1(name, reference, prediction) == expected


def test_one_word_has_no_pair() -> None:
    assert f1("rouge-2", "Gut", "gut!") == 100.0
    assert f1("rouge-2", "Gut", "schlecht") == 0.0
    assert f1("rouge-2", "sehr gut", "gut") == 0.0


@pytest.mark.parametrize("name", ROUGES)
def test_the_score_is_the_mean_over_rows(name: str) -> None:
    pairs = [("a b c", "a b c"), ("a b c", "x y z"), ("a b c", "x y z"), ("d e", "d e")]
    rows = [{"key": r, "reference": r, "prediction": p} for r, p in pairs]
    assert score(metrics.get(name), rows).value == 50.0


@pytest.mark.slow
@given(st.text(max_size=40), st.text(max_size=40))
def test_f1_is_symmetric_and_100_for_equal_texts(left: str, right: str) -> None:
    for name in ROUGES:
        assert f1(name, left, right) == f1(name, right, left)
        assert f1(name, left, left) == 100.0


def table_lcs(left, right) -> int:
    """The textbook table."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            longest = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else longest
    return table[-1][-1]


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_subsequence_equals_the_table(left: list[str], right: list[str]) -> None:
    assert common_subsequence(left, right) == table_lcs(left, right)


def test_subsequence_beyond_one_machine_word() -> None:
    draw = random.Random(3)
    left, right = draw.choices("abcdefgh", k=200), draw.choices("abcdefgh", k=150)
    assert common_subsequence(left, right) == table_lcs(left, right)


def test_lsum_unites_what_several_sentences_share_with_one_of_the_reference() -> None:
    # Lin's example (section 3.2): one two, and one three five; united one two three five, 4 of 5.
    # Of w1 there are two in the prediction's ten tokens: 2 x 4 / (5 + 10).
    reference = "w1 w2 w3 w4 w5"
    prediction = "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"
    assert f1("rouge-lsum", reference, prediction) == pytest.approx(100 * 8 / 15)
    # Sentences may come in another order, which ROUGE-L does not forgive.
    assert f1("rouge-lsum", "a b c. d e f.", "d e f. a b c.") == 100.0
    assert f1("rouge-l", "a b c. d e f.", "d e f. a b c.") == 50.0
    # A token counts as often as both texts have it: the second sentence finds no cat any more.
    assert f1("rouge-lsum", "the cat\nthe cat", "the cat") == pytest.approx(100 * 4 / 6)


@pytest.mark.parametrize(
    ("text", "other", "equal"),
    [
        ("東京は晴れ。京都は雨。", "京都は雨。東京は晴れ。", True),
        ("Ja! Nein?", "Nein? Ja!", True),
        ("यह शहर है। वह गाँव है।", "वह गाँव है। यह शहर है।", True),
        ("Version 3.14 ist da", "14 ist da Version 3", False),  # no sentence ends inside a number
    ],
)
def test_where_lsum_begins_a_new_sentence(text: str, other: str, equal: bool) -> None:
    assert (f1("rouge-lsum", text, other) == 100.0) == equal


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [  # rouge-score 0.1.2, rougeLsum, no stemmer
        ("police killed the gunman\nthe gunman ran away",
         "the gunman killed police\nhe ran away", 0.5333333333333333),
        ("one two three four five",
         "one two six seven eight\none three eight nine five", 0.5333333333333333),
        ("the cat sat on the mat\nit purred",
         "on the mat sat the cat\nthe cat purred and it slept", 0.5),
    ],
)  # fmt: skip
def test_lsum_is_that_of_rouge_score(reference: str, prediction: str, expected: float) -> None:
    assert f1("rouge-lsum", reference, prediction) == pytest.approx(100 * expected)


def test_lsum_is_that_of_rouge_score_wherever_that_is_installed() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeLsum"])
    draw = random.Random(0)

    def text() -> str:
        lines = [draw.choices("abcdefg", k=draw.randint(1, 8)) for _ in range(draw.randint(1, 4))]
        return "\n".join(map(" ".join, lines))

    for reference, prediction in ((text(), text()) for _ in range(200)):
        theirs = scorer.score(reference, prediction)["rougeLsum"].fmeasure
        assert f1("rouge-lsum", reference, prediction) == pytest.approx(100 * theirs)


def test_signature() -> None:
    row = {"key": "0", "reference": "a", "prediction": "a"}
    assert score(metrics.get("rouge-l"), [row]).signature == (
        "rouge-l|tok:script|case:fold|boot:2000|seed:12345|level:95|v:1"
    )
