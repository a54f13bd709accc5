"""How much memory a training takes, from the base model's files and the settings alone.

Counted is what lives at the peak: the base's weights, what the optimizer has of each adapter, what
autograd keeps of one forward pass for the way back, and one piece of logits. A test compares the
third with what autograd says that it keeps. On a CPU the interpreter with its libraries comes to
it, the tokenizer, and what lies free between blocks that are in use, of which docs/log.md has
figures.

Of families that are not in FAMILIES, and of files that do not say enough, nothing is said. Nothing
here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from koinize.adapter.tensorfile import ITEM_BYTES, TensorSpec, read_tensor_specs
from koinize.errors import KoinizeError
from koinize.files import LARGEST_TEXT, parse_json, read_bytes
from koinize.model.quantized import BITS
from koinize.settings import CPU_TOKENS, LoraSpec, TrainingSpec
from koinize.store.typed import typed

FAMILIES = {
    "gemma3_text": (4, True),
    "llama": (2, False),
    "mistral": (2, False),
    "qwen2": (2, False),
    "qwen3": (2, True),
}
"""By `model_type`: norms of hidden states in each layer, and whether queries and keys have them."""

HALF, SINGLE = 2, 4  # bytes
WEIGHT, LAYERS = ".weight", ".layers."
LOGIT_BYTES = 3 * SINGLE  # logits, log-probabilities, and the gradient
PROCESS = 420_000_000
"""Bytes of Python with torch, transformers and PEFT, and what they load while they train."""
TOKENIZER = 10
"""Times the size of tokenizer.json: 334 MB for the 33 MB of Gemma 3, with 262,144 tokens."""
HOLES = 1.4
"""What a pass makes a process grow by, for each byte that autograd keeps of it, where all rows are
as long: the rest is memory that glibc cannot give to whoever asks next."""
PIECES = 20
"""As many float32 matrices of tokens x MLP width lie free besides, of what layers need for a moment
and of what passes of other lengths left. Fitted: benchmarks/results/train_memory.md."""

# Positions per product with the output layer: 128 x 262,144 float32 logits are 134 MB.
HEAD_ROWS = 128

# An accelerator is faster with fewer, larger products: of as many bytes of logits.
HEAD_BYTES = 1 << 30

# More tokens a pass make a GPU faster, up to here: 6,351, 12,762 and 13,741 tokens/s of an H200 at
# 1,024, 4,096 and 8,192 (Llama-3.1-8B's shape, docs/log.md).
GPU_TOKENS = (8192, 4096, 2048)

FILLED = 0.9
"""What an estimate may fill of a GPU's memory. Peaks were up to 2 % above it, and what CUDA itself
takes comes to it, and what lies free between blocks."""


def tokens_of_pass(budget: int, *, on_cpu: bool) -> int:
    """Tokens to put into one forward pass over whole sequences, at most `budget`."""
    return min(budget, CPU_TOKENS) if on_cpu else budget


def rows_of_head(vocabulary: int, *, on_cpu: bool) -> int:
    """Hidden states to put into one product with the output layer."""
    return HEAD_ROWS if on_cpu else max(HEAD_ROWS, HEAD_BYTES // (SINGLE * vocabulary))


@dataclass(frozen=True, slots=True)
class Decoder:
    """The sizes of a base model: of its layers `queries` and `keys` wide, its words `vocabulary`.

    `modules` are the shapes (outputs, inputs) of the layers that may be adapted, `weights` the
    number of all parameters. `stored`: bytes of each in the files.
    """

    hidden: int
    middle: int
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    norms: int
    norms_heads: bool
    modules: Mapping[str, tuple[int, int]]
    weights: int
    stored: int = HALF
    tokenizer_bytes: int = 0

    @property
    def linear(self) -> int:
        """Parameters of the modules, which are those in 4 bit where the base is."""
        return sum(outputs * inputs for outputs, inputs in self.modules.values())

    @property
    def largest(self) -> int:
        """Parameters of the largest of them."""
        return max(outputs * inputs for outputs, inputs in self.modules.values())

    def adapted(self, lora: LoraSpec) -> list[str]:
        """The names of the modules that get an adapter."""
        if lora.targets == "all-linear":
            return list(self.modules)
        return [name for name in self.modules if _ends_in(name, lora.targets)]

    def factors(self, lora: LoraSpec) -> int:
        """Parameters of an adapter."""
        return lora.r * sum(sum(self.modules[name]) for name in self.adapted(lora))

    def kept(self, lora: LoraSpec, item: int, *, recomputed: bool = False) -> int:
        """Bytes that autograd keeps of one token in all layers, where products have `item` each;
        where they are `recomputed`, of their inputs and of one layer.
        """
        if recomputed:
            one = self.layers * item * self.hidden
            return one + math.ceil(self.kept(lora, item) / self.layers)
        names = self.adapted(lora)
        # The norms compute in float32. Attention keeps what it reads and what it gives, an MLP both
        # factors of its product and what the activation reads.
        layer = SINGLE * self.norms * (self.hidden + 1) + SINGLE * self.heads
        layer += item * (2 * self.queries + 2 * self.keys + 3 * self.middle)
        if self.norms_heads:
            layer += SINGLE * (self.queries + self.keys)
            layer += SINGLE * (self.queries + self.keys) * self.heads // self.queries
        # And an adapter its input, which some share, and what is between its factors.
        inputs = (
            (("q_proj", "k_proj", "v_proj"), self.hidden),
            (("gate_proj", "up_proj"), self.hidden),
            (("down_proj",), self.middle),
        )
        read = sum(size * _layers_with(names, ends) for ends, size in inputs)
        return self.layers * layer + item * (read + lora.r * len(names))


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes that a training takes at its peak, and what they are for."""

    base: int
    adapters: int  # factors, gradients and the optimizer's moments
    kept: int  # of a pass of `pass_tokens`, for the way back
    logits: int
    process: int
    pass_tokens: int
    base_is_shared: bool

    @property
    def total(self) -> int:
        """Of one worker."""
        return self.base + self.adapters + self.kept + self.logits + self.process

    def of_workers(self, workers: int) -> int:
        """Of so many on one machine: what is mapped and not copied they have in common."""
        shared = self.base if self.base_is_shared else 0
        return shared + workers * (self.total - shared)


