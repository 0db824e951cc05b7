"""Messages between a process and its decoder: JSON, then bytes, each announced with its length."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

MAX_HEADER_BYTES = 2**16
_LENGTHS = struct.Struct(">IQ")  # of the JSON and of the bytes


def send(
    channel: socket.socket,
    header: bytes,
    payload: bytes | bytearray | memoryview = b"",
    *,
    ends_at: float | None = None,
) -> None:
    """Send one message.

    Args:
        header: JSON.
        payload: any bytes.
        ends_at: of `time.monotonic`; None waits for ever.

    Raises:
        TimeoutError: the other side did not take it in time.
        OSError: the other side is gone.
    """
    for part in (_LENGTHS.pack(len(header), len(payload)) + header, payload):
        _allow(channel, ends_at)
        channel.sendall(part)


def receive(
    channel: socket.socket, *, max_bytes: int | None = None, ends_at: float | None = None
) -> tuple[bytes, bytearray]:
    """Receive one message: its JSON, not parsed, and its bytes.

    Args:
        max_bytes: most bytes after the JSON that are taken.
        ends_at: of `time.monotonic`; None waits for ever.

    Raises:
        TimeoutError: it did not arrive in time.
        EOFError: the other side is gone.
        OSError: the same, in the middle of something.
        ValueError: it is longer than it may be.
    """
    header_bytes, payload_bytes = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, ends_at))
    if header_bytes > MAX_HEADER_BYTES or (max_bytes is not None and payload_bytes > max_bytes):
        raise ValueError(f"a message of {header_bytes} + {payload_bytes} bytes")
    return bytes(_exactly(channel, header_bytes, ends_at)), _exactly(channel, payload_bytes, ends_at)


def parse(header: bytes) -> dict[str, Any]:
    """The JSON object of a message.

    Raises:
        ValueError: it is none.
    """
    value: Any = json.loads(header)
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} is no message")
    return value


def _exactly(channel: socket.socket, size: int, ends_at: float | None) -> bytearray:
    data = bytearray(size)
    missing = memoryview(data)
    while missing:
        _allow(channel, ends_at)
        taken = channel.recv_into(missing)
        if taken == 0:
            raise EOFError
        missing = missing[taken:]
    return data


def _allow(channel: socket.socket, ends_at: float | None) -> None:
    """Let the next call take what is left of the time; 0 would mean: do not wait at all."""
    channel.settimeout(None if ends_at is None else max(ends_at - time.monotonic(), 1e-3))
