"""The one script that is run on a lent GPU: every part of it in small, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.gpu.report import OutOfTime, Part, Report
from benchmarks.gpu.scale import LLAMA_8B
from benchmarks.gpu.training import flops

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_part_has_figures_and_none_fails(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    environment["SECONDS_IN_ALL"] = "900"  # a busy machine fails nothing
    script = ROOT / "benchmarks" / "gpu.sh"
    ran = subprocess.run(
        [script, "--small"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    written = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAILED" not in written
    parts = written.split("\n## ")[1:]
    assert [part.partition(":")[0].split()[0] for part in parts] == [
        "Merging",
        "Parity",
        "Training",
        "Five",
        "Scoring",
        "Quantized",
    ]
    for timed in ("digests of the inputs", "reading", "eigenproblems", "writing"):
        assert f"{timed} 0." in parts[0], "the engine does this by another name now"
    if find_spec("bitsandbytes") is None:
        assert "- Left out: bitsandbytes is not installed." in parts.pop()
    for part in parts:
        assert part.count("\n| ") > 2, part


def part(path: Path, seconds: float = 60.0) -> Part:
    report = Report(path / "gpu.md", ["a machine"])
    report.parts.append(Part("one", "One", report, time.monotonic() + seconds))
    return report.parts[0]


def test_what_fails_is_written_and_the_rest_goes_on(tmp_path):
    def fail() -> None:
        raise ValueError("no such kernel\nand more")

    one = part(tmp_path)
    assert not one.attempt("first", 1, fail)
    assert one.attempt("second", 1, lambda: one.row("speed", 12345.678, "tokens/s", "so"))
    assert not one.attempt("third", 1e6, fail)
    written = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert written[11].startswith("- Left out for want of time: third (")
    assert written[2:11] == [
        "- a machine",
        "",
        "## One",
        "",
        "| figure | value | unit | how |",
        "|---|---|---|---|",
        "| speed | 12,346 | tokens/s | so |",
        "",
        "- FAILED: first: ValueError: no such kernel",
    ]


def test_the_end_of_a_part_s_time_is_no_failure_of_what_it_does(tmp_path):
    def endless() -> None:
        raise OutOfTime

    with pytest.raises(OutOfTime):
        part(tmp_path).attempt("first", 1, endless)


def test_sizes_are_those_of_llama_3_1_8b():
    # Width 4096, 1024 of keys and values, 14336 of the MLP; both sides of q, o; k, v; the MLP's.
    assert LLAMA_8B.linear == 32 * (2 * 4096**2 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
    assert LLAMA_8B.factors == 64 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    # 4 N + 6 P + 6 L h n for a token of a row of 1,024.
    assert flops(LLAMA_8B, 1, 0, 1024) == pytest.approx(
        4 * 6_979_321_856 + 6 * 167_772_160 + 6 * 32 * 4096 * 1024
    )
