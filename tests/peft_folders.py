"""Small PEFT folders and base models on disk, for the tests of the engine's commands."""

import json

import torch
from safetensors.torch import load_file, save_file

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters

Q, V = "model.layers.0.q_proj", "model.layers.1.v_proj"
SHAPES = {Q: (12, 10), V: (6, 14)}


def save(folder, seed, shapes=SHAPES, **config):
    folder.mkdir()
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(3, inputs, generator=random)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(
            outputs, 3, generator=random
        )
    save_file(tensors, folder / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "base_model_name_or_path": "example/base", "r": 3}
    (folder / "adapter_config.json").write_text(
        json.dumps({**stated, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], **config})
    )
    return folder


def tiny_llama(folder, names):
    """A Llama of two layers in `base`, and adapters of rank 4 that PEFT itself made, by name."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    for name in names:
        lora = LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["q_proj", "v_proj", "down_proj"],
            init_lora_weights=False,
        )
        model = LlamaForCausalLM.from_pretrained(folder / "base")
        get_peft_model(model, lora).save_pretrained(folder / name)
    return folder


def configured(folder, **changes):
    """The adapter with another configuration."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def deltas(folder):
    with open_adapter(folder) as adapter:
        read = {name: adapter.factors(name) for name in adapter.header.modules}
    return {name: (one.B.double() @ one.A.double()).numpy() for name, one in read.items()}


def base_model(folder, dtype=torch.float32, shards=1, turned=False, shapes=SHAPES, config="{}"):
    folder.mkdir()
    random = torch.Generator().manual_seed(9)
    tensors = {
        f"{name}.weight": torch.randn(*(shape[::-1] if turned else shape), generator=random)
        for name, shape in shapes.items()
    }
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    tensors["model.norm.weight"] = torch.ones(10, dtype=dtype)
    (folder / "config.json").write_text(config)
    (folder / "pytorch_model.bin").write_bytes(b"never copied")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        where = {}
        for number, (name, tensor) in enumerate(tensors.items()):
            file = f"model-{number + 1:05d}-of-00003.safetensors"
            save_file({name: tensor}, folder / file)
            where[name] = file
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, tensors


def loaded(folder):
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def merged(tmp_path, adapters, **options):
    options = {"recipe": "knots-ties", "density": 0.5, "rank": 3, "weights": {"fr": 2.0}, **options}
    return merge_adapters(adapters, out=tmp_path / "merged", **options).out
