"""A server that follows a release: proven under another name first, and put back where it lies."""

from __future__ import annotations

import signal

import pytest

from koinize import machine
from koinize.errors import GateError, InputError, StepError
from koinize.serving import Client, Follower, of_folders
from tests.serving.lying import Honest, Loading, serving

DIALECTS = ("vllm", "sglang")


@pytest.fixture
def subject(kit):
    """What the server is to serve: `mine`, in the place of `older`."""
    rows = {"en": kit / "en.jsonl"}
    others = {"release v1": kit / "older"}
    return of_folders(kit / "mine", str(kit / "base"), rows, others=others)


def follow(server, subject, former, inside=lambda: None):
    with serving(server) as url:
        follower = Follower(Client(url, pause=0.0), "mood", prompts=3)
        with follower.serves(subject, "v2", former):
            inside()


@pytest.fixture
def believed(monkeypatch):
    """Nothing is asked of the server: it is about the order of things."""

    class Right:
        is_right = True

    monkeypatch.setattr("koinize.serving.following.check_serving", lambda *_: Right)


def older(kit, **given):
    return Loading(kit / "base", kit / "older", **given)


@pytest.mark.slow
@pytest.mark.parametrize("owner", DIALECTS)
def test_a_release_is_proven_beside_what_is_served_and_then_takes_its_name(kit, subject, owner):
    server, seen = older(kit, owner=owner), []
    follow(server, subject, kit / "older", lambda: seen.append(dict(server.folders)))
    mine = str(kit / "mine")
    assert seen == [{"mood": mine, "mood-v2": mine}]
    assert server.folders == {"mood": mine}
    swap = [("load", "mood")] if owner == "vllm" else [("unload", "mood"), ("load", "mood")]
    assert server.words == [("load", "mood-v2"), *swap, ("unload", "mood-v2")]
    # Asked under the first name before it has the second.
    asked = [one["model"].rpartition(":")[2] for one in server.asked if "model" in one]
    assert asked == sorted(asked, reverse=True)
    assert set(asked) == {"mood", "mood-v2"}


@pytest.mark.parametrize("owner", DIALECTS)
def test_a_name_that_nobody_had(kit, subject, owner, believed):
    server = older(kit, owner=owner)
    server.unload({"lora_name": "mood"})
    follow(server, subject, None)
    assert server.folders == {"mood": str(kit / "mine")}


@pytest.mark.parametrize("owner", DIALECTS)
def test_what_a_killed_try_left_is_in_nobodys_way(kit, subject, owner, believed):
    server = older(kit, owner=owner)
    server.load({"lora_name": "mood-v2", "lora_path": str(kit / "older")})
    follow(server, subject, kit / "older")
    assert server.folders == {"mood": str(kit / "mine")}


UNTOUCHED = "'mood' was not touched, and nothing was promoted or rolled back"


@pytest.mark.parametrize("owner", DIALECTS)
def test_one_that_loads_it_and_serves_the_base(kit, subject, owner):
    server = older(kit, owner=owner)
    server.serves = lambda name, folder: None
    with pytest.raises(GateError) as caught:
        follow(server, subject, kit / "older", lambda: pytest.fail("it was not proven"))
    said = str(caught.value).partition(" as ")[2]
    name = "mood-v2" if owner == "vllm" else "plain:mood-v2"
    assert said == (f"'{name}' serves the base model: the adapter changes nothing; {UNTOUCHED}")
    assert server.folders == {"mood": str(kit / "older")}
    assert ("load", "mood") not in server.words


@pytest.mark.slow
@pytest.mark.parametrize("owner", DIALECTS)
def test_one_that_keeps_what_it_had_under_the_name_that_counts(kit, subject, owner):
    server = older(kit, owner=owner)
    server.serves = lambda name, folder: str(kit / "older") if name == "mood" else folder
    with pytest.raises(GateError) as caught:
        follow(server, subject, kit / "older", lambda: pytest.fail("it was not proven"))
    assert str(caught.value).endswith(
        f"serves another adapter: release v1; 'mood' has {kit / 'older'} again, and nothing was "
        "promoted or rolled back"
    )
    assert server.folders == {"mood": str(kit / "older")}


