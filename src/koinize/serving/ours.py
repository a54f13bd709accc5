"""Our own log-probabilities of the token that comes next, by each explanation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from koinize.model.encoding import buckets
from koinize.model.loaded import Loaded, pad, with_adapter
from koinize.model.plain import ADAPTER
from koinize.serving.prompts import Ids
from koinize.serving.weights import Weights

PASS_TOKENS = 4096
TOKENS_AT_ONCE = 1024  # whose rows of the output layer are multiplied exactly at once


def log_probabilities(
    loaded: Loaded, weights: Weights, prompts: Sequence[Ids], tokens: Sequence[int]
) -> np.ndarray:
    """Natural log-probability (prompts, tokens), float32, of each token after each prompt.

    Raises InputError where the adapter does not fit the base.
    """
    found = np.zeros((len(prompts), len(tokens)), np.float32)
    wanted = torch.tensor(list(tokens), device=loaded.device)
    with _at_work(loaded, weights), torch.inference_mode():
        budget = loaded.pass_tokens(PASS_TOKENS)
        for batch in buckets(range(len(prompts)), lambda one: len(prompts[one]), budget):
            hidden = _last_hidden(loaded, [prompts[one] for one in batch])
            found[batch] = _of_tokens(loaded, hidden, wanted).cpu().numpy()
    return found


def _last_hidden(loaded: Loaded, prompts: Sequence[Ids]) -> torch.Tensor:
    """Hidden states (prompts, hidden) of the last tokens; padding comes after them, unseen."""
    ids, mask = pad(prompts, 0, loaded.device)
    hidden = loaded.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    places = torch.tensor([len(one) - 1 for one in prompts], device=loaded.device)
    last: torch.Tensor = hidden[torch.arange(len(prompts), device=loaded.device), places]
    return last


def _of_tokens(loaded: Loaded, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (prompts, tokens), for as many prompts at once as the head takes."""
    found = []
    for start in range(0, len(hidden), loaded.head_rows):
        some = hidden[start : start + loaded.head_rows]
        logits = loaded.head(some)
        whole = logits.logsumexp(dim=-1, keepdim=True)
        parts = [
            loaded.head.at(some, logits, *_pairs(len(some), few)).view(len(some), -1)
            for few in torch.split(tokens, TOKENS_AT_ONCE)
        ]
        found.append(torch.cat(parts, dim=1) - whole)
    return torch.cat(found)


def _pairs(rows: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every row with every token."""
    numbers = torch.arange(rows, device=tokens.device)
    return numbers.repeat_interleave(len(tokens)), tokens.repeat(rows)


@contextmanager
def _at_work(loaded: Loaded, weights: Weights) -> Iterator[None]:
    """The base with these weights on it."""
    with with_adapter(loaded, weights.folder):
        if weights.rescale:
            for layer in loaded.model.modules():
                scaling = getattr(layer, "scaling", None)
                if isinstance(scaling, dict) and ADAPTER in scaling:
                    rank = layer.r[ADAPTER]
                    scaling[ADAPTER] = weights.rescale(rank, scaling[ADAPTER])
        yield
