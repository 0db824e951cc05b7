"""The training loop: a model and a source of pairs in, a trained model and a checkpoint that can be resumed out."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lance_align.encoders.devices import resolve_device
from lance_align.errors import ArgumentError
from lance_align.training.checkpoint import RunState
from lance_align.training.losses import align_loss
from lance_align.training.optim import (
    freeze_batch_norm,
    keep_slow_kernels_in_float32,
    learning_rate,
    parameter_groups,
    renew_batch_norm,
    update_average,
)
from lance_align.training.options import LogLine, TrainOptions
from lance_align.training.pairs import Batch, PairSource
from lance_align.training.trainable import Trainable

_RENEWAL_BATCHES = 40  # about 10,000 pictures at the usual batch size
_MIN_TEMPERATURE = 0.01  # logits of at most 100, as CLIP clips them (arXiv 2103.00020)


class Trainer:
    """Trains an ALIGN model on pairs.

    Args:
        trainable: what to train; its model is changed in place.
        source: where batches come from, with pictures of the model's crop.
        options: how.
        directory: where the checkpoint is kept; a run found there is continued. None keeps none.
        report: is given each log line.

    Raises:
        ModelError: the checkpoint in `directory` belongs to another model.
        ArgumentError: this machine lacks the device.
    """

    def __init__(
        self,
        trainable: Trainable,
        source: PairSource,
        options: TrainOptions,
        *,
        directory: Path | None = None,
        report: Callable[[LogLine], None] = lambda _: None,
    ) -> None:
        self._trainable, self._source, self.options = trainable, source, options
        self._directory, self._report = directory, report
        self._device = resolve_device(options.device)
        self._model: Any = trainable.model.to(self._device, memory_format=torch.channels_last)
        average = copy.deepcopy(self._model) if options.average_decay else self._model
        optimizer = torch.optim.AdamW(parameter_groups(self._model, options.weight_decay), lr=0.0, betas=(0.9, 0.98))
        self._state = RunState(self._model, average, optimizer)
        if options.precision == "bfloat16" and self._device.type == "cpu":
            keep_slow_kernels_in_float32(self._model)  # after the copy above, which must not share these methods
        self._scale = torch.tensor(trainable.image.scale, device=self._device)[:, None, None]
        self._shift = torch.tensor(trainable.image.shift, device=self._device)[:, None, None]
        if directory is not None:
            self._state.restore(directory)

    @property
    def step(self) -> int:
        """Steps done."""
        return self._state.step

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        steps, minutes = self.options.steps, self.options.minutes
        by_steps = self._state.step / steps if steps is not None else 0.0
        by_time = self._state.elapsed_s / (60 * minutes) if minutes is not None else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self) -> Trainable:
        """Train to the end, checkpoint, and return `result`.

        Raises:
            ArgumentError: the loss is no longer finite.
            SourceError: the source has no usable pairs.
        """
        state, losses, pairs, skipped = self._state, list[float](), 0, 0
        started = time.monotonic() - state.elapsed_s
        saved = since = time.monotonic()
        while self.progress < 1:
            batch = self._batch(state.step)
            losses.append(self._advance(batch))
            pairs, skipped, now = pairs + len(batch), skipped + batch.skipped, time.monotonic()
            state.elapsed_s = now - started
            if state.step % self.options.log_every == 0 or self.progress >= 1:
                self._report(self._line(losses, pairs / (now - since), skipped))
                since, losses, pairs, skipped = now, [], 0, 0
            if now - saved > self.options.checkpoint_every_s:
                self.save()
                saved = now
        self.save()
        return self.result()

    def save(self) -> None:
        """Write the checkpoint, if a directory was given; the one before it stays until the new one is whole."""
        if self._directory is not None:
            self._state.save(self._directory)

    def result(self) -> Trainable:
        """The model as it is now, a copy in eval mode: the average, its BatchNorm statistics renewed unless frozen."""
        model: Any = copy.deepcopy(self._state.average)
        if self.options.average_decay and not self.options.freeze_batch_norm:
            batches = (self._batch(place) for place in range(_RENEWAL_BATCHES))
            renew_batch_norm(model.vision_model, (self._pixels(batch) for batch in batches))
        return dataclasses.replace(self._trainable, model=model.eval())

    def loss(self, batch: Batch) -> Tensor:
        """ALIGN's loss of one batch, in nats."""
        tokens = self._trainable.tokenizer(
            list(batch.texts), padding=True, truncation=True, max_length=self._trainable.max_tokens, return_tensors="pt"
        ).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            images = self._model.get_image_features(pixel_values=self._pixels(batch)).pooler_output
            texts = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
        matches, smoothing = batch.matches.to(self._device), self.options.label_smoothing
        return align_loss(images, texts, self._model.temperature, matches, label_smoothing=smoothing)

    def _advance(self, batch: Batch) -> float:
        """One optimiser step; returns the loss before it."""
        state, options = self._state, self.options
        torch.manual_seed(options.seed * 1_000_003 + state.step)  # dropout, the same after a resume
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress, peak=options.learning_rate, warmup_share=options.warmup_share)
        self._model.train()
        if options.freeze_batch_norm:
            freeze_batch_norm(self._model)
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise ArgumentError(f"the loss is {loss.item()} at step {state.step}; lower the learning rate")
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), options.max_gradient_norm)
        state.optimizer.step()
        with torch.no_grad():
            self._model.temperature.clamp_(min=_MIN_TEMPERATURE)
        state.step += 1
        if options.average_decay:
            # The ramp lets the average leave the first, random weights behind (as TensorFlow's num_updates does).
            decay = min(options.average_decay, (1 + state.step) / (10 + state.step))
            update_average(state.average, self._model, decay)
        return loss.item()

    def _batch(self, step: int) -> Batch:
        return self._source.batch(self.options.batch_size, np.random.default_rng((self.options.seed, step)))

    def _pixels(self, batch: Batch) -> Tensor:
        pixels = batch.pixels.to(self._device).float() * self._scale + self._shift
        return pixels.contiguous(memory_format=torch.channels_last)

    def _line(self, losses: list[float], pairs_per_s: float, skipped: int) -> LogLine:
        return LogLine(
            step=self._state.step,
            progress=round(self.progress, 5),
            loss=round(sum(losses) / len(losses), 5),
            temperature=round(self._model.temperature.item(), 5),
            learning_rate=self._state.optimizer.param_groups[0]["lr"],
            pairs_per_s=round(pairs_per_s, 1),
            skipped=skipped,
            elapsed_s=round(self._state.elapsed_s, 1),
        )
