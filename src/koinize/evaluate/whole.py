"""Options of a model whose cache cannot be shared: prompt and option in one pass, for each option.

A recurrent layer (linear attention, state space, short convolution) keeps one state where
attention keeps keys and values, and its rows cannot be repeated for the options of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from koinize.model.encoding import Tokens
from koinize.model.loaded import Loaded, pad

LogProbabilities = Callable[[Loaded, Tensor, Tensor, Tensor], Tensor]


def whole_tokens(tokens: Tokens) -> int:
    """Tokens that the passes of a prompt's options take together."""
    return sum(len(tokens.prompt) + len(target) for target in tokens.targets)


def score_whole(
    loaded: Loaded, pairs: Sequence[tuple[Tokens, tuple[int, ...]]], scored: LogProbabilities
) -> Tensor:
    """Summed log-probability of each option's tokens after its prompt, one score a pair.

    Padded on the right, where no state of a causal model has passed yet. `scored` gives the
    log-probabilities of tokens predicted by rows of hidden states.
    """
    texts = [tokens.prompt + target[:-1] for tokens, target in pairs]
    ids, mask = pad(texts, 0, loaded.device)
    hidden = loaded.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    owners = [number for number, (_, target) in enumerate(pairs) for _ in target]
    places = [len(tokens.prompt) - 1 + i for tokens, target in pairs for i in range(len(target))]
    wanted = [token for _, target in pairs for token in target]
    owner, place, token = (
        torch.tensor(one, device=loaded.device) for one in (owners, places, wanted)
    )
    pieces = scored(
        loaded, hidden[owner, place], torch.arange(len(token), device=token.device), token
    )
    return pieces.new_zeros(len(pairs)).index_add_(0, owner, pieces)
