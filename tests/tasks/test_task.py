"""What all task kinds share, shown on two of them: places of data, prompts, rows, checks."""

from dataclasses import fields, replace

import pytest
from pydantic import ValidationError

from koinize.data import Row
from koinize.digest import digest
from koinize.errors import InputError, ManyErrors
from koinize.tasks import Example
from koinize.tasks.classify import Classify
from koinize.tasks.generate import Generate


def classify(**settings) -> Classify:
    return Classify(labels=("bad", "good"), **settings)


def generate(**settings) -> Generate:
    return Generate(**settings)


def refused(task, *rows: dict[str, object], language: str = "en") -> str:
    """What turning these rows into examples says."""
    numbered = [Row(columns, f"data/en.train.jsonl:{n}") for n, columns in enumerate(rows, 1)]
    with pytest.raises(InputError) as caught:
        task.examples(numbered, language)
    return str(caught.value)


def invalid(**settings) -> str:
    with pytest.raises(ValidationError) as caught:
        classify(**settings)
    (error,) = caught.value.errors()
    return error["msg"].removeprefix("Value error, ")


def one_example(task, columns: dict[str, object], language: str = "en"):
    (example,) = task.examples([Row(columns, "f:1")], language)
    return example


@pytest.mark.parametrize(
    ("data", "language", "split", "source"),
    [
        ("data/{language}.{split}.jsonl", "ja", "dev", "data/ja.dev.jsonl"),
        ({"ja": "x/{language}/{split}.csv"}, "ja", "test", "x/ja/test.csv"),
        ({"ja": {"dev": "hf:o/n:{language}#valid"}}, "ja", "dev", "hf:o/n:ja#valid"),
        ({"ja": {"train": "{{a}}.csv"}}, "ja", "train", "{a}.csv"),
    ],
)
def test_where_the_rows_stand(data, language, split, source):
    assert classify(data=data).source(language, split) == source


def test_the_default_place():
    assert classify().source("ja", "dev") == "data/ja.dev.jsonl"


def test_a_language_or_split_without_data():
    task = classify(data={"ja": {"train": "a.csv"}, "en": "{split}.csv"})

    with pytest.raises(InputError) as caught:
        task.source("de", "train")
    assert str(caught.value) == (
        "there is no data for language 'de'; expected one for every language; "
        "there is one for en, ja; add 'de: ...' under data"
    )
    with pytest.raises(InputError) as caught:
        task.source("ja", "test")
    assert str(caught.value) == (
        "there is no test split for language 'ja'; expected the splits train, dev, test; "
        "add 'test: PATH' under data.ja"
    )


