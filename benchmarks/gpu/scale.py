"""How large everything is: at a GPU's size, and small enough for a test on a CPU."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from koinize.model.memory import Decoder

LANGUAGES = ("de", "en", "fr", "ja", "zh")


@dataclass(frozen=True)
class Scale:
    """Sizes of the models, of the adapters and of the rows."""

    device: str
    dtype: str  # of the large base
    cores: int  # threads of a merge
    hidden: int
    middle: int  # width of the MLP
    heads: int
    groups: int  # key and value heads
    layers: int
    vocabulary: int
    r: int
    side: int  # of the product that tells the peak
    long: int  # tokens of a long row
    short: int  # tokens of a short row, in the mean
    answer: int  # target tokens of a long row
    batch: int  # rows of an optimizer step
    pass_tokens: int  # tokens of a forward pass
    scored: int  # rows to score
    written: int  # texts to generate
    new_tokens: int  # of each

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Outputs and inputs of the adapted modules of one layer."""
        keys = self.groups * self.hidden // self.heads
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.middle, self.hidden),
            "mlp.up_proj": (self.middle, self.hidden),
            "mlp.down_proj": (self.hidden, self.middle),
        }

    @property
    def linear(self) -> int:
        """Weights of all adapted modules."""
        return self.layers * sum(outputs * inputs for outputs, inputs in self.shapes.values())

    @property
    def factors(self) -> int:
        """Parameters of one adapter."""
        return self.layers * self.r * sum(map(sum, self.shapes.values()))

    @property
    def decoder(self) -> Decoder:
        """The same for who reckons its memory."""
        keys = self.groups * self.hidden // self.heads
        return Decoder(
            hidden=self.hidden,
            middle=self.middle,
            layers=self.layers,
            heads=self.heads,
            queries=self.hidden,
            keys=keys,
            vocabulary=self.vocabulary,
            norms=2,
            norms_heads=False,
            modules={
                f"model.layers.{number}.{name}": shape
                for number in range(self.layers)
                for name, shape in self.shapes.items()
            },
            weights=self.linear + 2 * self.vocabulary * self.hidden,
        )

    @property
    def needs(self) -> int:
        """Bytes of the five adapters in bfloat16, and as much again for what is written."""
        return 2 * 2 * len(LANGUAGES) * self.factors


LLAMA_8B = Scale(
    device="cuda", dtype="bfloat16", cores=16, hidden=4096, middle=14336, heads=32, groups=8,
    layers=32, vocabulary=128256, r=64, side=8192, long=1024, short=100, answer=128,
    batch=16, pass_tokens=4096, scored=1000, written=64, new_tokens=64,
)  # fmt: skip
SMALL = Scale(
    device="cpu", dtype="bfloat16", cores=2, hidden=64, middle=96, heads=4, groups=2,
    layers=2, vocabulary=512, r=4, side=128, long=64, short=32, answer=16,
    batch=4, pass_tokens=256, scored=20, written=4, new_tokens=4,
)  # fmt: skip


@contextmanager
def work_folder(needs: int) -> Iterator[Path]:
    """A folder for so many bytes, in memory if they fit; it goes again."""
    memory = Path("/dev/shm")  # noqa: S108
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > needs
    with tempfile.TemporaryDirectory(dir=memory if roomy else None, prefix="koinize-gpu-") as one:
        yield Path(one)
