"""The one way in which files become a model and a tokenizer, safe whatever lies in the folder.

transformers reads more from a folder than weights: it offers to run Python that a configuration
names, unpickles, fetches, and takes an adapter that lies beside a model for an order to load
another one. Everything that koinize loads comes through here, where none of it happens.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinize.adapter.config import CONFIG_FILE
from koinize.errors import InputError, KoinizeError
from koinize.files import LARGEST_TEXT, parse_json, read_bytes
from koinize.model import quantized

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAFELY = {"trust_remote_code": False, "local_files_only": True}
BASE_CONFIG = "config.json"
MOST_LAYERS = 10_000
INDEX = "model.safetensors.index.json"


def load_folder(
    folder: Path | str,
    dtype: str | torch.dtype,
    kind: str = "AutoModelForCausalLM",
    in_4bit_on: torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a folder of safetensors; `kind` is a class of transformers. With a
    device, the causal language model, on it, in 4 bit.

    Raises InputError for a folder that leads to weights elsewhere, OSError or ValueError for one
    that holds no model.
    """
    refuse_size(Path(folder))
    refuse_detours(Path(folder), [path.name for path in Path(folder).glob("*.safetensors")])
    if in_4bit_on is None:
        return _load(str(folder), dtype, kind, use_safetensors=True)
    quantized.require()
    shape = without_weights(folder, dtype)
    quantized.refuse(shape)
    asked = quantized.asked_of_transformers(shape.dtype, in_4bit_on)
    model, tokenizer = _load(str(folder), shape.dtype, kind, use_safetensors=True, **asked)
    quantized.settle(model)
    return model, tokenizer


def load_gguf(
    file: Path, dtype: str | torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer in a .gguf file, whatever lies beside it."""
    with _alone(file) as folder:
        return _load(str(folder), dtype, "AutoModelForCausalLM", gguf_file=file.name)


def load_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """The tokenizer of a base model's folder, and the tokens by which generation ends; no weights.

    Raises InputError as `load_folder` does, and where there is no tokenizer.
    """
    from transformers import AutoTokenizer, GenerationConfig

    refuse_detours(folder, [path.name for path in folder.glob("*.safetensors")])
    try:
        with in_words(), uncollected():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), **SAFELY)
    except (OSError, ValueError) as error:
        what = f"holds no tokenizer: {error}"
        raise InputError(what, where=str(folder), expected="tokenizer.json") from error
    try:
        with in_words():
            ends = GenerationConfig.from_pretrained(str(folder), local_files_only=True).eos_token_id
    except (OSError, ValueError):
        ends = None
    listed = ends if isinstance(ends, list) else [ends]
    return tokenizer, [one for one in listed if one is not None]


def refuse_detours(folder: Path, weights: Sequence[str]) -> None:
    """Raise InputError where a base model's folder names weights that do not lie in it."""
    if (folder / CONFIG_FILE).exists():
        raise InputError(
            f"holds {CONFIG_FILE} beside a model, so it is two things",
            where=str(folder),
            expected="a base model, or an adapter",
            remedy="keep the adapter in a folder of its own",
        )
    index = folder / INDEX
    if not index.exists():
        return
    try:
        named = set(parse_json(read_bytes(index, LARGEST_TEXT * 4))["weight_map"].values())
        strange = sorted(str(name) for name in named - set(weights))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError("is not an index of weights", where=str(index)) from error
    if strange:
        raise InputError(
            f"names '{strange[0]}', which is no file beside it",
            where=str(index),
            expected="the safetensors files of its own folder",
        )


def refuse_size(folder: Path) -> None:
    """Raise InputError for a configuration with more layers than anybody built, which would be made
    one by one.
    """
    try:
        config = parse_json(read_bytes(folder / BASE_CONFIG, LARGEST_TEXT))
    except (OSError, ValueError):
        return  # for the library to refuse
    parts = [config, *config.values()] if isinstance(config, dict) else []
    for part in parts:
        for key, value in part.items() if isinstance(part, dict) else ():
            if "layer" in key and type(value) is int and value > MOST_LAYERS:
                what = f"{key} is {value}"
                expected = f"at most {MOST_LAYERS}"
                raise InputError(what, where=str(folder / BASE_CONFIG), expected=expected)


def _load(
    place: str,
    dtype: str | torch.dtype,
    kind: str,
    **more: Any,  # noqa: ANN401
) -> tuple[Any, Any]:
    import transformers
    from transformers import AutoTokenizer

    of_tokenizer = {key: value for key, value in more.items() if key == "gguf_file"}
    with in_words(), uncollected():
        tokenizer = AutoTokenizer.from_pretrained(place, **of_tokenizer, **SAFELY)
        model = getattr(transformers, kind).from_pretrained(place, dtype=dtype, **more, **SAFELY)
    return model, tokenizer


def without_weights(
    folder: Path | str, dtype: str | torch.dtype = "auto", *, seeing: bool = False
) -> PreTrainedModel:
    """The model of a folder's configuration on the device meta, where its weights take no memory.

    seeing: the class that takes images beside texts, and not the causal language model. Raises
    InputError as `refuse_size` does, OSError or ValueError where there is no such class.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    refuse_size(Path(folder))
    kind = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
    with in_words(), torch.device("meta"):
        # Read anew for each class: one may keep its own part of a configuration only.
        config = AutoConfig.from_pretrained(str(folder), **SAFELY)
        chosen = getattr(config, "dtype", None) if dtype == "auto" else dtype
        model = kind.from_config(config, dtype=chosen, trust_remote_code=False)
    found: PreTrainedModel = model.eval()
    return found


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave Python's search for cycles out: a vocabulary is read into a million lists that are in
    none, and looked through again and again that takes half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def in_words() -> Iterator[None]:
    """Let whatever transformers raises for files that mean nothing be an OSError or ValueError."""
    try:
        yield
    except (OSError, ValueError, KoinizeError):
        raise
    except Exception as error:  # a configuration may lead it anywhere
        raise ValueError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """A folder in which nothing lies but the file, by a link."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        yield Path(folder)
