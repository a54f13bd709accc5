"""KnOTS' and Core Space's own code beside koinize's: the same adapters, the same masks.

    git clone https://github.com/gstoica27/KnOTS && \\
    git clone https://github.com/apanariello4/core-space-merging && \\
    python benchmarks/reference_parity.py --knots KnOTS --core core-space-merging

Runs the two repositories' mergers as they are (their `utils`, which loads data sets and CLIP, is
replaced by the two look-ups that the mergers need) on small adapters of three modules, prints the
largest difference to koinize's result relative to the largest entry, and writes the same into
benchmarks/results/reference_parity.md. Compared at KnOTS' commit baa35e8 and at 85176fa of
core-space-merging, which are no part of koinize. The random masks are koinize's in both.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
import tempfile
from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from koinize.adapter import AdapterHeader, AdapterWriter, Factors, ModuleShape, open_adapter
from koinize.engine import merge_adapters
from koinize.merge.masks import keep

RESULT = Path(__file__).parent / "results" / "reference_parity.md"
LANGUAGES = ("de", "en", "fr")
RANK, SEED = 8, 3
# Three times the rank is the shorter side, so that nothing is cut from a dense merge.
MODULES = {"first": (24, 40), "second": (56, 24), "third": (24, 24)}
CLOSE = 1e-5  # KnOTS' code rounds its basis to float32, so nobody can be much closer


@dataclass(frozen=True, slots=True)
class Case:
    """One merge: koinize's options, and the reference's class and configuration."""

    title: str
    ours: Mapping[str, Any]
    merger: str
    theirs: Mapping[str, Any] = field(default_factory=dict)
    dropped: bool = False


def knots(recipe: str, merger: str, density: float, dropped: bool = False) -> Case:
    """A merge of KnOTS' repository in our dialect of its name."""
    theirs: dict[str, Any] = {"merge_method": "ties", "merging_type": "mean", "topK": 100}
    if dropped:
        theirs |= {"dare": True, "dare_pruning_coeffs": 1 - density, "dare_seed": 0}
    else:
        theirs["topK"] = 100 * density
    ours = {"recipe": recipe, "density": density, "dialect": "knots"}
    return Case(f"{recipe}, density {density:g}", ours, merger, theirs, dropped)


KNOTS = [
    knots("knots-ties", "SVDMerger", 1.0),
    knots("knots-ties", "SVDMerger", 0.3),
    knots("knots-dare-ties", "SVDMerger", 0.5, dropped=True),
    knots("ties", "VectorMerger", 1.0),
    knots("ties", "VectorMerger", 0.3),
    knots("dare-ties", "VectorMerger", 0.5, dropped=True),
]


def core(title: str, ours: Mapping[str, Any], **theirs: object) -> Case:
    """A merge of Core Space's repository in its space."""
    return Case(title, ours, "MatrixPerLayerMerger", {"merge_space": "core", **theirs})


def kept(density: float) -> float:
    """The density at which int(density n) is one more: that repository keeps int(density n) + 1."""
    entries = (len(LANGUAGES) * RANK) ** 2
    return (int(density * entries) + 1.5) / entries


COUNTED = {"recipe": "core-ties", "normalize": "count"}
CORE = [
    core("sum", {"recipe": "sum"}, merge_method="sum"),
    core("mean", {"recipe": "mean"}, merge_method="mean"),
    core("core-ties, density 1", {**COUNTED, "density": 1.0}, merge_method="ties", topK=100),
    core("core-ties, density 0.3", {**COUNTED, "density": kept(0.3)}, merge_method="ties", topK=30),
    core("tsv", {"recipe": "tsv", "density": 1.0}, merge_method="tsv"),
    core("iso", {"recipe": "iso"}, merge_method="sum", isotropize=True),
]


class Model(nn.Module):
    """What the mergers ask of a model: named tensors."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tensors = {name: nn.Parameter(tensor) for name, tensor in tensors.items()}

    def state_dict(self, *_: object, **__: object) -> dict[str, Tensor]:
        """The tensors, which may be changed in place."""
        return {name: tensor.data for name, tensor in self.tensors.items()}

    def named_parameters(self, *_: object, **__: object) -> Iterator[tuple[str, nn.Parameter]]:
        """The same as parameters."""
        yield from self.tensors.items()

    def items(self) -> ItemsView[str, Tensor]:
        """One of the two repositories takes models for their dictionaries."""
        return self.state_dict().items()


def lora_names(factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    """The factors under the names that PEFT gives them in memory."""
    return {
        f"{module}.lora_{side}.default.weight": getattr(update, side).clone()
        for module, update in factors.items()
        for side in ("A", "B")
    }


def updates() -> dict[str, dict[str, Factors]]:
    """By language and module: seeded factors that are balanced, U sqrt(S) and sqrt(S) V'."""
    random = torch.Generator().manual_seed(1)

    def balanced(outputs: int, inputs: int) -> Factors:
        B = torch.randn(outputs, RANK, generator=random, dtype=torch.float64)
        A = torch.randn(RANK, inputs, generator=random, dtype=torch.float64)
        U, S, Vt = torch.linalg.svd(B @ A, full_matrices=False)
        root = S[:RANK].sqrt()
        return Factors(B=(U[:, :RANK] * root).float(), A=(root[:, None] * Vt[:RANK]).float())

    return {
        one: {module: balanced(*shape) for module, shape in MODULES.items()} for one in LANGUAGES
    }


