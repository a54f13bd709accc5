"""Six monthly updates of changing languages, each through the gate, and what they cost.

    python examples/debian/build.py --extra 100
    python examples/debian/study/study.py examples/debian/work/study

Every month new rows of one language arrive; one adapter is trained, the merge is made again and
offered for promotion. At the end COMB is trained on all rows, as the price of retraining. Writes
FOLDER/study.txt (tables) and FOLDER/study.html (the drift of every language). Killed and started
again, it goes on where it was. README.md in the folder above says what it shows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console

from koinize.errors import InputError, KoinizeError
from koinize.ledger import Interval, System
from koinize.pipeline import Project
from koinize.pipeline.report_input import gather
from koinize.pipeline.systems import COMB
from koinize.pipeline.work import read_result_rows
from koinize.report import ReleaseInput, render_html, render_text, results
from koinize.store import write_atomically

HERE = Path(__file__).resolve().parent
MONTHS = (("ja", 50), ("de", 100), ("zh", 100), ("fr", 100), ("en", 100), ("ja", 50))
"""Who gets how many new rows; Japanese twice."""
KOINIZE = Path(sys.executable).with_name("koinize")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where the project lives; made if missing")
    parser.add_argument("--data", type=Path, default=HERE.parent / "data" / "topic")
    options = parser.parse_args(arguments)
    try:
        study = Study(options.folder, options.data)
        study.set_up()
        for number in range(len(study.months)):
            study.month(number + 1)
        study.retrain_all()
        study.write()
    except KoinizeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


class Study:
    """One project over the months. `log` is what happened so far, kept in FOLDER/study.json."""

    def __init__(
        self,
        folder: Path,
        data: Path,
        spec: Path = HERE / "koinize.yaml",
        months: Sequence[tuple[str, int]] = MONTHS,
    ) -> None:
        self.folder, self.data, self.spec, self.months = folder, data, spec, months
        self.diary = folder / "study.json"
        self.log: list[dict[str, Any]] = []
        if self.diary.exists():
            self.log = json.loads(self.diary.read_text(encoding="utf-8"))

    def set_up(self) -> None:
        """The first training of every language and of COMB, the first merge, the first release."""
        if self.log:
            return
        if not any(self.data.glob("*.extra.jsonl")):
            remedy = "python examples/debian/build.py --extra 100"
            raise InputError("there are no extra rows", where=str(self.data), remedy=remedy)
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.spec, self.folder / "koinize.yaml")
        for path in sorted(self.data.glob("*.jsonl")):
            if ".extra." not in path.name:
                shutil.copyfile(path, self.folder / "data" / path.name)
        self._release("set-up", "", 0)

    def month(self, number: int) -> None:
        """New rows of one language arrive: train it, merge, evaluate, ask the gate."""
        if len(self.log) > number:
            return
        language, rows = self.months[number - 1]
        train = self.folder / "data" / f"{language}.train.jsonl"
        original = (self.data / train.name).read_text(encoding="utf-8")
        extra = (self.data / f"{language}.extra.jsonl").read_text(encoding="utf-8").splitlines()
        arrived = sum(n for one, n in self.months[:number] if one == language)
        # Written whole, so that starting the month again adds no row twice.
        train.write_text(original + "".join(f"{row}\n" for row in extra[:arrived]), "utf-8")
        self._release(f"month {number}", language, rows)

    def retrain_all(self) -> None:
        """COMB on all the rows of today, measured."""
        if len(self.log) > len(self.months) + 1:
            return
        before = self._seen()
        self._koinize("run", "--retrain-comb")
        self._note({"what": "COMB on all rows", **self._spent(before)})

    def _release(self, what: str, language: str, rows: int) -> None:
        before = self._seen()
        plan = json.loads(self._koinize("plan", "--json"))
        self._koinize("run")
        verdict = self._koinize("promote", refusal=True)
        entry = {"what": what, "language": language, "rows": rows, "verdict": verdict}
        entry |= {"estimated": plan["machine_seconds"], **self._spent(before)}
        self._note({**entry, "merge": self._merge().title, "version": self._version()})

    def _koinize(self, *command: str, refusal: bool = False) -> str:
        """Run a command of koinize in the folder; returns what it printed."""
        print(f"$ koinize {' '.join(command)}", flush=True)
        done = subprocess.run(
            [KOINIZE, command[0], "--spec", str(self.folder), *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if refusal else None,
            text=True,
            check=False,
        )
        if refusal and done.returncode == 3:
            return f"refused\n{done.stderr}"
        if done.returncode:
            sys.stderr.write(done.stderr or "")
            raise KoinizeError(f"koinize {command[0]} ended with code {done.returncode}")
        return done.stdout

    def _project(self) -> Project:
        return Project.at(self.folder / "koinize.yaml")

    def _seen(self) -> int:
        """How many intervals the ledger has that an earlier entry of the diary counted."""
        return sum(entry["intervals"] for entry in self.log)

    def _spent(self, before: int) -> dict[str, Any]:
        """Machine seconds by kind, and money, of the intervals since the entry before."""
        new = self._project().intervals()[before:]
        kinds: dict[str, Decimal] = {}
        for one in new:
            kinds[one.kind] = kinds.get(one.kind, Decimal(0)) + one.machine_seconds
        comb = [one for one in new if is_comb(one)]
        return {
            "intervals": len(new),
            "machine_seconds": {kind: float(value) for kind, value in sorted(kinds.items())},
            "comb_seconds": float(sum(one.machine_seconds for one in comb)),
            "cost": str(sum((one.cost for one in new), Decimal(0)).quantize(Decimal("0.000001"))),
        }

    def _merge(self) -> System:
        (merge,) = (step for step in self._project().steps if step.kind == "merge")
        return merge.system

    def _version(self) -> dict[str, str]:
        """Language -> the artifact with the merge's answers on test, of today."""
        steps = self._project().steps
        tests = [one for one in steps if one.kind == "evaluate" and one.split == "test"]
        return {one.languages[0]: one.id for one in tests if one.system == self._merge()}

    def _note(self, entry: dict[str, Any]) -> None:
        self.log.append(entry)
        write_atomically(self.diary, json.dumps(self.log, indent=1, ensure_ascii=False))

    def write(self) -> None:
        """The tables and the figure."""
        source = replace(gather(self._project()), releases=self._versions())
        found = results(source)
        (self.folder / "study.html").write_text(render_html(found), encoding="utf-8")
        with (self.folder / "study.txt").open("w", encoding="utf-8") as file:
            file.write("\n".join(cost_table(self.log)) + "\n\n")
            render_text(found, Console(file=file, width=110))
        print("\n".join(cost_table(self.log)))

    def _versions(self) -> list[ReleaseInput]:
        """Every month's merge, promoted or not, as the report's drift section takes it."""
        store = self._project().store
        (task,) = self._project().spec.tasks
        found = []
        for number, entry in enumerate(one for one in self.log if "version" in one):
            rows = {
                language: read_result_rows(store.open(artifact))
                for language, artifact in entry["version"].items()
            }
            state = "refused" if entry["verdict"].startswith("refused") else "promoted"
            arrived = f"{entry['language']} +{entry['rows']}" if entry["language"] else "set-up"
            found.append(ReleaseInput(task, number + 1, (arrived, state), entry["what"], rows))
        return found


