"""How to train: `TrainOptions`, checked when it is made."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from lance_align.errors import ArgumentError

# How long, how fast, where and at what cost: a run may go on with others. All else decides what it becomes.
_FREE = (
    "steps",
    "minutes",
    "learning_rate",
    "warmup_share",
    "warmup_steps",
    "pairs_per_pass",
    "gradient_checkpointing",
    "precision",
    "device",
    "checkpoint_every_s",
    "log_every",
    "log_every_s",
    "recall_every",
)
_ABOVE_ZERO = (
    "steps",
    "minutes",
    "pairs_per_pass",
    "learning_rate",
    "head_learning_rate",
    "min_temperature",
    "max_temperature",
    "checkpoint_every_s",
    "log_every",
    "log_every_s",
    "recall_every",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How to train.

    Attributes:
        steps: optimiser steps in all; None lets `minutes` end the run.
        minutes: wall-clock budget, pauses left out; None lets `steps` end the run. The learning rate follows
            whichever is nearer its end, so only a run by steps gives the same weights each time.
        batch_size: pairs a step; all other pairs of the batch are negatives.
        pairs_per_pass: most pairs in one pass of the towers; the loss and its gradients are those of the whole batch
            (dropout apart), memory is that of a pass, and each picture and text is computed twice. None for all.
        learning_rate: AdamW's peak, after warm-up and before the cosine to zero.
        head_learning_rate: the peak for what lies outside the towers, the projections and the temperature, and for
            weights that the checkpoint lacked; None for `learning_rate`.
        weight_decay: of matrices and kernels; none for norms, biases and the temperature.
        warmup_share: share of the run in which the learning rate rises from zero.
        warmup_steps: the same in steps, instead of `warmup_share`; `steps` must be given too.
        label_smoothing: share of the target spread over the batch; None for the family's own, 0.1 for ALIGN, else 0.
        min_temperature: what cosines are divided by stays at or above it: 0.01, logits of at most 100, as CLIP clips
            them (arXiv 2103.00020).
        max_temperature: the same upwards; None sets no bound.
        max_gradient_norm: gradients are scaled down to it.
        average_decay: of the exponential moving average of the weights that is kept in the end; 0 keeps the last.
        freeze_batch_norm: keep running statistics, as fine-tuning on little data wants. `pairs_per_pass` and several
            workers need it where the image tower learns and has BatchNorm: a part's statistics are not the batch's.
        freeze_image_tower, freeze_text_tower: leave a tower as it is, in evaluation mode, and train what is outside.
        gradient_checkpointing: recompute activations in the backward pass, in the towers that can (ALIGN's image tower
            cannot).
        precision: ``"bfloat16"`` computes the towers in autocast; weights stay float32.
        device: ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:N"``, as for an encoder.
        seed: batches and dropout depend on it and on the step alone.
        checkpoint_every_s: seconds between checkpoints.
        log_every: most steps between log lines.
        log_every_s: most seconds between log lines, where a step is not longer.
        recall_every: steps between measurements on held-out pairs, where there are any; None for the beginning and the
            end alone.

    Raises:
        ArgumentError: no end is given, or a number is out of range.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 256
    pairs_per_pass: int | None = None
    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    weight_decay: float = 0.05
    warmup_share: float = 0.03
    warmup_steps: int | None = None
    label_smoothing: float | None = None
    min_temperature: float = 0.01
    max_temperature: float | None = None
    max_gradient_norm: float = 1.0
    average_decay: float = 0.999
    freeze_batch_norm: bool = False
    freeze_image_tower: bool = False
    freeze_text_tower: bool = False
    gradient_checkpointing: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    seed: int = 0
    checkpoint_every_s: float = 180.0
    log_every: int = 20
    log_every_s: float = 5.0
    recall_every: int | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ArgumentError("neither steps nor minutes is given; say when the training ends")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0:  # nothing is above NaN
                raise ArgumentError(f"{name}={value}; expected a number above 0")
        if self.batch_size < 2:
            raise ArgumentError(f"batch_size={self.batch_size}; a contrastive loss needs 2 pairs or more")
        if self.warmup_steps is not None and (self.steps is None or not 0 <= self.warmup_steps < self.steps):
            raise ArgumentError(f"warmup_steps={self.warmup_steps}, steps={self.steps}; expected fewer than steps")
        if self.max_temperature is not None and self.max_temperature < self.min_temperature:
            raise ArgumentError(
                f"max_temperature={self.max_temperature} is below min_temperature={self.min_temperature}"
            )
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise ArgumentError(f"label_smoothing={self.label_smoothing}; expected a share from 0 to below 1")
        if self.precision not in ("float32", "bfloat16"):
            raise ArgumentError(f"precision={self.precision!r}; expected 'float32' or 'bfloat16'")
        if not 0 <= self.average_decay < 1 or not 0 <= self.warmup_share < 1 or self.seed < 0:
            raise ArgumentError(
                f"average_decay={self.average_decay}, warmup_share={self.warmup_share}, seed={self.seed}; expected "
                "shares from 0 to below 1 and a whole number from 0"
            )

    @property
    def terms(self) -> dict[str, Any]:
        """The options that a run keeps to its end, however often it is stopped."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in _FREE}

    @property
    def warmup(self) -> float:
        """Share of the run in which the learning rate rises."""
        if self.warmup_steps is None or self.steps is None:
            return self.warmup_share
        return self.warmup_steps / self.steps
