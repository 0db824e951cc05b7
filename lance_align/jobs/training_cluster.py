"""A training run in several processes of Ray Train: started, told of, and started again where one dies."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import threading
from typing import Any

from lance_align.errors import JobError, LanceAlignError
from lance_align.jobs.stopping import Stopped, stopping
from lance_align.jobs.training_group import said_of, training_group
from lance_align.jobs.training_job import Tell, TrainJob, run_job
from lance_align.training.workers import Workers

# Ray Train's own name. A cluster in use by others may become free, or grow, in the meantime.
_START_LIMIT, START_LIMIT_S = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 300
_RESTARTS = 2  # of a group of workers of which one died, as a node does that goes away


def run_on_cluster(job: TrainJob, workers: int, tell: Tell) -> None:
    """`run_job` in each of several processes; log lines come back through a queue."""
    from ray.util.queue import Queue

    from lance_align.jobs.cluster import cluster

    tell("checking the model and the table")
    trainable = job.load()  # what is wrong with the arguments is said here, before processes start
    job.pairs(trainable)
    del trainable
    tell(f"starting {workers} workers")
    with cluster(), stopping():
        lines = Queue(actor_options={"num_cpus": 0})
        reader = threading.Thread(target=_read_lines, args=(lines, tell), daemon=True)
        reader.start()
        try:
            _fit(job, workers, lines)
        finally:
            lines.put(None)
            reader.join()
            lines.shutdown()
            shutil.rmtree(job.out / "ray", ignore_errors=True)


def _read_lines(lines: Any, tell: Tell) -> None:
    for line in iter(lines.get, None):
        tell(line)


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
    run_job(job, Workers.of_group(), settings["lines"].put)


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
