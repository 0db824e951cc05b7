"""Whatever a model looks at, to its pixels: pictures (`images`) or, where the spec has `frames`, videos (`videos`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lance_align import images, videos
from lance_align.errors import RowError
from lance_align.images import DEFAULT_LIMITS, DecodeLimits, ImageInput
from lance_align.spec import ImageSpec

# What the encoders take for one row; None stays None.
VisualInput: TypeAlias = "ImageInput | Sequence[ImageInput | None]"
Pixels: TypeAlias = NDArray[np.uint8]  # ImageSpec.shape


def check_installed(spec: ImageSpec) -> None:
    """Say at once what the first row would say.

    Raises:
        MissingExtraError: the model looks at videos, and PyAV is not installed.
    """
    if spec.frames is not None:
        videos.check_installed()


def pixels_and_thumbnail(
    data: bytes | bytearray | memoryview,
    spec: ImageSpec,
    *,
    thumbnail_px: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> tuple[Pixels, bytes | None]:
    """Decode one file to what the model takes, and to a thumbnail if asked.

    A model of pictures takes what `images.pixels_and_thumbnail` takes, one of videos what `videos.pixels_and_thumbnail`
    takes; a picture is a video of one frame to it.

    Returns:
        uint8 ``spec.shape``, and a JPEG or None.

    Raises:
        RowError: as these.
        MissingExtraError: as these.
    """
    if spec.frames is None:
        return images.pixels_and_thumbnail(data, spec, thumbnail_px=thumbnail_px, limits=limits)
    if videos.is_video(data):
        return videos.pixels_and_thumbnail(data, spec, thumbnail_px=thumbnail_px, limits=limits)
    try:
        pixels, thumbnail = images.pixels_and_thumbnail(data, spec, thumbnail_px=thumbnail_px, limits=limits)
    except RowError as error:
        if error.kind != "format":
            raise
        raise RowError("format", f"no video ({videos.FORMATS}), and {error.detail}") from None
    return np.stack([pixels] * spec.frames), thumbnail


def read_pixels(value: VisualInput, spec: ImageSpec, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Pixels:
    """Any accepted form of one picture or video to what the model takes.

    Args:
        value: as `images.load`. For a model of videos: encoded bytes or a local path of a video or picture; or frames,
            as a sequence of what `images.load` takes or as one uint8 array ``(n, h, w, 3)``, n above 0. Frames are
            sampled as `videos.sampled_places` says; in place of one that cannot be read comes the last good one before
            it, else the first good one after it.
        spec: the geometry of the model's input.
        limits: what encoded bytes and files may be.

    Returns:
        uint8 ``spec.shape``.

    Raises:
        RowError: as `pixels_and_thumbnail`; `missing` for a path that cannot be read, `type` for anything else, `empty`
            for no frames; where no frame can be read, why the first cannot.
    """
    if spec.frames is None:
        return images.read_pixels(value, spec, limits=limits)  # type: ignore[arg-type]  # which refuses a sequence
    if isinstance(value, (str, Path)):
        value = images.read_file(Path(value), limits)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return pixels_and_thumbnail(value, spec, limits=limits)[0]
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 4):
        return _of_frames(value, spec, spec.frames, limits)
    return np.stack([images.read_pixels(value, spec, limits=limits)] * spec.frames)  # type: ignore[arg-type]


def _of_frames(
    value: Sequence[ImageInput | None] | NDArray[np.uint8], spec: ImageSpec, frames: int, limits: DecodeLimits
) -> Pixels:
    if len(value) == 0:
        raise RowError("empty", "a video without frames")
    places = videos.sampled_places(len(value), frames)
    read: dict[int, Pixels | None] = {}
    first: RowError | None = None
    for place in dict.fromkeys(places):
        frame = value[place]
        try:
            if frame is None:
                raise RowError("null", "no image")
            read[place] = images.read_pixels(frame, spec, limits=limits)
        except RowError as error:
            read[place] = None
            first = first or error
    chosen = videos.standing_in([read[place] for place in places])
    if not chosen:
        assert first is not None
        raise first
    return np.stack(chosen)
