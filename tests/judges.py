"""Models that judge, small enough to be written down: their weights are set, not trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("<pad>", "<bos>", "<unk>")
SURE = 40.0  # a difference of logits beyond which a softmax is 0 or 1 in float32


def write_overlap_judge(folder: Path, words: Sequence[str], labels: Sequence[str]) -> None:
    """A BERT whose probability of the last label falls with the share of the second text's words
    that the first lacks.

    A token is a one-hot word, a one-hot side, and room for two marks. In the first layer each one
    looks for its own word on the first side, and where there is none at <bos>: it is marked as
    known or as unknown. In the second, <bos> takes the mean of the second side's marks.
    """
    from transformers import BertForSequenceClassification

    first, second = len(SPECIAL) + len(words), len(SPECIAL) + len(words) + 1
    known, unknown, mean_known, mean_unknown = range(second + 1, second + 5)
    size = second + 5
    model: Any = BertForSequenceClassification(
        _config(first, size, labels, num_hidden_layers=2, intermediate_size=1)
    )
    root = size**0.5
    with torch.no_grad():
        for one in model.parameters():
            one.zero_()
        bert, layers = model.bert, model.bert.encoder.layer
        bert.embeddings.word_embeddings.weight[:, :first] = torch.eye(first)
        bert.embeddings.token_type_embeddings.weight[:, first : second + 1] = torch.eye(2)
        _keep(bert.embeddings.LayerNorm, size, ones=2)
        for layer in layers:
            _keep(layer.attention.output.LayerNorm, size, ones=3)
            _keep(layer.output.LayerNorm, size, ones=3)
        look, collect = (layer.attention.self for layer in layers)
        words_of = torch.arange(first)
        look.query.weight[words_of, words_of] = 2 * SURE * root
        look.key.weight[words_of, words_of] = 1
        look.query.bias[first] = root  # asks of every key the same: which side, and is it <bos>?
        look.key.weight[first, second] = -4 * SURE
        look.key.weight[first, 1] = SURE
        look.value.weight[unknown, 1], look.value.weight[known, 1] = 1, -1
        look.value.bias[known] = 1
        collect.query.bias[first] = root
        collect.key.weight[first, second] = SURE
        collect.value.weight[mean_known, known] = 1
        collect.value.weight[mean_unknown, unknown] = 1
        for layer in layers:
            layer.attention.output.dense.weight[known:, known:] = torch.eye(4)
        bert.pooler.dense.weight[0, mean_unknown] = 1
        model.classifier.weight[-1, 0], model.classifier.bias[-1] = -8, 4
    model.save_pretrained(folder)
    _tokenizer(words).save_pretrained(folder)


def write_names_judge(
    folder: Path, words: Sequence[str], names: Collection[str], labels: Sequence[str]
) -> None:
    """A BERT without layers that gives each of `names` the second label, all else the first."""
    from transformers import BertForTokenClassification

    size = len(SPECIAL) + len(words)
    model: Any = BertForTokenClassification(
        _config(size, size, labels, num_hidden_layers=0, max_position_embeddings=64)
    )
    with torch.no_grad():
        for one in model.parameters():
            one.zero_()
        model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(size))
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        model.classifier.bias[0] = 1
        for place, word in enumerate(words, len(SPECIAL)):
            if word in names:
                model.classifier.weight[1, place] = 2
    model.save_pretrained(folder)
    _tokenizer(words).save_pretrained(folder)


def _config(words: int, size: int, labels: Sequence[str], **more: int) -> Any:
    """A BERT of one head."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=words,
        hidden_size=size,
        num_attention_heads=1,
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        **{"max_position_embeddings": 256, **more},
    )


def _keep(norm: Any, size: int, ones: int) -> None:
    """Let a layer norm change no vector of zeros but for so many ones."""
    mean = ones / size
    norm.weight.fill_((mean - mean**2) ** 0.5)
    norm.bias.fill_(mean)


def _tokenizer(words: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B:1", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        bos_token="<bos>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=256,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
