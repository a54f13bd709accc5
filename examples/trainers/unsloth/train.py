"""One LoRA adapter by Unsloth (https://github.com/unslothai/unsloth), as koinize asks for it.

    training:
      trainer:
        command: [python, train.py, "{settings}"]
        version: unsloth 2025.11

What was tested: that this file is Python. It was not run: Unsloth needs a GPU. Its calls are
written from its documentation. It trains from the base alone, so its command names no {start}, and
koinize refuses a trunk and `update: {mode: continue}` with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from unsloth import FastLanguageModel  # isort: skip - it has to come before what it changes
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main(file: str) -> None:
    """Trains, and saves the adapter alone."""
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    lora, training = settings["lora"], settings["training"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        settings["base"], max_seq_length=training["max_length"], load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        use_rslora=lora["rslora"],
        target_modules=LINEAR if lora["targets"] == "all-linear" else lora["targets"],
        random_state=lora["seed"],
    )
    lines = Path(settings["rows"]).read_text(encoding="utf-8").split("\n")
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
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list([json.loads(line) for line in lines if line]),
        processing_class=tokenizer,
    )
    trainer.train()
    model.save_pretrained(settings["out"])


if __name__ == "__main__":
    main(sys.argv[1])
