"""Whether a model that an adapter was added to holds that adapter, told from its files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.adapter import Adapter, read_header
from koinize.adapter.tensorfile import TORCH_NAMES, TensorSpec
from koinize.engine.fuse import Experts, Target, planned, update_of
from koinize.errors import StepError

if TYPE_CHECKING:
    import torch

LEAST_SHARE = 0.5
"""Of the adapter's update, in the written weights: below it the base's dtype took the most."""


@dataclass(frozen=True, slots=True)
class Proof:
    """`modules` were compared, of which `unchanged` are as in the base though the adapter changes
    them. `share` of the update is in the weights, by least squares over all of them.
    """

    modules: int
    unchanged: int
    share: float


def prove_fused(adapter: Path, base: Path, fused: Path) -> Proof:
    """Compare every tensor that the adapter changes with the base's and the adapter's update.

    Raises StepError where a weight is not the sum, rounded to its dtype, or where the model holds
    less than half of the update.
    """
    header = read_header(adapter)
    count = unchanged = 0
    along = total = 0.0
    with Adapter(header) as opened:
        for name, before, after, update, slack in _compared(opened, base, fused):
            count += 1
            _refuse_other_sum(name, before, after, update, slack, fused)
            moved = after.double() - before.double()
            unchanged += bool((moved == 0).all()) and bool((update != 0).any())
            along += float((moved * update.double()).sum())
            total += float(update.double().square().sum())
    share = along / total if total else 0.0
    if share < LEAST_SHARE:
        raise StepError(
            f"hold {share:.0%} of the adapter's update: rounding to the base's dtype took the rest",
            where="the fused weights",
            remedy="fuse into a base of a wider dtype, or serve the adapter as it is",
        )
    return Proof(count, unchanged, share)


Compared = tuple[str, "torch.Tensor", "torch.Tensor", "torch.Tensor", float]


def _compared(adapter: Adapter, base: Path, fused: Path) -> Iterator[Compared]:
    """Name, the base's tensor, the written one, the update, and what float32 leaves of its sums."""
    import torch

    places = (base, fused)
    for one, other in zip(*(planned(adapter.header, place) for place in places), strict=True):
        if isinstance(one, Target) and isinstance(other, Target):
            factors = adapter.factors(one.module)
            slack = _slack(factors.rank, factors.bound)
            update = update_of(adapter, one.module, one.turned)
            before, after = _read(base / one.file, one.spec), _read(fused / other.file, other.spec)
            yield one.name, before, after, update, slack
        elif isinstance(one, Experts) and isinstance(other, Experts):
            turned = one.stored.turned
            whole = torch.stack([update_of(adapter, name, turned) for name in one.modules])
            each = [adapter.factors(name) for name in one.modules]
            slack = max(_slack(factors.rank, factors.bound) for factors in each)
            for name, part in one.stored.split(whole.view(one.stored.shape)).items():
                (file, spec), (file_after, spec_after) = one.places[name], other.places[name]
                before, after = _read(base / file, spec), _read(fused / file_after, spec_after)
                yield name, before, after, part.contiguous(), slack


def _slack(rank: int, bound: float) -> float:
    return (rank + 4) * 2.0**-24 * bound


def _read(path: Path, spec: TensorSpec) -> torch.Tensor:
    import torch

    with path.open("rb") as file:
        file.seek(spec.start)
        content = bytearray(file.read(spec.end - spec.start))
    return torch.frombuffer(content, dtype=getattr(torch, TORCH_NAMES[spec.dtype])).reshape(
        spec.shape
    )


def _refuse_other_sum(
    name: str,
    before: torch.Tensor,
    after: torch.Tensor,
    update: torch.Tensor,
    slack: float,
    fused: Path,
) -> None:
    """Raise StepError unless every weight is the exact sum but for its own rounding."""
    import torch

    dtype = torch.finfo(after.dtype)
    exact = before.double() + update.double()
    most = exact.abs() * (dtype.eps / 2 + 2.0**-23) + dtype.smallest_normal * dtype.eps + slack
    off = (after.double() - exact).abs() - most
    if bool((off > 0).any()):
        raise StepError(
            f"tensor '{name}' is not the base's and the adapter's update: {float(off.max()):.2e} "
            "further off than rounding",
            where=str(fused),
            remedy="look for a failing disk, and report this: it is a fault of koinize",
        )
