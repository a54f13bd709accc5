"""A loaded base model, the adapters that come and go on it, and logits only where they are needed.

A vocabulary of 262,144 entries makes full logits the largest tensor of a run by far. Here the
backbone runs to hidden states, the wanted positions are taken out as rows of a 2-D matrix, and
only those meet the output layer. (2-D matters: torch on CPU copies the whole frozen output matrix
once per sequence when it is given a 3-D input.)
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from koinize import machine
from koinize.adapter import read_header
from koinize.adapter.experts import owner
from koinize.adapter.names import named_as
from koinize.errors import InputError, StepError
from koinize.model.encoding import Encoder
from koinize.model.loading import load_folder
from koinize.model.memory import rows_of_head, tokens_of_pass
from koinize.model.plain import Untouched, put_on

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogitHead:
    """Hidden states (n, hidden) to logits (n, vocabulary), in float32.

    `scale` and `cap` are what some families do after the output layer: a constant factor, and
    cap * tanh(logits / cap), the soft-capping of Gemma 2 (arXiv 2408.00118).
    """

    model: PreTrainedModel
    scale: float
    cap: float | None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits of every vocabulary entry, (n, vocabulary), float32."""
        return self._finish(self._layer(hidden).float())

    def at(self, hidden: Tensor, logits: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Single logits (n,): of `tokens` (n,) at `rows` (n,) of hidden states, exact in float32.

        A bfloat16 logit near 20 moves in steps of 0.125, enough to tie two labels; products with
        the few rows that matter are redone in float32. Other output layers give what they gave.
        """
        layer = self._layer
        if type(layer) is not nn.Linear:
            return logits[rows, tokens]
        exact = (hidden[rows].float() * layer.weight[tokens].float()).sum(dim=-1)
        if layer.bias is not None:
            exact = exact + layer.bias[tokens].float()
        return self._finish(exact)

    @property
    def _layer(self) -> nn.Module:
        # Asked for each time: an adapter may wrap it.
        layer: nn.Module = self.model.get_output_embeddings()
        return layer

    def _finish(self, logits: Tensor) -> Tensor:
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base model in memory. `name` and `revision` are what its adapters will refer to.

    `shares_cache`: whether rows of its cache may be chosen and repeated, as keys and values may and
    the states of recurrent layers may not. `writes`: whether it has one that is carried from one
    token of a text to the next.
    """

    model: PreTrainedModel
    head: LogitHead
    encoder: Encoder
    device: torch.device
    name: str
    revision: str | None
    untouched: Untouched = field(default_factory=Untouched)
    shares_cache: bool = True
    writes: bool = True

    @property
    def backbone(self) -> PreTrainedModel:
        """The model without its output layer: token ids to hidden states."""
        return decoder_of(self.model)

    def pass_tokens(self, budget: int) -> int:
        """Tokens to put into one forward pass over whole sequences, at most `budget`."""
        return tokens_of_pass(budget, on_cpu=self.device.type == "cpu")

    @property
    def head_rows(self) -> int:
        """Hidden states to put into one product with the output layer."""
        vocabulary: int = self.model.config.get_text_config().vocab_size
        return rows_of_head(vocabulary, on_cpu=self.device.type == "cpu")

    def precision(self) -> AbstractContextManager[None]:
        """Products in the base's dtype where that has 16 bits: float32 factors stay masters."""
        half = self.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.device.type, self.dtype, enabled=half)

    @property
    def dtype(self) -> torch.dtype:
        """Of the base model's weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its output layer, also of families that call the whole their decoder."""
    found: PreTrainedModel = model.get_decoder()
    return getattr(model, "model", found) if found is model else found


def default_device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    return torch.device("cpu")


def load_model(
    path: Path | str,
    dtype: str = "bfloat16",
    device: torch.device | str | None = None,
    *,
    name: str | None = None,
    revision: str | None = None,
    template: Mapping[str, object] | None = None,
    in_4bit: bool = False,
) -> Loaded:
    """Loads a folder of safetensors and a tokenizer; frozen, in evaluation mode.

    Remote code never runs and pickled weights are refused. `dtype` is a torch dtype's name or
    'auto' (what the folder says). `name` goes into the adapters made on this model; `template` are
    arguments of its chat template. `in_4bit`: to train on, see `koinize.model.quantized`.
    """
    device = torch.device(device) if device else default_device()
    try:
        model, tokenizer = load_folder(path, dtype, in_4bit_on=device if in_4bit else None)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be loaded as a causal language model: {error}",
            where=str(path),
            expected="a folder with config.json, *.safetensors and a tokenizer",
        ) from error
    if not in_4bit:  # which is where it belongs
        model = model.to(device)
    model = model.eval().requires_grad_(False)
    name = name or str(path)
    return adopt(model, tokenizer, device, name=name, revision=revision, template=template)


def adopt(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    *,
    name: str,
    revision: str | None = None,
    template: Mapping[str, object] | None = None,
) -> Loaded:
    """Wraps a model and tokenizer that are already in memory.

    Raises StepError when the head found here does not reproduce the model's own logits.
    """
    config = model.config.get_text_config()
    # Cohere multiplies its logits by logit_scale, Granite divides them by logits_scaling.
    scale = getattr(config, "logit_scale", None) or 1 / (
        getattr(config, "logits_scaling", None) or 1.0
    )
    cap = getattr(config, "final_logit_softcapping", None)
    head = LogitHead(model, float(scale), cap)
    ends = model.generation_config.eos_token_id if model.generation_config else None
    ends = ends if isinstance(ends, list) else [ends]
    _check_head(model, head, device)
    encoder = Encoder(tokenizer, [end for end in ends if end is not None], template)
    if encoder.chat and encoder.chat.unsaid:
        logger.warning(
            "a server sends %r before an answer, which the chat template's own answers lack: "
            "trained is what comes before it; see base.template",
            encoder.chat.unsaid,
        )
    writes = first_cache(decoder_of(model), torch.arange(1, 5, device=device)[None]) is not None
    shares = _shares_cache(model, device)
    return Loaded(model, head, encoder, device, name, revision, shares_cache=shares, writes=writes)


