"""When the frames of a video are shown, and from where each can be decoded."""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import RowError

# 19 hours of 60 frames a second; 9 bytes are kept of each.
MAX_FRAMES = 2**22


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What the container says of its frames; none is decoded for it.

    Attributes:
        total: how many there are. They are counted: headers lie, and many say nothing.
        stored: their times in the order in which they are stored, int64, in the stream's unit; None where not every
            frame has one of its own.
        keys: places in that order of the key frames.
    """

    total: int
    stored: NDArray[np.int64] | None
    keys: NDArray[np.int64]

    @classmethod
    def read(cls, av: Any, container: Any, stream: Any) -> Timeline:
        """Go through the whole file once; one that breaks off has the frames before.

        Raises:
            RowError: `empty`, `too_large`.
            av.FFmpegError: not even the first frame can be found.
        """
        times, keys = array("q"), array("b")
        context = stream.codec_context
        # AVI holds no times of display: FFmpeg makes them up, wrongly where frames are not stored as they are shown.
        has_times = container.format.name != "avi" or not (context.has_b_frames or context.name in ("h264", "hevc"))
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:  # the end; or cut away by an edit
                    continue
                if len(times) == MAX_FRAMES:
                    raise RowError("too_large", f"more than {MAX_FRAMES} frames")
                has_times = has_times and packet.pts is not None
                times.append(packet.pts or 0)
                keys.append(packet.is_keyframe)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError) or not times:
                raise
        if not times:
            raise RowError("empty", "a video without frames")
        stored = np.frombuffer(times, dtype=np.int64)
        has_times = has_times and len(np.unique(stored)) == len(stored)
        return cls(len(times), stored if has_times else None, np.flatnonzero(np.frombuffer(keys, dtype=np.int8)))

    def times(self, places: Sequence[int]) -> list[int]:
        """When the frames are shown that are the first, second, … to be shown."""
        assert self.stored is not None
        return [int(time) for time in np.sort(self.stored)[list(places)]]

    def runs(self, times: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Ascending times grouped by the time of the frame from which they can be decoded."""
        assert self.stored is not None
        order = np.argsort(self.stored)
        places = order[np.searchsorted(self.stored, times, sorter=order)]
        keys = [self._key(time, int(place)) for time, place in zip(times, places, strict=True)]
        for key, group in itertools.groupby(zip(keys, times, strict=True), key=lambda pair: pair[0]):
            yield key, [time for _, time in group]

    def _key(self, time: int, place: int) -> int:
        """Of the key frames stored before, the last that is not shown later: what is shown before it needs another.

        The first frame where there is none: damage may hide that one is a key frame.
        """
        assert self.stored is not None
        before = self.stored[self.keys[: np.searchsorted(self.keys, place, side="right")]]
        fit = np.flatnonzero(before <= time)
        return int(before[fit[-1]] if len(fit) else self.stored[0])
