"""The model card as the hub's own library reads it, and `koinize push` to a hub of our own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants, parse_eval_result_entries
from ruamel.yaml import YAML

from koinize.digest import file_digest
from koinize.pipeline import project as projects
from koinize.release import promote
from tests.cli.conftest import Call
from tests.export.hub_server import TOKEN, Hub, hub_server
from tests.pipeline.conftest import Small
from tests.release.releasing import finish, prepared, releases, retrain

REPO = "team/mood"
GIVEN = ("--base-model", "google/gemma-3-270m")
PUSH = ("push", "v1", REPO, "small", *GIVEN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a release, of which German has 4 of 400 wrong."""
    found = prepared(tmp_path_factory.mktemp("made"))
    found.spec((found.root / "koinize.yaml").read_text() + "license: gemma\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projects.base, "identity", lambda *_: "b" * 64)
        promote(finish(found, {"de": 4}), "mood", "production")
    return found.root


@pytest.fixture
def small(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A copy of it, beside which the shell is."""
    monkeypatch.setattr(projects.base, "identity", lambda *_: "b" * 64)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "small")
    return at(tmp_path / "small")


def at(root: Path) -> Small:
    """A small project that is there."""
    found = Small.__new__(Small)
    found.root = root
    return found


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of our own, a token for it, and no waiting between tries."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def test_the_card_is_what_the_hub_reads(koinize: Call, small: Small) -> None:
    code, out, err = koinize("export", "card", "v1", "card.md", "small", *GIVEN)
    assert (code, out, err) == (0, "wrote the card of v1 of mood to card.md\n", "")
    card = ModelCard.load("card.md")
    said = card.data
    assert (said.base_model, said.language) == ("google/gemma-3-270m", ["de", "en"])
    assert (said.library_name, said.license) == ("peft", "gemma")
    assert said.tags == ["koinize", "lora", "merge"]
    assert (said.base_model_relation, said.model_name) == ("adapter", "small-mood")
    german, english = said.eval_results
    assert (german.metric_type, german.metric_value) == ("accuracy", 99.0)  # 396 of 400
    assert (english.metric_value, english.metric_args["rows"]) == (100.0, 400)
    assert german.metric_args["low"] < 99 < german.metric_args["high"]
    assert (german.task_type, german.task_name) == ("text-classification", "mood")
    assert (german.dataset_type, german.dataset_config) == ("small-mood", "de")
    assert german.dataset_split == "test"
    text = card.text
    for heading in ("Scores", "How it was made", "What it took", "Limits"):
        assert f"\n## {heading}\n" in text
    assert "| de | accuracy | 99.00 |" in text
    assert "Tested in de (400 rows), en (400 rows), on this one task" in text
    assert "it was compared with no other one" in text
    assert '"recipe": "knots-ties"' in text
    assert '"trainer"' not in text  # which may be a command, with paths of somebody's machine
    assert "- Machine time: 0 s, in 0 s of wall time.\n" in text
    assert "# Merged adapter" in text
    assert (
        "card.md exists already" in koinize("export", "card", "v1", "card.md", "small", *GIVEN)[2]
    )


def test_rows_of_a_hub_are_named_and_languages_are_codes(koinize: Call, small: Small) -> None:
    """Of the release, whatever koinize.yaml says by now."""
    from koinize.store.record import read_record, write_record

    from_a_hub(small)
    manifest = small.root / ".koinize" / "releases" / "mood" / "v1" / "release.json"
    record = read_record(manifest)
    record["languages"] = ["no", "pt-BR", "pt"]
    write_record(manifest, record)
    assert koinize("export", "card", "v1", "card.md", "small", *GIVEN)[0] == 0
    said = ModelCard.load("card.md").data
    assert said.language == ["no", "pt"]
    first = said.eval_results[0]
    assert (first.dataset_type, first.dataset_revision) == ("team/rows", "main")


def from_a_hub(small: Small) -> None:
    """The release says that its rows were a dataset of the hub."""
    from koinize.store.record import read_record, write_record

    manifest = small.root / ".koinize" / "releases" / "mood" / "v1" / "release.json"
    manifest.chmod(0o644)
    record = read_record(manifest)
    record["settings"]["task"]["data"] = "hf:team/rows:{language}@main#{split}"
    write_record(manifest, record)


def test_what_was_reached_in_a_benchmark_is_where_the_hub_looks_for_it(
    koinize: Call, small: Small, hub: Hub
) -> None:
    from_a_hub(small)
    assert koinize(*PUSH, "--yes", "--benchmark", "de=1e3", "--benchmark", "en=english")[0] == 0
    written = hub.repositories[REPO][".eval_results/mood.yaml"].decode()
    german, english = parse_eval_result_entries(YAML(typ="safe", pure=True).load(written))
    assert (german.dataset_id, german.task_id, german.value) == ("team/rows", "1e3", 99.0)
    assert (german.dataset_revision, english.task_id) == ("main", "english")
    assert (german.notes or "").startswith("accuracy in de, 400 rows, 95 % interval 9")


def test_what_is_no_benchmark_is_refused_before_anything_is_sent(
    koinize: Call, small: Small, hub: Hub
) -> None:
    ask = (*PUSH, "--yes", "--benchmark")
    assert "the test rows of 'de' are from no dataset of the hub" in koinize(*ask, "de=german")[2]
    from_a_hub(small)
    assert "'fr' was not tested; expected one of de, en" in koinize(*ask, "fr=french")[2]
    assert koinize(*ask, "de") == (
        2,
        "",
        "koinize: 'de' cannot be read; expected LANGUAGE=TASK, such as de=sentiment_de\n",
    )
    assert not hub.repositories


def test_what_a_card_needs(koinize: Call, small: Small) -> None:
    (small.root / "base").mkdir()
    assert koinize("export", "card", "v1", "card.md", "small")[2] == (
        "koinize: the base model 'base' has no place on a hub that a card could name; expected "
        "--base-model with its name there, such as google/gemma-3-270m\n"
    )
    assert koinize("export", "card", "v1", "card.md", "small", *GIVEN, "--license", "My own")[
        2
    ] == (
        "koinize: the licence 'My own' is no name that a hub knows; expected such as apache-2.0\n"
    )
    text = (small.root / "koinize.yaml").read_text()
    small.spec(text.replace("license: gemma\n", ""))
    for command in (("export", "card", "v1", "card.md"), ("push", "v1", REPO)):
        assert koinize(*command, "small", *GIVEN) == (
            2,
            "",
            "koinize: the model card has no licence; expected `license: apache-2.0`, or another, "
            "in koinize.yaml, or --license; see what the licence of the base model and of the "
            "data allows\n",
        )
    assert koinize("export", "card", "v1", "card.md", "small", *GIVEN, "--license", "mit")[0] == 0
    assert ModelCard.load("card.md").data.license == "mit"


def test_a_release_is_pushed(koinize: Call, small: Small, hub: Hub) -> None:
    code, out, err = koinize(*PUSH, "--yes")
    assert (code, "koinize:" in err) == (0, False)  # only the library's own progress
    assert out.startswith(f"release v1 of mood, to the repository {REPO}, private:\n")
    assert out.endswith(f"\nsent: {hub.url}/{REPO}\n")
    assert (hub.visibility, hub.commits) == ({REPO: "private"}, ["release v1 of mood"])
    assert "POST /api/validate-yaml" in hub.asked  # nothing of it goes to any other hub
    sent = hub.repositories[REPO]
    assert sorted(sent) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    (release,) = (one for one in releases(small).folder.iterdir() if one.name == "v1")
    weights = "adapter_model.safetensors"
    assert sent[weights] == (release / weights).read_bytes()
    # The base model has the hub's name, and the card the digest of what was sent.
    assert json.loads(sent["adapter_config.json"]) == {
        "base_model_name_or_path": "google/gemma-3-270m"
    }
    card = ModelCard(sent["README.md"].decode())
    assert card.data.eval_results[0].metric_value == 99.0
    assert "de test" not in card.content


def test_digests_in_the_card_are_those_of_what_is_sent(
    koinize: Call,
    small: Small,
    hub: Hub,
    tmp_path: Path,
) -> None:
    from koinize import export
    from koinize.export.hub import put_together
    from koinize.pipeline import Project

    source = export.source(Project.at(small.root / "koinize.yaml"), "mood", "v1")
    before = file_digest(source.release.folder / "adapter_config.json")
    readme = source.release.folder / "README.md"
    readme.chmod(0o644)
    readme.write_text(f"---\nbase_model: x\n---\n# Merged\n| a | `{before}` |\n")
    (tmp_path / "out").mkdir()
    put_together(source, None, "google/gemma-3-270m", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"`{file_digest(tmp_path / 'out' / 'adapter_config.json')}`" in card
    assert (before in card, card.count("base_model:"), card.count("\n---\n")) == (False, 1, 1)


@pytest.mark.slow
def test_a_repository_that_exists(koinize: Call, small: Small, hub: Hub) -> None:
    assert koinize(*PUSH, "--yes", "--public", "--json")[0] == 0
    assert hub.visibility == {REPO: "public"}
    hub.repositories[REPO]["mine.txt"] = b"kept"
    code, _, err = koinize(*PUSH, "--yes")
    assert (code, err) == (
        2,
        f"koinize: the repository {REPO} is there already; name another one, or say --update to "
        "add a commit to it\n",
    )
    assert len(hub.commits) == 1
    retrain(small, "de", 6)
    promote(finish(small), "mood", "production")
    code, out, _ = koinize("push", "v2", REPO, "small", *GIVEN, "--yes", "--update", "--json")
    assert (code, json.loads(out)["repository"]) == (0, REPO)
    assert hub.commits == ["release v1 of mood", "release v2 of mood"]
    assert hub.repositories[REPO]["mine.txt"] == b"kept"
    code, _, err = koinize("push", "v2", "team/other", "small", *GIVEN, "--yes", "--update")
    assert (code, "there is no repository team/other to update" in err) == (2, True)


def test_nothing_is_sent_without_a_yes(
    koinize: Call,
    small: Small,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, err = koinize(*PUSH)
    assert (code, err) == (2, "koinize: nobody is there to agree; say --yes\n")
    assert "README.md" in out
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda _: False)
    assert koinize(*PUSH)[2] == "koinize: nothing was sent\n"
    assert hub.asked == []
    monkeypatch.setattr("typer.confirm", lambda _: True)
    assert koinize(*PUSH)[0] == 0


def test_without_a_token(
    koinize: Call,
    small: Small,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, _, err = koinize(*PUSH, "--yes")
    assert (code, err) == (
        2,
        "koinize: there is no token of a hub; expected `hf auth login` before, or HF_TOKEN\n",
    )
    assert hub.asked == []


@pytest.mark.parametrize(
    "fault",
    [
        ("/api/models/", 401),
        ("/api/repos/create", 403),
        ("/api/repos/create", "drop"),
        ("/preupload/", 403),
        ("/lfs/", 403),
        ("/lfs/", "drop"),
        ("/commit/", 403),
        ("/commit/", "drop"),
    ],
    ids=str,
)
def test_a_hub_that_refuses_or_drops(
    koinize: Call,
    small: Small,
    hub: Hub,
    fault: tuple[str, str | int],
) -> None:
    """One line, nothing of the token, and nothing committed; the same command then goes through."""
    hub.fault = fault
    code, out, err = koinize(*PUSH, "--yes")
    assert (code, err.count("koinize:")) == (1, 1)
    last = err.splitlines()[-1]  # after the library's own progress
    assert last.startswith(f"koinize: {REPO} the hub did not take it: ")
    assert "nothing was committed" in last
    assert TOKEN not in out + err
    assert hub.commits == []
    assert not any(hub.repositories.values())
    hub.fault = None
    more = ["--update"] if REPO in hub.repositories else []
    assert koinize(*PUSH, "--yes", *more)[0] == 0
    assert len(hub.repositories[REPO]) == 3


def test_a_name_that_is_none(koinize: Call, small: Small, hub: Hub) -> None:
    code, _, err = koinize("push", "v1", "a/b/c", "small", *GIVEN, "--yes")
    assert (code, err) == (
        2, "koinize: 'a/b/c' is no name of a repository; expected such as OWNER/NAME\n"
    )  # fmt: skip
