"""What servers answer, in their several forms."""

from __future__ import annotations

import pytest

from koinize.errors import InputError
from koinize.serving.client import Client, RefusedError
from koinize.serving.server import Named, Server, check_model, models_of


class Told(Client):
    """Answers from a list, and remembers what it was asked."""

    def __init__(self, *replies):
        super().__init__("http://host/v1")
        object.__setattr__(self, "replies", list(replies))
        object.__setattr__(self, "asked", [])

    def post(self, path, body):
        self.asked.append((path, dict(body)))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def get(self, path):
        return self.post(path, {})


def refused(status=400):
    return RefusedError(status, "no", "http://host/v1")


def completion(**logprobs):
    return {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": 7}}


FORMS = {
    "vllm": (
        completion(
            tokens=["token_id:5"],
            token_logprobs=[-1.5],
            top_logprobs=[{"token_id:5": -1.5, "token_id:9": -0.5}],
        ),
        {Named("token_id:5", 5): -1.5, Named("token_id:9", 9): -0.5},
    ),
    "text": (
        completion(tokens=[" a"], token_logprobs=[-1.5], top_logprobs=[{" a": -1.5, "b": -0.5}]),
        {Named(" a"): -1.5, Named("b"): -0.5},
    ),
    "llama.cpp": (
        completion(
            content=[
                {
                    "id": 5,
                    "token": "a",
                    "bytes": [97],
                    "logprob": -1.5,
                    "top_logprobs": [{"id": 9, "token": "", "bytes": [196], "logprob": -0.5}],
                }
            ]
        ),
        {Named("a", 5, b"a"): -1.5, Named("", 9, b"\xc4"): -0.5},
    ),
    "filtered": (
        completion(top_logprobs=[{"a": -9999.0, "b": float("-inf"), "c": None, "d": -0.25}]),
        {Named("d"): -0.25},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_log_probabilities(form):
    reply, logprobs = FORMS[form]
    answer = Server(Told(reply), "mine").next_token("tokens", [1, 2])
    assert (answer.logprobs, answer.prompt_tokens) == (logprobs, 7)


def test_a_server_is_asked_for_less_until_it_answers():
    told = Told(refused(), refused(422), refused(), completion(top_logprobs=[{"a": -1.0}]))
    told.replies.append(completion(top_logprobs=[{"a": -1.0}]))
    server = Server(told, "mine")
    server.next_token("text", "one")
    server.next_token("text", "two")
    forms = [(one["logprobs"], "return_tokens_as_token_ids" in one) for _, one in told.asked]
    assert forms == [(20, True), (20, False), (5, True), (5, False), (5, False)]


def test_a_server_that_takes_no_ids():
    assert Server(Told(*[refused()] * 6), "mine").next_token("tokens", [1]) is None


def test_a_token_that_shows_nothing_is_drawn_again():
    told = Told({"choices": [{"logprobs": None}]}, completion(top_logprobs=[{"a": -1.0}]))
    assert Server(told, "mine").next_token("text", "one").logprobs == {Named("a"): -1.0}
    assert [one["seed"] for _, one in told.asked] == [0, 1]


def test_messages_go_with_the_template_s_arguments():
    told = Told(completion(content=[{"token": "a", "logprob": -1.0}]))
    server = Server(told, "mine", {"enable_thinking": False})
    server.next_token("chat", [{"role": "user", "content": "hello"}])
    ((path, body),) = told.asked
    assert path == "/chat/completions"
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    "reply",
    [
        [],
        {},
        {"choices": []},
        {"choices": ["a"]},
        completion(content=[1]),
        completion(top_logprobs=3),
    ],
)
def test_a_form_that_nobody_has(reply):
    with pytest.raises(InputError) as caught:
        Server(Told(reply), "mine").next_token("text", "one")
    assert str(caught.value) == (
        "http://host/v1/completions answers in a form that OpenAI's API does not have; expected "
        "choices with logprobs"
    )


def test_an_error_with_status_200():
    with pytest.raises(InputError, match="refuses: out of memory"):
        Server(Told({"error": "out of memory"}), "mine").next_token("text", "one")


def test_models():
    data = [{"id": "a", "owned_by": "vllm"}, {"id": "b"}, {"no": "id"}, "c"]
    assert models_of(Told({"data": data})) == (["a", "b"], "vllm")
    assert models_of(Told(refused(404))) == ([], "")
    assert models_of(Told([])) == ([], "")


def test_a_model_that_is_not_there():
    client = Client("URL")
    check_model("a", ["a", "b"], client)
    check_model("a", [], client)
    with pytest.raises(InputError) as caught:
        check_model("sentimnt", ["sentiment", "base"], client)
    assert str(caught.value) == (
        "URL serves no model 'sentimnt'; expected one of 'sentiment', 'base'; did you mean "
        "'sentiment'?"
    )


def test_a_key_that_is_said_back_is_not_told():
    """Neither as an error with status 200, nor as the owner or the name of a model."""
    told = Told({"error": "no: sk-1"}, {"data": [{"id": "sk-1", "owned_by": "sk-1"}]})
    object.__setattr__(told, "key", "sk-1")
    with pytest.raises(InputError, match=r"refuses: no: \*\*\*$"):
        Server(told, "mine").next_token("text", "one")
    names, owner = models_of(told)
    assert (names, owner) == (["sk-1"], "***")
    with pytest.raises(InputError, match=r"serves no model 'sk'; expected one of '\*\*\*'$"):
        check_model("sk", names, told)
