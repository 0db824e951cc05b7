"""How to train: `TrainOptions`, checked when it is made."""

from __future__ import annotations

import dataclasses
from typing import Literal

from lance_align.errors import ArgumentError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How to train.

    Attributes:
        steps: optimiser steps in all; None lets `minutes` end the run.
        minutes: wall-clock budget, pauses left out; None lets `steps` end the run. The learning rate follows
            whichever is nearer its end, so only a run by steps gives the same weights each time.
        batch_size: pairs a step; all other pairs of the batch are negatives.
        learning_rate: AdamW's peak, after warm-up and before the cosine to zero.
        weight_decay: of matrices and kernels; none for norms, biases and the temperature.
        warmup_share: share of the run in which the learning rate rises from zero.
        label_smoothing: 0.1 as in ALIGN.
        max_gradient_norm: gradients are scaled down to it.
        average_decay: of the exponential moving average of the weights that is kept in the end; 0 keeps the last.
        freeze_batch_norm: keep running statistics, as fine-tuning on little data wants.
        precision: ``"bfloat16"`` computes the towers in autocast; weights stay float32.
        device: ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:N"``, as for an encoder.
        seed: batches and dropout depend on it and on the step alone.
        checkpoint_every_s: seconds between checkpoints.
        log_every: steps between log lines.

    Raises:
        ArgumentError: no end is given, or a number is out of range.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.03
    label_smoothing: float = 0.1
    max_gradient_norm: float = 1.0
    average_decay: float = 0.999
    freeze_batch_norm: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    seed: int = 0
    checkpoint_every_s: float = 180.0
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ArgumentError("neither steps nor minutes is given; say when the training ends")
        for name in ("steps", "minutes", "learning_rate", "checkpoint_every_s", "log_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ArgumentError(f"{name}={value}; expected a number above 0")
        if self.batch_size < 2:
            raise ArgumentError(f"batch_size={self.batch_size}; a contrastive loss needs 2 pairs or more")
        if self.precision not in ("float32", "bfloat16"):
            raise ArgumentError(f"precision={self.precision!r}; expected 'float32' or 'bfloat16'")
        if not 0 <= self.average_decay < 1 or not 0 <= self.warmup_share < 1 or self.seed < 0:
            raise ArgumentError(
                f"average_decay={self.average_decay}, warmup_share={self.warmup_share}, seed={self.seed}; expected "
                "shares from 0 to below 1 and a whole number from 0"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """What a run says of itself.

    Attributes:
        step, progress: steps done, and the share of the run that is done.
        loss: mean since the last line, in nats.
        temperature: what cosines are divided by.
        learning_rate: of the last step.
        pairs_per_s: since the last line.
        skipped: rows since the last line that could not be used.
        elapsed_s: seconds trained, pauses left out.
    """

    step: int
    progress: float
    loss: float
    temperature: float
    learning_rate: float
    pairs_per_s: float
    skipped: int
    elapsed_s: float
