"""Several LoRA adapters on one base at once: every sequence of a batch meets its own factors.

The base's product is computed once for all sequences. The adapters' are two grouped products per
layer, (adapters, tokens, inputs) x (adapters, inputs, rank) and back. All factors of an adapter lie
in one row of a buffer, so that what is done to whole adapters (casting, clipping, an optimizer's
step) is one operation on a matrix, not one per layer.

An adapter of a smaller rank, or without some layer, has zeros in its place. Zeros stay zeros: the
gradient of A's row is a product with B's column, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from koinize.adapter import AdapterHeader, ModuleHeader, open_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from koinize.model.loaded import Loaded

Shape = tuple[int, int, int]
"""(rank, inputs, outputs) of one adapted layer."""


class Layout:
    """Where each layer's A and B lie in an adapter's row: first every A, then every B."""

    def __init__(self, adapters: Sequence[Mapping[str, Shape]]) -> None:
        """`adapters` are the shapes by module name; the layout has room for the largest ranks."""
        self.shapes: dict[str, Shape] = {}
        for one in adapters:
            for name, (rank, inputs, outputs) in one.items():
                rank = max(rank, self.shapes.get(name, (0,))[0])
                self.shapes[name] = (rank, inputs, outputs)
        self.A_width = sum(rank * inputs for rank, inputs, _ in self.shapes.values())
        self.width = self.A_width + sum(rank * outputs for rank, _, outputs in self.shapes.values())

    def views(self, rows: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """A (n, rank, inputs) and B (n, outputs, rank) of each layer, in rows (n, width)."""
        found, A_at, B_at = {}, 0, self.A_width
        for name, (rank, inputs, outputs) in self.shapes.items():
            A = rows[:, A_at : A_at + rank * inputs].view(-1, rank, inputs)
            B = rows[:, B_at : B_at + rank * outputs].view(-1, outputs, rank)
            found[name] = A, B
            A_at, B_at = A_at + rank * inputs, B_at + rank * outputs
        return found


class Working:
    """The factors of `count` adapters as the products read them, each scale in one of the two.

    To `learn` is to gather their gradients in `gradients`, of the same shape (count, width).
    """

    def __init__(
        self, layout: Layout, count: int, dtype: torch.dtype, device: torch.device, *, learn: bool
    ) -> None:
        self.values = torch.zeros(count, layout.width, dtype=dtype, device=device)
        self.factors = layout.views(self.values)
        if learn:
            self.gradients = torch.zeros_like(self.values)
            gradients = layout.views(self.gradients)
            for name, pair in self.factors.items():
                leaves = tuple(factor.detach().requires_grad_() for factor in pair)
                for leaf, gradient in zip(leaves, gradients[name], strict=True):
                    leaf.grad = gradient  # to which autograd adds, in place
                self.factors[name] = leaves[0], leaves[1]


class Slots:
    """Hooks on the base's layers, through which the working factors act while one is `current`."""

    def __init__(self, model: PreTrainedModel, names: Collection[str]) -> None:
        self.current: Working | None = None
        self._modules = {name: model.get_submodule(name) for name in names}

    @contextmanager
    def hooked(self) -> Iterator[Slots]:
        """While open, sequences in a batch belong to the current adapters in equal shares, in
        their order; afterwards the base is as it was.
        """
        handles = [
            module.register_forward_hook(partial(self._add, name))
            for name, module in self._modules.items()
        ]
        try:
            yield self
        finally:
            self.current = None
            for handle in handles:
                handle.remove()

    def _add(self, name: str, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:  # noqa: ARG002
        if self.current is None:
            return output
        A, B = self.current.factors[name]
        share = (len(A), -1)
        inputs = args[0].reshape(*share, args[0].shape[-1]).to(A.dtype)
        reduced = torch.bmm(inputs, A.transpose(1, 2))
        base = output.reshape(*share, output.shape[-1])
        return torch.baddbmm(base, reduced, B.transpose(1, 2)).view_as(output)


@contextmanager
def with_adapters(loaded: Loaded, headers: Sequence[AdapterHeader | None]) -> Iterator[None]:
    """Puts stored adapters on the base for a while; None means the bare base.

    While open, the sequences of a batch belong to the adapters in equal shares, in their order.
    The factors take the base's dtype. Raises InputError for numbers that are not finite.
    """
    known = [header.modules if header else {} for header in headers]
    layout = Layout([{name: _shape(one) for name, one in some.items()} for some in known])
    working = Working(layout, len(headers), loaded.dtype, loaded.device, learn=False)
    for place, header in enumerate(headers):
        if header:
            working.values[place].copy_(_stored(layout, header)[0])
    slots = Slots(loaded.model, layout.shapes)
    loaded.untouched.note(loaded.model, layout.shapes)
    with slots.hooked():
        slots.current = working
        yield
    loaded.untouched.check(loaded.model, layout.shapes)


def _shape(module: ModuleHeader) -> Shape:
    return module.rank, module.inputs, module.outputs


def _stored(layout: Layout, header: AdapterHeader) -> Tensor:
    """A stored adapter's row (1, width), float32, the scale in B."""
    row = torch.zeros(1, layout.width)
    views = layout.views(row)
    with open_adapter(header) as adapter:
        for name, module in header.modules.items():
            factors, (A, B) = adapter.factors(name), views[name]
            A[0, : module.rank] = factors.A
            B[0, :, : module.rank] = factors.B
    return row


def fits(loaded: Loaded, header: AdapterHeader) -> bool:
    """Whether a stored adapter can share a pass with others: linear layers of the base only."""
    for name, module in header.modules.items():
        try:
            layer = loaded.model.get_submodule(name)
        except AttributeError:
            return False
        shape = tuple(getattr(layer, "weight", torch.empty(0)).shape)
        linear = isinstance(layer, nn.Linear)
        if shape != (
            (module.outputs, module.inputs) if linear else (module.inputs, module.outputs)
        ):
            return False
    return not header.modules_to_save and stackable(loaded, header.modules)


@torch.no_grad()
def stackable(loaded: Loaded, names: Collection[str]) -> bool:
    """Whether each of these layers sees all sequences of a batch, in order, once in a pass.

    So not the output layer, and no expert that gets the tokens that a router sends it.
    """
    seen: dict[str, list[torch.Size]] = {name: [] for name in names}

    def look(name: str, module: nn.Module, args: tuple[Tensor]) -> None:  # noqa: ARG001
        seen[name].append(args[0].shape[:-1])

    try:
        layers = {name: loaded.model.get_submodule(name) for name in names}
    except AttributeError:  # a parameter's factors, of a module that only PEFT makes
        return False
    handles = [
        layer.register_forward_pre_hook(partial(look, name)) for name, layer in layers.items()
    ]
    try:
        ids = torch.arange(15, device=loaded.device).view(3, 5)
        loaded.backbone(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return all(shapes == [torch.Size((3, 5))] for shapes in seen.values())
