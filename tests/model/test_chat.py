"""Training, scoring, generation and the chat template agree token by token, whatever its shape."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinize.errors import InputError
from koinize.model.encoding import Encoder
from tests.model.chat_templates import SHAPES, TEXTS, TOKENIZERS, Shape, tokenizer

Turns = tuple[tuple[str, str], ...]


# Where the tokenizer makes one token of the last line break that a server sends, or that the
# template writes before an answer, and of what follows it: no prompt can be the tokens' beginning.
SPLIT = {
    *((kind, "Qwen 3, thinking always") for kind in TOKENIZERS),
    *((kind, "a line break, then the end") for kind in TOKENIZERS),
    *(
        ("words and spaces", name)
        for name in ("Llama 3", "Llama 3.1, with a date", "Qwen 3", "Qwen 3 without thinking")
    ),
}


def conversations(question: str, answer: str) -> list[Turns]:
    system = ("system", "Be brief. /no_think")
    before = (("user", question), ("assistant", answer))
    return [
        (("user", question),),
        (system, ("user", question)),
        (*before, ("user", f"{question} {question}")),
        (system, *before, ("user", question)),
    ]


def folded(turns: Turns) -> Turns:
    """A system message put before the first question."""
    if turns[0][0] != "system":
        return turns
    (_, system), (_, first), *others = turns
    return (("user", f"{system}\n\n{first}"), *others)


def rendered(shape: Shape, turns: Turns, *, ask: bool) -> str:
    shown = turns if shape.has_system else folded(turns)
    return shape.render([{"role": role, "content": text} for role, text in shown], ask=ask)


def ids(encoder: Encoder, text: str) -> tuple[int, ...]:
    return tuple(encoder.tokenizer(text, add_special_tokens=False).input_ids)


def visible(encoder: Encoder, tokens: tuple[int, ...]) -> str:
    return encoder.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)


@pytest.fixture(params=TOKENIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("name", SHAPES)
def test_all_agree_with_the_template(name: str, kind: str) -> None:
    shape = SHAPES[name]
    encoder = Encoder(tokenizer(kind, shape.template), [], shape.arguments)
    assert encoder.chat.unsaid == shape.unsaid
    end = ids(encoder, shape.end or "</s>")[-1]
    assert encoder.end_token == end
    assert end in encoder.end_tokens
    strictly = [
        agree(encoder, shape, turns, answer, end)
        for script, (question, answer) in TEXTS.items()
        for turns in conversations(question, answer)[: 4 if script == "Korean" else 1]
    ]
    assert all(strictly) or (kind, name) in SPLIT, sum(strictly)


def agree(encoder: Encoder, shape: Shape, turns: Turns, answer: str, end: int) -> bool:
    """One conversation: the oracle is the template rendered by Jinja, and the tokenizer."""
    sent = rendered(shape, turns, ask=True).removesuffix(shape.unsaid)
    options = [f" {answer}", "no"]
    learnt = encoder.encode("-", options[:1], turns=turns, max_length=9999, end=True)
    scored = encoder.encode("-", options, turns=turns, max_length=9999)
    written = encoder.encode("-", [], turns=turns, max_length=9999, reserve=1)
    trained = learnt.prompt + learnt.targets[0]

    # A server that renders the same messages goes on from the same tokens.
    assert learnt.prompt == ids(encoder, sent)
    # What texts are generated and options scored from is the training, up to the answer.
    assert written.prompt == scored.prompt == trained[: len(scored.prompt)]
    assert trained[-1] == end
    assert trained.count(end) == 1 + learnt.prompt.count(end)

    whole = rendered(shape, (*turns, ("assistant", answer)), ask=False)
    if not whole.startswith(
        sent
    ):  # the template takes the system message back, the server does not
        alone = rendered(shape, (("user", "q"), ("assistant", answer)), ask=False)
        whole = sent + alone.removeprefix(rendered(shape, (("user", "q"),), ask=True))
    until = len(whole) if shape.end is None else whole.rindex(shape.end) + len(shape.end)
    if shape.end is None:
        whole, until = f"{whole.rstrip()}</s>", None
    expected = ids(encoder, whole[:until])
    assert visible(encoder, trained) == visible(encoder, expected)
    # Where the answer begins with a token of its own, the tokens are the template's, too.
    whole_tokens = expected[: len(scored.prompt)] == scored.prompt
    if whole_tokens:
        assert trained == expected
    if shape.lead.strip():
        assert visible(encoder, scored.prompt[len(learnt.prompt) :]).endswith(
            visible(encoder, ids(encoder, shape.lead))
        )
    best = scored.prompt + scored.targets[0]
    if shape.end != "\n</s>":  # there a full stop and the line break may be one token
        assert trained[: len(best)] == best
    assert encoder.decode(scored.targets[0]).strip() == encoder.decode(ids(encoder, answer)).strip()
    return whole_tokens


words = st.text("abz 19.,:!?-'\n\täßéのん静か、。펌프ปั๊😀👍🏽", min_size=1, max_size=20)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from([one for one in TOKENIZERS if one != "pieces"]),
    words.filter(str.strip),
    words.filter(lambda text: text == text.strip() != ""),
)
def test_whatever_is_said(name: str, kind: str, question: str, answer: str) -> None:
    shape = SHAPES[name]
    encoder = encoder_of(name, kind)
    agree(encoder, shape, (("user", question),), answer, encoder.end_token)


@cache
def encoder_of(name: str, kind: str) -> Encoder:
    return Encoder(tokenizer(kind, SHAPES[name].template), [], SHAPES[name].arguments)


def plain(kind: str) -> Encoder:
    return Encoder(tokenizer(kind))


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("cue", ["{}:", "{}: ", "{}\n\n", "{}"])
def test_without_a_template_an_answer_goes_on_from_its_prompt(
    kind: str, cue: str, end: bool
) -> None:
    """The oracle: the tokens of the whole text, wherever the prompt's are their beginning."""
    if (kind, cue) == ("pieces", "{}"):
        pytest.skip("an answer is no piece of a prompt's last word")
    encoder, strictly = plain(kind), 0
    for question, answer in TEXTS.values():
        prompt = cue.format(question)
        space = "" if prompt[-1].isspace() else " "
        for target in (answer, space + answer):
            found = encoder.encode(prompt, [target], max_length=999, end=end)
            whole = ids(encoder, prompt + target) + (encoder.end_token,) * end
            together = found.prompt + found.targets[0]
            assert visible(encoder, together) == visible(encoder, whole)
            if whole[: len(found.prompt)] == found.prompt:
                strictly += 1
                assert together == whole
    assert strictly >= (8 if cue == "{}:" else 0)


