"""A server that lies in a dozen ways: each is named, and what is only noise passes."""

from __future__ import annotations

import shutil

import pytest
import torch

from koinize.errors import InputError
from koinize.serving import Client, Request, check_serving, of_folders
from koinize.serving.text import lines, record, verdict
from tests.serving.lying import CHATML, RANK, Honest, Lies, serving, write_adapter


def checked(kit, lies=None, *, base="base", model="mine", adapter="mine", base_model=None, **more):
    """What is found out about a server that serves `adapter` and should serve `mine`."""
    rows = {one: kit / f"{one}.jsonl" for one in ("en", "de")}
    subject = of_folders(kit / "mine", str(kit / base), rows, **more)
    with serving(Honest(kit / base, kit / adapter, lies)) as url:
        return check_serving(subject, Request(Client(url), model, base_model, prompts=8))


class Second(Lies):
    def tokens(self, ids):
        return [1, *ids]


class Without(Lies):
    def tokens(self, ids):
        return ids[1:]


class Ended(Lies):
    def tokens(self, ids):
        return [*ids, 2]


class ChatMl(Lies):
    def text(self, text):
        return CHATML.format(text)


class Unheard(Lies):
    """A template that nobody has heard of."""

    def text(self, text):
        return f"Please, please answer: {text} And be quick!"


class Last(Lies):
    def ids(self, ids):
        return ids[-32:]


class LastWithFirst(Lies):
    def ids(self, ids):
        return ids if len(ids) <= 32 else ids[:1] + ids[-31:]


class First(Lies):
    def ids(self, ids):
        return ids[:40]


class Late(Lies):
    """Each prompt is answered with what belongs to the one before."""

    before = ()

    def ids(self, ids):
        read, self.before = self.before or ids, ids
        return read


SCALE = "serves the adapter at another scale: "
OTHERS = "gives the model other prompts than in training: "
LYING = {
    "base": (Lies(scale=0.0), "serves the base model: the adapter changes nothing"),
    "root": (
        Lies(scale=RANK**-0.5),
        SCALE + "alpha / r where the adapter says alpha / sqrt(r)",
    ),
    "twice": (Lies(scale=2.0), SCALE + "twice the scale"),
    "second": (Second(), OTHERS + "a second BOS token"),
    "without": (Without(), OTHERS + "no BOS token"),
    "ended": (Ended(), OTHERS + "an end-of-text token after the prompt"),
    "template": (ChatMl(), "puts the prompts into another template: ChatML template"),
    "last": (Last(count=False), "cuts the prompts: it keeps the end of 32 tokens"),
    "first token": (
        LastWithFirst(count=False),
        "cuts the prompts: it keeps the first token and the end of 32 tokens",
    ),
    "beginning": (
        First(),
        "cuts the prompts: it keeps the beginning of as many tokens as the server counts",
    ),
    "late": (Late(count=False), "answers prompts with what belongs to other prompts"),
}


QUICK = {"base", "second", "template", "last", "late"}
"""One of each kind of fault; the others are slow."""


@pytest.mark.parametrize(
    "lie", [pytest.param(one, marks=[pytest.mark.slow] * (one not in QUICK)) for one in LYING]
)
def test_a_lie_is_named(kit, lie):
    lies, said = LYING[lie]
    found = checked(kit, lies)
    assert verdict(found) == said
    assert not found.is_right
    assert any(one.first for one in found.found)


@pytest.mark.slow
def test_an_honest_server_passes(kit):
    """Within what two orders of the same float32 sums differ by."""
    found = checked(kit)
    assert [(one.way, one.finding.verdict) for one in found.found] == [
        ("tokens", "right"),
        ("text", "right"),
    ]
    assert verdict(found) == "serves the adapter"
    assert found.found[0].finding.distance < 1e-5
    assert found.found[0].finding.share == pytest.approx(1.0, abs=1e-4)
    assert found.found[0].first is None


@pytest.mark.slow
def test_the_first_diverging_prompt_and_token_are_the_ones(kit):
    """Beside PEFT's own numbers, which the server sends."""
    found = checked(kit, Lies(scale=0.0)).found[1]
    honest = Honest(kit / "base", kit / "mine")
    ids = honest.tokenizer(found.first.text).input_ids
    ours, base = (float(honest.logprobs(one, ids)[found.first.id]) for one in ("mine", "plain"))
    assert (found.first.ours, found.first.base) == pytest.approx((ours, base), abs=1e-4)
    assert found.first.server == pytest.approx(base, abs=1e-4)
    assert found.first.prompt == 0


