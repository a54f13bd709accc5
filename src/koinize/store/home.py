"""The files under a project's `.koinize`: where each lies, and nothing about what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from koinize.digest import digest
from koinize.store.durable import refuse_link

FOLDER = ".koinize"


@dataclass(frozen=True)
class Home:
    """The places in the `.koinize` of one project, which is `folder`.

    What cannot be made again, and is never written over: `ledger`, `signatures`, `stamps`,
    `releases`. What a run makes again, at a price: `artifacts`. What only saves time, and may be
    removed at any moment: `names`, `inputs`, `experience`, `lengths`, `digests`, interference,
    `cache`, `checkpoints`.
    What belongs to a process at work: `lock`, `holder`, `heartbeat`, progress, `temporary`.
    """

    folder: Path

    @property
    def artifacts(self) -> Path:
        """One folder for each artifact, named by its id."""
        return self.folder / "artifacts"

    @property
    def cache(self) -> Path:
        """Copies of what a shared store has."""
        return self.folder / "cache"

    @property
    def names(self) -> Path:
        """What was current last, by name."""
        return self.folder / "names.json"

    def lost(self, artifact_id: str) -> Path:
        """What the manifest of a broken artifact said, until it is built again."""
        return self.folder / "lost" / f"{artifact_id}.json"

    @property
    def temporary(self) -> Path:
        """What is half built; each entry is locked by the process that builds it."""
        return self.folder / "tmp"

    @property
    def checkpoints(self) -> Path:
        """One folder for each artifact of which a beginning is kept, named by its id."""
        return self.folder / "checkpoints"

    @property
    def ledger(self) -> Path:
        """Every interval of time, and what it cost."""
        return self.folder / "ledger.jsonl"

    @property
    def signatures(self) -> Path:
        """A file for each time that somebody signed where the ledger ended."""
        return self.folder / "signatures"

    @property
    def stamps(self) -> Path:
        """A file for each time that an authority stamped where the ledger ended."""
        return self.folder / "stamps"

    @property
    def releases(self) -> Path:
        """One folder for each task that was ever promoted."""
        return self.folder / "releases"

    @property
    def lock(self) -> Path:
        """Held by the one koinize that works here."""
        return self.folder / "lock"

    @property
    def holder(self) -> Path:
        """Who holds the lock, for the message to whoever wants it too."""
        return self.folder / "holder.json"

    @property
    def heartbeat(self) -> Path:
        """When the run that is going on, or was killed, was last alive."""
        return self.folder / "heartbeat"

    @property
    def progress(self) -> Path:
        """How far each step at work is, a file for each."""
        return self.folder / "progress"

    def log(self, step: str) -> Path:
        """The traceback of a step's unexpected failure."""
        return self.folder / "logs" / f"{step.replace('/', '.')}.log"

    @property
    def inputs(self) -> Path:
        """What was found in the data files, until one of them changes."""
        return self.folder / "inputs.json"

    @property
    def experience(self) -> Path:
        """What the ledger teaches about time, until a line is added."""
        return self.folder / "experience.json"

    @property
    def lengths(self) -> Path:
        """Which rows are too long for the base model, until one of them changes."""
        return self.folder / "lengths.json"

    @property
    def digests(self) -> Path:
        """The digests of the base model's files, until one of them changes."""
        return self.folder / "digests"

    def interference(self, task: str) -> Path:
        """How the adapters of a task interfere, until one of them changes."""
        return self.folder / "interference" / f"{digest(task)}.json"  # a task may have any name

    def refuse_links(self) -> None:
        """Raise InputError for a link where koinize writes or removes files of its own."""
        refuse_link(self.folder)
        for folder in (self.folder, self.releases):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                refuse_link(path)

    def remembered(self) -> Iterator[Path]:
        """The records that are there of what only saves time, in a fixed order."""
        yield from (path for path in (self.inputs, self.experience, self.lengths) if path.exists())
        for folder in (self.digests, self.interference("").parent):
            yield from sorted(folder.glob("*.json"))
