"""The command line against inputs that want more than to be read."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal

import pytest

from koinize.cli.terminal import Guarded, unguarded
from koinize.errors import InputError
from koinize.ledger import Ledger
from koinize.ledger.summary import COLUMNS, write_csv
from koinize.store import replaceable


class Terminal(io.StringIO):
    def isatty(self):
        return True


HOSTILE = "\x1b]0;PWN\x07\x1b[2J\x1b[1A\x9b31m\rgood\ud800\u202e"
ESCAPED = "\\u001b]0;PWN\\u0007\\u001b[2J\\u001b[1A\\u009b31m\\u000dgood\\ud800\\u202e"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_stream_obeys_nobody(kind):
    behind = kind()
    stream = Guarded(behind)
    assert stream.write(HOSTILE + "\n\tplain für 日本\n") == len(HOSTILE) + 15
    assert behind.getvalue() == ESCAPED + "\n\tplain für 日本\n"
    assert unguarded(stream) is behind
    assert unguarded(behind) is behind


def test_colours_are_for_terminals():
    text = "\x1b[1;34mbold\x1b[0m"
    for kind, shown in ((Terminal, text), (io.StringIO, "\\u001b[1;34mbold\\u001b[0m")):
        behind = kind()
        Guarded(behind).write(text)
        assert behind.getvalue() == shown


def test_json_means_the_same_behind_a_guard():
    behind = io.StringIO()
    json.dump({"a": HOSTILE}, Guarded(behind), ensure_ascii=False)
    assert json.loads(behind.getvalue()) == {"a": HOSTILE}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ""),
        (b"", ""),
        (b"<!doctype html>\n<p>", ""),
        (b"koinize: 1\n", "is there already, and is no report that koinize wrote; remove it or"),
        (b"<!doc", "is there already, and is no report that koinize wrote; remove it or"),
    ],
)
def test_what_may_be_written_over(tmp_path, content, said):
    path = tmp_path / "out"
    if content is not None:
        path.write_bytes(content)
    if not said:
        assert replaceable(path, "<!doctype html>", "report") == path
        return
    with pytest.raises(InputError, match=said):
        replaceable(path, "<!doctype html>", "report")


def test_what_is_never_written_over(tmp_path):
    (tmp_path / ".koinize").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / ".koinize" / "ledger.jsonl")
    for name in (".koinize/new", "link"):
        with pytest.raises(InputError, match=r"lies in \.koinize, where koinize keeps its own"):
            replaceable(tmp_path / name, "x", "report")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="cannot be written: it is no regular file but a pipe"):
        replaceable(tmp_path / "pipe", "x", "report")
    for name in ("a" * 300, "a\0b", "no folder/out"):
        with pytest.raises(InputError, match="cannot be written: "):
            replaceable(tmp_path / name, "x", "report")


def test_an_export_holds_no_formula(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    price = {"per_hour": "1", "currency": "USD", "source": "=HYPERLINK('http://x/?'&A1)"}
    step = "@SUM(1+1)*cmd|' /C calc'!A0"
    with ledger.recording(step, kind="+1", device="-2+3", price=price):
        pass
    written = io.StringIO()
    write_csv(ledger.intervals(), written)
    row = dict(zip(COLUMNS, written.getvalue().splitlines()[1].split(","), strict=True))
    assert row["price_source"] == "'=HYPERLINK('http://x/?'&A1)"
    assert (row["step"], row["kind"], row["device"]) == (f"'{step}", "+1", "'-2+3")
    assert Decimal(row["seconds"]) >= 0


def run(folder, *command):
    program = "import sys; from koinize.cli import main; sys.argv[0] = 'koinize'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *command], cwd=folder, capture_output=True, check=False
    )


def test_a_label_moves_no_cursor(tmp_path):
    from koinize.examples import write_example

    write_example("tiny", tmp_path / "p")
    row = json.dumps({"text": "x", "label": HOSTILE.replace("\ud800", "")})
    with (tmp_path / "p" / "data" / "de.train.jsonl").open("a") as file:
        file.write(row + "\n")
    done = run(tmp_path / "p", "plan")
    assert done.returncode == 2
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", done.stderr + done.stdout)
    assert b"\\u001b]0;PWN\\u0007\\u001b[2J" in done.stderr
    shutil.copy(tmp_path / "p" / "koinize.yaml", tmp_path / "kept")
    done = run(tmp_path / "p", "ledger", "export", "--csv", "koinize.yaml")
    assert done.returncode == 2
    assert (tmp_path / "p" / "koinize.yaml").read_text() == (tmp_path / "kept").read_text()
