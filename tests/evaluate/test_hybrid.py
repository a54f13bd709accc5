"""Models with recurrent layers, whose cache cannot be shared: scores and texts of plain passes."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.model.loaded import adopt
from koinize.settings import EvaluationSpec
from tests.evaluate.test_evaluate import CPU, TOLERANCE, choices, oracle_score, writing

SHAPE = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
}  # fmt: skip
FAMILIES = {
    "qwen3_5_text": {
        "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "full_attn_idxs": None},
}  # fmt: skip


def loaded(family, ends=()):
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **SHAPE, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    model.generation_config.eos_token_id = [2, *ends]
    return adopt(model, tiny_tokenizer(), CPU, name="tiny")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_tokens", [1, 300])
def test_options(family, batch_tokens):
    base = loaded(family)
    assert not base.shares_cache
    examples = choices()
    settings = EvaluationSpec(batch_tokens=batch_tokens, normalize="pmi")
    for example, row in zip(examples, evaluate(base, examples, "options", settings), strict=True):
        expected = [oracle_score(base, example.prompt, option) for option in example.options]
        assert row["scores"] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_texts(family):
    """Of which some end early, and some share a length."""
    base = loaded(family, ends=range(10, 260, 9))
    examples = writing()
    rows = evaluate(base, examples, "text", EvaluationSpec(max_new_tokens=12))
    for example, row in zip(examples, rows, strict=True):
        ids = list(base.encoder.tokenizer(example.prompt).input_ids)
        kept = []
        while len(kept) < 12:
            with torch.inference_mode():
                token = int(
                    base.model(torch.tensor([ids + kept]), use_cache=False).logits[0, -1].argmax()
                )
            if token in base.encoder.end_tokens:
                break
            kept.append(token)
        assert row["tokens"] == len(kept)
        assert row["prediction"] == base.encoder.decode(kept).strip()
