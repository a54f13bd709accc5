"""A release to a hub: put together, shown, and only then sent, in one commit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koinize.adapter import ADAPTER_FILES
from koinize.adapter.config import CONFIG_FILE
from koinize.digest import file_digest
from koinize.errors import InputError, StepError
from koinize.export.card import base_of, benchmark_results, licence_of, model_card
from koinize.export.server import CHAT_TEMPLATE
from koinize.export.source import Source
from koinize.files import parse_json, read_bytes
from koinize.release.promotion import CARD, TEMPLATE

ENDPOINT = "HF_ENDPOINT"
BENCHMARKS = ".eval_results"  # the hub's folder
AGAIN = "nothing was committed; run the same command again"


@dataclass(frozen=True)
class Parcel:
    """What would be sent: the folder's files, to which repository, and who may see it."""

    folder: Path
    repository: str
    public: bool
    update: bool
    says: str

    @property
    def files(self) -> list[Path]:
        """Its files, sorted by name."""
        return sorted(one for one in self.folder.rglob("*") if one.is_file())

    def described(self) -> str:
        """Every file with its size, for whoever has to agree."""
        seen = "which anybody can read" if self.public else "private"
        where = f"the repository {self.repository}" + (" that is there" if self.update else "")
        seen = "which stays as visible as it is" if self.update else seen
        listed = (f"{one.stat().st_size:>12,}  {self.name(one)}" for one in self.files)
        return "\n".join([f"{self.says}, to {where}, {seen}:", *listed])

    def name(self, path: Path) -> str:
        """What a file is called in the repository."""
        return path.relative_to(self.folder).as_posix()


def put_together(
    source: Source,
    licence: str | None,
    base: str | None,
    folder: Path,
    benchmarks: Mapping[str, str] | None = None,
) -> None:
    """Write into a folder what a hub gets: the adapter, its card, its chat template, and what it
    reached in `benchmarks` (language -> task).

    The base model has one name, that of the hub, in the card and in the adapter's configuration. No
    row of the test goes along. Raises InputError without a licence, or a place of the base, and
    for a language whose rows are no benchmark's.
    """
    reached = benchmark_results(source, benchmarks or {})
    known, name = licence_of(source, licence), base_of(source, base)
    release = source.release.folder
    card = model_card(source, known, name)
    for one in ADAPTER_FILES:
        shutil.copyfile(release / one, folder / one)
    config: dict[str, Any] = parse_json(read_bytes(folder / CONFIG_FILE))
    if config.get("base_model_name_or_path") != name:
        config["base_model_name_or_path"] = name
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
        # The card has the digest of every file.
        former, now = file_digest(release / CONFIG_FILE), file_digest(folder / CONFIG_FILE)
        card = card.replace(former, now)
    (folder / CARD).write_text(card, encoding="utf-8")
    if (release / TEMPLATE).is_file():
        shutil.copyfile(release / TEMPLATE, folder / CHAT_TEMPLATE)
    if reached:
        (folder / BENCHMARKS).mkdir()
        # JSON is YAML, and no word of it is read as a number or a date.
        text = json.dumps(reached, indent=2, ensure_ascii=False) + "\n"
        (folder / BENCHMARKS / f"{source.task}.yaml").write_text(text, encoding="utf-8")


def push(parcel: Parcel) -> str:
    """Send it, and return its address. The token is that of `hf auth login`, or HF_TOKEN.

    Raises InputError without a token, for a repository that is there and is not to be updated or
    the other way round, and for a name that is none; StepError where the hub refuses or is not
    there. What is said holds no token.
    """
    import huggingface_hub as hub

    token = hub.get_token()
    if not token:
        raise InputError(
            "there is no token of a hub", expected="`hf auth login` before, or HF_TOKEN"
        )
    api = hub.HfApi(endpoint=os.environ.get(ENDPOINT), token=token)
    with _explained(parcel, token):
        there = api.repo_exists(parcel.repository)
        if there and not parcel.update:
            raise InputError(
                f"the repository {parcel.repository} is there already",
                remedy="name another one, or say --update to add a commit to it",
            )
        if parcel.update and not there:
            raise InputError(
                f"there is no repository {parcel.repository} to update, or none for this token"
            )
        if not there:
            api.create_repo(parcel.repository, private=not parcel.public)
        operations = [hub.CommitOperationAdd(parcel.name(one), one) for one in parcel.files]
        done = api.create_commit(parcel.repository, operations, commit_message=parcel.says)
    return str(done.repo_url)


@contextmanager
def _explained(parcel: Parcel, token: str) -> Iterator[None]:
    """What went wrong in one line, and whether an empty repository was left behind."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except HFValidationError as error:
        raise InputError(
            f"'{parcel.repository}' is no name of a repository", expected="such as OWNER/NAME"
        ) from error
    except Exception as error:
        said = " ".join(str(error).split()).replace(token, "***")
        remedy = AGAIN if parcel.update else f"{AGAIN}, with --update if the repository is there"
        raise StepError(
            f"the hub did not take it: {said}", where=parcel.repository, remedy=remedy
        ) from error
