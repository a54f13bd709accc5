"""Files as rows: what comes in, and the message for everything that cannot."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.data import read_rows
from koinize.errors import InputError, ManyErrors

printable = st.text(st.characters(blacklist_categories=("Cs",)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


def message(root: Path, name: str, content: str | bytes) -> str:
    """What reading a file of this content says."""
    data = content.encode() if isinstance(content, str) else content
    (root / "data" / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_rows(f"data/{name}", root)
    return str(caught.value)


@pytest.mark.slow
@given(rows=st.lists(st.dictionaries(printable, json_values, max_size=3), min_size=1, max_size=5))
def test_jsonl_gives_back_what_json_wrote(rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("jsonl")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (root / "a.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="\n")

    read = read_rows("a.jsonl", root)

    assert [row.columns for row in read] == rows
    assert [row.where for row in read] == [f"a.jsonl:{n}" for n in range(1, len(rows) + 1)]


def test_jsonl_skips_empty_lines_and_counts_them(root):
    text = '\ufeff{"text": "a\u2028b\u0085c"}\r\n\r\n  \n{"text": "日本"}\n'
    (root / "data/x.jsonl").write_bytes(text.encode())

    read = read_rows("data/x.jsonl", root)

    assert [(dict(row.columns), row.where) for row in read] == [
        ({"text": "a\u2028b\u0085c"}, "data/x.jsonl:1"),
        ({"text": "日本"}, "data/x.jsonl:4"),
    ]


@given(
    rows=st.lists(
        st.lists(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")),
                 min_size=2, max_size=2),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_csv_gives_back_what_csv_wrote(rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("csv")
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["text", "label"], *rows])
    (root / "a.csv").write_bytes(buffer.getvalue().encode())

    assert [list(row.columns.values()) for row in read_rows("a.csv", root)] == rows


def test_csv_names_the_first_line_of_a_row(root):
    text = '\ufefftext,label\n"two\nlines",a\n\n"three\n\nlines",b\nshort,c\n'
    (root / "data/x.csv").write_bytes(text.encode())

    read = read_rows("data/x.csv", root)

    assert [(row.columns["text"], row.where) for row in read] == [
        ("two\nlines", "data/x.csv:2"),
        ("three\n\nlines", "data/x.csv:5"),
        ("short", "data/x.csv:8"),
    ]


def test_parquet_gives_rows_by_number(root):
    table = pyarrow.table({"text": ["a", "日本"], "n": [1, None], "options": [["x", "y"], []]})
    pyarrow.parquet.write_table(table, root / "data/x.parquet")

    read = read_rows("data/x.parquet", root)

    assert [(dict(row.columns), row.where) for row in read] == [
        ({"text": "a", "n": 1, "options": ["x", "y"]}, "data/x.parquet:1"),
        ({"text": "日本", "n": None, "options": []}, "data/x.parquet:2"),
    ]


def test_a_path_may_leave_the_root_or_be_absolute(root):
    (root / "a.jsonl").write_text('{"text": "a"}\n')

    assert read_rows("../a.jsonl", root / "data")[0].where == "../a.jsonl:1"
    assert dict(read_rows(str(root / "a.jsonl"), root / "data")[0].columns) == {"text": "a"}


OBJECT = "expected one JSON object per line"
WHOLE = "expected an array of objects, or one object per line"
PLAIN = "expected text, a number, true, false, null, or a list or object of these"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("e.jsonl", "", "data/e.jsonl there are no rows here; expected at least one row"),
        ("e.csv", "text,label\n", "data/e.csv there are no rows here; expected at least one row"),
        ("e.csv", "", "data/e.csv there are no rows here; expected at least one row"),
        (
            "e.jsonl",
            '{"a": 1}\n{"a": 1,}\n[1]\n7\n',
            "data/e.jsonl:2 the line is not JSON: {reason}; "
            f"{OBJECT}\ndata/e.jsonl:3 the line is not an object; {OBJECT}\n"
            f"data/e.jsonl:4 the line is not an object; {OBJECT}",
        ),
        (
            "e.jsonl",
            '{"a": 1, "b": 2, "a": 3}',
            f"data/e.jsonl:1 the line is not JSON: the key 'a' appears twice; {OBJECT}",
        ),
        ("e.jsonl", '{"a": NaN}', f"data/e.jsonl:1 column 'a' is nan; {PLAIN}"),
        ("e.jsonl", '{"a": [{"b": 1e999}]}', f"data/e.jsonl:1 column 'a' is inf; {PLAIN}"),
        (
            "e.jsonl",
            r'{"ok": 1, "a": "\ud83d"}',
            f"data/e.jsonl:1 column 'a' holds half a character (a lone surrogate); {PLAIN}",
        ),
        (
            "e.jsonl",
            r'{"\ud83d": "x"}',
            f"data/e.jsonl:1 column '?' holds half a character (a lone surrogate); {PLAIN}",
        ),
        (
            "e.jsonl",
            b'{"a": "x"}\n{"a": "\xe9"}\n',
            "data/e.jsonl:2 byte 0xe9 is not UTF-8; save the file as UTF-8, such as by "
            "iconv -f WINDOWS-1252 -t UTF-8 'data/e.jsonl' > NEW",
        ),
        (
            "e.csv",
            "text,label\na,b,c\nd\n",
            "data/e.csv:2 the row has 3 fields; expected 2: text, label\n"
            "data/e.csv:3 the row has 1 fields; expected 2: text, label",
        ),
        (
            "e.csv",
            'text,label\na,b\n"c,d\n',
            "data/e.csv:3 the row is not CSV: unexpected end of data",
        ),
        (
            "e.csv",
            "text,text\na,b\n",
            "data/e.csv:1 the column name 'text' stands twice; "
            "expected a first line of distinct column names",
        ),
        (
            "e.csv",
            "text, \na,b\n",
            "data/e.csv:1 a column has no name; expected a first line of distinct column names",
        ),
        (
            "e.txt",
            "x",
            "data/e.txt the format '.txt' is unknown; "
            "expected .jsonl, .json, .csv, .tsv, .parquet or hf:owner/name#split",
        ),
        (
            "e.csv.gz",
            b"\x1f\x8b",
            "data/e.csv.gz the format '.gz' is unknown; expected .jsonl, .json, .csv, .tsv, "
            ".parquet or hf:owner/name#split; gunzip --keep 'data/e.csv.gz'",
        ),
        (
            "e.jsonl",
            '{"a": 1}'.encode("utf-16-le"),
            "data/e.jsonl it holds zero bytes, as UTF-16 without its mark does; "
            "iconv -f UTF-16LE -t UTF-8 'data/e.jsonl' > NEW",
        ),
        (
            "e.csv",
            b"\xff\xfea",
            "data/e.csv it begins as UTF-16 does and is not: truncated data; "
            "save the file as UTF-8",
        ),
        (
            "e.json",
            '[\n  {"a": 1},\n  {"a": 2,}\n]\n',
            "data/e.json:3 it is not JSON: {reason}; " + WHOLE,
        ),
        (
            "e.json",
            '[\n  {"a": 1},\n  7\n]',
            f"data/e.json:3 here is something that is no object; {WHOLE}",
        ),
        ("e.json", '[\n  {"a": 1}\n', f"data/e.json:2 the array has no end; {WHOLE}"),
        (
            "e.json",
            '[{"a": 1}]\n\n{"a": 2}',
            f"data/e.json:3 there is more after the array; {WHOLE}",
        ),
        ("e.json", "[]", "data/e.json there are no rows here; expected at least one row"),
        (
            "e.jsonl",
            '{\n  "a": 1,\n  "b" 2\n}',
            f"data/e.jsonl:3 it is not JSON: Expecting ':' delimiter at column 7; {WHOLE}",
        ),
        (
            "e.jsonl",
            '{\n "a": 1,\n "a": 2}',
            f"data/e.jsonl:1 it is not JSON: the key 'a' appears twice; {WHOLE}",
        ),
    ],
)
def test_what_cannot_be_read_is_said(root, name, content, expected):
    said = message(root, name, content)

    if "{reason}" in expected:
        before, after = expected.split("{reason}")
        assert said.startswith(before)
        assert said.endswith(after)
    else:
        assert said == expected


@pytest.mark.slow
@given(
    rows=st.lists(
        st.dictionaries(printable, json_values, min_size=1, max_size=3), min_size=1, max_size=5
    ),
    indent=st.sampled_from([None, 0, 2]),
    array=st.booleans(),
    name=st.sampled_from(["a.json", "a.jsonl"]),
)
def test_json_over_many_lines_gives_back_what_json_wrote(
    rows, indent, array, name, tmp_path_factory
):
    root = tmp_path_factory.mktemp("json")
    texts = [json.dumps(row, ensure_ascii=False, indent=indent) for row in rows]
    text = "[\n" + ",\n".join(texts) + "]\n" if array else "\n".join(texts)
    (root / name).write_text(text, encoding="utf-8", newline="\n")

    read = read_rows(name, root)

    assert [row.columns for row in read] == rows
    first = array + 1
    starts = [first + sum(text.count("\n") + 1 for text in texts[:n]) for n in range(len(rows))]
    assert [row.where for row in read] == [f"{name}:{line}" for line in starts]


def test_a_field_may_be_longer_than_pythons_reader_expects(root):
    long = "word " * 40_000
    (root / "x.csv").write_text(f"text,label\n{long},a\n")

    assert [row.columns for row in read_rows("x.csv", root)] == [{"text": long, "label": "a"}]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_spreadsheets_write(root, name, delimiter, encoding):
    buffer = io.StringIO(newline="")
    rows = [["text", "a; b\tc"], ['1,5; "2"\t3', "日本\n語"]]
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    (root / name).write_bytes(buffer.getvalue().encode(encoding))

    (row,) = read_rows(name, root)

    assert [list(row.columns), list(row.columns.values())] == rows


def test_a_single_column_needs_no_delimiter(root):
    (root / "a.csv").write_text("text\none; two\n")

    assert [row.columns for row in read_rows("a.csv", root)] == [{"text": "one; two"}]


def test_too_deep_a_line_is_an_error_of_that_line(root):
    said = message(root, "e.jsonl", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")

    assert said.startswith("data/e.jsonl:1 the line is not JSON: ")


def test_a_missing_file(root):
    with pytest.raises(InputError) as caught:
        read_rows("data/no.jsonl", root)
    assert str(caught.value) == (
        "data/no.jsonl there is no such file; a path starts from the folder of koinize.yaml"
    )
    for name in ("d.jsonl", "d.parquet"):
        (root / name).mkdir()
        with pytest.raises(InputError) as caught:
            read_rows(name, root)
        assert str(caught.value) == f"{name} it cannot be read: Is a directory"


def test_a_file_that_is_no_parquet(root):
    said = message(root, "e.parquet", "PAR0 and something else, long enough to be looked at")

    assert said.startswith("data/e.parquet it is not a Parquet file: ")


def test_a_parquet_column_without_a_place_in_json(root):
    table = pyarrow.table({"text": ["a", "b"], "at": pyarrow.array([None, 3], pyarrow.date32())})
    pyarrow.parquet.write_table(table, root / "data/x.parquet")

    with pytest.raises(ManyErrors) as caught:
        read_rows("data/x.parquet", root)

    assert str(caught.value) == f"data/x.parquet:2 column 'at' is of the type date; {PLAIN}"


def test_parquet_without_pyarrow(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    assert message(root, "x.parquet", "PAR1") == (
        "data/x.parquet reading Parquet needs pyarrow, which is not installed; "
        "pip install 'koinize[parquet]'"
    )


def test_what_no_model_reads(tmp_path):
    """A row of any size passed the plan once, and ended a worker without a word."""
    (tmp_path / "long.jsonl").write_text('{"text": "' + "ab " * 400_000 + '"}\n')
    deep = '{"a": ' + "[" * 200 + "]" * 200 + "}\n"
    (tmp_path / "deep.jsonl").write_text(deep)
    wide = {f"c{n}": n for n in range(1001)}
    (tmp_path / "wide.jsonl").write_text(json.dumps(wide) + "\n")
    (tmp_path / "wide.csv").write_text(",".join(wide) + "\n")
    for name, said in (
        ("long.jsonl", ":1 the row has 1,200,004 characters; expected at most 1,000,000"),
        (
            "deep.jsonl",
            ":1 in the row, lists and objects are nested more than 100 deep; expected text, "
            "numbers, and lists of them",
        ),
        ("wide.jsonl", ":1 the row has 1,001 columns; expected at most 1,000"),
        ("wide.csv", ":1 the file has 1,001 columns; expected at most 1,000"),
    ):
        with pytest.raises(InputError) as caught:
            read_rows(name, tmp_path)
        assert str(caught.value) == f"{name}{said}"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_pipes_and_devices(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(InputError) as caught:
            read_rows(f"{name}.{suffix}", tmp_path)
        assert str(caught.value) == (
            f"{name}.{suffix} it cannot be read: it is no regular file but a pipe or a device"
        )


@pytest.mark.parametrize("cut", [4, 12, 40, 100])
def test_a_damaged_parquet_file_says_what_is_wrong(tmp_path, cut):

    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"] * 50}), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[cut : cut + 8] = b"\xff" * 8
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"it is not a Parquet file: .*[a-z]") as caught:
        read_rows("a.parquet", tmp_path)
    assert "None" not in str(caught.value)
