"""The decoder's process as its parent sees it: started when first asked, ended when it fails, then replaced."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lance_align.errors import JobError, RowErrorKind
from lance_align.sandbox import frames

_log = logging.getLogger(__name__)

START_S = 60.0  # a start takes 0.2 s on an idle machine
OUT_OF_MEMORY = 12  # the status of a child that could not even hold the question; ENOMEM's number

# A bare package stands in for lance_align, whose own __init__ imports LanceDB to register with it: seconds, and 200 MB.
# -S and the parent's sys.path: the child finds what its parent finds, wherever that came from, and runs no site hooks.
_BOOT = """
import json, sys, types
sys.path[:] = json.loads(sys.argv[2])
package = types.ModuleType("lance_align")
package.__path__ = [sys.argv[1]]
sys.modules["lance_align"] = package
from lance_align.sandbox.child import serve
serve()
"""
_PACKAGE = Path(__file__).parent.parent
# One thread and one arena of malloc: each would reserve tens of MB of the child's address space. Blocks up to 32 MB
# come from the heap, and some of it is kept: mapping memory anew for each picture doubled the time of a small JPEG.
_LEAN = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}


class Failure(Exception):  # noqa: N818 - never leaves the package: another process may do better
    """The process failed, not the image."""

    def __init__(self, kind: RowErrorKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: RowErrorKind = kind
        self.detail = detail


class DecoderProcess:
    """The one child of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._has_told = False

    @property
    def pid(self) -> int | None:
        """Of the running child; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def ask(
        self, question: bytes, data: bytes | bytearray | memoryview, seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Put one question and wait for its answer, `seconds` at most and not longer than `max_bytes`.

        Raises:
            Failure: the child died, hung or talked nonsense; it is gone by now.
            JobError: no child could be started.
        """
        with self._lock:
            try:
                return self._exchange(question, data, seconds, max_bytes)
            except BaseException:
                self.end()  # also when this thread was interrupted: the next answer would be to the last question
                raise

    def end(self) -> None:
        """Kill the child, if there is one; the next question starts another."""
        with self._lock:
            process, channel = self._process, self._channel
            self._process = self._channel = None
            if channel is not None:
                channel.close()
            if process is not None:
                process.kill()
                process.wait()
                if process.stderr is not None:
                    process.stderr.close()

    def forget(self) -> None:
        """After a fork: child, channel and lock are the parent's."""
        if self._process is not None:
            self._process.returncode = 0  # not ours to wait for
        if self._channel is not None:
            self._channel.close()
        self._lock, self._process, self._channel = threading.RLock(), None, None

    def _exchange(
        self, question: bytes, data: bytes | bytearray | memoryview, seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], bytearray]:
        channel = self._running()
        ends_at = time.monotonic() + seconds
        try:
            frames.send(channel, question, data, ends_at=ends_at)
            header, payload = frames.receive(channel, max_bytes=max_bytes, ends_at=ends_at)
            return frames.parse(header), payload
        except TimeoutError:
            raise Failure("timeout", f"not decoded within the {seconds:g} s of decode_seconds") from None
        except (OSError, EOFError, ValueError):
            raise self._death() from None

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.end()  # it died between two images, which is neither's fault
        return self._channel or self._start()

    def _start(self) -> socket.socket:
        self._channel, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BOOT,
            str(_PACKAGE),
            json.dumps([str(entry) for entry in sys.path]),
        ]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our interpreter and our program
                    command,
                    stdin=subprocess.PIPE if sys.platform == "win32" else theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,  # the child lets go of it when it is ready
                    env=os.environ | _LEAN,
                )
                if sys.platform == "win32":
                    assert self._process.stdin is not None
                    with self._process.stdin as stdin:
                        stdin.write(theirs.share(self._process.pid))
            ready, _ = frames.receive(self._channel, max_bytes=0, ends_at=time.monotonic() + START_S)
            self._tell(frames.parse(ready))
        except (OSError, EOFError, ValueError) as error:
            raise JobError(
                f"the image decoder did not start ({self._last_words(error)}); see that this node has memory and "
                "processes left and that Pillow can be imported, then run the same command again"
            ) from error
        assert self._process.stderr is not None
        self._process.stderr.close()
        return self._channel

    def _tell(self, ready: dict[str, Any]) -> None:
        """Say once what the child could not limit."""
        unlimited = ready.get("unlimited")
        if unlimited and not self._has_told:
            self._has_told = True
            _log.warning(
                "pictures are decoded without a limit of %s, which this system cannot set; decode_seconds holds",
                ", ".join(unlimited),
            )

    def _last_words(self, error: Exception) -> str:
        """The last line that a child said which never was ready."""
        process = self._process
        said = b""
        if process is not None:
            process.kill()
            said = process.communicate()[1]
            self.end()
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else str(error) or type(error).__name__

    def _death(self) -> Failure:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # the channel closes a moment before the status is there
        status = self._process.poll()
        if status == OUT_OF_MEMORY:
            return Failure("memory", "the encoded image alone takes more than decode_memory_mb")
        return Failure("crash", f"the decoder's process {_described(status)}")


def _described(status: int | None) -> str:
    if status is None:
        return "gave an answer that makes no sense"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


decoder_process = DecoderProcess()
atexit.register(decoder_process.end)
if hasattr(os, "register_at_fork"):  # which Windows has not, nor forks
    os.register_at_fork(after_in_child=decoder_process.forget)


def decoder_pid() -> int | None:
    """The process id of the decoder of this process; None before the first image and after a failure."""
    return decoder_process.pid
