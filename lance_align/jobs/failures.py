"""Whatever ends a job, as one-line errors of this package: what happened, and how to go on."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

from lance_align.errors import JobError, LanceAlignError

GO_ON = "what is committed stays; run the same command again to go on"

_DEATHS = ("ActorDiedError", "ActorUnavailableError", "ObjectLostError", "WorkerCrashedError")


@contextlib.contextmanager
def job_failures() -> Iterator[None]:
    """Raise a `LanceAlignError` for whatever ends a job: a task's own typed error, or a `JobError` with the cause."""
    try:
        yield
    except LanceAlignError as error:
        if isinstance(error, ray_errors("RayError")):  # Ray raises a class that is both; its text is a traceback
            raise typed(error) from error
        raise
    except Exception as error:
        raise typed(error) from error


def typed(error: BaseException) -> LanceAlignError:
    """What an error says about the job: the task's own typed error, or a `JobError` that names the cause."""
    causes = list(_causes(error))
    own = next(
        (cause for cause in causes if isinstance(cause, LanceAlignError) and not _is_of(cause, "RayError")), None
    )
    if own is not None:
        own.args = (_first_line(own), *own.args[1:])  # Ray appends advice on its own settings
        return own
    if any(_is_of(cause, "ExecutionTimeoutError", module="ray.data.exceptions") for cause in causes):
        return JobError(
            f"nothing moved for a long time: the cluster gives no processors, or other jobs hold them; {GO_ON}"
        )
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return JobError(f"the disk is full: free space; {GO_ON}")
    if any(
        isinstance(cause, MemoryError) or _is_of(cause, "OutOfMemoryError", "ObjectStoreFullError") for cause in causes
    ):
        return JobError(f"memory ran out: use fewer actors or a smaller block_rows; {GO_ON}")
    if any(_is_of(cause, "ActorDiedError") and "IdRegistryActor" in str(cause) for cause in causes):
        return JobError(f"the process that knows which ids are done died; {GO_ON}")
    if any(_is_of(cause, *_DEATHS) for cause in causes):
        return JobError(f"a worker process died, or hung for stall_seconds, and so did its replacements; {GO_ON}")
    return JobError(f"{type(causes[-1]).__name__}: {_first_line(causes[-1])}; {GO_ON}")


def _is_of(error: BaseException, *names: str, module: str = "ray.exceptions") -> bool:
    return isinstance(error, ray_errors(*names, module=module))


def ray_errors(*names: str, module: str = "ray.exceptions") -> tuple[type[BaseException], ...]:
    """Ray's classes; none where nothing has imported it, which takes seconds."""
    loaded = sys.modules.get(module)
    return () if loaded is None else tuple(getattr(loaded, name) for name in names)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it; Ray keeps a task's exception in `cause`, Python in `__cause__`."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__