@pytest.mark.slow
def test_a_first_release_that_fails_is_served_no_longer(kit, subject):
    server = older(kit)
    server.unload({"lora_name": "mood"})
    server.serves = lambda name, folder: None if name == "mood" else folder
    with pytest.raises(GateError, match="'mood' is no longer served, and nothing was promoted"):
        follow(server, subject, None)
    assert server.folders == {}


@pytest.mark.parametrize("owner", DIALECTS)
def test_one_that_refuses(kit, subject, owner):
    server = older(kit, owner=owner)
    server.refuses = lambda name, folder: "No adapter found for that path."
    with pytest.raises(InputError) as caught:
        follow(server, subject, kit / "older")
    assert str(caught.value).partition(" does ")[2] == (
        f"not load 'mood-v2': No adapter found for that path.; expected a server that sees the "
        f"folder {kit / 'mine'}; {UNTOUCHED}"
    )
    assert server.folders == {"mood": str(kit / "older")}


def test_one_that_was_not_started_for_it(kit, subject):
    with pytest.raises(InputError, match="takes no adapters while it runs; start vLLM with"):
        follow(older(kit, offers=False), subject, kit / "older")


def test_another_kind_of_server(kit, subject):
    with pytest.raises(InputError) as caught:
        follow(Honest(kit / "base", kit / "mine"), subject, None)
    assert "says that it is 'tests', which koinize cannot give another adapter to" in str(
        caught.value
    )


def test_one_that_is_not_there(kit, subject):
    with serving(older(kit)) as url:
        pass
    with pytest.raises(InputError, match="cannot be reached"):
        Follower(Client(url), "mood").require()


def test_the_base_models_name_stays_the_base_models(kit, subject):
    server = older(kit)
    with (
        serving(server) as url,
        pytest.raises(InputError, match="'plain' is the base model of the server"),
        Follower(Client(url), "plain").serves(subject, "v2", None),
    ):
        pytest.fail("it was given away")
    assert server.words == []


@pytest.mark.parametrize("dies", [1, 2])
def test_one_that_dies(kit, subject, dies):
    """After it has loaded the release beside the former one; and after it gave it the name."""
    server = older(kit, dies=dies)
    with pytest.raises(InputError if dies == 1 else StepError) as caught:
        follow(server, subject, kit / "older", lambda: pytest.fail("it was not proven"))
    said = str(caught.value)
    assert "cannot be reached" in said
    if dies == 1:
        assert said.endswith(UNTOUCHED)
    else:
        assert f"and 'mood' could not be given {kit / 'older'} again" in said
        assert said.endswith(
            "nothing was promoted or rolled back: look what the server serves, and start it anew"
        )


def test_what_fails_afterwards_puts_the_former_one_back(kit, subject, believed):
    server = older(kit)

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        follow(server, subject, kit / "older", full)
    assert server.folders == {"mood": str(kit / "older")}


def test_ctrl_c_puts_the_former_one_back(kit, subject, believed):
    server = older(kit)

    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(server, subject, kit / "older", stopped)
    assert server.folders == {"mood": str(kit / "older")}


def test_a_server_that_has_it_already_goes_back_to_the_release_before(kit, subject, believed):
    """As after a kill between the server's name and the channel's."""
    server = Loading(kit / "base", kit / "mine")

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        follow(server, subject, kit / "older", full)
    assert server.folders == {"mood": str(kit / "older")}


def test_ctrl_c_twice_puts_the_former_one_back(kit, subject, believed, monkeypatch):
    """The second while the first is answered for."""
    server, load = older(kit), Follower._load

    def slow(self, name, folder):
        load(self, name, folder)
        if folder == str(kit / "older"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Follower, "_load", slow)
    listed = []
    monkeypatch.setattr(Follower, "_put_back", put_back(Follower._put_back, listed))
    with machine.stoppable(), pytest.raises(KeyboardInterrupt):
        follow(server, subject, kit / "older", lambda: signal.raise_signal(signal.SIGINT))
    assert listed == [str(kit / "older")]
    assert server.folders == {"mood": str(kit / "older")}


def put_back(own, listed):
    """The same, which notes what the server has when all of it is done."""

    def noted(self, was, error):
        own(self, was, error)
        listed.append(self._listing().folders["mood"])

    return noted
