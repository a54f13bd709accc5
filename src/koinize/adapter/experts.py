"""Adapters of parameters: PEFT's `target_parameters`, by which it adapts a mixture's experts.

One pair of tensors holds the factors of all experts of a parameter: A is (experts, rank, inputs)
reshaped to (experts * rank, inputs), B is (outputs, rank, experts) reshaped to (outputs, rank *
experts). Their flat product would add the experts up. So each expert is a module of its own here,
`...experts[3]`, and is merged as one; where it is written all are put together again.

Several parameters of one module are nested: the last one is at the module's name, the one before
at `.base_layer` below it, and so on. Which is which is not said by the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from koinize.errors import InputError

NESTED = ".base_layer"
PART = re.compile(r"(.+)\[(\d+)\]")
MOST_PARAMETERS = 5  # of one module
MOST_NAMED = 100
MOST_EXPERTS = 10_000


@dataclass(frozen=True, slots=True)
class Stack:
    """The factors of several experts in one pair of tensors: how many, their rank and scale."""

    experts: int
    rank: int
    scale: float


def part_name(whole: str, expert: int) -> str:
    """What one expert of a stack is called."""
    return f"{whole}[{expert}]"


def whole_name(module: str) -> str:
    """The name in the file: of the stack for one of its experts, else the module's own."""
    found = PART.fullmatch(module)
    return found[1] if found else module


def owner(module: str) -> str:
    """The module whose parameter is adapted; the module itself where that is a linear layer."""
    found = PART.fullmatch(module)
    if found is None:
        return module
    name = found[1]
    while name.endswith(NESTED):
        name = name.removesuffix(NESTED)
    return name


def is_part(module: str) -> bool:
    """Whether a module is one expert of a stack."""
    return PART.fullmatch(module) is not None


def parameters_of(config: Mapping[str, object], where: str) -> tuple[str, ...]:
    """The parameters that a configuration names, sorted. Raises InputError."""
    stated = config.get("target_parameters") or []
    if not isinstance(stated, list) or not all(isinstance(one, str) and one for one in stated):
        raise InputError(
            f"target_parameters is {stated!r}", where=where, expected="a list of parameters' names"
        )
    if len(stated) > MOST_NAMED:
        what = f"target_parameters names {len(stated)} parameters"
        raise InputError(what, where=where, expected=f"at most {MOST_NAMED}")
    return tuple(sorted(set(stated)))


def stacked(
    names: Iterable[str], parameters: Sequence[str], targets: object, where: str
) -> dict[str, dict[str, list[str]]]:
    """The names in a file that hold stacks: by their owner, and by their own name the parameters
    that each may be of, the innermost first.

    targets: the configuration's `target_modules`, which adapts linear layers. Raises InputError
    where these and parameters cannot be told apart.
    """
    found: dict[str, dict[str, list[str]]] = {}
    if isinstance(targets, str) and any("." not in one for one in parameters):
        raise InputError(
            "target_modules is a regular expression, and target_parameters names no modules: which "
            "tensors are of parameters is not said",
            where=where,
            expected="such as experts.down_proj, or a list as target_modules",
            remedy="write either into it",
        )
    for name in sorted(names, key=len, reverse=True):
        place = owner(part_name(name, 0))
        linear = isinstance(targets, list) and any(_ends(name, one) for one in targets)
        stated = [one for one in parameters if "." in one and _ends(place, one.rpartition(".")[0])]
        bare = [] if linear else [one for one in parameters if "." not in one]
        if candidates := stated or bare:
            own = [f"{place}.{one.rpartition('.')[2]}" for one in candidates]
            found.setdefault(place, {})[name] = own
    known = {parameter for names in found.values() for some in names.values() for parameter in some}
    for one in parameters:
        if not any(_ends(parameter, one.rpartition(".")[2]) for parameter in known):
            raise InputError(
                f"target_parameters names '{one}', and no tensor is of it",
                where=where,
                remedy="save the adapter again",
            )
    return found


def _ends(name: str, end: object) -> bool:
    return name == end or name.endswith(f".{end}")


def stacks(
    rows: Mapping[str, int],
    candidates: Mapping[str, Sequence[str]],
    kinds: Mapping[str, tuple[float, float]],
    where: str,
) -> dict[str, Stack]:
    """The stacks of one owner by their names in the file, of which `rows` has the rows of A.

    kinds: (rank, scale) by parameter. Raises InputError where no order of the parameters explains
    the rows, or where two do and mean different things.
    """
    names = list(rows)
    possible = candidates[names[0]]
    found = {
        tuple(solution)
        for order in permutations(possible[:MOST_PARAMETERS], len(names))
        if (solution := list(_solved([rows[one] for one in names], [kinds[p] for p in order])))
    }
    if len(found) != 1:
        counts = " and ".join(map(str, rows.values()))
        why = "nothing says which parameter is which" if found else "its ranks are others"
        raise InputError(
            f"'{owner(part_name(names[-1], 0))}' has {counts} rows in A, and {why}",
            where=where,
            expected=f"experts times the rank, for {', '.join(possible)}",
        )
    only = found.pop()
    if only[0].experts > MOST_EXPERTS:
        what = f"'{owner(part_name(names[-1], 0))}' has {only[0].experts} experts"
        raise InputError(what, where=where, expected=f"at most {MOST_EXPERTS}")
    return dict(zip(names, only, strict=True))


def _solved(rows: Sequence[int], kinds: Sequence[tuple[float, float]]) -> Iterator[Stack]:
    """The stacks of these rows, if each is of the same number of experts; else nothing."""
    counts = {count / rank for count, (rank, _) in zip(rows, kinds, strict=True)}
    if len(counts) == 1 and (experts := counts.pop()) == int(experts):
        yield from (Stack(int(experts), int(rank), scale) for rank, scale in kinds)
