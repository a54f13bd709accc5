"""Training: (base, examples, settings) -> LoRA adapters in PEFT folders.

`train` trains one adapter. `train_together` trains several on one base at once: their rows share
the forward passes, and each adapter becomes what it would have become alone.
"""

from __future__ import annotations

from koinize.train.alone import train
from koinize.train.learner import Training
from koinize.train.report import NoNumberError, Progress, TrainingReport
from koinize.train.saving import Saving
from koinize.train.schedule import epoch_batches, rate
from koinize.train.together import train_together

__all__ = [
    "NoNumberError",
    "Progress",
    "Saving",
    "Training",
    "TrainingReport",
    "epoch_batches",
    "rate",
    "train",
    "train_together",
]
