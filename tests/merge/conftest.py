"""What the tests of merging share: the oracle, and PEFT folders written without koinize."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.oracle import merging


@pytest.fixture(scope="session")
def oracle():
    """Slow and independent: tests/oracle/merging.py."""
    return merging


def write_adapter(folder, modules, *, dtype=torch.float32, **config):
    """A PEFT LoRA folder with these {module: (B, A)}, as PEFT lays it out."""
    folder.mkdir(parents=True)
    tensors = {}
    for name, (B, A) in modules.items():
        for side, factor in (("A", A), ("B", B)):
            tensor = torch.as_tensor(np.asarray(factor)).to(dtype).contiguous()
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = tensor
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = next(iter(modules.values()))[1].shape[0]
    stated = {
        "peft_type": "LORA",
        "base_model_name_or_path": "example/base",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in modules}),
    }
    (folder / "adapter_config.json").write_text(json.dumps({**stated, **config}))
    return folder


def random_modules(seed, shapes, rank):
    """{module: (B, A)} of the given {module: (outputs, inputs)}."""
    random = np.random.default_rng(seed)
    return {
        name: (
            random.normal(size=(outputs, rank)).astype(np.float32),
            random.normal(size=(rank, inputs)).astype(np.float32),
        )
        for name, (outputs, inputs) in shapes.items()
    }


SHAPES = {"model.layers.0.q_proj": (12, 10), "model.layers.1.v_proj": (6, 14)}


@pytest.fixture
def adapters(tmp_path):
    """Three adapters of one base: en, fr, ja."""
    return {
        language: write_adapter(tmp_path / language, random_modules(seed, SHAPES, 3))
        for seed, language in enumerate(("en", "fr", "ja"))
    }


@pytest.fixture
def save_adapter(tmp_path):
    """A function that writes a further adapter: `save_adapter(name, modules, **config)`."""
    return lambda name, modules, **config: write_adapter(tmp_path / name, modules, **config)


@pytest.fixture
def make_modules():
    """`make_modules(seed, rank)`: random factors of the shapes that `adapters` has."""
    return lambda seed, rank=3: random_modules(seed, SHAPES, rank)