def test_all_that_is_missing_for_a_language_is_said_before_data_are_read():
    task = classify(
        data={"en": "{split}.csv", "ja": {"train": "a.csv", "dev": "b.csv"}},
        prompt={"en": "{text}", "ja": "{text}"},
        verbalizers={"en": {"bad": " no", "good": " yes"}},
    )
    task.check_languages(["en"])

    with pytest.raises(ManyErrors) as caught:
        task.check_languages(["ja", "en", "de"])

    one = "expected one for every language; there is one for"
    assert str(caught.value).splitlines() == [
        f"there is no prompt for language 'de'; {one} en, ja; add 'de: ...' under prompt",
        f"there is no data for language 'de'; {one} en, ja; add 'de: ...' under data",
        f"there is no verbalizers for language 'ja'; {one} en; add 'ja: ...' under verbalizers",
        "there is no test split for language 'ja'; expected the splits train, dev, test; "
        "add 'test: PATH' under data.ja",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data": "data/{split}.jsonl"},
            "'data/{split}.jsonl' would be the same file for every language; "
            "write {language} in it, or give a mapping",
        ),
        (
            {"data": {"en": "en.jsonl"}},
            "'en.jsonl' would be the same file for every split; "
            "write {split} in it, or give a mapping",
        ),
        (
            {"data": "{task}/{language}.{split}.jsonl"},
            "'{task}/{language}.{split}.jsonl' names {task}; write {language} or {split}",
        ),
        (
            {"data": {"en": {"trian": "a.csv"}}},
            "'trian' under en is no split; write train, dev, test",
        ),
        (
            {"prompt": "Name the sentiment."},
            "the template 'Name the sentiment.' names no column; "
            "write {text} where the column 'text' belongs",
        ),
        (
            {"prompt": {"en": "{text}", "de": "{text"}},
            "the '{' at character 1 of the template stands alone; "
            "write {name} for a value and '{{' for a brace",
        ),
        ({"prompt": {"": "{text}"}}, "'' is no language; write its code, without white space"),
        (
            {"data": {" ": "data/{split}.jsonl"}},
            "' ' is no language; write its code, without white space",
        ),
        ({"metrics": ("accuracy", "accuracy")}, "'accuracy' stands twice"),
        (
            {"metrics": ("accuracy",), "margins": {"macro-f1": 2}},
            "margins names 'macro-f1', which is not under metrics: accuracy",
        ),
        ({"margins": {"accuracy": -1}}, "Input should be greater than 0"),
        ({"margins": {"accuracy": float("nan")}}, "Input should be a finite number"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    assert invalid(**settings) == message


def test_numbers_and_truth_values_are_written_as_in_json():
    columns = {"s": "a", "i": 3, "f": 0.5, "b": True, "label": "good"}

    assert one_example(classify(prompt="{s} {i} {f} {b}"), columns).prompt == "a 3 0.5 true"


def test_a_prompt_per_language():
    task = classify(prompt={"en": "{text}?", "ja": "{text}か？"})

    assert one_example(task, {"text": "a", "label": "good"}, "ja").prompt == "aか？"
    assert refused(task, {"text": "a", "label": "good"}, {"text": "b"}, language="fr") == (
        "there is no prompt for language 'fr'; expected one for every language; "
        "there is one for en, ja; add 'fr: ...' under prompt"
    )


def test_a_column_that_cannot_be_put_into_a_prompt():
    said = refused(
        classify(prompt="{title} {text}"),
        {"titel": "a", "text": "b", "label": "good"},
        {"title": None, "text": "b", "label": "good"},
        {"title": ["a"], "text": "b", "label": "good"},
        {"title": {"a": 1}, "text": "b", "label": "good"},
        {"title": " ", "text": "\n", "label": "good"},
    )

    where, expected = "data/en.train.jsonl", "expected text or a number"
    assert said.splitlines() == [
        f"{where}:1 there is no column 'title', which the prompt names; "
        "expected one of: titel, text, label; did you mean 'titel'?",
        f"{where}:2 the column 'title' is null; {expected}",
        f"{where}:3 the column 'title' holds a list; {expected}",
        f"{where}:4 the column 'title' holds an object; {expected}",
        f"{where}:5 there is nothing but white space in title, text; expected text for the prompt",
    ]


def test_a_column_with_no_name_like_it():
    assert refused(classify(prompt="{q}"), {"text": "b", "label": "good"}) == (
        "data/en.train.jsonl:1 there is no column 'q', which the prompt names; "
        "expected one of: text, label"
    )


def test_an_empty_column_beside_a_full_one_is_no_mistake():
    task = classify(prompt="{title}|{text}")

    assert one_example(task, {"title": "", "text": "b", "label": "good"}).prompt == "|b"


def test_prompt_and_completion_are_taken_as_they_stand():
    example = one_example(generate(), {"prompt": "Sum:", "completion": "a b \n"})

    assert (example.prompt, example.target) == ("Sum:", "a b \n")


def messages(*contents: str) -> dict[str, object]:
    roles = ["system", "user", "assistant"][-len(contents) :]
    pairs = zip(roles, contents, strict=True)
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_messages_are_a_question_and_its_answer():
    plain = one_example(generate(), messages("Why?", "Because."))
    assert (plain.prompt, plain.target) == ("Why?", " Because.")

    system = one_example(generate(), messages("Be brief.", "Why?\n", " Because. "))
    assert (system.prompt, system.target) == ("Be brief.\n\nWhy?\n", "Because.")


def conversation(*roles: str, content: object = "x") -> list[dict[str, object]]:
    return [{"role": role, "content": content} for role in roles]


LIST = "expected [{role: user, content: ...}, {role: assistant, content: ...}]"
TURNS = "a system message first or none, then user and assistant in turns"
TOOLS = "leave the row out: calls of tools are not learnt"
ROLES = "expected 'system', 'user' or 'assistant'"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("Why?", f"the column 'messages' holds no list; {LIST}"),
        ([], f"the column 'messages' holds no message; {LIST}"),
        (["Why?"], "message 1 is no object; expected {role: ..., content: ...}"),
        (
            conversation("user"),
            "the last message has the role 'user'; expected 'assistant', whose answer is to be "
            "learnt",
        ),
        (
            conversation("assistant", "user"),
            f"message 1 has the role 'assistant'; expected 'user' there: {TURNS}",
        ),
        (
            conversation("user", "assistant", "system", "user", "assistant"),
            f"message 3 has the role 'system'; expected 'user' there: {TURNS}",
        ),
        (
            conversation("system", "user", "user", "assistant"),
            f"message 3 has the role 'user'; expected 'assistant' there: {TURNS}",
        ),
        (
            conversation("user", "tool", "assistant"),
            f"message 2 has the role 'tool'; {ROLES}; {TOOLS}",
        ),
        (
            conversation("developer", "user", "assistant"),
            f"message 1 has the role 'developer'; {ROLES}; write 'system' instead",
        ),
        ([{"content": "x"}], f"message 1 has no role; {ROLES}"),
        (
            [{"role": "system", "content": None}, *conversation("user", "assistant")],
            "message 1, of role 'system', has no content; expected text; leave the message out",
        ),
        (
            [*conversation("user"), {"role": "assistant", "content": None, "tool_calls": [{}]}],
            f"message 2, of role 'assistant', calls a tool; {TOOLS}",
        ),
        (
            [*conversation("user"), {"role": "assistant"}],
            "message 2, of role 'assistant', has no content; expected text",
        ),
        (
            [{"role": "user", "content": 7}, *conversation("assistant")],
            "message 1, of role 'user', has a content that is no text; expected text, or a list "
            "of parts of type 'text'",
        ),
        (
            conversation("user", "assistant", content=[{"type": "image", "url": "x"}]),
            "message 1, of role 'user', has a part of type 'image'; expected parts of type 'text' "
            "only",
        ),
        (
            conversation("user", "assistant", content=["Why?"]),
            "message 1, of role 'user', has a part of no type; expected parts of type 'text' only",
        ),
    ],
)
def test_each_fault_of_messages_has_words_of_its_own(found, said):
    assert refused(generate(), {"messages": found}) == f"data/en.train.jsonl:1 {said}"


