"""What Ray raises, as one-line errors of this package: what happened, and how to go on."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from lance_align.errors import JobError, LanceAlignError

GO_ON = "what is committed stays; run the same command again to go on"

_DEATHS = (ActorDiedError, ActorUnavailableError, ObjectLostError, WorkerCrashedError)


@contextlib.contextmanager
def job_failures() -> Iterator[None]:
    """Raise a `LanceAlignError` for whatever ends a job: a task's own typed error, or a `JobError` with the cause."""
    try:
        yield
    except LanceAlignError as error:
        if isinstance(error, RayError):  # Ray raises a class that is both; its text is the worker's traceback
            raise _typed(error) from error
        raise
    except ExecutionTimeoutError as error:
        raise JobError(
            f"nothing moved for a long time: the cluster gives no processors, or other jobs hold them; {GO_ON}"
        ) from error
    except (RayError, OSError) as error:
        raise _typed(error) from error


def _typed(error: BaseException) -> LanceAlignError:
    causes = list(_causes(error))
    own = next(
        (cause for cause in causes if isinstance(cause, LanceAlignError) and not isinstance(cause, RayError)), None
    )
    if own is not None:
        own.args = (_first_line(own), *own.args[1:])  # Ray appends advice on its own settings
        return own
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return JobError(f"the disk is full: free space; {GO_ON}")
    if any(isinstance(cause, (OutOfMemoryError, ObjectStoreFullError, MemoryError)) for cause in causes):
        return JobError(f"memory ran out: use fewer actors or a smaller block_rows; {GO_ON}")
    if any(isinstance(cause, ActorDiedError) and "LedgerActor" in str(cause) for cause in causes):
        return JobError(f"the process that knows which ids are done died; {GO_ON}")
    if any(isinstance(cause, _DEATHS) for cause in causes):
        return JobError(f"a worker process died, or hung for stall_seconds, and so did its replacements; {GO_ON}")
    return JobError(f"{type(causes[-1]).__name__}: {_first_line(causes[-1])}; {GO_ON}")


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
