"""Frames of an opened container in the order in which they are shown, without those that damage has touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class LostError(Exception):
    """The container's times do not lead to its frames; they can be counted from the start."""


def enter(av: Any, container: Any, stream: Any, key: int) -> None:
    """Go to the key frame that is shown at a time.

    Raises:
        LostError: there is no way to it.
    """
    try:
        container.seek(key, stream=stream)
    except av.FFmpegError:
        raise LostError from None


def good_frames(av: Any, container: Any, stream: Any, *, key: int | None, until: int) -> Iterator[tuple[int, Any]]:
    """Frames and their times, from where the container stands to the one shown at `until`, or a few more.

    After damage a codec goes on, and shows what it makes of frames that refer to lost ones. These are left out: only
    from the next key frame on is what it shows what was recorded.

    Args:
        key: the time of the key frame that comes first, after `enter`; None at the start, where frames are counted
            and their numbers are their times.
        until: the last time of interest.

    Raises:
        LostError: the container stands behind the key frame, or its times are not in the order of the frames, as those
            that FFmpeg makes up for H.264 in AVI.
    """
    counts = key is None
    damaged: int | None = None  # since when
    number, latest = -1, None
    for place, packet in enumerate(_packets(av, container, stream)):
        if place == 0 and not counts and (packet is None or packet.pts is None or packet.pts > key):
            raise LostError
        ends = packet is None or (
            not counts and packet.is_keyframe and packet.dts is not None and packet.dts > until
        )  # frames are stored no later than they are shown, so none of interest is behind such a packet
        since = None if ends else place if counts else packet.pts
        try:
            frames = stream.codec_context.decode(None if ends else packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            frames = []
            damaged = _earlier(damaged, since)
        for frame in frames:
            number += 1
            time = number if counts else frame.pts
            if time is None:
                raise LostError
            if frame.is_corrupt:
                damaged = _earlier(damaged, time)
            elif frame.key_frame and damaged is not None and time > damaged:
                damaged = None
            if damaged is not None and time >= damaged:
                continue
            if latest is not None and time <= latest:
                raise LostError
            latest = time
            yield time, frame
        if ends:
            return


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, then None; a file that breaks off ends there."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except MemoryError:
        raise
    except av.FFmpegError:
        pass
    yield None


def _earlier(damaged: int | None, time: int | None) -> int | None:
    return time if damaged is None else damaged if time is None else min(damaged, time)
