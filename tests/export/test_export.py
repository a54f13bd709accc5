"""What is written for each tool: its files, its commands, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from koinize.errors import InputError
from koinize.export import FILL, export, source
from koinize.pipeline import Project
from tests.export.made import project_with
from tests.serving.conftest import kit  # noqa: F401 - a fixture
from tests.serving.lying import TEMPLATE, write_adapter, write_base


@pytest.fixture(scope="module")
def project(kit, tmp_path_factory) -> Project:  # noqa: F811
    """v1 is `older` and v2, in production, `mine`: rsLoRA of rank 4 and alpha 8."""
    root = tmp_path_factory.mktemp("export") / "a project"
    return project_with(root, kit / "base", kit / "older", kit / "mine")


@pytest.fixture
def chat(kit, tmp_path) -> Project:  # noqa: F811
    old = TEMPLATE.replace("<turn>", "<said>")
    return project_with(tmp_path / "chat", kit / "chat", kit / "mine", template=old)


def written(project, target, out, named="v2"):
    return export(source(project, "mood", named), target, out)


def test_the_manifest_says_what_it_is(project, tmp_path):
    done = written(project, "peft", tmp_path / "out", "production")
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert told == done.record
    assert (told["release"], told["channels"], told["name"]) == ("v2", ["production"], "mood")
    assert (told["identity"], told["adapter"]) == (f"{2:064x}", "a" * 64)
    files = [one for one in (tmp_path / "out").rglob("*") if one.is_file()]
    sums = {
        one.relative_to(tmp_path / "out").as_posix(): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files
    }
    del sums["export.json"]
    assert sums == told["files"]
    assert written(project, "peft", tmp_path / "one", "v1").record["channels"] == []


def test_peft_gets_the_adapter_as_it_is(project, tmp_path):
    done = written(project, "peft", tmp_path / "out")
    names: dict[str, object] = {}
    exec("\n".join(done.says), names)  # noqa: S102 - what is printed is run
    model = names["model"]
    assert isinstance(model, PeftModel)
    assert model.dtype == torch.float32
    folder = project.home / "releases" / "mood" / "v2"
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        path = tmp_path / "out" / "mood" / name
        assert path.read_bytes() == (folder / name).read_bytes()
        assert path.stat().st_mode & 0o200  # a release may only be read


def test_fused_weights_answer_as_peft_does(project, kit, tmp_path):  # noqa: F811
    done = written(project, "fused", tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(kit / "base")
    wanted = PeftModel.from_pretrained(plain, kit / "mine").merge_and_unload()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "mood")
    for name, tensor in wanted.state_dict().items():
        # float32 sums in another order
        assert torch.allclose(found.state_dict()[name], tensor, rtol=0, atol=1e-5), name
    assert (done.record["modules"], done.record["unchanged"]) == (14, 0)
    assert done.record["share"] == pytest.approx(1.0, abs=1e-6)
    assert done.says[1].startswith("14 tensors compared with the base and the adapter: they hold ")


COMMANDS = {
    "vllm": "vllm serve BASE --dtype float32 --enable-lora --max-lora-rank 8 "
    "--lora-modules mood=OUT/mood",
    "sglang": "python -m sglang.launch_server --model-path BASE --dtype float32 --enable-lora "
    "--max-lora-rank 4 --lora-target-modules all --lora-paths mood=OUT/mood",
}


@pytest.mark.parametrize("target", COMMANDS)
def test_the_command_of_a_server(project, kit, tmp_path, target):  # noqa: F811
    out, base = tmp_path / "an export", kit / "base"

    def words(base):
        return [
            one.replace("BASE", str(base)).replace("OUT", str(out))
            for one in COMMANDS[target].split()
        ]

    done = written(project, target, out)
    assert done.record["command"] == done.says[0] == shlex.join(words(base))
    # The script starts it from anywhere, with another base and more arguments.
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / words("")[0]
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{folder}:/usr/bin:/bin", "BASE": "/my base"}
    ran = subprocess.run(
        ["sh", out / "serve.sh", "--port", "7"], cwd="/", env=env, capture_output=True, check=True
    )
    assert ran.stdout.decode().splitlines() == [*words("/my base")[1:], "--port", "7"]


def test_plain_text_has_no_chat_template(project, tmp_path):
    done = written(project, "vllm", tmp_path / "out")
    assert done.record["chat_template"] is None
    assert done.says[1] == "there is no chat template: prompts are plain text"


def test_a_chat_template_that_the_base_has_no_more(chat, tmp_path):
    done = written(chat, "vllm", tmp_path / "out", "v1")
    told = done.record["chat_template"]
    assert (told["same"], told["kept_with_release"]) == (False, True)
    assert shlex.split(done.record["command"])[-2:] == [
        "--chat-template",
        f"{tmp_path}/out/chat_template.jinja",
    ]
    text = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert text == TEMPLATE.replace("<turn>", "<said>")
    assert "in training; the base has another one today: '{{ bos_token }}" in done.says[1]
    assert "<turn>" in done.says[1].partition(" where ")[0]
    assert done.says[2] == "serve.sh gives the server the one from training"


def test_the_template_of_an_older_release_is_that_of_the_base(kit, tmp_path):  # noqa: F811
    project = project_with(tmp_path / "p", kit / "chat", kit / "mine")
    done = written(project, "sglang", tmp_path / "out", "v1")
    told = done.record["chat_template"]
    assert (told["same"], told["kept_with_release"]) == (True, False)
    assert done.says[1] == f"chat template {told['sha256'][:12]}, that of the base"


def test_a_base_that_changed_since(kit, tmp_path):  # noqa: F811
    base = write_base(tmp_path / "base")
    project = project_with(tmp_path / "p", base, kit / "mine")
    (base / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        written(project, "fused", tmp_path / "out", "v1")
    assert str(caught.value) == (
        f"{base} is not the base model that release v1 was trained on; expected the same files"
    )
    assert sorted(tmp_path.iterdir()) == [base, tmp_path / "p"]
    for target in ("vllm", "peft"):
        done = written(project, target, tmp_path / target, "v1")
        assert "the base model is not the one that release v1 was trained on" in done.says


def test_a_rank_that_vllm_does_not_take(kit, tmp_path):  # noqa: F811
    large = write_adapter(tmp_path / "large", kit / "base", 1, r=520)
    project = project_with(tmp_path / "p", kit / "base", large)
    with pytest.raises(InputError) as caught:
        written(project, "vllm", tmp_path / "out", "v1")
    assert str(caught.value) == (
        f"{project.home}/releases/mood/v1 has rank 520, which is above vLLM's limit; export with "
        "--to fused, or make its rank smaller by `koinize resize`"
    )
    assert not (tmp_path / "out").exists()


def test_arguments_of_the_template(kit, tmp_path):  # noqa: F811
    project = project_with(tmp_path / "p", kit / "chat", kit / "mine")
    found = source(project, "mood", "v1")
    found.release.record["settings"]["base"]["template"] = {"thinking": False}
    command = shlex.split(export(found, "vllm", tmp_path / "vllm").record["command"])
    assert command[-2:] == ["--default-chat-template-kwargs", '{"thinking": false}']
    says = export(found, "sglang", tmp_path / "sglang").says
    assert 'every chat request has to carry "chat_template_kwargs": {"thinking": false}' in says
    out = tmp_path / "a folder"
    assert shlex.split(export(found, "fused", out).says[0]) == [
        *("vllm", "serve", str(out / "mood"), "--dtype", "float32"),
        *("--default-chat-template-kwargs", '{"thinking": false}'),
    ]


@pytest.mark.parametrize("target", FILL)
def test_what_exists_stays(project, tmp_path, target):
    with pytest.raises(InputError, match="exists already; remove it or choose another name"):
        written(project, target, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("v3", "there is no release v3 of task 'mood'; expected one of these: v1, v2"),
        ("staging", "nothing is in use in staging of task 'mood'; promote a release, or name a"),
        ("producton", "'producton' is no release; expected a version such as v3, or a channel: "
         "production, staging; did you mean 'production'?"),
    ],
)  # fmt: skip
def test_no_such_release(project, named, said):
    with pytest.raises(InputError) as caught:
        source(project, "mood", named)
    assert said in str(caught.value)


def test_no_such_tool(project, tmp_path):
    with pytest.raises(InputError, match="there is no export to 'vlm'; did you mean 'vllm'"):
        written(project, "vlm", tmp_path / "out")


def test_a_full_disk_leaves_nothing(project, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koinize.export.folder.shutil.copyfile", full)
    with pytest.raises(Exception, match="cannot be written: No space left on device"):
        written(project, "vllm", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
