"""alpha / r of every module, with `rank_pattern` and `alpha_pattern` looked up as PEFT does.

PEFT takes the first key, in the file's order, for which `(.*\\.)?(key)$` matches a module's name.
Nearly all keys are names or ends of names, and are compared as text here. The others are regular
expressions by a stranger, which may take for ever.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from koinize.errors import InputError

PLAIN = re.compile(r"[\w.-]+")

# Python cannot interrupt a match, but it can end a process. Sound patterns take milliseconds.
SECONDS = 10.0
MATCHING = r"""
import json, re, sys
keys, names = json.load(sys.stdin)
rules = [(key, re.compile(rf"(.*\.)?({key})$")) for key in keys]
found = {name: next((key for key, rule in rules if rule.match(name)), None) for name in names}
json.dump(found, sys.stdout)
"""


class Scales:
    """alpha / r, or alpha / sqrt(r) for rsLoRA, of the modules of one configuration file."""

    def __init__(self, path: Path, config: Mapping[str, object], modules: Sequence[str]) -> None:
        self._where = str(path)
        self._rank = self._number("r", config.get("r"))
        self._alpha = self._number("lora_alpha", config.get("lora_alpha"))
        self._ranks = self._pattern("rank_pattern", config.get("rank_pattern"), modules)
        self._alphas = self._pattern("alpha_pattern", config.get("alpha_pattern"), modules)
        self._root = config.get("use_rslora") is True

    def of(self, module: str, rank: int) -> float:
        """The scale of one module. Raises InputError if its tensors have another rank."""
        stated = self._ranks.get(module, self._rank)
        if stated != rank:
            raise InputError(
                f"says rank {stated:g} for module '{module}', its tensors have {rank}",
                where=self._where,
                remedy="the two files do not belong together; save the adapter again",
            )
        return self.stated(module)[1]

    def stated(self, module: str) -> tuple[float, float]:
        """The rank and the scale that the configuration gives to a module, or to a parameter."""
        rank = self._ranks.get(module, self._rank)
        alpha = self._alphas.get(module, self._alpha)
        return rank, alpha / (math.sqrt(rank) if self._root else rank)

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise InputError(f"{key} is {value!r}", where=self._where, expected="a positive number")
        return float(value)

    def _pattern(self, key: str, patterns: object, modules: Sequence[str]) -> dict[str, float]:
        """The values of the modules that a pattern matches."""
        if not patterns:
            return {}
        if not isinstance(patterns, dict):
            raise InputError(f"{key} is not a JSON object", where=self._where)
        values = {one: self._number(f"{key}['{one}']", value) for one, value in patterns.items()}
        ends = Ends(modules)
        expressions = [one for one in values if not ends.are_text(one.removeprefix("^"))]
        matched = self._matched(key, expressions, modules) if expressions else {}
        order = {one: index for index, one in enumerate(values)}
        found = {}
        for module in modules:
            keys = [one for one in (f"^{module}", *ends_of(module)) if one in order]
            if expression := matched.get(module):
                keys.append(expression)
            if keys:
                found[module] = values[min(keys, key=order.__getitem__)]
        return found

    def _matched(
        self, key: str, expressions: Sequence[str], modules: Sequence[str]
    ) -> dict[str, str | None]:
        """The first regular expression that matches a module, by module."""
        for one in expressions:
            try:
                re.compile(rf"(.*\.)?({one})$")
            except (re.error, RecursionError, OverflowError):
                raise InputError(
                    f"{key} has '{one}', which is no regular expression", where=self._where
                ) from None
        try:
            result = subprocess.run(
                [sys.executable, "-I", "-S", "-c", MATCHING],
                input=json.dumps([expressions, modules]),
                capture_output=True,
                check=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise InputError(
                f"{key} has regular expressions that take more than {SECONDS:g} s to match",
                where=self._where,
                remedy="replace them by the names of modules",
            ) from None
        found: dict[str, str | None] = json.loads(result.stdout)
        return found


def ends_of(module: str) -> list[str]:
    """A module's dotted name, and all that follows one of its dots."""
    parts = module.split(".")
    return [".".join(parts[index:]) for index in range(len(parts))]


class Ends:
    """The ends of some modules' names: what a key without regular syntax may match."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.counts = Counter(end for module in modules for end in ends_of(module))
        self._by_size: dict[tuple[int, int], list[str]] = defaultdict(list)
        for end in self.counts:
            self._by_size[len(end), end.count(".")].append(end)

    def are_text(self, key: str) -> bool:
        """Whether a key matches what it spells and nothing else: each of its dots means a dot."""
        if not PLAIN.fullmatch(key):
            return False
        rule = re.compile(key)
        fewer = (self._by_size.get((len(key), dots), ()) for dots in range(key.count(".")))
        return not any(rule.fullmatch(end) for several in fewer for end in several)


def own_keys(modules: Iterable[str]) -> dict[str, str]:
    """For each module, a key of a pattern that PEFT matches with this one alone.

    Its name, if that is not the end of another's and says the same as a regular expression.
    """
    names = list(modules)
    ends = Ends(names)
    keys = {}
    for name in names:
        spelled = name if ends.are_text(name) else re.escape(name)
        keys[name] = name if spelled == name and ends.counts[name] == 1 else f"^{spelled}"
    return keys