@torch.inference_mode()
def _shares_cache(model: PreTrainedModel, device: torch.device) -> bool:
    """Tried: two rows go on from the cache of one, and are compared with a pass without a cache."""
    decoder, ids = decoder_of(model), torch.arange(1, 6, device=device)[None]
    cache = first_cache(decoder, ids[:, :4])
    if cache is None:
        return False
    try:
        cache.batch_select_indices(torch.tensor([0, 0], device=device))
        rest = ids[:, 4:].expand(2, -1)
        ours = decoder(input_ids=rest, past_key_values=cache, use_cache=True).last_hidden_state
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError):
        return False  # a recurrent state
    theirs = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, 4:]
    apart = float((ours.float() - theirs.float()).abs().max())
    # Another order of the same sums, in many layers, moves them by less; another state by more.
    allowed = max(1e-3, 64 * torch.finfo(model.dtype).eps)
    return apart <= allowed * float(theirs.abs().max())


@torch.inference_mode()
def first_cache(decoder: PreTrainedModel, ids: Tensor) -> Cache | None:
    """The cache after these tokens; None from a model that hands none on."""
    found: Cache | None = getattr(decoder(input_ids=ids, use_cache=True), "past_key_values", None)
    return found


@torch.inference_mode()
def _check_head(model: PreTrainedModel, head: LogitHead, device: torch.device) -> None:
    ids = torch.arange(1, 5, device=device)[None]
    ours = head(decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0])
    theirs = model(input_ids=ids, use_cache=False).logits[0].float()
    # Twice the spacing of the model's own dtype, at the size of the largest logit.
    tolerance = 2 * torch.finfo(model.dtype).eps * float(theirs.abs().max())
    if float((ours - theirs).abs().max()) > tolerance:
        kind = model.config.model_type
        raise StepError(
            f"a model of type '{kind}' changes its logits in a way that koinize does not know",
            expected="an output layer, a constant factor and soft-capping at most",
            remedy="choose another base model, or report this type",
        )


@contextmanager
def with_adapter(loaded: Loaded, folder: Path | str | None) -> Iterator[Loaded]:
    """Puts a PEFT adapter on the base for a while; None means the bare base.

    The factors take the base's dtype and stay beside its weights, never merged into them: leaving
    restores the base bit for bit. Raises InputError when the folder does not fit the base, and
    StepError where the base's own weights are not as they were.
    """
    loaded.untouched.note(loaded.model, ())
    if folder is None:
        yield loaded
        return
    header = named_as(read_header(folder), (name for name, _ in loaded.model.named_modules()))
    layers = sorted({one for one in map(owner, header.modules) if _has(loaded.model, one)})
    loaded.untouched.note(loaded.model, layers)
    try:
        with warnings.catch_warnings():
            # Tensors that find no module would leave zeros behind and a warning only.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            peft_model = put_on(loaded.model, folder)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, UserWarning) as error:
        _strip(loaded.model)
        raise InputError(
            f"cannot be put on base model '{loaded.name}': {error}",
            where=str(folder),
            expected="a PEFT folder whose shapes are those of this base model",
        ) from error
    try:
        peft_model.eval()
        yield loaded
    finally:
        peft_model.unload()
        loaded.untouched.check(loaded.model, layers)


def _has(model: PreTrainedModel, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _strip(model: PreTrainedModel) -> None:
    """Takes half-injected adapter layers off again, after a failed load."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def pad(
    rows: Sequence[Sequence[int]],
    fill: int,
    device: torch.device,
    *,
    left: bool = False,
    before: int = 0,
) -> tuple[Tensor, Tensor]:
    """Token ids (rows, width) and their mask, 1 at real tokens, padded on one side.

    The width is that of the longest row, or one more where `padded_width` says so; `before`:
    tokens of each row that are in a cache already.
    """
    width = padded_width([len(row) for row in rows], device.type, before)
    ids = torch.full((len(rows), width), fill)
    mask = torch.zeros_like(ids)
    for row, (line, marks) in zip(rows, zip(ids, mask, strict=True), strict=True):
        span = slice(width - len(row), None) if left else slice(0, len(row))
        line[span] = torch.tensor(row, dtype=torch.long)
        marks[span] = 1
    return ids.to(device), mask.to(device)


def padded_width(lengths: Sequence[int], device_type: str, before: int = 0) -> int:
    """Columns for rows of so many tokens each, after `before` others.

    On CUDA no pass with a mask may have 32 n + 1 keys: torch's memory-efficient attention is wrong
    there for heads that share their keys (pytorch/pytorch#191937), in silence. Rows of one length
    need no mask.
    """
    longest = max(lengths)
    masked = before > 0 or min(lengths) < longest
    return longest + (device_type == "cuda" and masked and (before + longest) % 32 == 1)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor from the machine's memory on a device, without waiting for the device."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def gpu_bytes(device: torch.device) -> int | None:
    """The memory of a GPU; None of a CPU, and of accelerators that nobody has tried."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def reset_peak(device: torch.device) -> None:
    """Starts a new count of the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        machine.reset_peak_memory()


def peak_bytes(device: torch.device) -> int:
    """Most memory held since `reset_peak`: on the accelerator, else by the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return machine.peak_memory()
