"""One LoRA adapter by TRL's SFTTrainer, as koinize asks for it.

    training:
      trainer:
        command: [python, train.py, "{settings}", "{start}"]
        version: trl 1.16

`python` is that of the environment in which TRL is; it need not be koinize's. Run with TRL 1.16,
transformers 5.23 and PEFT 0.21 on a CPU by tests/examples/test_trainers.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(file: str, start: str) -> None:
    """Trains on from the adapter in the folder `start`, from the base where that is empty."""
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    lora, training = settings["lora"], settings["training"]
    torch.set_num_threads(settings["threads"])
    model = AutoModelForCausalLM.from_pretrained(settings["base"], dtype=settings["dtype"])
    if start:
        model = PeftModel.from_pretrained(model, start, is_trainable=True)
    fresh = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        use_rslora=lora["rslora"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=settings["out"],
            num_train_epochs=training["epochs"],
            learning_rate=training["learning_rate"],
            lr_scheduler_type=training["schedule"],
            weight_decay=training["weight_decay"],
            max_grad_norm=training["max_grad_norm"],
            max_length=training["max_length"],
            seed=training["seed"],
            per_device_train_batch_size=training["batch_size"],
            completion_only_loss=True,
            bf16=settings["dtype"] == "bfloat16",
            use_cpu=not torch.accelerator.is_available(),
            gradient_checkpointing=torch.accelerator.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows(settings["rows"])),
        processing_class=AutoTokenizer.from_pretrained(settings["base"]),
        peft_config=None if start else fresh,
    )
    trainer.train()
    trainer.save_model(settings["out"])


def rows(file: str) -> list[dict[str, object]]:
    """A prompt and its completion each."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").split("\n") if line]


if __name__ == "__main__":
    main(*sys.argv[1:3])
