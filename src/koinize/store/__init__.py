"""What is kept on disk: artifacts named by their content, records with a digest, durable files.

- `home`: which file lies where under `.koinize`;
- `artifacts`: `Store`, where a step's result is committed last and verified when it is opened;
- `manifest`: what is recorded of an artifact;
- `place`: where artifacts are kept, as `Store` sees it; `folder`, one on this machine; `bucket`,
  one in an object store, with `objects`, which speaks to that, and `cache`, copies of what it has;
  `spec`: which of them koinize.yaml means;
- `checkpoint`: how far a training is, until its artifact is there;
- `record`: a JSON object that carries its own digest, for what only saves time when it is there;
- `typed`: what is read, checked field by field before anybody uses it;
- `durable`: whole files or none, and folders that a dead process leaves for the next to sweep;
- `replaceable`: files of the user's that may be written over.

Two paths through it. A step builds: `with store.building(id, ...) as draft`, files into
`draft.folder`, and on a clean exit it is committed, in a folder by one rename. A reader asks
`store.open(id)`, which checks every byte against the manifest before it says where they lie.
"""

from __future__ import annotations

from koinize.store.artifacts import Artifact, Draft, Store
from koinize.store.checkpoint import Checkpoint
from koinize.store.durable import (
    NewFolder,
    put_in_place,
    refuse_existing,
    sync,
    temporary_folder,
    write_atomically,
)
from koinize.store.home import Home
from koinize.store.manifest import MANIFEST, Manifest
from koinize.store.record import read_record, write_record
from koinize.store.replaceable import refuse_own_folder, replaceable

__all__ = [
    "MANIFEST",
    "Artifact",
    "Checkpoint",
    "Draft",
    "Home",
    "Manifest",
    "NewFolder",
    "Store",
    "put_in_place",
    "read_record",
    "refuse_existing",
    "refuse_own_folder",
    "replaceable",
    "sync",
    "temporary_folder",
    "write_atomically",
    "write_record",
]
