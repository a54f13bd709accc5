"""Thousands of damaged adapters: each is read or refused in words; none crashes, none hangs."""

import json
import random

import pytest
import torch
from safetensors.torch import save

from koinize.adapter import open_adapter
from koinize.errors import InputError

MUTATIONS = 4000

Q = "base_model.model.model.layers.0.q_proj.lora_"
TENSORS = save({f"{Q}A.weight": torch.ones(2, 4), f"{Q}B.weight": torch.ones(6, 2)})
CONFIG = json.dumps(
    {
        "peft_type": "LORA",
        "base_model_name_or_path": "example/base",
        "r": 2,
        "lora_alpha": 4,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {},
        "target_modules": ["q_proj"],
        "use_rslora": False,
        "bias": "none",
    }
).encode()


def damaged(data, chance):
    """Some bytes flipped, cut, repeated, inserted or replaced by telling ones."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data)) if data else 0
        match chance.randrange(6):
            case 0 if data:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                del data[place:]
            case 2:
                del data[place : place + chance.randint(1, 9)]
            case 3:
                data[place:place] = data[place : place + chance.randint(1, 40)]
            case 4:
                telling = [b"9" * 30, b"-1", b"null", b"{}", b"[]", b"1e999", b'"', b"\xff" * 8]
                data[place : place + chance.randint(0, 4)] = chance.choice(telling)
            case _:
                data[:8] = chance.randrange(2**64).to_bytes(8, "little")
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_no_damage_crashes_the_reader(tmp_path, file):
    whole = {"adapter_model.safetensors": TENSORS, "adapter_config.json": CONFIG}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    chance = random.Random(20260)
    read = refused = 0
    for _ in range(MUTATIONS):
        (tmp_path / file).write_bytes(damaged(whole[file], chance))
        try:
            with open_adapter(tmp_path) as adapter:
                for module in adapter.header.modules:
                    adapter.factors(module)
            read += 1
        except InputError:
            refused += 1
    # Both happen: damage to a value that is still finite is invisible without a digest.
    assert read
    assert refused > MUTATIONS // 2
