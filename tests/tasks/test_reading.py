"""What stands between a prompt and what follows it."""

import pytest

from koinize.tasks._reading import continuing


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("Answer:", "yes", " yes"),
        ("Answer: ", "yes", "yes"),
        ("Answer:\n", "yes", "yes"),
        ("Answer:", " yes", " yes"),
        ("Answer:", "はい", "はい"),
        ("答え：", "yes", "yes"),
        ("是", "yes", "yes"),
        ("Réponse :", "été", " été"),
        ("감정:", "긍정", " 긍정"),
        ("감정", "긍정", " 긍정"),
        ("Mood:", "😀", " 😀"),
        ("อารมณ์:", "ดี", " ดี"),
        ("भाव:", "अच्छा", " अच्छा"),
        ("感情:", "ｱｲ", "ｱｲ"),
        ("감정：", "긍정", "긍정"),
        ("", "yes", "yes"),
        ("Answer:", "", ""),
    ],
)
def test_a_space_where_the_script_wants_one(prompt, answer, expected):
    assert continuing(prompt, answer) == expected