@pytest.mark.parametrize("kind", ["words and spaces", "lines", "pieces", "never"])
def test_tokenizers_that_put_no_space_first_give_what_they_always_gave(kind: str) -> None:
    """What trainings of such base models are identified by assumes it."""
    encoder = plain(kind)
    for question, answer in TEXTS.values():
        for prompt in (f"{question}:", f"{question}: ", f"{question}\n"):
            for target in (answer, f" {answer}", f"\n{answer}"):
                found = encoder.encode(prompt, [target], max_length=999)
                moved = prompt[len(prompt.rstrip(" ")) :]
                assert found.prompt == ids(encoder, prompt.rstrip(" "))
                assert found.targets == (ids(encoder, moved + target),)


def test_what_only_a_server_sends_is_known() -> None:
    encoder = Encoder(tokenizer("lines", SHAPES["DeepSeek R1"].template))

    assert encoder.chat.unsaid == "<think>\n"


def test_thoughts_that_an_answer_brings_along_are_learnt_and_no_option_has_them() -> None:
    encoder = Encoder(tokenizer("lines", SHAPES["Qwen 3"].template))
    thought = "<think>\nHm.\n</think>\n\nIt is quiet."

    learnt = encoder.encode("Good?", [thought], max_length=999, end=True)
    assert visible(encoder, learnt.targets[0]) == f"{thought}<|im_end|>"
    assert visible(encoder, learnt.prompt).endswith("<|im_start|>assistant\n")
    with pytest.raises(InputError) as caught:
        encoder.encode("Good?", ["no", thought], max_length=999, where="example k")
    assert str(caught.value) == (
        "example k the chat template writes this option in another way than others; "
        "expected '<think>\\n\\n</think>\\n\\n' before it"
    )


def test_an_argument_that_no_template_knows() -> None:
    with pytest.raises(InputError) as caught:
        Encoder(tokenizer("lines", SHAPES["Qwen 3"].template), [], {"enable_thinkng": False})
    assert str(caught.value) == (
        "base.template the chat template knows no 'enable_thinkng'; expected variables that it "
        "names"
    )
    with pytest.raises(InputError) as caught:
        Encoder(tokenizer("lines"), [], {"enable_thinking": False})
    assert str(caught.value) == (
        "base.template the base model has no chat template; remove base.template, or choose a "
        "chat model"
    )


def test_a_template_that_refuses_a_conversation_is_named_with_its_row() -> None:
    template = (
        SHAPES["ChatML"].template
        + "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}"
    )
    encoder = Encoder(tokenizer("lines", template))
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"))

    with pytest.raises(InputError) as caught:
        encoder.encode("-", ["d"], turns=turns, max_length=99, where="example k")

    assert str(caught.value) == (
        "example k the chat template refuses these messages: too long; leave the row out, or "
        "choose another base model"
    )


def test_a_template_without_answers_is_no_chat_template() -> None:
    with pytest.raises(InputError, match="does not show what an assistant says"):
        Encoder(tokenizer("lines", "{{ messages[0].content }}"))


def test_a_text_that_is_learnt_can_be_written_again() -> None:
    """Generation ends at the token that training ends texts with, and shows nothing of it."""
    for name, shape in SHAPES.items():
        encoder = Encoder(tokenizer("first", shape.template), [], shape.arguments)
        learnt = encoder.encode("Good?", ["It is quiet."], max_length=999, end=True)
        start = encoder.encode("Good?", [], max_length=999).prompt
        written = (learnt.prompt + learnt.targets[0])[len(start) :]
        until = next(n for n, token in enumerate(written) if token in encoder.end_tokens)
        assert (until, encoder.decode(written).strip()) == (len(written) - 1, "It is quiet."), name
