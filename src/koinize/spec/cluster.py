"""What koinize.yaml may say of workers on a cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from koinize.frozen import Frozen

ADDRESS = r"^(auto|(ray://)?([^\s:/\[\]]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5})$"
Gigabytes = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


def _whole_or_part(gpus: float) -> float:
    """Ray gives a worker whole GPUs, or a part of one."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("is neither a whole number nor a part of one GPU")
    return gpus


Share = Annotated[float, Field(ge=0, le=64, allow_inf_nan=False), AfterValidator(_whole_or_part)]


class OfACluster(Frozen):
    """Where it is, and what each worker needs there."""

    address: Annotated[str, Field(pattern=ADDRESS)] | None = Field(
        default=None, description="of a Ray cluster; without it one is started on this machine"
    )
    gpus: Share | Literal["auto"] = Field(
        default="auto",
        description="of each worker on a Ray cluster: how many, or which share of one; "
        "auto: one if a node has any",
    )
    memory: Gigabytes = Field(
        default=0.0, description="GiB that a node must have for each worker on a Ray cluster"
    )