def test_a_content_in_parts_is_its_texts():
    parts = [{"type": "text", "text": "Look."}, {"type": "text", "text": "Why?"}]
    row = {"messages": [{"role": "user", "content": parts}, *conversation("assistant")]}

    assert one_example(generate(), row).prompt == "Look.\nWhy?"


LONG = {
    "messages": [
        {"role": role, "content": content}
        for role, content in [
            ("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "q2"),
            ("assistant", "a2"),
        ]
    ]
}  # fmt: skip


def test_a_conversation_is_its_last_answer_after_what_came_before():
    example = one_example(generate(), LONG)

    assert example.turns == (("system", "s"), ("user", "q1"), ("assistant", "a1"), ("user", "q2"))
    assert (example.prompt, example.target) == ("s\n\nq1\n\na1\n\nq2", " a2")
    assert one_example(generate(), messages("Why?", "Because.")).turns == ()


def test_all_answers_of_a_conversation_are_examples_where_the_task_says_so():
    task = generate(answers="all")

    found = task.examples([Row(LONG, "f:1")], "en")

    asked = {one.target: (one.turns, one.prompt) for one in found}
    assert asked == {
        " a1": ((("system", "s"), ("user", "q1")), "s\n\nq1"),
        " a2": (one_example(generate(), LONG).turns, "s\n\nq1\n\na1\n\nq2"),
    }
    first = {"messages": LONG["messages"][:3]}
    rows = {("en", "train"): [Row(LONG, "f:1")], ("en", "test"): [Row(first, "g:1")]}
    assert [(one.where, one.other) for one in task.check(rows)] == [("g:1", "f:1")]
    assert generate().check(rows) == ()
    assert refused(task, {"messages": conversation("user")}).count("\n") == 0


def test_plain_columns_need_a_template():
    assert refused(classify(), {"text": "b", "label": "good"}) == (
        "data/en.train.jsonl:1 the task has no prompt template for this row; "
        "expected the columns 'messages', or 'prompt' and 'completion'; "
        'give the task a template, such as prompt: "{text}"'
    )


def test_a_template_comes_before_the_form_of_the_row():
    row = {"prompt": "a", "completion": "b", "label": "good"}

    assert one_example(classify(prompt="<{prompt}>"), row).prompt == "<a>"


def test_keys_follow_what_is_asked_and_nothing_else():
    columns = {"text": "a", "label": "good"}
    key = one_example(classify(prompt="{text}"), columns).key

    assert len(key) == 12
    for task, row in [
        (classify(prompt="{text}"), {"note": "new", "label": "bad", "text": "a"}),
        (classify(prompt="Review: {text}\nSentiment:"), columns),
    ]:
        assert one_example(task, row).key == key
    assert one_example(classify(prompt="{text}"), {**columns, "text": "b"}).key != key


def test_rows_that_ask_the_same_are_counted_and_their_order_does_not_matter():
    task = classify(prompt="{text}")
    rows = [Row({"text": "a", "label": label}, "f:1") for label in ("good", "bad", "good")]

    examples = task.examples(rows, "en")

    first = examples[0].key
    assert [one.key for one in examples] == [first, f"{first}-2", f"{first}-3"]
    assert [one.target for one in examples] == [" bad", " good", " good"]
    assert task.examples(rows[::-1], "en") == examples


def test_checks_compare_what_rows_ask_and_not_the_words_around_it():
    task = classify(prompt={"en": "Review: {text}", "de": "Rezension: {text}"}, key="id")
    rows = {
        ("en", "train"): [Row({"text": "a", "label": "good", "id": 1}, "en:1")],
        ("de", "test"): [
            Row({"text": "a", "label": "good", "id": 2}, "de:1"),
            Row({"text": "b", "label": "good", "id": 1}, "de:2"),
            Row({"text": "b", "label": "bad", "id": 3}, "de:3"),
        ],
    }

    assert [str(one) for one in task.check(rows)] == [
        "de:1 leaks from en:1: the same text, 'a'",
        "de:2 leaks from en:1: the same id, '1'",
        "de:3 contradicts de:2: 'b' is answered 'bad' here and 'good' there",
    ]


def test_checks_of_rows_without_a_template_compare_their_prompts():
    rows = {
        ("en", "train"): [Row(messages("Why?", "So."), "en:1")],
        ("en", "dev"): [Row({"prompt": "Why?", "completion": "No."}, "en:2")],
    }

    assert [str(one) for one in generate().check(rows)] == [
        "en:2 leaks from en:1: the same text, 'Why?'"
    ]


def test_an_examples_identity_is_all_that_a_model_sees_of_it_and_learns():
    one = Example("k", "en", "Why?", " x", (" x", " y"), ("X", "Y"), 0, (("user", "Why?"),))
    other = Example("l", "de", "How?", " y", (" y", " x"), ("Y", "X"), 1, (("system", "Why?"),))

    said = {field.name for field in fields(Example)} - {"key", "language"}
    for name in said:
        assert replace(one, **{name: getattr(other, name)}).digest != one.digest, name
    for name in ("key", "language"):
        assert replace(one, **{name: getattr(other, name)}).digest == one.digest, name
    # As it was before there were turns, or whatever was trained would be trained again.
    plain = replace(one, turns=())
    assert plain.digest == digest(["Why?", " x", [" x", " y"], ["X", "Y"], 0])