def is_comb(interval: Interval) -> bool:
    """Whether this was work on the adapter of all languages."""
    return interval.address.role == "comb" or interval.address.system == COMB


def cost_table(log: Sequence[dict[str, Any]]) -> list[str]:
    """Machine seconds of every month, against COMB trained and scored again."""
    names = ("rows", "train", "merge", "score", "rest", "idle", "estimate", "busy", "paid")
    busy_comb, idle_comb = busy_and_idle(log[-1])
    paid_comb = busy_comb + idle_comb
    lines = [f"{'':12}" + "".join(f"{name:>9}" for name in names) + "  verdict"]
    shares = []
    for entry in log[1:-1]:
        spent = entry["machine_seconds"]
        busy, idle = busy_and_idle(entry)
        parts = [spent.get(kind, 0.0) for kind in ("train", "merge", "evaluate")]
        seconds = (*parts, busy - sum(parts), idle, entry["estimated"])
        cells = "".join(f"{value:9.1f}" for value in seconds)
        shares.append((busy / busy_comb, (busy + idle) / paid_comb))
        cells += "".join(f"{share:9.1%}" for share in shares[-1])
        verdict = "refused" if entry["verdict"].startswith("refused") else "promoted"
        name = f"{entry['what']} {entry['language']}"
        lines.append(f"{name:12}{'+' + str(entry['rows']):>9}{cells}  {verdict}")
    means = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
    setup, setup_idle = busy_and_idle(log[0])
    return [
        *lines,
        "",
        "machine seconds; estimate: what `koinize plan` said before, idle time not included;",
        "busy: train, merge, score and rest, of what COMB takes to be trained and scored again;",
        "paid: with the idle time of the other worker, on both sides",
        f"COMB on all rows: {busy_comb:.1f} busy, {idle_comb:.1f} idle (measured)",
        f"mean of the months: busy {means[0]:.1%}, paid {means[1]:.1%}",
        f"set-up: {setup:.1f} busy, {setup_idle:.1f} idle; {log[0]['comb_seconds']:.1f} for COMB",
    ]


def busy_and_idle(entry: dict[str, Any]) -> tuple[float, float]:
    """Machine seconds in which something was done, and in which a worker waited."""
    idle = entry["machine_seconds"].get("idle", 0.0)
    return sum(entry["machine_seconds"].values()) - idle, idle


if __name__ == "__main__":
    sys.exit(main())
