"""The base model: what it is called, what it is (its digest), and how it becomes loadable fast.

Nothing here imports torch before a .gguf file has to be converted, so `plan` stays quick.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from koinize.adapter.tensorfile import read_tensor_specs
from koinize.digest import digest, file_digest, short
from koinize.errors import InputError
from koinize.frozen import Frozen
from koinize.model.loading import load_gguf, refuse_detours
from koinize.model.package import PACKAGE, package_of, shipped_file
from koinize.store import NewFolder
from koinize.store.record import read_record, write_record
from koinize.store.typed import Identity, fitting

# Goes up whenever `prepare` would write other weights for the same file.
CONVERSION = 1

_COMMIT = re.compile(r"[0-9a-f]{40}")
# What decides how a folder's model computes and how its text is tokenized.
_CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def _truth(value: object) -> object:
    """true and false, which come as text out of a koinize.yaml."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Argument = Annotated[bool | int | float | str, BeforeValidator(_truth)]


class ModelSpec(Frozen):
    """A model that is only ever read: where it is found, and in which dtype it computes."""

    model: str = Field(
        min_length=1,
        description="hub id, folder, .gguf file, or 'package:NAME' for an installed Python package "
        "that ships one .gguf file, or whose `assemble(path)` writes one",
    )
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub id")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"


class BaseSpec(ModelSpec):
    """The model that every adapter of a project sits on."""

    template: dict[str, Argument] = Field(
        default={},
        description="arguments of a chat model's template, such as {enable_thinking: false}: what "
        "the server that will use the adapter passes to it",
    )


def user_cache() -> Path:
    """Where converted models and file digests are kept: KOINIZE_CACHE, or ~/.cache/koinize."""
    return Path(os.environ.get("KOINIZE_CACHE") or Path.home() / ".cache" / "koinize").expanduser()


def identity(base: ModelSpec, root: Path, digests: Path) -> str:
    """Digest of what the base model is: its content, wherever it lies, and its dtype.

    `root` is what a relative path starts from; `digests` is the folder that remembers those
    of large files. Raises InputError when the model cannot be found or is not pinned.
    """
    path = _local(base, root)
    if path is None and base.model.startswith(PACKAGE):
        content = _package_content(base.model)
    elif path is None:
        content = ["hub", base.model, _commit(base)]
    elif path.is_dir():
        files = _content_files(path)
        content = ["folder", [[file.name, _known_digest(file, digests)] for file in files]]
    else:
        content = ["gguf", CONVERSION, _known_digest(path, digests)]
    return digest([content, base.dtype])


def prepare(base: ModelSpec, root: Path, cache: Path) -> Path:
    """A folder that transformers loads within seconds: safetensors, config and tokenizer.

    A .gguf file (also a package's) is converted to bfloat16 once and kept in `cache`; a hub id
    is looked up in, or downloaded to, the Hugging Face cache. Raises InputError.
    """
    path = _local(base, root)
    if path is None and base.model.startswith(PACKAGE):
        folder = _folder(base, root, cache, cache / "digests")
        return folder if folder.exists() else _from_package(package_of(base.model), folder)
    if path is None:
        return _from_hub(base)
    if path.is_dir():
        _content_files(path)
        return path
    folder = _folder(base, root, cache, cache / "digests")
    return folder if folder.exists() else _from_gguf(path, folder)


def prepared(base: ModelSpec, root: Path, cache: Path, digests: Path) -> Path | None:
    """The folder that `prepare` would give, if the model is there already; else None."""
    try:
        folder = _folder(base, root, cache, digests)
        _content_files(folder)
    except InputError:
        return None
    return folder


def cut_off(base: ModelSpec, root: Path, cache: Path, digests: Path) -> Path | None:
    """The first file of weights that is shorter than it says, of those that are there."""
    folder = prepared(base, root, cache, digests)
    for file in sorted(folder.glob("*.safetensors")) if folder else ():
        try:
            read_tensor_specs(file)
        except InputError:
            return file
    return None


def _folder(base: ModelSpec, root: Path, cache: Path, digests: Path) -> Path:
    """Where `prepare` has the model, whether or not it is there yet. Raises InputError."""
    path = _local(base, root)
    if path is None and base.model.startswith(PACKAGE):
        key = short(digest(_package_content(base.model)))
        return cache / "bases" / f"{package_of(base.model).__name__}-{key}"
    if path is None:
        return _hub_folder(base.model) / "snapshots" / _commit(base)
    if path.is_dir():
        return path
    key = short(digest(["gguf", CONVERSION, _known_digest(path, digests)]))
    return cache / "bases" / f"{path.stem}-{key}"


def is_hub_id(base: ModelSpec, root: Path) -> bool:
    """Whether it is neither a folder nor a file here, nor in a package. Raises InputError."""
    return not base.model.startswith(PACKAGE) and _local(base, root) is None


def _hub_folder(model: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"


def _local(base: ModelSpec, root: Path) -> Path | None:
    """The folder or .gguf file that is meant, also one in a package; None for a hub id, and for a
    package that writes its file.
    """
    if base.model.startswith(PACKAGE):
        return shipped_file(base.model)
    path = root / Path(base.model).expanduser()
    with suppress(OSError, ValueError):  # a name that no file can have
        if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
            return path
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", base.model) and path.suffix != ".gguf":
        return None
    raise InputError(
        f"there is no base model '{base.model}'",
        where="base.model",
        expected="a hub id, a folder, a .gguf file or package:NAME",
    )


def _content_files(folder: Path) -> list[Path]:
    files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern)})
    names = {file.name for file in files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            "this folder holds no model that koinize loads",
            where=str(folder),
            expected="config.json and *.safetensors (pickled weights are refused)",
        )
    refuse_detours(folder, [name for name in names if name.endswith(".safetensors")])
    return files