@pytest.mark.parametrize(
    "lies",
    [
        Lies(dtype=torch.bfloat16),
        Lies(top=1),
        Lies(named="text"),
        Lies(lists=False),
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                Lies(top=5),
                Lies(named="content"),
                Lies(count=False),
                Lies(takes_ids=False),
                Lies(shy=3),
            )
        ),
    ],
    ids=lambda lies: str(lies.changed),
)
def test_what_changes_nothing_that_matters_passes(kit, lies):
    assert verdict(checked(kit, lies)) == "serves the adapter"


class Noisy(Lies):
    """Weights of few bits: every log-probability is off, by so many nats."""

    def answered(self, logprobs):
        noise = torch.randn(logprobs.shape, generator=self.random) * self.nats
        return (logprobs + noise).log_softmax(-1)


@pytest.mark.parametrize(
    ("nats", "count", "kinds"),
    [
        (0.05, False, {"unknown"}),  # a second BOS token changes less than that
        (0.2, True, {"right"}),
        (1.0, True, {"unknown"}),
        pytest.param(0.05, True, {"right"}, marks=pytest.mark.slow),
        pytest.param(4.0, True, {"unknown"}, marks=pytest.mark.slow),
    ],
)
def test_noise_is_named_nothing_else(kit, nats, count, kinds):
    lies = Noisy(nats=nats, count=count, random=torch.Generator().manual_seed(1))
    found = checked(kit, lies).found
    assert {one.finding.verdict for one in found if one.way == "text"} == kinds


class Mute(Honest):
    """Takes token ids, and what users send under no name but one."""

    hears = None

    def answer(self, path, body):
        if not isinstance(body.get("prompt"), list) and body["model"] != self.hears:
            return 404, {"detail": "Not Found"}
        return super().answer(path, body)


@pytest.mark.parametrize(
    ("base", "way", "said"), [("base", "text", "text"), ("chat", "chat", "messages")]
)
def test_a_server_that_refuses_its_users_is_not_right(kit, base, way, said):
    subject = of_folders(kit / "mine", str(kit / base), {"en": kit / "en.jsonl"})
    with serving(Mute(kit / base, kit / "mine")) as url:
        found = check_serving(subject, Request(Client(url), "mine", prompts=6))
    assert not found.is_right
    told, plain = list(lines(found)), record(found)
    assert (
        told[-1]
        == plain["verdict"]
        == (f"serves the adapter, but refuses the prompts as users send them, by {said}, as 'mine'")
    )
    assert f"'mine' could not be asked by {said}: Not Found" in told
    assert plain["refused"] == [{"model": "mine", "asked_by": way, "said": "Not Found"}]
    assert (plain["right"], plain["findings"][0]["verdict"]) == (False, "right")


@pytest.mark.slow
def test_users_may_be_refused_under_one_name_only(kit):
    subject = of_folders(kit / "mine", str(kit / "base"), {"en": kit / "en.jsonl"})
    honest = Mute(kit / "base", kit / "mine")
    honest.hears = "mine"
    with serving(honest) as url:
        found = check_serving(subject, Request(Client(url), "mine", "plain", prompts=6))
    assert not found.is_right
    assert verdict(found) == (
        "serves the adapter, and the base under its own name, but refuses the prompts as users "
        "send them, by text, as 'plain'"
    )


@pytest.mark.slow
def test_a_server_that_takes_no_ids_is_right_where_its_users_are_answered(kit):
    found = checked(kit, Lies(takes_ids=False))
    assert [one.way for one in found.found] == ["text"]
    assert [way for _, way, _ in found.refused] == ["tokens"]
    assert found.is_right


def test_too_few_prompts_are_no_fault_of_the_server(kit, tmp_path):
    rows = tmp_path / "two.jsonl"
    rows.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    subject = of_folders(kit / "mine", str(kit / "base"), {"en": rows})
    honest = Honest(kit / "base", kit / "mine")
    with serving(honest) as url, pytest.raises(InputError) as caught:
        check_serving(subject, Request(Client(url), "mine"))
    assert str(caught.value) == (
        "there are 2 prompts to ask in en; expected 3 at least; give more rows with other prompts"
    )
    assert (caught.value.exit_code, honest.asked) == (2, [])


@pytest.mark.slow
def test_the_same_adapter_under_another_name_is_no_other_explanation(kit, tmp_path):
    shutil.copytree(kit / "mine", tmp_path / "copy")
    found = checked(kit, others={"release v1": tmp_path / "copy", "release v2": kit / "older"})
    assert verdict(found) == "serves the adapter"
    assert found.is_right


@pytest.mark.slow
def test_an_older_version_is_named(kit):
    found = checked(kit, adapter="older", others={"release v1": kit / "older"})
    assert verdict(found) == "serves another adapter: release v1"


