"""Adapters made to mislead: what was checked is what is used, and nothing has no end."""

import json
import os
import struct

import pytest

from koinize.adapter import open_adapter, read_header
from koinize.adapter.config import CONFIG_FILE
from koinize.adapter.header import WEIGHTS_FILE
from koinize.engine import merge_adapters
from koinize.engine.verify import verify_adapter
from koinize.errors import InputError
from tests.peft_folders import Q, save


def refusal(folder):
    with pytest.raises(InputError) as caught:
        read_header(folder)
    return str(caught.value).replace(str(folder), "FOLDER")


def weights(folder, header, data=b""):
    text = json.dumps(header) if isinstance(header, dict) else header
    content = struct.pack("<Q", len(text)) + text.encode() + data
    (folder / WEIGHTS_FILE).write_bytes(content)


def rename(folder, old, new):
    """Another name for a tensor."""
    path = folder / WEIGHTS_FILE
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    entry = header.pop(old)
    weights(folder, {**header, new: entry}, content[8 + length :])


def test_two_tensors_for_one_factor(tmp_path):
    folder = save(tmp_path / "en", 0)
    name = f"base_model.model.{Q}.lora_A"
    header = {
        f"{name}.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        f"{name}.default.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [8, 16]},
    }
    weights(folder, header, bytes(16))
    assert refusal(folder) == (
        f"FOLDER/adapter_model.safetensors module '{Q}' has two tensors for lora_A, and nothing "
        "says which counts; expected one of them, with or without .default, and with or without "
        "wrappers; save the adapter again"
    )


@pytest.mark.parametrize("task", ["NO_SUCH", "causal_lm", 3, "", ["CAUSAL_LM"]])
def test_a_task_that_peft_does_not_have(tmp_path, task):
    assert refusal(save(tmp_path / "en", 0, task_type=task)) == (
        f"FOLDER/adapter_config.json task_type is {task!r}; expected one of CAUSAL_LM, "
        "FEATURE_EXTRACTION, QUESTION_ANS, SEQ_2_SEQ_LM, SEQ_CLS, TOKEN_CLS"
    )


def test_half_a_character_is_refused_before_anything_is_merged(tmp_path):
    for number, words in enumerate(
        ({"revision": "a\ud800"}, {"init_lora_weights": "pissa\udfff"}, {"x\ud800": 0})
    ):
        said = refusal(save(tmp_path / str(number), 0, **words))
        assert "holds half a character (a lone surrogate) in '" in said
        assert said.isprintable()


def test_long_and_deep_configurations(tmp_path):
    folder = save(tmp_path / "long", 0, base_model_name_or_path="b" * 100_000)
    assert refusal(folder) == (
        "FOLDER/adapter_config.json base_model_name_or_path has 100000 characters; "
        "expected at most 4096"
    )
    (folder / CONFIG_FILE).write_text('{"a":' * 300 + "1" + "}" * 300)
    assert refusal(folder) == "FOLDER/adapter_config.json is not JSON (ValueError)"
    (folder / CONFIG_FILE).write_bytes(b" " * (9 << 20))
    assert "it has more than 8,388,608 bytes" in refusal(folder)


@pytest.mark.parametrize("shape", [[1] * 17, [10**4000] * 600, [-1], [1.0], [True]])
def test_shapes_that_are_none(tmp_path, shape):
    folder = save(tmp_path / "en", 0)
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}
    weights(folder, {f"base_model.model.{Q}.lora_A.weight": entry}, bytes(8))
    assert "has a shape or offset that is no count" in refusal(folder)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_pipes_and_devices(tmp_path, file):
    folder = save(tmp_path / "en", 0)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    said = "FOLDER/adapter_config.json cannot be read: it is no regular file but a pipe"
    missing = "FOLDER there is no adapter_model.safetensors"
    assert refusal(folder).startswith(said if file == CONFIG_FILE else missing)
    (folder / file).unlink()
    (folder / file).symlink_to("/dev/zero")
    assert refusal(folder).startswith(said if file == CONFIG_FILE else missing)


def test_names_that_draw_tables(tmp_path):
    folder = save(tmp_path / "en", 0)
    name = f"base_model.model.{Q}.lora_A.weight"
    rename(folder, name, name.replace("layers", "lay\u2028| x |"))
    assert "has a name that PEFT does not give to a LoRA factor" in refusal(folder)


TABLE = "pissa\n\n| file | SHA-256 |\n|---|---|\n| adapter_config.json | `0` |\n<script>x</script>"


def test_no_text_of_an_input_is_a_part_of_the_card(tmp_path):
    odd = "a|b`c\n<script>x</script>\u2028| language | weight | adapter (SHA-256) |"
    folder = save(tmp_path / "en", 0, init_lora_weights=TABLE, base_model_name_or_path=odd)
    report = merge_adapters({"en": folder}, recipe="sum", out=tmp_path / "out")
    assert "pissa\\u000a\\u000a| file" in report.notes[0]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card
    assert card.count("\n| file | SHA-256 |\n") == 1
    assert verify_adapter(tmp_path / "out", {"en": folder}).mismatches == ()
    path = tmp_path / "out" / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert verify_adapter(tmp_path / "out").mismatches == (
        "adapter_model.safetensors does not have the digest that the card states",
    )


def test_the_login_of_a_url_goes_nowhere(tmp_path):
    folder = save(tmp_path / "en", 0, base_model_name_or_path="https://me:S3CRET@host/m")
    merge_adapters({"en": folder}, recipe="sum", out=tmp_path / "out")
    written = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    assert not any(b"S3CRET" in content for content in written)


def in_place(path):
    """Another bit, the time of the content as it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x3f")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(path):
    """Another file in its place."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-1] + b"\x3f")
    other.replace(path)


def shortened(path):
    os.truncate(path, path.stat().st_size - 200)


@pytest.mark.parametrize("change", [in_place, shortened])
def test_an_input_that_changes_while_it_is_merged(tmp_path, change):
    folders = {name: save(tmp_path / name, seed) for seed, name in enumerate(("de", "en"))}

    def progress(done, total):
        if done == 1:
            change(folders["de"] / WEIGHTS_FILE)

    with pytest.raises(InputError) as caught:
        merge_adapters(folders, recipe="sum", out=tmp_path / "out", progress=progress)
    said = f"{folders['de'] / WEIGHTS_FILE} changed while it was read; run again"
    assert str(caught.value) == said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [in_place, swapped, shortened])
def test_a_header_is_of_the_file_that_is_opened(tmp_path, change):
    header = read_header(save(tmp_path / "de", 0))
    change(header.weights)
    with pytest.raises(InputError, match="changed while it was read; run again"):
        open_adapter(header)
