"""`train`: fine-tune a model on a Lance table of image–text pairs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lance_align.jobs.training_progress import training_progress
from lance_align.jobs.training_report import TrainReport
from lance_align.spec import DEFAULT_MODEL


def train(
    table: str,
    *,
    out: str | os.PathLike[str],
    image: str = "image",
    text: str = "caption",
    model: str | None = None,
    vision_model: str | None = None,
    text_model: str | None = None,
    projection_dim: int = 512,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int = 256,
    pairs_per_pass: int | None = None,
    learning_rate: float = 1e-4,
    head_learning_rate: float | None = None,
    weight_decay: float = 0.05,
    warmup_steps: int | None = None,
    min_temperature: float = 0.01,
    max_temperature: float | None = None,
    freeze_image_tower: bool = False,
    freeze_text_tower: bool = False,
    freeze_batch_norm: bool = True,
    gradient_checkpointing: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    held_out: int = 0,
    recall_every: int | None = None,
    allow_outside: bool = False,
    fetch_hosts: Sequence[str] = (),
    seed: int = 0,
    workers: int = 1,
    device: str = "auto",
    threads: int | None = None,
    checkpoint_every_s: float = 180.0,
    progress: bool = True,
) -> TrainReport:
    """Train until the steps or the minutes are over, whichever comes first; a run found in `out` is continued.

    `out` gets the model, which `load_encoder`, every job and transformers load, a card of it (``README.md``), the curve
    (``curve.png``), the log (``train.jsonl``) and the checkpoint. Recall is measured before the first step and after
    the last.

    >>> report = lance_align.train("lancedb/demo.lance", out="mine", model="align-tiny", steps=2, batch_size=4)
    >>> lance_align.load_encoder("mine").spec.dim
    256

    Args:
        table: uri of a Lance table, such as lancedb/photos.lance.
        out: directory of the model, the checkpoint and the log. One that holds a run goes on with it; another model,
            table, choice of rows or loss is refused. Duration, learning rate, precision and device may change.
        image: the table's column of images: encoded, or paths, which start from the folder of the database.
        text: the table's column of captions.
        model: what to train further: a known name, a hub id or a directory; kakaobrain/align-base where none is named.
        vision_model: a ViT, DeiT or CLIP to be paired anew with `text_model`: a hub id or a directory.
        text_model: a BERT, RoBERTa or CLIP, for `vision_model`.
        projection_dim: length of the vectors of such a pair.
        steps: optimiser steps in all.
        minutes: wall-clock budget of the steps.
        batch_size: pairs a step, of all workers together.
        pairs_per_pass: most pairs in the towers at once; gradients are those of the whole batch. All by default.
        learning_rate: the peak.
        head_learning_rate: the peak for projections and temperature; the same where it is left out.
        weight_decay: of matrices and kernels.
        warmup_steps: steps in which the learning rate rises; 3 % of the run where it is left out.
        min_temperature: least of what cosines are divided by.
        max_temperature: most of it; no bound by default.
        freeze_image_tower, freeze_text_tower: leave the tower as it is.
        freeze_batch_norm: keep running statistics, as little data wants.
        gradient_checkpointing: recompute activations, for less memory.
        precision: of the towers; weights stay float32.
        held_out: rows of the table to measure recall on; no row that shows one of their images is trained on.
        recall_every: steps between measurements; before the first step and after the last alone where it is left out.
        allow_outside: let image paths in the rows lead out of the database's folder.
        fetch_hosts: hosts that image URLs in the rows are fetched from; none by default.
        seed: of first weights, batches and dropout.
        workers: processes of Ray Train; all must see `out`. Each has a GPU where there are GPUs, unless device is cpu.
        device: auto, cpu, mps or cuda.
        threads: of the processor; torch decides where it is left out.
        checkpoint_every_s: seconds between checkpoints.
        progress: show progress on standard error.

    Returns:
        The account of the run, its earlier parts among it.

    Raises:
        ArgumentError: an option cannot be used, neither `steps` nor `minutes` is given, or `out` holds another run.
        SourceError: the table, its version or a column is not there, or holds no pairs.
        ModelError: the model cannot be loaded, or is of a family that is not trained.
        JobError: the workers failed, or `out` cannot be written.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    paired = vision_model is not None or text_model is not None
    with training_progress(steps, show=progress) as view:
        base = model or (f"{vision_model} and {text_model}" if paired else DEFAULT_MODEL)
        view.say(f"training {base} on {table} into {out}")
        with torch_threads(threads):  # importing torch takes seconds
            from lance_align.fetching import fetch_policy
            from lance_align.jobs.training_job import TrainJob
            from lance_align.jobs.training_run import train_on_table
            from lance_align.training import TrainOptions

            given |= {"out": Path(out), "fetching": fetch_policy(fetch_hosts)}
            given["options"] = TrainOptions(**fields_of(TrainOptions, given))
            job = TrainJob(**fields_of(TrainJob, {"model": None if paired else DEFAULT_MODEL, **given}))
            return train_on_table(job, workers=workers, report=view.show, say=view.say)


def fields_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of a dataclass."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads inside; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
