"""Rows to a model in batches it can take: an error costs the rows that cause it, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lance_align import faults
from lance_align.encoders.base import Embeddings, Vectors
from lance_align.encoders.devices import is_device_lost
from lance_align.encoders.memory import free_memory, is_out_of_memory
from lance_align.errors import JobError, LanceAlignError, RowError
from lance_align.jobs import watchdog

# More rows than this are given in parts, each of them a sign of life: about six minutes of align-base on two cores.
MAX_ROWS = 1024
# A row that fails by itself is tried so often before it is blamed: the error may have been a passing one.
ATTEMPTS_ALONE = 3

Rows = NDArray[np.uint8] | Sequence[Any]
Outcome = tuple[Sequence[Any] | NDArray[Any], Sequence[str | None]]  # a value and a reason or None for each row


class Batches:
    """Cuts rows into batches for one model in one process, and remembers how many fit.

    A batch that fails is halved and tried again, down to one row. A row that fails alone gets the error as its reason.
    Memory that ran out halves all later batches too: what did not fit once will not fit the next time. A device that is
    lost ends a worker process, which Ray replaces; without one it ends the job.

    Args:
        max_rows: most rows at once, before anything did not fit.

    Attributes:
        halved: how often a batch did not fit and the size of all later ones was halved.
    """

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self.halved = 0

    def embed(self, rows: Rows, model: Callable[[Any], Embeddings], *, dim: int) -> tuple[Vectors, list[str | None]]:
        """The vectors of n rows, and the reason of each row that has none.

        Args:
            rows: pixels ``(n, height, width, 3) uint8``, or n texts; n may be 0.
            model: called with consecutive parts of `rows`.
            dim: length of a vector.

        Returns:
            ``(n, dim) float32`` with zeros where there is a reason, and n reasons or None.

        Raises:
            JobError, LanceAlignError: as `fill`.
        """

        def embed(part: Any) -> Outcome:
            embedded = model(part)
            return embedded.vectors, embedded.reasons

        vectors = np.zeros((len(rows), dim), dtype=np.float32)
        return vectors, self.fill(vectors, rows, embed)

    def fill(self, values: NDArray[Any], rows: Rows, model: Callable[[Any], Outcome]) -> list[str | None]:
        """Put what the model makes of n rows into `values`, and tell the reasons.

        Args:
            values: ``(n, …)``; a row whose batch fails alone is left as it is.
            rows: of any kind that can be cut into consecutive parts; n may be 0.
            model: called with such parts.

        Raises:
            JobError: every row of several failed, or a row failed that succeeded before, or the device is lost: it is
                not the rows' fault.
            LanceAlignError: the model itself raised one, other than a `RowError`.
        """
        reasons: list[str | None] = [None] * len(rows)
        failed: list[int] = []
        last: Exception | None = None
        parts = [(0, len(rows))] if len(rows) else []
        while parts:
            start, end = parts.pop()
            if end - start > self._max_rows:
                parts += reversed([(at, min(end, at + self._max_rows)) for at in range(start, end, self._max_rows)])
                continue
            outcome = _attempt(rows[start:end], model)
            if not isinstance(outcome, Exception):
                values[start:end], reasons[start:end] = outcome
            elif end - start == 1:
                failed.append(start)
                reasons[start] = _reason(outcome)
                last = outcome
            else:
                self._remember(outcome, end - start)
                middle = (start + end + 1) // 2
                parts += [(middle, end), (start, middle)]
        if last is not None:
            _check_blame(rows, model, failed, last)
        return reasons

    def _remember(self, error: Exception, size: int) -> None:
        if is_out_of_memory(error):
            self.halved += 1
            self._max_rows = (size + 1) // 2


def _attempt(rows: Rows, model: Callable[[Any], Outcome]) -> Outcome | Exception:
    """What the model gives, or the error it raises; a lone row has several attempts."""
    error: Exception | None = None
    for _ in range(ATTEMPTS_ALONE if len(rows) == 1 else 1):
        watchdog.beat()
        try:
            faults.reach("encode", lambda: _bytes(rows), len(rows))
            return model(rows)
        except RowError as raised:
            error = raised
        except LanceAlignError:
            raise
        except Exception as raised:  # noqa: BLE001  torch raises almost anything; which rows it concerns is found out
            error = raised.with_traceback(None)  # the frames hold the tensors that did not fit
        if is_out_of_memory(error):
            free_memory()
        elif is_device_lost(error):
            _leave(error)
    assert error is not None
    return error


def _check_blame(rows: Rows, model: Callable[[Any], Outcome], failed: list[int], error: Exception) -> None:
    """Raise unless some row still succeeds: a device that is gone fails the innocent as well."""
    good = min(set(range(len(rows))).difference(failed), default=None)
    if good is None and len(rows) > 1:
        raise JobError(f"the model failed on each of {len(rows):,} rows: {_reason(error)}; no row is blamed for that")
    if good is not None and isinstance(_attempt(rows[good : good + 1], model), Exception):
        raise JobError(f"the model stopped working: {_reason(error)}; run the same command again to go on")


def _reason(error: Exception) -> str:
    if isinstance(error, RowError):
        return str(error)
    text = (str(error).strip().splitlines() or ["no message"])[0]
    return str(RowError("memory" if is_out_of_memory(error) else "encode", f"{type(error).__name__}: {text}"))


def _leave(error: Exception) -> NoReturn:
    """End a worker whose device answers with errors from now on: another process can do its work, this one cannot."""
    lost = f"the device of this process is lost: {_reason(error)}"
    watchdog.give_up(lost)
    raise JobError(f"{lost}; run the same command again to go on") from None


def _bytes(rows: Rows) -> bytes:
    return (
        rows.tobytes() if isinstance(rows, np.ndarray) else "\n".join(map(str, rows)).encode("utf-8", "surrogatepass")
    )
