"""Bytes to an opened container: closed lists of formats and codecs, nothing but these bytes, headers checked first."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lance_align.errors import MissingExtraError, RowError
from lance_align.images import DecodeLimits

FORMATS = "MP4, MOV, WebM, MKV or AVI"
# FFmpeg's names of the decoders that may run. The rest of its hundreds are seldom met and seldom looked after.
CODECS = (
    "h264",
    "hevc",
    "libdav1d",
    "vp8",
    "vp9",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "h263",
    "mjpeg",
    "prores",
)
# Atoms that a QuickTime file may begin with; `ftyp` came with MP4.
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
# AVIF and HEIC are pictures in a container of MP4's kind.
_STILLS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


def is_video(data: bytes | bytearray | memoryview) -> bool:
    """Whether the first bytes are those of a container that `opened` opens."""
    return _format(data) is not None


def check_installed() -> None:
    """Say at once what the first video would say; nothing is imported.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError("av", "video")


def pyav() -> Any:
    """PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    check_installed()
    import av

    return av


@contextmanager
def opened(data: bytes | bytearray | memoryview, *, limits: DecodeLimits) -> Iterator[tuple[Any, Any]]:
    """A PyAV container and its first stream of moving pictures, not yet decoded.

    FFmpeg is told which format to read, for it would take a playlist for a video and open what the list names; what
    a video itself refers to is not opened either. Sound and subtitles are neither read nor decoded.

    Raises:
        RowError: `format`; as `check_pixels`, by the header.
        av.FFmpegError: the container is damaged.
    """
    av = pyav()
    # They also hold while FFmpeg looks for the streams, when it may decode a frame of each.
    options = {"max_pixels": str(limits.max_pixels), "codec_whitelist": ",".join(CODECS), "threads": "1"}
    with av.open(
        _Memory(data), "r", format=_format(data), options=options, metadata_errors="replace", io_open=_refuse
    ) as container:
        stream = _moving_pictures(av, container)
        context = stream.codec_context
        check_pixels(context.width, context.height, limits)
        context.options = {"max_pixels": str(limits.max_pixels)}
        context.thread_count = 1  # each thread would hold frames of its own
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        yield container, stream


def check_pixels(width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse a frame by its size.

    Raises:
        RowError: `too_large`; `unreadable` where the size is 0, as FFmpeg gives it for damaged headers, and with some
            codecs for sizes above the limit.
    """
    if width * height == 0:
        raise RowError("unreadable", f"frames of no known size, or of more than {limits.max_pixels} pixels")
    if width * height > limits.max_pixels:
        raise RowError("too_large", f"frames of {width}x{height} pixels, the limit is {limits.max_pixels} in all")


def _format(data: bytes | bytearray | memoryview) -> str | None:
    """FFmpeg's name of the container's format; None for anything else."""
    head = bytes(data[:12])
    if head[4:8] in _ATOMS and head[8:12] not in _STILLS:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    return None


def _moving_pictures(av: Any, container: Any) -> Any:
    for stream in container.streams:
        if stream.type == "video" and not stream.disposition & av.stream.Disposition.attached_pic:
            codec = None if stream.codec_context is None else stream.codec_context.codec.name
            if codec not in CODECS:
                raise RowError("format", f"a video of codec {codec or 'unknown'}; expected one of {', '.join(CODECS)}")
            return stream
    kinds = ", ".join(stream.type for stream in container.streams) or "none"
    raise RowError("format", f"a file without moving pictures (its streams: {kinds})")


def _refuse(url: str, *_: object) -> Any:
    raise PermissionError(f"a video refers to {url!r:.60}, which is not opened")


class _Memory:
    """A file in memory; `io.BytesIO` would copy a bytearray."""

    name = ""  # PyAV hands it to FFmpeg as the URL

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data)
        self._place = 0

    def read(self, size: int) -> bytes:
        found = bytes(self._view[self._place : self._place + size])
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: len(self._view)}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place
