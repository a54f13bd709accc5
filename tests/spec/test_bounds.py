"""What koinize.yaml may say, and how much: bombs, tags, old YAML, numbers without end."""

import os

import pytest

from koinize.errors import InputError
from koinize.spec import load
from koinize.spec.document import read_document


def refused_text(tmp_path, text):
    path = tmp_path / "koinize.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as caught:
        read_document(path)
    return str(caught.value)


def values(tmp_path, text):
    path = tmp_path / "koinize.yaml"
    path.write_text(text)
    return read_document(path).values


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BOMB,
            "koinize.yaml:6:14 this says too much; expected at most 100,000 values, those that "
            "aliases repeat among them",
        ),
        ("a: &a [*a]\n", "koinize.yaml:1:8 '*a' stands within what it names"),
        ("a: &a {b: {c: *a}}\n", "koinize.yaml:1:15 '*a' stands within what it names"),
        (
            "a: " + "[" * 300 + "]" * 300,
            "koinize.yaml:1:42 this is nested too deeply; expected at most 39 levels",
        ),
        ("x:\n" + "".join(f"{' ' * n}- \n" for n in range(60)), None),
        ("a: !!set b\n", "koinize.yaml:1:4 the tag '!!set' means nothing here; remove it"),
        ("a: !!omap b\n", "koinize.yaml:1:4 the tag '!!omap' means nothing here; remove it"),
        ("a: !!binary b\n", "koinize.yaml:1:4 the tag '!!binary' means nothing here; remove it"),
        (
            "a: !!python/name:os.system b\n",
            "koinize.yaml:1:4 the tag '!!python/name:os.system' means nothing here; remove it",
        ),
        ("a: !mine b\n", "koinize.yaml:1:4 the tag '!mine' means nothing here; remove it"),
        ("a: !!str [b]\n", "koinize.yaml:1:4 the tag '!!str' means nothing here; remove it"),
        ('a: !!int ""\n', "koinize.yaml:1:4 '' is no !!int; remove the tag"),
        ('a: !!float ""\n', "koinize.yaml:1:4 '' is no !!float; remove the tag"),
        ("a: !!bool x\n", "koinize.yaml:1:4 'x' is no !!bool; remove the tag"),
        ("a: !!null x\n", "koinize.yaml:1:4 'x' is no !!null; remove the tag"),
        (
            f"a: {'9' * 400}\n",
            "koinize.yaml:1:1 a: the number is too large; expected at most 9223372036854775807",
        ),
        (
            'a: {"b\\0c": "\\ud800"}\n',
            "koinize.yaml:1:5 the key holds a null character or half of one (a lone surrogate); "
            "remove it\nkoinize.yaml:1:5 a.b\\u0000c holds a null character or half of one (a "
            "lone surrogate); remove it",
        ),
        (b"#" * (1 << 20) + b"\na: 1\n", None),
    ],
)
def test_what_no_specification_needs(tmp_path, text, message):
    said = refused_text(tmp_path, text)
    assert message is None or said.splitlines() == message.splitlines()


def test_aliases_and_tags_that_are_in_order(tmp_path):
    text = "a: &a {x: 1, y: [!!int 2, !!str 3]}\nb: *a\nc: {<<: *a, z: !!null ''}\nd: !!float 1\n"
    assert values(tmp_path, text)["b"] == {"x": 1, "y": [2, "3"]}


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.0", "9.9", "x"])
def test_yaml_is_1_2_whatever_it_says(tmp_path, version):
    text = f"%YAML {version}\n---\na: [no, yes, off, 017, 12:30]\n"
    assert values(tmp_path, text)["a"] == ["no", "yes", "off", 17, "12:30"]


@pytest.mark.parametrize("date", ["0", "-86400", "1769817600", "'0'", "2026-1-1", "2026-02-30"])
def test_a_date_is_no_number(tmp_path, written, date):
    text = written.replace("date: 2026-01-31", f"date: {date}")
    (tmp_path / "koinize.yaml").write_text(text)
    with pytest.raises(InputError, match=r"price\.date: expected a date such as 2026-01-31, not"):
        load(tmp_path / "koinize.yaml")


@pytest.fixture
def written():
    return (
        "koinize: 1\nname: x\nbase: {model: base}\nlanguages: [de]\n"
        "tasks: {t: {kind: classify, prompt: '{text}', labels: [a, b]}}\n"
        "price: {per_hour: 1, source: 'https://me:S3CRET@host/p?token=S3CRET', date: 2026-01-31}\n"
    )


def test_a_price_keeps_no_secret(tmp_path, written):
    (tmp_path / "koinize.yaml").write_text(written)
    spec = load(tmp_path / "koinize.yaml")
    assert spec.price.source == "https://***@host/p?token=***"
    assert "S3CRET" not in spec.model_dump_json()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[de]", f"[de-{'abcdefg-' * 30}x]", "languages"),
        ("per_hour: 1", "per_hour: 1e400", "price.per_hour"),
        ("per_hour: 1", "per_hour: '1e-400'", "price.per_hour"),
        ("name: x", f"name: {'x' * 65}", "name"),
        ("base: {", "training: {epochs: 9000000000}\nbase: {", "training.epochs"),
        ("base: {", "lora: {r: 9000000}\nbase: {", "lora.r"),
        ("base: {", "machine: {workers: 900000}\nbase: {", "machine.workers"),
    ],
)
def test_sizes_that_make_no_sense(tmp_path, written, old, new, what):
    (tmp_path / "koinize.yaml").write_text(written.replace(old, new))
    with pytest.raises(InputError, match=f"{what}"):
        load(tmp_path / "koinize.yaml")


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "koinize.yaml")
    with pytest.raises(InputError, match="cannot be read: it is no regular file but a pipe or a"):
        load(tmp_path / "koinize.yaml")