def by_koinize(given: Mapping[str, Mapping[str, Factors]], case: Case) -> dict[str, Tensor]:
    """The merged updates, from folder to folder."""
    options = {"seed": SEED} if case.dropped else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = [ModuleShape(module, *shape, RANK) for module, shape in MODULES.items()]
        like = AdapterHeader(folder, "base", None, "CAUSAL_LM", False, None, {}, ())
        for language, factors in given.items():
            with AdapterWriter(folder / language, shapes) as writer:
                for module, update in sorted(factors.items()):
                    writer.write(module, update)
                writer.finish([like])
        adapters = {one: folder / one for one in given}
        merge_adapters(adapters, out=folder / "out", **case.ours, **options)
        with open_adapter(folder / "out") as merged:
            found = {module: merged.factors(module) for module in MODULES}
    return {module: update.B @ update.A for module, update in found.items()}


@contextlib.contextmanager
def imported(repository: Path) -> Iterator[ModuleType]:
    """The repository's `task_merger`, with the two look-ups that it needs of `utils`."""
    utils: Any = ModuleType("utils")
    utils.get_merging_fn = lambda name: getattr(
        importlib.import_module("merging_functions"), f"{name}_merging"
    )
    utils.get_mask_fn = lambda name: getattr(
        importlib.import_module("masking_ops"), f"{name}_masking"
    )
    others = {"utils": utils, "einops": ModuleType("einops")}
    with patch.dict(sys.modules, others), patch.object(sys, "path", [str(repository), *sys.path]):
        for name in ("task_merger", "masking_ops", "merging_functions", "ft_handlers"):
            sys.modules.pop(name, None)
        yield importlib.import_module("task_merger")


def by_reference(
    repository: Path, given: Mapping[str, Mapping[str, Factors]], case: Case
) -> dict[str, Tensor]:
    """The repository's own result for the same factors, on a base of zeros."""
    nothing = {
        module: Factors(B=update.B * 0, A=update.A * 0) for module, update in given["de"].items()
    }
    zeros = {f"{module}.weight": torch.zeros(shape) for module, shape in MODULES.items()}
    drawn = iter([(language, module) for language in LANGUAGES for module in sorted(MODULES)])

    def mask(_self: object, rows: int, columns: int, dropped: float) -> Tensor:
        language, module = next(drawn)
        return keep(SEED, language, module, 0, (rows, columns), 1 - dropped).float()

    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with imported(repository) as tasks, quiet[0], quiet[1]:
        handler = importlib.import_module("ft_handlers").LoRAHandler
        merger = getattr(tasks, case.merger)(
            [Model(lora_names(factors)) for factors in given.values()],
            Model({**zeros, **lora_names(nothing)}),
            handler,
            device="cpu",
        )
        merger.set_scaling_coeffs(1.0)
        with patch.object(tasks.TaskMerger, "randbin", mask):
            merger.transform(dict(case.theirs))
            merged = merger.merge(dict(case.theirs)).state_dict()
    return {module: merged[f"{module}.weight"] for module in MODULES}


def largest_gap(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest difference, relative to the module's largest entry."""
    return max(
        float((found[module] - wanted[module]).abs().max() / wanted[module].abs().max())
        for module in MODULES
    )


def main() -> None:
    """Compare, print, keep; exit 1 if a difference is more than rounding explains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--knots", type=Path, required=True, help="a clone of KnOTS")
    parser.add_argument("--core", type=Path, required=True, help="a clone of core-space-merging")
    given, adapters = parser.parse_args(), updates()
    lines, gaps = [], []
    for name, repository, cases in (
        ("KnOTS", given.knots, KNOTS),
        ("Core Space", given.core, CORE),
    ):
        for case in cases:
            gap = largest_gap(
                by_koinize(adapters, case), by_reference(repository.resolve(), adapters, case)
            )
            lines.append(f"| {name} | {case.merger} | {case.title} | {gap:.1e} |")
            gaps.append(gap)
    text = "\n".join(
        [
            "# KnOTS' and Core Space's own code beside koinize's",
            "",
            f"`python benchmarks/reference_parity.py`, torch {torch.__version__}: three languages, "
            f"modules of {', '.join(f'{o} x {i}' for o, i in MODULES.values())}, rank {RANK}, "
            "float32, balanced factors, koinize's masks in both.",
            "",
            "| repository | merger | recipe | largest difference / largest entry |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )
    sys.stdout.write(text)
    RESULT.write_text(text, encoding="utf-8")
    if max(gaps) > CLOSE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
