"""Greedy generation in batches: the most likely token, one after another, until a text ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from koinize.model.encoding import buckets
from koinize.model.loaded import Loaded, pad
from koinize.settings import EvaluationSpec


@dataclass(slots=True)
class _Text:
    """One text while it is being written."""

    index: int
    prompt: tuple[int, ...]
    written: list[int] = field(default_factory=list)


def generate(
    loaded: Loaded, prompts: Sequence[tuple[int, ...]], settings: EvaluationSpec
) -> Iterator[tuple[int, str, int]]:
    """Yields (index of the prompt, text, number of generated tokens), in no promised order.

    A text ends before an end-of-text token or a stop string, or at `max_new_tokens`; the text is
    given without white space around it. Call inside `torch.inference_mode()`.
    """
    texts = [_Text(index, prompt) for index, prompt in enumerate(prompts)]
    for group in [texts] if loaded.shares_cache else _by_length(texts):
        for batch in buckets(group, lambda text: _room(text, settings), settings.batch_tokens):
            _write(loaded, batch, settings)
            for text in batch:
                yield text.index, _finish(loaded, text, settings), len(text.written)


def _by_length(texts: Sequence[_Text]) -> list[list[_Text]]:
    """Texts that need no padding beside one another, which a recurrent state would take up."""
    groups: dict[int, list[_Text]] = defaultdict(list)
    for text in texts:
        groups[len(text.prompt)].append(text)
    return list(groups.values())


def _room(text: _Text, settings: EvaluationSpec) -> int:
    return len(text.prompt) + settings.max_new_tokens


def _write(loaded: Loaded, batch: Sequence[_Text], settings: EvaluationSpec) -> None:
    ids, mask = pad([text.prompt for text in batch], 0, loaded.device, left=True)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = None
    # Rows that have ended stay in the batch, unread, until they are half of it.
    rows: list[_Text | None] = list(batch)
    for _ in range(settings.max_new_tokens):
        output = loaded.backbone(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        chosen = loaded.head(output.last_hidden_state[:, -1]).argmax(dim=-1)
        for place, (text, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if text is not None and _ends(loaded, text, token, settings):
                rows[place] = None
        alive = [place for place, text in enumerate(rows) if text is not None]
        if not alive:
            return
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        if 2 * len(alive) <= len(rows) and loaded.shares_cache:
            rows = [rows[place] for place in alive]
            keep = torch.tensor(alive, device=loaded.device)
            cache.batch_select_indices(keep)
            chosen, positions, mask = chosen[keep], positions[keep], mask[keep]
        ids = chosen[:, None]


def _ends(loaded: Loaded, text: _Text, token: int, settings: EvaluationSpec) -> bool:
    """Takes one more token; whether it is the text's last."""
    if token in loaded.encoder.end_tokens:
        return True
    text.written.append(token)
    if not settings.stop:
        return False
    # A stop string may lie across tokens, never across more of them than it has bytes.
    longest = max(len(stop.encode()) for stop in settings.stop)
    tail = loaded.encoder.decode(text.written[-longest - 1 :])
    return any(stop in tail for stop in settings.stop)


def _finish(loaded: Loaded, text: _Text, settings: EvaluationSpec) -> str:
    decoded = loaded.encoder.decode(text.written)
    for stop in settings.stop:
        decoded = decoded.partition(stop)[0]
    return decoded.strip()
