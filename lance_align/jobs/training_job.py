"""Train a checkpoint on a Lance table of pairs: in this process, or in several with Ray Train."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lance_align.encoders import hub
from lance_align.encoders.checkpoints import resolve_spec
from lance_align.encoders.fingerprint import fingerprint
from lance_align.errors import ArgumentError, JobError, LanceAlignError, ModelError
from lance_align.fetching import NO_URLS, FetchPolicy
from lance_align.jobs.pairs import table_pairs, table_version
from lance_align.jobs.stopping import Stopped, stopping
from lance_align.jobs.training_group import said_of, training_group
from lance_align.paths import expanded
from lance_align.training import LogLine, RowPairs, Trainable, Trainer, TrainOptions, load_trainable, pair_towers
from lance_align.training.pinned import pin, pinned
from lance_align.training.workers import ALONE, Workers

_Report = Callable[[LogLine], None]
# Ray Train's own name. A cluster in use by others may become free, or grow, in the meantime.
_START_LIMIT, START_LIMIT_S = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 300
_RESTARTS = 2  # of a group of workers of which one died, as a node does that goes away


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """What every worker of a run is told; small enough to send.

    Attributes:
        table: uri of a Lance table.
        image: its column of pictures: encoded, or paths below the folder of the table's database.
        text: its column of captions.
        out: directory of the model and the checkpoint; for several workers, one that all of them see.
        options: how to train.
        model: what to train further, as `load_trainable` takes; None to pair two towers.
        vision_model, text_model, projection_dim: what `pair_towers` takes, where `model` is None.
        held_out: rows to measure recall on and never to train on, nor on other rows of their pictures.
        version: of the table; None for the one that the run into `out` began with, or the latest.
        allow_outside: let image paths in the rows lead out of the folder of the table's database.
        fetching: hosts that image URLs in the rows are fetched from.
    """

    table: str
    image: str
    text: str
    out: Path
    options: TrainOptions
    model: str | None = None
    vision_model: str | None = None
    text_model: str | None = None
    projection_dim: int = 512
    held_out: int = 0
    version: int | None = None
    allow_outside: bool = False
    fetching: FetchPolicy = NO_URLS

    def __post_init__(self) -> None:
        towers = (self.vision_model, self.text_model)
        if (self.model is None) == (towers == (None, None)) or (self.model is None and None in towers):
            raise ArgumentError("give either a model to train further, or both vision_model and text_model")

    def load(self) -> Trainable:
        """The model before its first step.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self.model is not None:
            return load_trainable(self.model)
        assert self.vision_model is not None
        assert self.text_model is not None
        return pair_towers(
            self.vision_model, self.text_model, projection_dim=self.projection_dim, seed=self.options.seed
        )

    def pairs(self, trainable: Trainable) -> tuple[RowPairs, RowPairs | None]:
        """What to train on and what to measure with; see `table_pairs`.

        Raises:
            SourceError: no such table, version or column.
        """
        geometry, seed = trainable.image, self.options.seed
        return table_pairs(
            self.table,
            self.image,
            self.text,
            geometry,
            version=self.version,
            held_out=self.held_out,
            seed=seed,
            allow_outside=self.allow_outside,
            fetching=self.fetching,
        )

    def terms(self) -> dict[str, Any]:
        """What a run into `out` keeps to its end: another model, table, choice of rows or loss is another run.

        Raises:
            ModelError: a model cannot be found.
        """
        models = {name: getattr(self, name) for name in ("model", "vision_model", "text_model")}
        return {
            **{name: None if value is None else _known(name, value) for name, value in models.items()},
            "projection_dim": self.projection_dim if self.model is None else None,
            "image": self.image,
            "text": self.text,
            "held_out": self.held_out,
            "version": self.version,
            **self.options.terms,
            "table": self.table,
        }

    def absolute(self) -> TrainJob:
        """The same from any working directory."""
        changes: dict[str, Any] = {"out": self.out.absolute()}
        if "://" not in self.table:
            changes["table"] = str(Path(self.table).absolute())
        for name in ("model", "vision_model", "text_model"):
            value = getattr(self, name)
            if value is not None and (path := expanded(value, ModelError)).is_dir():
                changes[name] = str(path.absolute())
        return dataclasses.replace(self, **changes)


def train_on_table(job: TrainJob, *, workers: int = 1, report: _Report = lambda _: None) -> None:
    """Train to the end and save the model into `job.out`; a run found there is continued.

    With several workers each reads and embeds its part of every batch. The loss and its gradients are those of one
    process with the whole batch (dropout apart).

    Args:
        job: what and how.
        workers: processes; on a cluster with GPUs each has one, unless the options' device is ``cpu``.
        report: is given each log line, in this process.

    Raises:
        ArgumentError: an option, the table or the model cannot be used.
        JobError: Ray does not start, its cluster has no room for the workers for five minutes, they failed, or `out`
            cannot be written.
    """
    if workers < 1:
        raise ArgumentError(f"workers={workers}; expected a whole number above 0")
    job = _pinned(job.absolute())
    if workers == 1:
        _run(job, ALONE, report)
    else:
        _run_with_ray(job, workers, report)