@pytest.mark.slow
def test_an_adapter_that_nobody_knows_is_not_taken_for_the_right_one(kit):
    found = checked(kit, adapter="older")
    assert not found.is_right
    assert verdict(found).startswith("cannot tell what it serves: ")


@pytest.mark.slow
def test_a_part_of_the_adapter_is_not_taken_for_the_whole(kit):
    class Part(Honest):
        """One of the two layers has no adapter."""

        def __init__(self, *given):
            super().__init__(*given)
            self.adapted.model.layers[0] = self.bare.model.layers[0]

    rows = {"en": kit / "en.jsonl"}
    subject = of_folders(kit / "mine", str(kit / "base"), rows)
    with serving(Part(kit / "base", kit / "mine")) as url:
        found = check_serving(subject, Request(Client(url), "mine", prompts=8))
    assert not found.is_right
    assert found.found[0].finding.verdict in ("unknown", "partial")


@pytest.mark.slow
def test_a_template_that_nobody_has_heard_of(kit):
    assert verdict(checked(kit, Unheard())) == (
        "gives the model other prompts than in training: asked by text it does not answer as it "
        "does to the same prompts as token ids (another chat template, say)"
    )


@pytest.mark.slow
def test_base_and_prompts_may_both_be_wrong(kit):
    found = checked(kit, Second(scale=0.0, takes_ids=False))
    assert verdict(found) == (
        "serves the base model: the adapter changes nothing; and its prompts have a second BOS "
        "token"
    )


@pytest.mark.slow
def test_with_and_without_the_adapter(kit):
    found = checked(kit, base_model="plain")
    assert verdict(found) == "serves the adapter, and the base under its own name"
    assert [one.expected for one in found.found] == ["adapter", "adapter", "base", "base"]
    turned = checked(kit, model="plain", base_model="mine")
    assert verdict(turned) == "serves the base model: the adapter changes nothing"
    last = record(turned)["findings"][-1]
    assert last["says"] == "serves the adapter, where the base should be"


@pytest.mark.slow
def test_both_names_may_be_the_adapter(kit):
    found = checked(kit, base_model="mine")
    assert verdict(found) == "under 'mine' serves the adapter, where the base should be"


@pytest.mark.slow
def test_a_chat_model_is_asked_by_messages(kit):
    found = checked(kit, base="chat")
    assert [(one.way, one.finding.verdict) for one in found.found] == [
        ("tokens", "right"),
        ("chat", "right"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lies", "said"),
    [
        (Second(), OTHERS + "a second BOS token"),
        (Without(), OTHERS + "no BOS token"),
        (
            Lies(text=lambda text: f"<bos>{text.partition('user: ')[2].partition(chr(10))[0]}"),
            "puts the prompts into another template: the prompt without the chat template",
        ),
        (
            Lies(text=lambda text: text.replace("<turn>", "~")),
            "gives the model other prompts than in training: asked by messages it does not answer "
            "as it does to the same prompts as token ids (another chat template, say)",
        ),
    ],
    ids=["second", "without", "raw", "template"],
)
def test_lies_of_a_chat_server(kit, lies, said):
    assert verdict(checked(kit, lies, base="chat")) == said


@pytest.mark.slow
def test_an_adapter_that_changes_nothing_cannot_be_told_from_its_base(kit, tmp_path):
    none = write_adapter(tmp_path / "none", kit / "base", 1, size=0.0)
    subject = of_folders(none, str(kit / "base"), {"en": kit / "en.jsonl"})
    with serving(Honest(kit / "base", none)) as url:
        found = check_serving(subject, Request(Client(url), "mine", prompts=8))
    assert not found.is_right
    assert verdict(found) == (
        "cannot tell what it serves: the adapter changes nothing on these prompts"
    )


@pytest.mark.slow
def test_an_adapter_that_changes_less_than_the_noise_cannot_be_told_either(kit, tmp_path):
    small = write_adapter(tmp_path / "small", kit / "base", 1, size=0.03)
    subject = of_folders(small, str(kit / "base"), {"en": kit / "en.jsonl"})
    with serving(Honest(kit / "base", small, Lies(dtype=torch.bfloat16))) as url:
        found = check_serving(subject, Request(Client(url), "mine", prompts=8))
    assert not found.is_right
    assert verdict(found).startswith("cannot tell what it serves: the adapter changes these")


@pytest.mark.slow
def test_the_lines_and_the_record_say_the_same(kit):
    found = checked(kit, Lies(scale=2.0))
    told, plain = "\n".join(lines(found)), record(found)
    assert told.endswith(f"\n{plain['verdict']}")
    assert plain["right"] is False
    assert plain["findings"][0]["first_divergence"]["key"] in told
    assert plain["findings"][0]["nearest"] == [
        {"weights": "twice the scale", "prompt": "the prompt as in training"}
    ]
