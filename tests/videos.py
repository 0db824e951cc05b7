"""Small videos for tests: a square that moves over a colour that changes, encoded here."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

RATE = 25


def picture(number: int, *, seed: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
    """Frame `number` of a video, ``(height, width, 3) uint8``; no two of one video are equal."""
    red, green, blue = np.random.default_rng(seed).integers(40, 216, 3).tolist()
    pixels = np.full((height, width, 3), ((red + 5 * number) % 256, green, (blue + 3 * number) % 256), np.uint8)
    left = (3 * number + 7 * seed) % (width - 12)
    pixels[height // 4 : height // 4 + 12, left : left + 12] = (255 - red, 255 - green, 255 - blue)
    return pixels


def film(
    frames: int = RATE,
    *,
    seed: int = 0,
    container: str = "mp4",
    codec: str = "libx264",
    key_every: int = 12,
    options: Mapping[str, str] | None = None,
    width: int = 64,
    height: int = 48,
    turned: int = 0,
) -> bytes:
    """A video file.

    Args:
        turned: degrees counter-clockwise by which a player turns its frames.
    """
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=RATE)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = {"g": str(key_every), **(options or {})}
        if turned:
            stream.set_display_rotation(turned)
        file.start_encoding()  # else a file without frames would be empty
        for number in range(frames):
            pixels = picture(number, seed=seed, width=width, height=height)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def sound() -> bytes:
    """An MP4 file of a second of silence."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream: Any = file.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.rate = 16000
        file.mux(stream.encode(silence))
        file.mux(stream.encode(None))
    return out.getvalue()


def decoded(data: bytes) -> list[Image.Image]:
    """Every frame, decoded from the first to the last as transformers' `read_video_pyav` does."""
    with av.open(io.BytesIO(data)) as file:
        return [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


def packets(data: bytes) -> list[tuple[int, int]]:
    """Where each frame lies in the file, in the order in which they are stored: (position, bytes)."""
    with av.open(io.BytesIO(data)) as file:
        return [(int(packet.pos or 0), packet.size) for packet in file.demux(video=0) if packet.size]


def damaged(data: bytes, places: Sequence[int]) -> bytes:
    """The content of some frames overwritten with zeros."""
    found, broken = packets(data), bytearray(data)
    for position, size in (found[place] for place in places):
        broken[position + 4 : position + size] = bytes(size - 4)
    return bytes(broken)


def repeated(data: bytes, times: int) -> bytes:
    """A video of the same frames over and over, made without encoding them again."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format="mp4") as file:
        stream = source.streams.video[0]
        copy = file.add_stream_from_template(stream)
        once = [packet for packet in source.demux(stream) if packet.size]
        span = sum(packet.duration or 0 for packet in once)
        for turn in range(times):
            for packet in once:
                again: Any = av.Packet(bytes(packet))
                again.pts, again.dts = (packet.pts or 0) + turn * span, (packet.dts or 0) + turn * span
                again.duration, again.time_base = packet.duration, packet.time_base
                again.is_keyframe, again.stream = packet.is_keyframe, copy
                file.mux(again)
    return out.getvalue()


def streamable(data: bytes, path: Path) -> bytes:
    """The same MP4 file with its header before its frames."""
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as file,
    ):
        stream = source.streams.video[0]
        copy = file.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                file.mux(packet)
    return path.read_bytes()


def elsewhere(data: bytes, path: Path) -> bytes:
    """The same MP4 file with zeros for frames, and a header that says they lie in another file (an alias of QuickTime).

    FFmpeg follows such a reference if it is told ``enable_drefs``.
    """
    start = data.index(b"dref") - 4
    (size,) = struct.unpack_from(">I", data, start)
    place, name = str(path).encode(), path.name.encode()
    alias = bytes(10) + b"\x04" + b"root".ljust(27, b"\0") + bytes(12)
    alias += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16 + 4 + 16)
    alias += struct.pack(">hh", 2, len(place)) + place + bytes(len(place) % 2) + struct.pack(">hh", -1, 0)
    entry = struct.pack(">I", len(alias) + 12) + b"alis" + bytes(4) + alias
    box = struct.pack(">I", len(entry) + 16) + data[start + 4 : start + 16] + entry
    found = bytearray(data[:start] + box + data[start + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = found.index(parent) - 4
        struct.pack_into(">I", found, at, struct.unpack_from(">I", found, at)[0] + len(box) - size)
    at = found.index(b"mdat") + 4
    (size,) = struct.unpack_from(">I", found, at - 8)
    found[at : at + size - 8] = bytes(size - 8)
    return bytes(found)
