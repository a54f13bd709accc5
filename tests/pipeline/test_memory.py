"""What the plan says of memory."""

from __future__ import annotations

from koinize.model.memory import TrainingMemory
from koinize.pipeline.memory import Need

ONE = TrainingMemory(500_000_000, 10**8, 10**9, 3 * 10**8, 4 * 10**8, 1024, base_is_shared=True)


def test_it_warns_where_the_workers_need_more_than_there_is() -> None:
    """Two of 2.3 GB that share .5 need 4.1."""
    need = Need(ONE, 2, 4_000_000_000)
    assert str(need) == (
        "a training needs roughly 2.3 GB for each worker if its passes are full (1,024 tokens; "
        "less if not, and up to half as much again where rows differ much in length), of which "
        "0.5 GB are the base model"
    )
    assert need.warning == (
        "2 workers that train may need 4.1 GB and this machine has 4.0 GB: lower "
        "training.batch_tokens or lower machine.workers or set machine.gradient_checkpointing"
    )
    assert Need(ONE, 1, 2_000_000_000, recomputed=True).warning == (
        "a worker that trains may need 2.3 GB and this machine has 2.0 GB: lower "
        "training.batch_tokens"
    )
    assert not Need(ONE, 2, 4_100_000_000).warning
    assert not Need(ONE, 2, None).warning
