"""The decoder's process from inside: one question after the other, under limits, until the parent is gone."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from lance_align import faults, images, videos
from lance_align.errors import MissingExtraError, RowError
from lance_align.sandbox import frames
from lance_align.sandbox.asking import Asking
from lance_align.sandbox.decoder import Decoder
from lance_align.sandbox.pictures import PictureDecoder
from lance_align.sandbox.process import OUT_OF_MEMORY

try:
    import resource as _resource
except ImportError:  # Windows
    resource: Any = None
else:
    resource = _resource

# Decoding needs no file; tests keep small counts of their faults in some.
FILE_BYTES = 2**20
OPEN_FILES = 32
GRACE_S = 5.0
TRIED_BYTES = 2**30  # of address space, to see whether it can be limited


def serve() -> None:
    """Answer questions on standard input, a socket, until its other end is closed."""
    channel = _channel()
    with suppress(RowError):
        images.decode(b"")  # without Pillow this process ends here, and the parent says why
    frames.send(channel, json.dumps({"unlimited": _confine()}).encode())
    while True:
        try:
            question, data = frames.receive(channel)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except (EOFError, OSError):
            return
        decoder = _decoder(question)
        _limit("RLIMIT_AS", decoder.memory_mb * 2**20, for_good=False)
        # The parent ends a hang. Should it die meanwhile, the kernel does: SIGALRM's own action needs no Python.
        # (A parent-death signal would also come when only the thread that started this process ends.)
        _alarm(decoder.seconds + GRACE_S)
        header, payload = _answer(decoder, data)
        _alarm(0)
        del data
        with suppress(OSError):
            frames.send(channel, header, payload)


def _channel() -> socket.socket:
    if sys.platform == "win32":  # where a socket is no file; the parent has written which it is
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=os.dup(0))


def _confine() -> list[str]:
    """Nothing reaches the user's terminal, no core is dumped, hardly a file can be written, Ctrl-C is the parent's.

    Returns:
        what this system lets nobody limit: macOS has no limit of memory, Windows has none at all.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    unlimited = []
    for what, name, most in (
        ("core dumps", "RLIMIT_CORE", 0),
        ("files written", "RLIMIT_FSIZE", FILE_BYTES),
        ("open files", "RLIMIT_NOFILE", OPEN_FILES),
    ):
        if not _limit(name, most, for_good=True):
            unlimited.append(what)
    if not (_limit("RLIMIT_AS", TRIED_BYTES, for_good=False) and _limit("RLIMIT_AS", None, for_good=False)):
        unlimited.append("memory")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray's workers block some, and that is inherited
    return unlimited


def _alarm(seconds: float) -> None:
    """End this process after so many seconds; 0 for never."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(name: str, most: int | None, *, for_good: bool) -> bool:
    """Set a limit of this process, None for the highest; whether that could be done."""
    try:
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        if most is None or (hard != resource.RLIM_INFINITY and most > hard):
            most = hard
        resource.setrlimit(kind, (most, most if for_good else hard))
    except (AttributeError, ValueError, OSError):
        return False
    return True


@functools.lru_cache(maxsize=8)
def _decoder(question: bytes) -> Asking:
    """The settings of a question; PyAV is loaded for the first of a model of videos, before memory is limited."""
    if "max_side_px" in json.loads(question):
        return PictureDecoder.from_json(question)
    decoder = Decoder.from_json(question)
    if decoder.image.frames is not None:
        with suppress(MissingExtraError):  # each video will say so
            videos.pyav()
    return decoder


def _answer(decoder: Asking, data: bytearray) -> tuple[bytes, bytes]:
    """The answer to one question, as JSON and bytes; see `lance_align.sandbox`."""
    try:
        faults.reach("decode", lambda: bytes(data))
        header, payload = decoder.answer(data)
        return json.dumps(header).encode(), payload
    except RowError as error:
        return json.dumps({"kind": error.kind, "detail": error.detail}).encode(), b""
    except MemoryError:
        return b'{"kind": "memory", "detail": ""}', b""
    except Exception as error:  # noqa: BLE001 - whatever it is, the row gets it as its reason
        return json.dumps({"crash": f"{type(error).__name__}: {error}"[:1000]}).encode(), b""
