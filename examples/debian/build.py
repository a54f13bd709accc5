"""Build three multilingual tasks from the package descriptions that apt downloads.

    python examples/debian/build.py --out examples/debian/data

Writes OUT/TASK/LANGUAGE.SPLIT.jsonl for the tasks topic, choice and summary, and OUT/manifest.json
with the settings and the digests of the indexes. README.md in this folder says what the rows are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import indexes
from families import SPLITS, Families, Sizes, assign, relate
from rows import (
    POOL,
    Row,
    balanced,
    choice_rows,
    has_open_title,
    spread,
    summary_rows,
    topic_of,
    topic_rows,
)
from texts import Text, select

from koinize.digest import file_digest
from koinize.errors import InputError, KoinizeError

HERE = Path(__file__).resolve().parent

Tables = dict[str, dict[str, dict[str, list[Row]]]]
"""Task -> language -> split -> rows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipe; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        sizes = Sizes(options.train, options.dev, options.test, options.extra)
        if min(sizes.train, sizes.dev, sizes.test) < 1 or sizes.extra < 0:
            raise InputError("a size is too small", expected="at least one row, or --extra 0")
        lists = options.lists or _own_lists(options.cache, options.refresh)
        found = indexes.read(lists)
        tables, fates = build(found, sizes, options.seed)
        write(options.out, tables)
        write_manifest(options.out, found, sizes, options.seed)
    except KoinizeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(report(tables, fates, sizes))
    return 0


def build(
    found: indexes.Indexes, sizes: Sizes, seed: int
) -> tuple[Tables, dict[str, Counter[str]]]:
    """The rows of every task, language and split, and how many descriptions had which fate."""
    kept, fates = select(found)
    source = {name: package.source for name, package in found.packages.items()}
    families = relate((text for texts in kept.values() for text in texts), source)
    split_of = assign(kept, families, topic_of, sizes, seed)
    tables: Tables = {"topic": {}, "choice": {}, "summary": {}}
    for language, texts in kept.items():
        ordered = spread(texts, families, seed)
        pools: dict[str, list[Text]] = {split: [] for split in SPLITS}
        for text in ordered:
            pools[split_of[families.of(text.package)]].append(text)
        for task, table in tables.items():
            table[language] = {}
            for split in SPLITS:
                made = make_rows(task, pools[split], families, sizes, split, seed)
                table[language] |= without_extra(made, sizes) if split == "train" else {split: made}
    return tables, fates


def make_rows(
    task: str, texts: Sequence[Text], families: Families, sizes: Sizes, split: str, seed: int
) -> list[Row]:
    """Rows of one task from one language's texts of one split, the training ones with extra."""
    wanted = {"train": sizes.train + sizes.extra, "dev": sizes.dev, "test": sizes.test}[split]
    if task == "topic":
        labelled = [text for text in texts if topic_of(text) is not None]
        return topic_rows(balanced(labelled, wanted), families)
    open_titles = filter(has_open_title, texts)
    if task == "choice":
        pool = list(islice(open_titles, max(POOL, wanted)))
        return choice_rows(pool, families, seed, wanted)
    return summary_rows(list(islice(open_titles, wanted)), families)


def without_extra(rows: Sequence[Row], sizes: Sizes) -> dict[str, list[Row]]:
    """Training rows as train and, where wanted, extra; few rows are shared in proportion."""
    train = -(-len(rows) * sizes.train // (sizes.train + sizes.extra))
    parts = {"train": list(rows[:train])}
    return parts | ({"extra": list(rows[train:])} if sizes.extra else {})


def write(out: Path, tables: Tables) -> None:
    """Write one JSONL file per task, language and split. Raises InputError where it cannot."""
    try:
        for task, languages in tables.items():
            (out / task).mkdir(parents=True, exist_ok=True)
            for language, splits in languages.items():
                for split, rows in splits.items():
                    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                    path = out / task / f"{language}.{split}.jsonl"
                    path.write_text(lines, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(out)) from error


def write_manifest(out: Path, found: indexes.Indexes, sizes: Sizes, seed: int) -> None:
    """Write what the data were made from, so that a later build can be told apart."""
    manifest = {
        "seed": seed,
        "sizes": {"train": sizes.train, "dev": sizes.dev, "test": sizes.test, "extra": sizes.extra},
        "indexes": {path.name: file_digest(path) for path in found.files},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def report(tables: Tables, fates: Mapping[str, Counter[str]], sizes: Sizes) -> str:
    """What was kept, what was dropped and why, and the real sizes, as text."""
    lines = ["descriptions"]
    for language, counts in fates.items():
        lines.append(f"  {language}  kept {counts['kept']} of {counts.total()}; dropped:")
        dropped = [item for item in counts.most_common() if item[0] != "kept"]
        lines += [f"      {count:6} {reason}" for reason, count in dropped]
    lines.append(f"rows (wanted: train {sizes.train}, dev {sizes.dev}, test {sizes.test})")
    for task, languages in tables.items():
        for language, splits in languages.items():
            counted = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
            lines.append(f"  {task:8} {language}  {counted}{_labels(splits)}")
    return "\n".join(lines)


def _labels(splits: Mapping[str, Sequence[Row]]) -> str:
    counted = Counter(row["label"] for row in splits["test"] if "label" in row)
    shown = ", ".join(f"{label} {count}" for label, count in sorted(counted.items(), key=str))
    return f"; test: {shown}" if shown else ""


def _own_lists(cache: Path, refresh: bool) -> Path:
    lists = cache / "lists"
    return lists if not refresh and indexes.complete(lists) else indexes.fetch(cache)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--out", type=Path, default=HERE / "data", help="folder of the data (default: %(default)s)")
    add("--train", type=int, default=300, help="training rows a language (default: 300)")
    add("--dev", type=int, default=100, help="dev rows a language (default: 100)")
    add("--test", type=int, default=200, help="test rows a language (default: 200)")
    add("--extra", type=int, default=0, help="more training rows, kept for updates (default: 0)")
    add("--seed", type=int, default=0, help="decides splits and samples (default: 0)")
    add("--lists", type=Path, help="read this apt lists folder and fetch nothing")
    add("--cache", type=Path, default=HERE / "work", help="where apt's indexes are kept")
    add("--refresh", action="store_true", help="fetch the indexes again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
