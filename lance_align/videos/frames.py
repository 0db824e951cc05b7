"""Some frames of a video as a model's pixels, each decoded from the key frame before it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from lance_align import images
from lance_align.errors import RowError
from lance_align.images import DEFAULT_LIMITS, DecodeLimits, Pixels
from lance_align.spec import ImageSpec
from lance_align.videos.decoding import LostError, enter, good_frames
from lance_align.videos.opening import check_pixels, opened, pyav
from lance_align.videos.sampling import sampled_places, standing_in
from lance_align.videos.timeline import Timeline


def pixels_and_thumbnail(
    data: bytes | bytearray | memoryview,
    spec: ImageSpec,
    *,
    thumbnail_px: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> tuple[Pixels, bytes | None]:
    """Decode ``spec.frames`` frames of a video to what the model takes.

    They are those of `sampled_places` among all that the container holds, in the order in which they are shown; of a
    file that ends early, among those that it has. In place of a frame that the codec finds damaged, or that refers to
    such a one, comes the last good one before it, else the first good one after it.

    However long the video is, memory holds its file, the frames that its codec refers to, and one more. What lies
    between a wanted frame and the next key frame is read, but not decoded; only where the container's times are missing
    or wrong (old AVI files) is all decoded. Frames are turned upright as the header says.

    Args:
        data: the file's content.
        spec: the geometry of the model's input, with `frames`.
        thumbnail_px: longest side of a thumbnail of the first frame that is taken; None for no thumbnail.
        limits: what the file and each frame may be; its `formats` are of pictures.

    Returns:
        uint8 ``(frames, crop height, crop width, 3)``, and a JPEG or None.

    Raises:
        RowError: `empty`, `too_large`, `format`, `unreadable` or `memory`.
        MissingExtraError: PyAV is not installed.
    """
    av = pyav()
    images.check_size(data, limits=limits)
    taker = _Taker(spec, limits, thumbnail_px)
    try:
        samples = _sampled(av, data, spec.frames or 1, taker)
    except RowError:
        raise
    except MemoryError:
        raise RowError("memory", "not enough memory to decode it") from None
    except av.FFmpegError as error:
        raise RowError("unreadable", f"{error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - as in images: what hostile files make decoders raise is not known
        raise RowError("unreadable", f"{type(error).__name__}: {error}") from None
    chosen = standing_in(samples)
    if not chosen:
        raise RowError("unreadable", "none of its frames can be decoded")
    return np.stack(chosen), taker.thumbnail


class _Taker:
    """Reduces frames to what the model takes."""

    def __init__(self, spec: ImageSpec, limits: DecodeLimits, thumbnail_px: int | None) -> None:
        self.limits = limits
        self.thumbnail: bytes | None = None
        self._spec, self._thumbnail_px = spec, thumbnail_px

    def take(self, frame: Any) -> Pixels:
        """uint8 ``(crop height, crop width, 3)``."""
        check_pixels(frame.width, frame.height, self.limits)  # another than the header's, perhaps
        image = frame.to_image()
        if frame.rotation:
            image = image.rotate(frame.rotation, expand=True)
        if self._thumbnail_px is not None and self.thumbnail is None:
            self.thumbnail = images.encode_thumbnail(image, max_side=self._thumbnail_px)
        return images.to_pixels(image, self._spec)


def _sampled(av: Any, data: bytes | bytearray | memoryview, frames: int, taker: _Taker) -> list[Pixels | None]:
    """The pixels of the wanted frames; None for those that cannot be had."""
    with ExitStack() as stack:
        container, stream = stack.enter_context(opened(data, limits=taker.limits))
        timeline = Timeline.read(av, container, stream)
        places = sampled_places(timeline.total, frames)
        if timeline.stored is not None:
            try:
                times = timeline.times(places)
                taken: dict[int, Pixels] = {}
                for key, run in timeline.runs(sorted(set(times))):
                    enter(av, container, stream, key)
                    found, is_whole = _taken(av, container, stream, run, taker, key=key)
                    taken |= found
                    if not is_whole:  # damage may have changed the decoder's mind for good
                        stack.close()
                        container, stream = stack.enter_context(opened(data, limits=taker.limits))
                return [taken.get(time) for time in times]
            except LostError:
                pass
        stack.close()
        container, stream = stack.enter_context(opened(data, limits=taker.limits))
        taken, _ = _taken(av, container, stream, sorted(set(places)), taker, key=None)
        return [taken.get(place) for place in places]


def _taken(
    av: Any, container: Any, stream: Any, times: Sequence[int], taker: _Taker, *, key: int | None
) -> tuple[dict[int, Pixels], bool]:
    """The pixels of the frames shown at ascending times, and whether no other stands in for one of them.

    Times before which nothing good is shown are left out.
    """
    taken: dict[int, Pixels] = {}
    wanted, last, exact = list(reversed(times)), None, 0
    for time, frame in good_frames(av, container, stream, key=key, until=times[-1]):
        while wanted and time > wanted[-1]:
            missing = wanted.pop()
            if last is not None:
                taken[missing] = taker.take(last)
        if wanted and time == wanted[-1]:
            taken[wanted.pop()] = taker.take(frame)
            exact += 1
        if not wanted:
            break
        last = frame
    if last is not None:
        taken |= {missing: taker.take(last) for missing in reversed(wanted)}
    return taken, exact == len(times)
