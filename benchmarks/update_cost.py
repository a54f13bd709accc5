"""What an update of one language costs against COMB retrained, all of it measured in one run.

Japanese has a third of its rows at first. A project is set up; the other rows come and it is
updated; then COMB is trained again on all rows. In each of three ways of training:

    retrain   every adapter from the base on all rows of its language (the paper's way)
    continue  the same, and the update goes on from the last adapter with the new rows
    branch    one joint training as the trunk, and the update is a branch of it

Both sides are as the project's own report has them: trained and merged; and tested; and chosen
anew, which by default no update does. The recipe is chosen among two merges at the set-up.

    OMP_NUM_THREADS=1 python benchmarks/update_cost.py reviews FOLDER
    OMP_NUM_THREADS=1 python benchmarks/update_cost.py topic FOLDER [--share .33]

For `topic` the data of examples/debian/build.py must be there; `--share` takes that much of each
file, so that training and test rows stand to one another as they do in all of them.
What was done in FOLDER is not done again, so it resumes where it was stopped. Prints a table, and
the same into benchmarks/results/update_cost_TASK.md. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
DEBIAN = HERE.parent / "examples" / "debian"
KOINIZE = Path(sys.executable).with_name("koinize")
TRAINING: dict[str, dict[str, Any]] = {
    "retrain": {"trunk": "none"},
    "continue": {
        "trunk": "none",
        "update": {"mode": "continue", "replay": 0.25, "epochs": 2, "learning_rate": 2.0e-4},
    },
    "branch": {
        "trunk": "joint",
        "branch": {"epochs": 2, "learning_rate": 3.0e-4, "anchors": 0.25},
    },
}
SCOPES = {
    "training": "trained and merged",
    "testing": "and tested",
    "choosing": "and chosen anew",
}
LANGUAGE = "ja"
LIMITS = {"retrain": 40, "continue": 25, "branch": 40}


def koinize(*arguments: str | Path) -> str:
    """What a command printed; a failure ends the benchmark with its message."""
    done = subprocess.run([KOINIZE, *arguments], text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout


def set_up(task: str, way: str, folder: Path, share: float) -> Path:
    """A project in which nothing was run; the rows that come later are `later.jsonl`."""
    if task == "reviews":
        koinize("init", "--example", "reviews", folder)
        (folder / "later" / f"{LANGUAGE}.jsonl").rename(folder / "later.jsonl")
    else:
        shutil.copytree(DEBIAN / "data" / task, folder / "data")
        shutil.copy(DEBIAN / task / "koinize.yaml", folder)
        for file in (folder / "data").glob("*.jsonl"):
            kept = file.read_text().splitlines(keepends=True)
            file.write_text("".join(kept[: round(share * len(kept))]))
        train = folder / "data" / f"{LANGUAGE}.train.jsonl"
        lines = train.read_text().splitlines(keepends=True)
        third = len(lines) // 3
        train.write_text("".join(lines[:third]))
        (folder / "later.jsonl").write_text("".join(lines[third:]))
    path = folder / "koinize.yaml"
    yaml = YAML()
    spec = yaml.load(path)
    for one in spec["tasks"].values():
        one["data"] = "data/{language}.{split}.jsonl"
    training = {key: one for key, one in spec["training"].items() if key not in ("trunk", "branch")}
    spec["training"] = {**training, **TRAINING[way]}
    spec["merge"] = {"candidates": ["average"] if way == "branch" else ["ties", "knots-ties"]}
    yaml.dump(spec, path)
    return folder


def measured(task: str, way: str, folder: Path, share: float) -> list[dict[str, Any]]:
    """The scopes of the update of one language."""
    data = folder / "data" / f"{LANGUAGE}.train.jsonl"
    if not (folder / "koinize.yaml").exists():
        set_up(task, way, folder, share)
    later = folder / "later.jsonl"
    if later.exists():
        koinize("run", folder)
        whole = data.read_text() + later.read_text()
        later.rename(folder / "came.jsonl")
        data.write_text(whole)
    koinize("run", folder)
    koinize("run", "--retrain-comb", folder)
    said = json.loads(koinize("report", "--json", folder))
    updates = said["tasks"][0]["costs"]["updates"]
    return next(one["scopes"] for one in updates if one["language"] == LANGUAGE)


def lines(task: str, way: str, scopes: list[dict[str, Any]]) -> list[str]:
    """A row of the table for each scope."""
    found = []
    for one in scopes:
        ours, theirs = one["update"], one["combined"]
        share = 100 * ours["machine_seconds"] / theirs["machine_seconds"]
        low, high = (100 - end for end in reversed(one["savings_interval"]["machine"] or (0, 100)))
        between = f"{low:.1f} to {high:.1f} %" if one["savings_interval"]["machine"] else "unknown"
        wanted = f"{LIMITS[way]} %" if one["scope"] == "testing" else ""
        cells = [
            *(task, way, SCOPES[one["scope"]]),
            *(f"{ours['machine_seconds']:.1f} s, {one['update_is']}",),
            *(f"{theirs['machine_seconds']:.1f} s, {one['combined_is']}",),
            *(f"**{share:.1f} %**", between, wanted),
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def main() -> None:
    """Measure each way in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["reviews", "topic"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--ways", nargs="+", choices=[*TRAINING], default=[*TRAINING])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    about = f" on {asked.share:.0%} of each file" if asked.share < 1 else ""
    table = [
        f"# An update of Japanese against COMB retrained: {asked.task}{about}",
        "",
        f"`python benchmarks/update_cost.py {' '.join(one for one in sys.argv[1:2])} ...` on "
        f"{platform.machine()}, machine seconds as the report has them, loading the model "
        "included on both sides. What is wanted of an update with its test is in the last column.",
        "",
        "| task | way | what | update | COMB | share | 95 % | wanted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in asked.ways:
        table += lines(asked.task, way, measured(asked.task, way, asked.folder / way, asked.share))
        print(*table, sep="\n", flush=True)
    text = "\n".join(table) + "\n"
    (HERE / "results" / f"update_cost_{asked.task}.md").write_text(text)


if __name__ == "__main__":
    main()
