"""What a written text is like, whatever its reference: golden values on paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.errors import InputError
from koinize.metrics import metrics, score
from koinize.metrics._numbers import numbers
from koinize.spec import load

NB, NARROW = "\u00a0", "\u202f"


def points(name, prediction, *, reference="r", prompt="p", language="en"):
    row = {"key": "0", "language": language, "prompt": prompt}
    return score(
        metrics.get(name), [{**row, "reference": reference, "prediction": prediction}], resamples=2
    ).value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,234 and 1.234 and 1'234 and 1’234", ["1234"] * 4),
        (f"1{NB}234 567 1{NARROW}234", ["1234", "567", "1234"]),
        ("1.234,50 or 1,234.5", ["1234.5", "1234.5"]),
        ("1.234.567,8", ["1234567.8"]),
        ("3,5 3.50 03.5", ["3.5"] * 3),
        ("0.125 0,125", ["0.125", "0.125"]),  # no thousand begins with a 0
        ("12345.678", ["12345.678"]),  # nor with five digits
        ("1.2345", ["1.2345"]),
        ("2020 100", ["2020", "100"]),
        ("１２３ と ４．５、１，２３４", ["123", "4.5", "1234"]),
        ("२०२६ ٢٠٢٦", ["2026", "2026"]),
        ("12.11.2026, 10:30", ["12.11", "2026", "10", "30"]),
        ("GPT4 on page 7.", ["4", "7"]),
        ("007 and 0 and 0,0", ["7", "0", "0"]),
        ("three 三", []),
        ("٣٫٥ و ٣٬٤٥٦", ["3.5", "3456"]),
        ("10² 1½ ① H₂O", ["10", "1"]),
    ],
)  # fmt: skip
def test_numbers(text, found):
    assert numbers(text) == found


@given(st.integers(0, 10**12))
def test_a_number_is_the_same_however_its_thousands_are_set_apart(value):
    grouped = f"{value:,}"
    for separator in (",", ".", "'", "’", NB, NARROW, "\u2009"):
        assert numbers(f"({grouped.replace(',', separator)})") == [str(value)]


def test_number_precision():
    prompt = "In 2024 the firm sold 1.234 cars."
    # 1,234 and 2024 are in the prompt, 12 in the reference, 99 in neither.
    said = {"reference": "12 months", "prompt": prompt}
    assert points("number-precision", "1,234 cars in 2024, 99 in 12 months", **said) == 75.0
    assert points("number-precision", "99 and 99 and 2024", **said) == pytest.approx(100 / 3)
    assert points("number-precision", "Cars were sold.", **said) == 100.0


def test_number_recall():
    assert points("number-recall", "5 of 7", reference="7 of 8, 7 of 9") == pytest.approx(100 / 3)
    assert points("number-recall", "none", reference="none, 1") == 0.0
    assert points("number-recall", "5", reference="none") == 100.0


@pytest.mark.parametrize(
    ("text", "found"),
    [("", 0.0), (" \n\t", 0.0), ("\u200b\u00ad", 0.0), ("a", 100.0), ("!", 100.0), ("語", 100.0)],
)
def test_not_empty(text, found):
    assert points("not-empty", text) == found


PROMPT = "Please shorten: the old bridge over the river was closed on Monday for repairs."


@pytest.mark.parametrize(
    ("text", "reference", "found"),
    [
        ("The old bridge over the river was closed", "closed", 0.0),  # eight tokens
        ("old bridge over the river was closed", "no bridge", 100.0),  # seven
        ("the old bridge across the river was closed on Monday", "no bridge", 100.0),
        ("THE OLD BRIDGE: over the river, was closed!", "no bridge", 0.0),
        # The reference is a copy as well, so a copy may be right.
        ("The old bridge over the river was closed", PROMPT[20:], 100.0),
        ("bridge over the river was closed on mon", "no bridge", 100.0),  # whole tokens only
    ],
)
def test_not_copied(text, reference, found):
    assert points("not-copied", text, reference=reference, prompt=PROMPT) == found


def test_not_copied_counts_characters_where_there_are_no_spaces():
    prompt = "要約：東京の古い橋は月曜日に閉鎖された。"
    assert points("not-copied", "東京の古い橋は月", reference="橋", prompt=prompt) == 0.0
    assert points("not-copied", "東京の古い橋は", reference="橋", prompt=prompt) == 100.0


def test_not_repeated():
    # Eight tokens have five 4-grams: abca bcab cabc abca bcab, three of them different.
    assert points("not-repeated", "a b c a b c a b") == 60.0
    assert points("not-repeated", "a a a a a a a a") == 20.0
    assert points("not-repeated", "a b c d e f g h") == 100.0
    assert points("not-repeated", "a a a") == points("not-repeated", "") == 100.0


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("de", "Der Zug fährt heute für alle später ab.", 100.0),
        ("en", "Der Zug fährt heute für alle später ab.", 0.0),
        ("de-AT", "Der Zug fährt heute für alle später ab.", 100.0),
        ("ja", "これは東京についての新しい本です。", 100.0),
        ("zh", "これは東京についての新しい本です。", 0.0),
        ("zh_Hant", "這是一本關於北京的新書。", 100.0),
        ("nb", "Jeg synes at maten var veldig god og at betjeningen var hyggelig.", 100.0),
        ("ja", "OK", 100.0),  # nobody can tell
        ("ja", "", 100.0),
    ],
)
def test_output_language(language, text, found):
    assert points("output-language", text, language=language) == found


def test_a_language_that_is_not_known_is_refused():
    said = "output-language cannot tell the language 'tlh'; take the metric out"
    assert metrics.get("output-language").refusal(["de", "tlh"]) == said
    assert metrics.get("output-language").refusal(["de", "pt-BR", "yue"]) == ""
    with pytest.raises(InputError) as refused:
        points("output-language", "nuqneH", language="tlh")
    assert str(refused.value) == said


SPEC = """\
koinize: 1
name: p
base: {model: b, revision: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb}
languages: [de, tlh]
tasks:
  s:
    kind: generate
    prompt: "{text}"
    metrics: [rouge-lsum, output-language]