def training_memory(
    decoder: Decoder,
    lora: LoraSpec,
    training: TrainingSpec,
    *,
    dtype: str,
    pass_tokens: int,
    target_tokens: int,
    adapters: int = 1,
    on_cpu: bool = True,
    recomputed: bool = False,
) -> TrainingMemory | None:
    """What training `adapters` at once takes in passes of so many tokens, padding included, of
    which a loss is computed for `target_tokens`; None where that was not looked into (dropout).
    `recomputed`: with gradient checkpointing.
    """
    if lora.dropout:
        return None
    item = {"auto": decoder.stored, "float32": SINGLE}.get(dtype, HALF)
    own = HALF if training.adapter_dtype == "bfloat16" else SINGLE
    # Factor, gradient and two moments of each parameter; and its copy for products, or two of them
    # where several adapters share a pass.
    each = 4 * own + (item * (2 if adapters > 1 else 1) if own > item else 0)
    each += own * ((training.patience is not None) + (training.average > 0))
    base = item * decoder.weights
    if training.load_in_4bit:  # and one matrix at a time as it is multiplied
        base += round((BITS / 8 - item) * decoder.linear) + item * decoder.largest
    rows = min(rows_of_head(decoder.vocabulary, on_cpu=on_cpu), target_tokens)
    kept = decoder.kept(lora, item, recomputed=recomputed) * pass_tokens
    free = round((HOLES - 1) * kept) + PIECES * SINGLE * decoder.middle * pass_tokens
    return TrainingMemory(
        base=base,
        adapters=each * decoder.factors(lora) * adapters,
        kept=kept + free if on_cpu else kept,
        logits=(LOGIT_BYTES + item) * rows * decoder.vocabulary,
        process=PROCESS + TOKENIZER * decoder.tokenizer_bytes if on_cpu else 0,
        pass_tokens=pass_tokens,
        base_is_shared=on_cpu and item == decoder.stored and not training.load_in_4bit,
    )


def tokens_that_fit(
    decoder: Decoder,
    lora: LoraSpec,
    training: TrainingSpec,
    *,
    dtype: str,
    gpu_bytes: int,
    adapters: int = 1,
    recomputed: bool = False,
) -> int | None:
    """What `training.batch_tokens: auto` is on a GPU with so many bytes for the training: the most
    of GPU_TOKENS that leave room, for each of the `adapters` in a pass; CPU_TOKENS where none do.
    None where `training_memory` says nothing.
    """
    for tokens in GPU_TOKENS:
        found = training_memory(
            decoder,
            lora,
            training,
            dtype=dtype,
            pass_tokens=tokens * adapters,
            target_tokens=tokens * adapters,
            adapters=adapters,
            on_cpu=False,
            recomputed=recomputed,
        )
        if found is None:
            return None
        if found.total <= FILLED * gpu_bytes:
            return tokens
    return CPU_TOKENS


Size = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _Config:
    """What is read of a config.json."""

    model_type: str
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    vocab_size: Size
    head_dim: Size | None = None
    quantization_config: None = None


def decoder_in(folder: Path) -> Decoder | None:
    """The sizes of the model in a folder; None of another family, and where a number is missing."""
    try:
        read = parse_json(read_bytes(folder / "config.json", LARGEST_TEXT))
        known = {name: read.get(name) for name in _Config.__dataclass_fields__}
        config = typed(_Config, known)
        tensors = {
            name: one
            for file in sorted(folder.glob("*.safetensors"))
            for name, one in read_tensor_specs(file).items()
        }
        tokenizer = (folder / "tokenizer.json").stat().st_size
    except (OSError, ValueError, AttributeError, KoinizeError):
        return None
    sizes = {ITEM_BYTES[one.dtype] for one in tensors.values()}
    if config.model_type not in FAMILIES or sizes not in ({HALF}, {SINGLE}):
        return None
    norms, norms_heads = FAMILIES[config.model_type]
    width = config.head_dim or config.hidden_size // config.num_attention_heads
    return Decoder(
        hidden=config.hidden_size,
        middle=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        queries=width * config.num_attention_heads,
        keys=width * config.num_key_value_heads,
        vocabulary=config.vocab_size,
        norms=norms,
        norms_heads=norms_heads,
        modules=dict(_modules(tensors)),
        weights=sum(math.prod(one.shape) for one in tensors.values()),
        stored=sizes.pop(),
        tokenizer_bytes=tokenizer,
    )


def _modules(tensors: Mapping[str, TensorSpec]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The linear layers among the tensors of a model, without its vocabulary's."""
    for name, one in tensors.items():
        if name.endswith(WEIGHT) and LAYERS in name and len(one.shape) == 2:
            yield name.removesuffix(WEIGHT), (one.shape[0], one.shape[1])


def _ends_in(name: str, ends: Iterable[str]) -> bool:
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _layers_with(names: Iterable[str], ends: Iterable[str]) -> int:
    """In how many layers one of the modules that end so is among the names."""
    return len(
        {name.partition(LAYERS)[2].partition(".")[0] for name in names if _ends_in(name, ends)}
    )
