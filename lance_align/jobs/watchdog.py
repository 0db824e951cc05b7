"""Ends a worker process that makes no progress, or can make none, so that Ray tries its work again elsewhere.

Python's `faulthandler` keeps the time in a thread that needs no interpreter lock: it also ends a process that hangs
inside C code. Where the process hung stands in Ray's log of that worker.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

DEFAULT_STALL_SECONDS = 900.0
# Winding up starts a thread, about 50 microseconds: signs of life that come faster than this are passed over.
_REST_S = 0.2

_stall_seconds: float | None = None
_wound_up = 0.0
_last_beat = 0.0


@contextmanager
def watched(stall_seconds: float) -> Iterator[None]:
    """End this process with status 1 when no `beat` comes for so long inside the block. Not to be nested."""
    global _stall_seconds
    _stall_seconds = stall_seconds
    _wind_up()
    try:
        yield
    finally:
        _stall_seconds = None
        faulthandler.cancel_dump_traceback_later()


def beat() -> None:
    """A sign of life; costs next to nothing outside a watched block."""
    global _last_beat
    _last_beat = time.monotonic()
    if _stall_seconds is not None and time.monotonic() - _wound_up > min(_REST_S, _stall_seconds / 10):
        _wind_up()


def give_up(reason: str) -> None:
    """End this process with status 1 if it is watched, for what is wrong with it goes on; else do nothing."""
    if _stall_seconds is not None:
        stream = sys.__stderr__ or sys.stderr
        print(reason, file=stream, flush=True)
        os._exit(1)


def quiet_s() -> float:
    """Seconds since the last sign of life of this process."""
    return time.monotonic() - _last_beat


def watched_items(items: Iterable[T], stall_seconds: float) -> Iterator[T]:
    """The items, each of them made under watch; the time their taker takes does not count."""
    iterator = iter(items)
    while True:
        with watched(stall_seconds):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _wind_up() -> None:
    global _wound_up
    assert _stall_seconds is not None
    _wound_up = time.monotonic()
    faulthandler.dump_traceback_later(_stall_seconds, exit=True, file=sys.__stderr__ or sys.stderr)
