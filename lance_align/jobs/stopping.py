"""SIGTERM and Ctrl-C end a run between two commits: what is written by then is committed, and Ray is stopped.

`ray job stop`, Kubernetes and service managers send SIGTERM, and SIGKILL some seconds later.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Wrappers such as `timeout` pass a signal on that the process got already; people are not that fast.
_SAME_SIGNAL_S = 0.3


class Stopped(KeyboardInterrupt):
    """A signal asked this run to stop.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_status(self) -> int:
        """What a shell expects: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


_held = 0  # blocks that must not be interrupted, one inside the other
_waiting: int | None = None  # the signal that came meanwhile
_first: tuple[int, float] | None = None  # the signal that a run is ending for, and when it came


@contextmanager
def stopping() -> Iterator[None]:
    """Raise `Stopped` in the main thread when SIGINT or SIGTERM arrives; a second SIGINT leaves at once, with 130.

    Outside the main thread, where Python handles no signals, nothing changes. Blocks may be nested: the inner one
    takes the signals back from what was started in between (Ray handles SIGTERM too).
    """
    global _first, _waiting
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as error:  # Ray's core asks for signals itself, and raises its own
        raise (Stopped(_first[0]) if _first is not None else error) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if _on_signal not in before.values():
            _first = _waiting = None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal wait until the block has ended; one that is stopped half-way would not know what it has done."""
    global _held, _waiting
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if _held == 0 and _waiting is not None:
        number, _waiting = _waiting, None
        raise Stopped(number)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _first, _waiting
    del frame
    now = time.monotonic()
    if _first is not None:  # on the way out already
        if number == signal.SIGINT and now - _first[1] > _SAME_SIGNAL_S:
            os._exit(128 + number)
        return
    _first = (number, now)
    if _held:
        _waiting = number
        return
    raise Stopped(number)