def _known_digest(file: Path, digests: Path) -> str:
    """A file's digest, as remembered when path, size, time and inode are as they were."""
    known, stamp = _memory_of(file, digests)
    if (remembered := _remembered(known, stamp)) is not None:
        return remembered
    try:
        found = file_digest(file)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from error
    with suppress(OSError):  # a full disk, or a folder that may only be read
        known.parent.mkdir(parents=True, exist_ok=True)
        write_record(known, {"stamp": stamp, "sha256": found})
    return found


def _memory_of(file: Path, digests: Path) -> tuple[Path, list[str | int]]:
    """Where the file's digest is remembered, and what must not have changed meanwhile."""
    place = str(file.resolve())
    try:
        state = file.stat()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from error
    times = [state.st_size, state.st_mtime_ns, state.st_ino, state.st_ctime_ns]
    return digests / f"{short(digest(place))}.json", [place, *times]


class _Memory(TypedDict):
    stamp: list[str | int]
    sha256: Identity


def _remembered(known: Path, stamp: list[str | int]) -> str | None:
    memory = fitting(_Memory, read_record(known))
    return memory["sha256"] if memory and memory["stamp"] == stamp else None


def damaged(base: ModelSpec, root: Path, digests: Path) -> list[Path]:
    """The base's local files whose bytes are not those of their remembered digests, although size
    and times say so: a disk that fails, say. Reads every byte. Raises InputError.
    """
    if (path := _local(base, root)) is None:
        return []
    found = []
    for file in _content_files(path) if path.is_dir() else [path]:
        remembered = _remembered(*_memory_of(file, digests))
        if remembered and remembered != file_digest(file):
            found.append(file)
    return found


def _commit(base: ModelSpec) -> str:
    """The commit of a hub id: as given, or as the local Hugging Face cache resolves the name."""
    from huggingface_hub import constants

    revision = base.revision or constants.DEFAULT_REVISION
    if _COMMIT.fullmatch(revision):
        return revision
    reference = _hub_folder(base.model) / "refs" / revision
    try:
        return reference.read_text(encoding="utf-8").strip()
    except OSError:
        raise InputError(
            f"'{base.model}' is no folder here, and not in the local Hugging Face cache at "
            f"revision '{revision}', so what it is cannot be told",
            where="base.model",
            remedy="set base.revision to a full commit id, or download the model once "
            f"(hf download {base.model})",
        ) from None


def _from_hub(base: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            base.model, revision=base.revision, allow_patterns=list(_CONTENT)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"'{base.model}' is no folder here, and cannot be downloaded: {error}",
            where="base.model",
            remedy="check the name, the network and your Hugging Face token",
        ) from error
    _content_files(Path(folder))
    return Path(folder)


def _package_content(model: str) -> list[object]:
    # A package that states its file's digest is that file, and assemble() is held to it.
    package = package_of(model)
    stated = getattr(package, "EXPECTED_SHA256", None)
    if stated:
        return ["gguf", CONVERSION, str(stated)]
    name = package.__name__
    distributions = sorted(set(metadata.packages_distributions().get(name, [])))
    if not distributions:
        raise InputError(
            f"the package '{name}' says nowhere which file it holds",
            where="base.model",
            expected="EXPECTED_SHA256 in the package, or an installed version",
        )
    versions = [[owner, metadata.version(owner)] for owner in distributions]
    return ["package", CONVERSION, name, versions]


def _from_package(package: ModuleType, folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as parts:
        file = Path(parts) / "model.gguf"
        package.assemble(file)
        stated = getattr(package, "EXPECTED_SHA256", None)
        if stated and file_digest(file) != stated:
            raise InputError(
                f"the file of package '{package.__name__}' is not the one it promises",
                where="base.model",
                expected=f"SHA-256 {stated}",
                remedy="install the package again",
            )
        return _from_gguf(file, folder)


def _from_gguf(file: Path, folder: Path) -> Path:
    """Converts once, even when several processes ask; the folder is there whole or not at all."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return folder
        with closing(NewFolder(folder)) as draft:
            _convert(file, draft.folder)
            draft.commit()
    return folder


def _convert(file: Path, folder: Path) -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise InputError(
            "a .gguf file needs the package 'gguf'",
            where=str(file),
            remedy="pip install 'koinize[gguf]'",
        ) from error
    import torch

    with _read_once():
        try:
            model, tokenizer = load_gguf(file, torch.bfloat16)
        except (OSError, ValueError) as error:
            raise InputError(
                f"this .gguf file cannot be converted: {error}", where=str(file)
            ) from error
    # The weights are plain numbers now; the marker that says otherwise would forbid saving them.
    for owner, marker in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(owner, marker):
            delattr(owner, marker)
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _read_once() -> Iterator[None]:
    """Lets transformers parse the .gguf file once, and fast.

    It makes three readers of the same file, and each builds a memory map object for every one of
    a million entries: 55 seconds for Gemma 3 270M, 17 with one reader on a plain array.
    """
    import gguf
    import numpy as np

    readers: dict[str, gguf.GGUFReader] = {}

    class PlainReader(gguf.GGUFReader):  # type: ignore[misc, name-defined, unused-ignore]
        @property
        def data(self) -> np.ndarray:
            return self._plain

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._plain = mapped.view(np.ndarray)

    def reader(path: str, *arguments: str) -> gguf.GGUFReader:
        key = str(path)
        if key not in readers:
            readers[key] = PlainReader(path, *arguments)
        return readers[key]

    original, gguf.GGUFReader = gguf.GGUFReader, reader
    try:
        yield
    finally:
        gguf.GGUFReader = original
