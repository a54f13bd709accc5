"""Evaluation: (base with or without an adapter, examples) -> one row per example.

Options are scored by the summed log-probability of their complete text after the prompt; the
prompt is computed once and its keys and values are shared by all its options. Texts are generated
greedily in batches. Neither depends on what else is in a batch, beyond the dtype's rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from koinize.errors import InputError
from koinize.evaluate.free import write_freely
from koinize.evaluate.texts import generate
from koinize.evaluate.whole import score_whole, whole_tokens
from koinize.model.encoding import Tokens, buckets
from koinize.model.loaded import Loaded, pad
from koinize.settings import EvaluationSpec
from koinize.tasks import Example

if TYPE_CHECKING:
    from transformers import Cache

logger = logging.getLogger(__name__)

Mode = Literal["options", "text"]
Progress = Callable[[int, int], None]
"""Called with (examples done, all examples)."""

_Priors = dict[tuple[int, ...], float]
Priors = dict[tuple[tuple[int, ...], ...], list[_Priors]]
"""What options scored after an empty prompt, by all options that were asked at once, for the
adapters that are on the base."""


def evaluate(
    loaded: Loaded,
    examples: Sequence[Example],
    mode: Mode,
    settings: EvaluationSpec,
    progress: Progress | None = None,
    *,
    priors: Priors | None = None,
) -> list[dict[str, object]]:
    """One row per example, in the order given.

    options: key, language, gold, prediction (labels), scores (natural log, one per option),
    lengths (tokens per option), and unconditional (scores without the prompt) under 'pmi'.
    With `free` also what was written, as `koinize.evaluate.free` has it.
    text: key, language, prompt (without a chat template), reference, prediction, tokens (generated,
    without the end of text).
    `priors` keeps what does not depend on the examples, for the next call with the same adapter.
    Raises InputError when an option or text leaves no room for its prompt.
    """
    rows: dict[int, dict[str, object]] = {}
    with torch.inference_mode():
        if mode == "options":
            answers = _choose(loaded, examples, settings, {} if priors is None else priors)
        else:
            answers = _write(loaded, examples, settings)
        for index, row in answers:
            rows[index] = row
            if progress and not settings.free:
                progress(len(rows), len(examples))
        written = write_freely(loaded, examples, settings) if settings.free else ()
        for done, (index, own) in enumerate(written, start=1):
            rows[index] |= own
            if progress:
                progress(done, len(examples))
    return [rows[index] for index in range(len(examples))]


def _write(
    loaded: Loaded, examples: Sequence[Example], settings: EvaluationSpec
) -> Iterator[tuple[int, dict[str, object]]]:
    encoded = [
        loaded.encoder.encode(
            example.prompt,
            [],
            turns=example.turns,
            max_length=settings.max_length,
            reserve=settings.max_new_tokens,
            where=f"example {example.key}",
        )
        for example in examples
    ]
    _warn_of_cuts(encoded, settings)
    prompts = [tokens.prompt for tokens in encoded]
    for index, text, tokens in generate(loaded, prompts, settings):
        example = examples[index]
        row = {"key": example.key, "language": example.language, "prompt": example.prompt}
        row["reference"] = example.target
        yield index, {**row, "prediction": text, "tokens": tokens}


@dataclass(frozen=True, slots=True)
class _Item:
    index: int
    tokens: Tokens


def _choose(
    loaded: Loaded, examples: Sequence[Example], settings: EvaluationSpec, known: Priors
) -> Iterator[tuple[int, dict[str, object]]]:
    for index, rows in choose(loaded, examples, settings, 1, known):
        yield index, rows[0]


def choose(
    loaded: Loaded,
    examples: Sequence[Example],
    settings: EvaluationSpec,
    adapters: int,
    known: Priors,
) -> Iterator[tuple[int, list[dict[str, object]]]]:
    """Index and rows of each example: one row for each of the adapters that share the passes.

    With more than one, `koinize.model.stacked` has to be at work on the base.
    """
    items = []
    for index, example in enumerate(examples):
        where = f"example {example.key}"
        if not example.options:
            raise InputError("there are no options to choose from", where=where)
        tokens = loaded.encoder.encode(
            example.prompt,
            example.options,
            turns=example.turns,
            max_length=settings.max_length,
            where=where,
        )
        items.append(_Item(index, tokens))
    _warn_of_cuts([item.tokens for item in items], settings)
    priors: list[_Priors] = [{}] * adapters
    if settings.normalize == "pmi":
        priors = _priors(loaded, items, settings, adapters, known)
    for item, each in _score(loaded, items, settings, adapters):
        example = examples[item.index]
        rows = [
            _row(example, item.tokens, scores, own, settings)
            for scores, own in zip(each, priors, strict=True)
        ]
        yield item.index, rows


def _row(
    example: Example,
    tokens: Tokens,
    scores: list[float],
    priors: _Priors,
    settings: EvaluationSpec,
) -> dict[str, object]:
    lengths = [len(target) for target in tokens.targets]
    unconditional = [priors[target] for target in tokens.targets if priors]
    compared = _compared(scores, lengths, unconditional, settings)
    row: dict[str, object] = {
        "key": example.key,
        "language": example.language,
        "gold": example.labels[example.gold],
        "prediction": example.labels[max(range(len(compared)), key=compared.__getitem__)],
        "labels": list(example.labels),
        "scores": scores,
        "lengths": lengths,
    }
    return {**row, "unconditional": unconditional} if priors else row


def _warn_of_cuts(encoded: Sequence[Tokens], settings: EvaluationSpec) -> None:
    cut = sum(tokens.truncated for tokens in encoded)
    if cut:
        logger.warning(
            "%d of %d prompts lost tokens from their middle to max_length = %d",
            cut,
            len(encoded),
            settings.max_length,
        )


def _compared(
    scores: list[float], lengths: list[int], unconditional: list[float], settings: EvaluationSpec
) -> list[float]:
    """What decides between options; the first of equals wins."""
    match settings.normalize:
        case "none":
            return scores
        case "length":
            return [score / length for score, length in zip(scores, lengths, strict=True)]
        case "pmi":
            return [score - own for score, own in zip(scores, unconditional, strict=True)]


def _priors(
    loaded: Loaded,
    items: Sequence[_Item],
    settings: EvaluationSpec,
    adapters: int,
    known: Priors,
) -> list[_Priors]:
    """Log-probability of each option's text after an empty prompt, each option once.

    Point-wise mutual information: Holtzman et al., 'Surface form competition' (arXiv 2104.08315),
    with an empty prompt as the premise.
    """
    targets = tuple(sorted({target for item in items for target in item.tokens.targets}))
    if targets in known:
        return known[targets]
    prompt = loaded.encoder.unconditional()
    alone = [_Item(i, Tokens(prompt, (target,), False)) for i, target in enumerate(targets)]
    priors: list[_Priors] = [{} for _ in range(adapters)]
    for item, each in _score(loaded, alone, settings, adapters):
        for own, scores in zip(priors, each, strict=True):
            own[item.tokens.targets[0]] = scores[0]
    known[targets] = priors
    return priors


def _score(
    loaded: Loaded, items: Sequence[_Item], settings: EvaluationSpec, adapters: int
) -> Iterator[tuple[_Item, list[list[float]]]]:
    """Each item with the scores of its options, once for each adapter."""
    budget = loaded.pass_tokens(settings.batch_tokens * adapters) // adapters

    def size(item: _Item) -> int:
        return item.tokens.total if loaded.shares_cache else whole_tokens(item.tokens)

    for batch in buckets(items, size, budget):
        scores = _score_batch(loaded, [item.tokens for item in batch], adapters)
        for place, item in enumerate(batch):
            yield item, scores[place :: len(batch)]


def _score_batch(loaded: Loaded, batch: Sequence[Tokens], adapters: int) -> list[list[float]]:
    """Summed log-probability of each option of each prompt: all prompts, adapter by adapter."""
    copies = [*batch] * adapters
    if not loaded.shares_cache:
        each = [(tokens, target) for tokens in copies for target in tokens.targets]
        values = iter(score_whole(loaded, each, _log_probabilities).tolist())
        return [[next(values) for _ in tokens.targets] for tokens in copies]
    pairs = [(row, target) for row, tokens in enumerate(copies) for target in tokens.targets]
    # The prompts' last hidden states predict every option's first token; only options of several
    # tokens need a second, short pass over the rest of them.
    longer = [number for number, (_, target) in enumerate(pairs) if len(target) > 1]
    padded = pad([tokens.prompt for tokens in batch], 0, loaded.device, left=True)
    ids, mask = (part.repeat(adapters, 1) for part in padded)
    output = loaded.backbone(
        input_ids=ids, attention_mask=mask, position_ids=_positions(mask), use_cache=bool(longer)
    )
    owners = torch.tensor([row for row, _ in pairs], device=loaded.device)
    firsts = torch.tensor([target[0] for _, target in pairs], device=loaded.device)
    scores = _log_probabilities(loaded, output.last_hidden_state[:, -1], owners, firsts)
    if longer:
        rest = [pairs[number][1] for number in longer]
        cache = output.past_key_values
        cache.batch_select_indices(owners[longer])
        scores[longer] += _score_rest(loaded, rest, cache, mask[owners[longer]])
    values = iter(scores.tolist())
    return [[next(values) for _ in tokens.targets] for tokens in copies]


def _score_rest(
    loaded: Loaded, targets: Sequence[tuple[int, ...]], cache: Cache, mask: Tensor
) -> Tensor:
    """Summed log-probability of each target's tokens after its first, given the prompts' cache."""
    rest = [target[:-1] for target in targets]
    ids, marks = pad(rest, 0, loaded.device, before=mask.shape[1])
    mask = torch.cat([mask, marks], dim=1)
    output = loaded.backbone(
        input_ids=ids,
        attention_mask=mask,
        position_ids=_positions(mask)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    hidden = output.last_hidden_state[marks.bool()]
    wanted = torch.tensor([token for target in targets for token in target[1:]])
    each = torch.arange(len(hidden), device=loaded.device)
    pieces = _log_probabilities(loaded, hidden, each, wanted.to(loaded.device))
    sums = pieces.new_zeros(len(targets))
    return sums.index_add_(0, marks.nonzero()[:, 0], pieces)


def _log_probabilities(loaded: Loaded, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability (n,) of tokens (n,), each predicted by the hidden state of its row.

    The vocabulary's logits are made for `head_rows` hidden states at a time and not kept.
    """
    result = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
    size = loaded.head_rows
    for start in range(0, len(hidden), size):
        some = hidden[start : start + size]
        logits = loaded.head(some)
        here = ((rows >= start) & (rows < start + size)).nonzero()[:, 0]
        own = rows[here] - start
        wanted = loaded.head.at(some, logits, own, tokens[here])
        result[here] = wanted - logits.logsumexp(dim=-1)[own]
    return result


def _positions(mask: Tensor) -> Tensor:
    """Position of every real token among the real tokens of its row; padding gets 0."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
