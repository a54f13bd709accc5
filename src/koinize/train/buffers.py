"""The factors of several adapters while they learn: a row each, in buffers of one width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from koinize.model.loaded import send
from koinize.model.stacked import Layout
from koinize.train.adamw import RowwiseAdamW
from koinize.train.learner import Learner
from koinize.train.lora import Pair, tensor_name
from koinize.train.saving import BEST, FIRST, MEAN, SECOND, VALUE, parted


class Buffers:
    """Factors, gradients and the optimizer's moments (adapters, width), float32."""

    def __init__(self, learners: Sequence[Learner], device: torch.device) -> None:
        """As each of them begins: fresh, at its start, or where an earlier attempt of it was."""
        self.layout = Layout([one.frame.shapes for one in learners])
        self.optimizer = RowwiseAdamW(self._first(learners, device))
        self._resume(learners)
        self.gradients = torch.zeros_like(self.values)
        self.scales = send(torch.tensor([[one.frame.scale] for one in learners]), device)

    @property
    def values(self) -> Tensor:
        """The factors."""
        return self.optimizer.values

    @property
    def _parts(self) -> dict[str, Tensor]:
        state = self.optimizer
        return {VALUE: state.values, FIRST: state.first, SECOND: state.second}

    def scaled(self, members: Tensor) -> Tensor:
        """The factors of these rows, each adapter's scale in its A."""
        values = self.values.index_select(0, members)
        values[:, : self.layout.A_width].mul_(self.scales.index_select(0, members))
        return values

    @torch.no_grad()
    def clip(self, limits: Sequence[float]) -> Tensor:
        """Turns gradients of what `scaled` gave into those of the factors, and clips each adapter's
        as clip_grad_norm_ does; returns the norms before (adapters,).
        """
        self.gradients[:, : self.layout.A_width].mul_(self.scales)
        norms: Tensor = torch.linalg.vector_norm(self.gradients, dim=1)
        most = send(torch.tensor(limits), self.gradients.device)
        factors = (most / (norms + 1e-6)).clamp(max=1.0)
        self.gradients.mul_(factors[:, None])
        return norms

    def pairs(self, one: Learner, values: Tensor) -> dict[str, Pair]:
        """The factors of an adapter that lie in its row of a buffer."""
        views = self.layout.views(values[None])
        shapes = one.frame.shapes.items()
        return {
            name: (views[name][0][0, :rank], views[name][1][0, :, :rank])
            for name, (rank, _, _) in shapes
        }

    def tensors(self, one: Learner, row: int) -> dict[str, Tensor]:
        """All that is an adapter's own, as a `Point` has it."""
        parts = {part: rows[row] for part, rows in self._parts.items()}
        if one.best is not None:
            parts[BEST] = one.best
        if one.tail.mean:
            parts[MEAN] = one.tail.mean[0]
        found: dict[str, Tensor] = {}
        for part, values in parts.items():
            for name, pair in self.pairs(one, values).items():
                named = {tensor_name(name, side): two for side, two in zip("AB", pair, strict=True)}
                found |= parted(part, named)
        return found

    def keep(self, rows: Tensor) -> None:
        """Forgets all other rows."""
        self.optimizer.keep(rows)
        self.scales = self.scales[rows]
        self.gradients = torch.zeros_like(self.values)

    def _first(self, learners: Sequence[Learner], device: torch.device) -> Tensor:
        values = torch.zeros(len(learners), self.layout.width, device=device)
        views = self.layout.views(values)
        for row, learner in enumerate(learners):
            for name, (A, B) in learner.first:
                views[name][0][row, : len(A)] = A
                views[name][1][row, :, : len(A)] = B
        return values

    def _resume(self, learners: Sequence[Learner]) -> None:
        """Let each go on where an earlier attempt of it was."""
        for row, one in enumerate(learners):
            if point := one.resume():
                for part, rows in self._parts.items():
                    self._set(one, rows[row], point.part(part))
                if best := point.part(BEST):
                    one.best = torch.zeros_like(self.values[row])
                    self._set(one, one.best, best)
                if mean := point.part(MEAN):
                    one.tail.mean = [torch.zeros_like(self.values[row])]
                    self._set(one, one.tail.mean[0], mean)

    def _set(self, one: Learner, values: Tensor, tensors: Mapping[str, Tensor]) -> None:
        for name, pair in self.pairs(one, values).items():
            for side, factor in zip("AB", pair, strict=True):
                factor.copy_(tensors[tensor_name(name, side)])