"""


def test_a_specification_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    file = tmp_path / "koinize.yaml"
    file.write_text(SPEC)
    with pytest.raises(InputError) as refused:
        load(file)
    assert str(refused.value) == (
        "koinize.yaml:9:27 tasks.s.metrics[1]: output-language cannot tell the language 'tlh'; "
        "take the metric out"
    )
    file.write_text(SPEC.replace(", tlh", ""))
    assert load(file).tasks["s"].metrics == ("rouge-lsum", "output-language")
    monkeypatch.setattr("koinize.metrics.output_language.find_spec", lambda _: None)
    with pytest.raises(InputError) as refused:
        load(file)
    assert str(refused.value) == (
        "koinize.yaml:9:27 tasks.s.metrics[1]: output-language needs py3langid; "
        "`pip install 'koinize[language]'`"
    )


def test_rows_of_an_older_koinize_have_no_prompt():
    row = {"key": "k", "language": "en", "reference": "r", "prediction": "p"}
    with pytest.raises(InputError) as refused:
        score(metrics.get("number-precision"), [row])
    assert str(refused.value) == (
        "number-precision cannot read column 'prompt' of row 'k'; expected rows of kind 'text' "
        "with text in 'reference' and 'prediction' and 'prompt'; rows of an older koinize lack "
        "it: run `koinize doctor --mend`, then `koinize run`, which makes them again; or take the "
        "metric out"
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("number-precision", "norm:nfkc|in:prompt-reference|none:100"),
        ("number-recall", "norm:nfkc|none:100"),
        ("not-copied", "tok:script|case:fold|least:8"),
        ("not-repeated", "tok:script|case:fold|n:4"),
        ("output-language", "id:py3langid|certain:0.8"),
        ("rouge-lsum", "tok:script|case:fold|sent:line-stop"),
    ],
)
def test_signatures(name, settings):
    assert metrics.get(name).signature() == f"{name}|{settings}|v:1"
    assert metrics.get("not-empty").signature() == "not-empty|v:1"
