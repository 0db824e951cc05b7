"""Train a checkpoint on a Lance table of pairs: in this process, or in several with Ray Train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lance_align.errors import ArgumentError
from lance_align.jobs.pairs import row_count, table_version
from lance_align.jobs.training_cluster import run_on_cluster
from lance_align.jobs.training_job import TrainJob, run_job
from lance_align.jobs.training_report import CARD, CURVE, OURS, TrainReport
from lance_align.training import LogLine
from lance_align.training.checkpoint import checkpoint_in, done_in, writing
from lance_align.training.curve import save_curve
from lance_align.training.log import logged, read_log
from lance_align.training.pinned import pin, pinned
from lance_align.training.workers import ALONE


def train_on_table(
    job: TrainJob,
    *,
    workers: int = 1,
    report: Callable[[LogLine], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> TrainReport:
    """Train to the end and save the model, its card and the curve into `job.out`; a run found there is continued.

    With several workers each reads and embeds its part of every batch. The loss and its gradients are those of one
    process with the whole batch (dropout apart).

    Args:
        job: what and how.
        workers: processes; on a cluster with GPUs each has one, unless the options' device is ``cpu``.
        report: is given each log line, in this process, after ``train.jsonl`` in `job.out` has it.
        say: is told what is done before there are lines.

    Returns:
        The account of the whole run, with the directory and the table as `job` names them.

    Raises:
        ArgumentError: an option, the table or the model cannot be used.
        JobError: Ray does not start, its cluster has no room for the workers for five minutes, they failed, or `out`
            cannot be written.
    """
    if workers < 1:
        raise ArgumentError(f"workers={workers}; expected a whole number above 0")
    given, job = job, _pinned(job.absolute())
    with logged(job.out, report) as log:

        def tell(line: LogLine | str) -> None:
            if isinstance(line, str):
                say(line)
            else:
                log(line)

        if workers == 1:
            run_job(job, ALONE, tell)
        else:
            run_on_cluster(job, workers, tell)
    return dataclasses.replace(_account(job), out=given.out, table=given.table)


def _pinned(job: TrainJob) -> TrainJob:
    """The job on one version of its table: all workers, and every continuation, hold out the same rows.

    Raises:
        ArgumentError: `out` holds a run on other terms, or the table cannot be used.
    """
    if job.version is None:
        began = pinned(job.out) or {}
        version = began.get("version") if began.get("table") == job.table else None
        job = dataclasses.replace(job, version=table_version(job.table) if version is None else version)
    pin(job.out, job.terms())
    return job


def _account(job: TrainJob) -> TrainReport:
    """What the finished run in `job.out` did, with its curve and its card written there."""
    with writing(job.out):
        checkpoint, began = checkpoint_in(job.out), pinned(job.out) or {}
        steps, elapsed_s = (0, 0.0) if checkpoint is None else done_in(checkpoint)
        assert job.version is not None
        models = [began[name] for name in ("model", "vision_model", "text_model") if began.get(name) is not None]
        lines = read_log(job.out)
        losses = [line.loss for line in lines if line.loss is not None]
        recalls = {line.step: line.recall for line in lines if line.recall}
        report = TrainReport(
            out=job.out,
            table=job.table,
            version=job.version,
            image=job.image,
            text=job.text,
            rows=row_count(job.table, job.version),
            held_out=job.held_out,
            model=" + ".join(model["name"] for model in models),
            fingerprint=" + ".join(model["fingerprint"] for model in models),
            steps=steps,
            batch_size=job.options.batch_size,
            elapsed_s=elapsed_s,
            loss=(losses[0], losses[-1]) if losses else None,
            recall_before=recalls.get(0),
            recall_after=recalls.get(steps),
            curve=save_curve(lines, job.out / CURVE),
        )
        card = job.out / CARD
        if not card.exists() or card.read_text(encoding="utf-8", errors="replace").startswith(OURS):
            card.write_text(report.to_card(), encoding="utf-8")
    return report
