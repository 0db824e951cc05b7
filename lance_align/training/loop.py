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
from torch import nn

from lance_align.encoders.devices import resolve_device
from lance_align.errors import ArgumentError
from lance_align.training.ahead import Ahead
from lance_align.training.checkpoint import RunState
from lance_align.training.contrast import contrast
from lance_align.training.held_out import held_out_recall
from lance_align.training.log import LogLine
from lance_align.training.optim import (
    keep_slow_kernels_in_float32,
    learning_rate,
    parameter_groups,
    renew_batch_norm,
    update_average,
)
from lance_align.training.options import TrainOptions
from lance_align.training.pairs import Batch, PairSource, RowPairs, SharedSource
from lance_align.training.temperature import Temperature
from lance_align.training.towers import Towers
from lance_align.training.trainable import Trainable
from lance_align.training.workers import ALONE, Workers

_RENEWAL_BATCHES = 40  # about 10,000 pictures at the usual batch size


class Trainer:
    """Trains a model on pairs.

    Args:
        trainable: what to train; its model is changed in place.
        source: where batches come from, with pictures of the model's crop.
        options: how.
        directory: where the checkpoint is kept; a run found there is continued. None keeps none. Several workers must
            see the same directory.
        held_out: pairs to measure recall on while training; None measures nothing.
        report: is given each log line, in the first worker alone.
        workers: who trains together; each makes a `Trainer` of the same model and options.

    Raises:
        ModelError: the checkpoint in `directory` belongs to another model.
        ArgumentError: this machine lacks the device, or an option does not go with the model, the source or workers.
    """

    def __init__(
        self,
        trainable: Trainable,
        source: PairSource,
        options: TrainOptions,
        *,
        directory: Path | None = None,
        held_out: RowPairs | None = None,
        report: Callable[[LogLine], None] = lambda _: None,
        workers: Workers = ALONE,
    ) -> None:
        self._trainable, self._source, self.options = trainable, source, options
        self._directory, self._held_out, self._report, self._workers = directory, held_out, report, workers
        self._device = resolve_device(options.device)
        self._model: Any = trainable.model.to(self._device, memory_format=torch.channels_last)
        self._towers = Towers(trainable, self._model, options)
        self._check_parts()
        self._towers.prepare()
        average = copy.deepcopy(self._model) if options.average_decay else self._model
        groups, self._of_head = parameter_groups(
            self._model, weight_decay=options.weight_decay, head=() if self._one_rate else self._towers.head()
        )
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))
        self._state = RunState(self._model, average, optimizer)
        if options.precision == "bfloat16" and self._device.type == "cpu":
            keep_slow_kernels_in_float32(self._model)  # after the copy above, which must not share these methods
        self._restore()

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
        """Train to the end, checkpoint, and return `result`; recall is measured before the first step too.

        Raises:
            ArgumentError: the loss is no longer finite, or a step does not fit the device's memory.
            SourceError: the source has no usable pairs.
            JobError: a checkpoint cannot be written.
        """
        state, losses, pairs, skipped = self._state, list[float](), 0, 0
        if self._held_out is not None and state.step == 0:
            self._tell(losses, 0, 0, 0.0)
        told_s = state.elapsed_s
        started = time.monotonic() - state.elapsed_s
        saved = since = time.monotonic()
        with Ahead(self._batch, end=self.options.steps) as batches:
            while self.progress < 1:
                batch = batches(state.step)
                try:
                    losses.append(self._advance(batch))
                except torch.OutOfMemoryError as error:
                    at_once = self.options.pairs_per_pass or self.options.batch_size
                    raise ArgumentError(
                        f"{at_once} pairs at once do not fit the memory of {self._device}; set pairs_per_pass to "
                        "fewer, which changes nothing else, or gradient_checkpointing"
                    ) from error
                pairs, skipped, now = pairs + len(batch), skipped + batch.skipped, time.monotonic()
                state.elapsed_s = self._workers.first(now - started, self._device)  # all must end at the same step
                is_late = state.elapsed_s - told_s >= self.options.log_every_s
                if is_late or self._is_due(self.options.log_every) or self._recall_is_due():
                    self._tell(losses, pairs, skipped, now - since)
                    since, losses, pairs, skipped = time.monotonic(), [], 0, 0
                    told_s = state.elapsed_s
                if now - saved > self.options.checkpoint_every_s:
                    self.save()
                    saved = now
        self.save()
        return self.result()

    def save(self) -> None:
        """Write the checkpoint, if a directory was given; the one before it stays until the new one is whole."""
        if self._directory is not None and self._workers.rank == 0:
            self._state.save(self._directory)

    def result(self) -> Trainable:
        """The model as it is now, a copy in eval mode: the average, its BatchNorm statistics renewed unless frozen."""
        model: Any = copy.deepcopy(self._state.average)
        if self.options.average_decay and self._towers.normalises_batches:
            with Ahead(self._batch, end=_RENEWAL_BATCHES) as batches:
                pixels = (self._towers.pixels(batches(place)) for place in range(_RENEWAL_BATCHES))
                renew_batch_norm(model.vision_model, pixels)
        return dataclasses.replace(self._trainable, model=model.eval().requires_grad_(True))

    def backward(self, batch: Batch) -> float:
        """Put the gradients of the whole batch's loss into the model's parameters, and return the loss in nats.

        Args:
            batch: this worker's part of it.

        Raises:
            SourceError: fewer than two pairs in all.
        """
        options, smoothing = self.options, self.options.label_smoothing
        self._towers.train()
        self._state.optimizer.zero_grad(set_to_none=True)
        return contrast(
            self._towers,
            batch,
            label_smoothing=self._trainable.label_smoothing if smoothing is None else smoothing,
            seed=options.seed * 1_000_003 + self._state.step,  # dropout, the same after a resume
            pairs_per_pass=options.pairs_per_pass,
            workers=self._workers,
        )

    @property
    def _one_rate(self) -> bool:
        return self.options.head_learning_rate is None

    def _check_parts(self) -> None:
        options, count = self.options, self._workers.count
        parted = count > 1 or (options.pairs_per_pass or options.batch_size) < options.batch_size
        if parted and self._towers.normalises_batches:
            raise ArgumentError(
                "BatchNorm of the image tower would see parts of a batch; set freeze_batch_norm, or leave "
                "pairs_per_pass out and train in one process"
            )
        if count > 1 and not isinstance(self._source, SharedSource):
            raise ArgumentError(f"{type(self._source).__name__} cannot be shared by {count} workers; use one")

    def _restore(self) -> None:
        if self._directory is None:
            return
        self._state.restore(self._directory)
        steps = self._workers.gather(self._state.step)
        if len(set(steps)) > 1:
            raise ArgumentError(
                f"workers found checkpoints of different steps ({sorted(set(steps))}) in {self._directory}; give a "
                "directory that all of them see"
            )

    def _advance(self, batch: Batch) -> float:
        """One optimiser step; returns the loss before it."""
        state, options = self._state, self.options
        head_rate = options.learning_rate if options.head_learning_rate is None else options.head_learning_rate
        for group, in_head in zip(state.optimizer.param_groups, self._of_head, strict=True):
            peak = head_rate if in_head else options.learning_rate
            group["lr"] = learning_rate(self.progress, peak=peak, warmup_share=options.warmup)
        loss = self.backward(batch)
        if not np.isfinite(loss):
            raise ArgumentError(f"the loss is {loss} at step {state.step}; lower the learning rate")
        nn.utils.clip_grad_norm_(self._towers.parameters(), options.max_gradient_norm)
        state.optimizer.step()
        Temperature(self._model).clamp(options.min_temperature, options.max_temperature)
        state.step += 1
        if options.average_decay:
            # The ramp lets the average leave the first, random weights behind (as TensorFlow's num_updates does).
            decay = min(options.average_decay, (1 + state.step) / (10 + state.step))
            update_average(state.average, self._model, decay)
        return loss

    def _batch(self, step: int) -> Batch:
        rng, size, workers = np.random.default_rng((self.options.seed, step)), self.options.batch_size, self._workers
        if workers.count > 1:
            assert isinstance(self._source, SharedSource)
            return self._source.share(size, rng, rank=workers.rank, count=workers.count)
        return self._source.batch(size, rng)

    def _is_due(self, every: int | None) -> bool:
        return self.progress >= 1 or (every is not None and self._state.step % every == 0)

    def _recall_is_due(self) -> bool:
        return self._held_out is not None and (self.step == 0 or self._is_due(self.options.recall_every))

    def _tell(self, losses: list[float], pairs: int, skipped: int, seconds: float) -> None:
        workers, recall = self._workers, None
        if self._held_out is not None and self._recall_is_due():
            towers = Towers(self._trainable, self._state.average, self.options)
            parts = self._held_out.batches(self.options.batch_size, rank=workers.rank, count=workers.count)
            recall = held_out_recall(towers, parts, workers)
        everybody = workers.gather((pairs, skipped))
        if workers.rank > 0:
            return
        line = LogLine(
            step=self._state.step,
            progress=round(self.progress, 5),
            loss=round(sum(losses) / len(losses), 5) if losses else None,
            temperature=round(Temperature(self._model).value().item(), 5),
            learning_rate=self._state.optimizer.param_groups[0]["lr"],
            pairs_per_s=round(sum(seen for seen, _ in everybody) / seconds, 1) if seconds else 0.0,
            skipped=sum(left for _, left in everybody),
            elapsed_s=round(self._state.elapsed_s, 1),
            recall=recall,
        )
        self._report(line)