def _known(kind: str, name: str) -> dict[str, str]:
    """A model's name, and the digest by which it is known again wherever it lies."""
    if kind == "model":
        return {"name": name, "fingerprint": resolve_spec(name).fingerprint}
    try:
        return {"name": name, "fingerprint": fingerprint(hub.find(name)[0])}
    except OSError as error:
        raise ModelError(f"model {name!r} cannot be read: {error}") from error


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


def _run(job: TrainJob, workers: Workers, report: _Report) -> None:
    trainable = job.load()
    pairs, held_out = job.pairs(trainable)
    trainer = Trainer(
        trainable, pairs, job.options, directory=job.out, held_out=held_out, report=report, workers=workers
    )
    done = trainer.run()
    if workers.rank == 0:
        done.save(job.out)


def _run_with_ray(job: TrainJob, workers: int, report: _Report) -> None:
    """`_run` in each of several processes; log lines come back through a queue."""
    from ray.util.queue import Queue

    from lance_align.jobs.cluster import cluster

    trainable = job.load()  # what is wrong with the arguments is said here, before processes start
    job.pairs(trainable)
    del trainable
    with cluster(), stopping():
        lines = Queue(actor_options={"num_cpus": 0})
        reader = threading.Thread(target=_read_lines, args=(lines, report), daemon=True)
        reader.start()
        try:
            _fit(job, workers, lines)
        finally:
            lines.put(None)
            reader.join()
            lines.shutdown()
            shutil.rmtree(job.out / "ray", ignore_errors=True)


def _read_lines(lines: Any, report: _Report) -> None:
    for line in iter(lines.get, None):
        report(line)


def _fit(job: TrainJob, workers: int, lines: Any) -> None:
    """Run the group of workers, and again from its checkpoint where it did not end by an error of ours."""
    import ray
    from ray import train as ray_train
    from ray.train.torch import TorchTrainer

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    group = training_group(nodes, workers=workers, device=job.options.device)
    limit_s = os.environ.setdefault(_START_LIMIT, str(START_LIMIT_S))
    logging.getLogger("ray.train").setLevel(logging.ERROR)  # its progress; ours comes in log lines
    # Ray's annotations describe an older class of this name.
    failures: Any = ray_train.FailureConfig
    for restarts_left in reversed(range(1 + _RESTARTS)):
        trainer = TorchTrainer(
            _work,
            train_loop_config={"job": job, "lines": lines},
            scaling_config=ray_train.ScalingConfig(
                num_workers=workers, use_gpu=group.use_gpu, resources_per_worker=group.resources
            ),
            # Its own restarts would repeat an error of ours too, and each start of a group takes ten seconds; where
            # there is no place for the group they have no end, and no words.
            run_config=ray_train.RunConfig(
                storage_path=str(job.out / "ray"), failure_config=failures(controller_failure_limit=0)
            ),
        )
        try:
            trainer.fit()
            return
        except SystemExit:  # Ray Train answers Ctrl-C itself, and leaves as if all were well
            raise Stopped(signal.SIGINT) from None
        except ray_train.TrainingFailedError as error:
            own = _own_error(error)
            if own is not None:
                raise own from error
            if "TimeoutError" in type(getattr(error, "controller_failure", None)).__name__:
                raise JobError(f"{group} did not start in {limit_s} s; {_free(nodes)}; give fewer workers") from error
            if restarts_left == 0:
                raise JobError(
                    f"training failed ({_first_line(error)}); run the same command again to go on from the last "
                    "checkpoint"
                ) from error


def _free(nodes: list[dict[str, Any]]) -> str:
    import ray

    return f"the cluster has {said_of(nodes, ray.available_resources())}"  # type: ignore[no-untyped-call]


def _work(settings: dict[str, Any]) -> None:
    """One worker of a run; Ray Train has initialised torch.distributed."""
    from ray.train.torch import get_device

    job: TrainJob = settings["job"]
    device = str(get_device()) if job.options.device == "auto" else job.options.device
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, device=device))
    _run(job, Workers.of_group(), settings["lines"].put)


def _failures(error: Exception) -> list[BaseException]:
    """What ended the workers, by rank."""
    found: dict[int, BaseException] = getattr(error, "worker_failures", {})
    return list(found.values())


def _own_error(error: Exception) -> LanceAlignError | None:
    """The error of ours that a worker raised, if one did."""
    for failure in _failures(error):
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, LanceAlignError):
                return seen
            inner = getattr(seen, "cause", None)
            seen = inner if isinstance(inner, BaseException) else seen.__cause__
    return None


def _first_line(error: Exception) -> str:
    cause = next(iter(_failures(error)), error)
    first = next((line for line in str(cause).strip().splitlines() if line), "no message")
    return f"{type(cause).__name__}: {first[:200]}"
