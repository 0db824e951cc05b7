"""Bytes to RGB pixels: the only door for untrusted images.

Whatever a file holds, the answer is an upright RGB image, a model's pixels, or a `RowError`; the header is checked
before pixels are decoded (`image_files`). Pillow is imported when the first image is decoded, so that text-only use
works without it.

For a model's pixels (`read_pixels`, `pixels_and_thumbnail`) a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size,
which libjpeg does while it transforms its blocks. The scale depends on the file and the model alone, so that every door
gives the same pixels for the same bytes.
"""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import RowError
from lance_align.image_files import DEFAULT_LIMITS as DEFAULT_LIMITS
from lance_align.image_files import Box, Loaded, bands, load_file, pillow
from lance_align.image_files import DecodeLimits as DecodeLimits
from lance_align.image_files import check_size as check_size
from lance_align.metadata import orientation_of
from lance_align.spec import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image

# What the encoders and the LanceDB function take for one image; None stays None.
ImageInput: TypeAlias = "bytes | bytearray | memoryview | str | Path | Image | NDArray[np.uint8]"
Pixels: TypeAlias = NDArray[np.uint8]  # (height, width, 3)

_T = TypeVar("_T")

# A JPEG is decoded with at least this many times the pixels, in each direction, that a resize or thumbnail needs.
HEADROOM = 2
# Nor is it decoded to less than this on either side: twice the default thumbnail, which then needs no second decoding.
LEAST_SCALED_PX = 512

# Pictures whose aspect ratio is kept: what is longer loses its ends before it is resized.
LONGEST = 32

# What to do with a picture of an orientation: Pillow's transpositions, as in ImageOps.exif_transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode(data: bytes | bytearray | memoryview, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """Decode one image file to an upright RGB image (the first frame of an animation).

    Transparency is dropped as ``Image.convert("RGB")`` does, so that vectors equal the reference processor's.

    Raises:
        RowError: `empty`, `too_large`, `format`, `unreadable` or `memory`; no other exception leaves this function.
        MissingExtraError: Pillow is not installed.
    """
    return _decode(data, limits, lambda loaded: _rgb(_upright(loaded)))


def decode_rgba(data: bytes | bytearray | memoryview, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """As `decode`, but an RGBA image: for artwork that is to be laid on a background."""
    return _decode(data, limits, lambda loaded: _upright(loaded).convert("RGBA"))


def pixels_and_thumbnail(
    data: bytes | bytearray | memoryview,
    spec: ImageSpec,
    *,
    thumbnail_px: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> tuple[Pixels, bytes | None]:
    """Decode one image file to what the model takes, and to a thumbnail if asked.

    A JPEG (or MPO) is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that leaves either side `HEADROOM`
    times the longer side of ``spec.resize``, and `LEAST_SCALED_PX`: at full size while its shorter side has less than
    1024 pixels. Then, and for every other format, the pixels are bit for bit ``to_pixels(decode(data), spec)``.

    Args:
        data: the file's content.
        spec: the geometry of the model's input.
        thumbnail_px: longest side of the thumbnail, as `encode_thumbnail`; it never changes the pixels. One that needs
            more of a scaled JPEG than they do has the file decoded again, which no size up to 256 does.
        limits: what the image may be, by its full size.

    Returns:
        uint8 ``(crop height, crop width, 3)``, and a JPEG or None.

    Raises:
        RowError: as `decode`.
        MissingExtraError: as `decode`.
    """
    needed = max(HEADROOM * max(spec.resize), LEAST_SCALED_PX)

    def finish(loaded: Loaded) -> tuple[Pixels, bytes | None]:
        if loaded.box is None:  # before the resize: a quarter turn afterwards would round differently
            loaded = Loaded(_upright(loaded), 1)
        loaded = dataclasses.replace(loaded, image=_flattened(loaded.image))
        pixels = _squashed(loaded, spec)
        if thumbnail_px is None or (loaded.box is not None and max(loaded.image.size) < HEADROOM * thumbnail_px):
            return pixels, None
        return pixels, _shrunk(loaded, thumbnail_px)

    pixels, thumbnail = _decode(data, limits, finish, scaled_to=needed)
    if thumbnail_px is not None and thumbnail is None:
        needed = HEADROOM * thumbnail_px
        thumbnail = _decode(data, limits, lambda loaded: _shrunk(loaded, thumbnail_px), scaled_to=needed)
    return pixels, thumbnail


def read_pixels(value: ImageInput, spec: ImageSpec, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Pixels:
    """Any accepted form of one image to what the model takes.

    Encoded bytes and paths go through `pixels_and_thumbnail`, so that a large JPEG is decoded at a part of its size. Of
    a Pillow image or an array every pixel is used.

    Args:
        value: as `load`.
        spec: the geometry of the model's input.
        limits: what encoded bytes and files may be.

    Returns:
        uint8 ``(crop height, crop width, 3)``.

    Raises:
        RowError: as `load`.
    """
    if isinstance(value, (str, Path)):
        value = read_file(Path(value), limits)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return pixels_and_thumbnail(value, spec, limits=limits)[0]
    return to_pixels(load(value), spec)


def _decode(
    data: bytes | bytearray | memoryview,
    limits: DecodeLimits,
    finish: Callable[[Loaded], _T],
    *,
    scaled_to: int | None = None,
) -> _T:
    """What `finish` makes of the decoded image; see `load_file`."""
    pil = pillow()
    check_size(data, limits=limits)
    try:
        with warnings.catch_warnings():
            # Pillow warns of decompression bombs and of odd metadata; the limits below answer both.
            warnings.simplefilter("ignore")
            return finish(load_file(pil, data, limits, scaled_to))
    except RowError:
        raise
    except pil.Image.DecompressionBombError:  # Pillow's own limit, whatever ours is
        most = min(limits.max_pixels, 2 * pil.Image.MAX_IMAGE_PIXELS)
        raise RowError("too_large", f"more pixels than the limit of {most}") from None
    except MemoryError:
        raise RowError("memory", "not enough memory to decode it") from None
    except Exception as error:  # noqa: BLE001 - hostile files raise OSError, SyntaxError, struct.error, … (measured)
        raise RowError("unreadable", f"{type(error).__name__}: {error}") from None


def to_rgb(image: Image) -> Image:
    """An upright 8-bit RGB copy of a loaded Pillow image of any mode; EXIF orientation is applied, alpha is dropped."""
    image.load()
    return _rgb(_turned(image, orientation_of(image)))


def _turned(image: Image, orientation: int) -> Image:
    """The image as it is seen; itself where it need not be turned."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(pillow().Image.Transpose[turn])


def _upright(loaded: Loaded) -> Image:
    """As `_turned`, of an image that is closed, for its pixels would be held once more at the peak."""
    upright = _turned(loaded.image, loaded.orientation)
    if upright is not loaded.image:
        loaded.image.close()
    return upright


def _rgb(image: Image) -> Image:
    """An RGB copy."""
    flat = _flattened(image)
    return flat.copy() if flat is image else flat


def _flattened(image: Image) -> Image:
    """An RGB image, the same one where it is RGB: a copy would take a tenth of the time of a JPEG of 640x480."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _deep_to_grey(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with transparency goes straight to RGB
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_grey(image: Image) -> Image:
    """16- and 32-bit grey to 8 bits: Pillow's own conversion clips at 255 and turns such pictures white.

    16 bits are divided by 257; 32 bits by what makes the brightest 255, integers by 257 at least.

    Some rows at a time: as float64, 64 Mi pixels would take 537 MB more than once.
    """
    width, height = image.size
    parts = bands(image)
    brightest = 65535.0
    if image.mode in ("F", "I"):
        least = 1e-12 if image.mode == "F" else brightest
        brightest = max(least, *(float(_deep_values(image, band).max(initial=0.0)) for band in parts))
    grey = np.empty((height, width), dtype=np.uint8)
    for band in parts:
        grey[band[1] : band[3]] = np.clip(_deep_values(image, band) * (255.0 / brightest), 0, 255)
    return pillow().Image.fromarray(grey)  # type: ignore[no-any-return]


def _deep_values(image: Image, band: tuple[int, int, int, int]) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image.crop(band), dtype=np.float64))


def load(value: ImageInput, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """Any accepted form of one image to an upright RGB image of its full size.

    Args:
        value: encoded bytes, a local path, a Pillow image, or a uint8 array ``(h, w)`` or ``(h, w, 1, 3 or 4)``.

    Raises:
        RowError: as `decode`, and `missing` for a path that cannot be read, `type` for anything else.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode(value, limits=limits)
    if isinstance(value, (str, Path)):
        return decode(read_file(Path(value), limits), limits=limits)
    if isinstance(value, np.ndarray):
        return _from_array(value)
    pil = pillow()
    if isinstance(value, pil.Image.Image):
        try:
            return to_rgb(value)
        except Exception as error:  # noqa: BLE001 - a lazily opened file is decoded here, so as in `decode`
            raise RowError("unreadable", f"{type(error).__name__}: {error}") from None
    raise RowError(
        "type", f"{type(value).__name__} cannot be an image; expected bytes, a path, a PIL image or a uint8 array"
    )


def picture(value: ImageInput, *, max_side_px: int, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """As `load`, reduced to `max_side_px` on the longest side; a large JPEG is decoded at a part of its size."""

    def finish(loaded: Loaded) -> Image:
        width, height = loaded.image.size if loaded.box is None else loaded.box[2:]
        share = min(1.0, max_side_px / max(width, height))
        size = (max(1, round(width * share)), max(1, round(height * share)))
        small = _rgb(loaded.image)
        if small.size != size:
            small = small.resize(size, pillow().Image.Resampling.BICUBIC, loaded.box)
        return _turned(small, loaded.orientation)

    if isinstance(value, (str, Path)):
        value = read_file(Path(value), limits)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decode(value, limits, finish, scaled_to=max_side_px)
    return finish(Loaded(load(value), 1))


def read_file(path: Path, limits: DecodeLimits) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        if re.match(r"[A-Za-z][\w+.-]+:/", str(path)):  # of two slashes a Path keeps one
            url = str(path).replace(":/", "://", 1)
            raise RowError(
                "fetch", f"{url}: nothing is fetched here; expected a local path, or the file's bytes"
            ) from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RowError("missing", f"{path}: {reason}") from None


def _from_array(array: NDArray[Any]) -> Image:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3, 4))
        or not array.size
    ):
        raise RowError("type", f"array {array.dtype} {array.shape}; expected uint8 (height, width[, 1, 3 or 4])")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    image: Image = pillow().Image.fromarray(np.ascontiguousarray(array))
    return image.convert("RGB")


def to_pixels(image: Image, spec: ImageSpec) -> Pixels:
    """Resize and centre-crop a decoded RGB image to what the model takes; every pixel of it is used.

    Of a large JPEG, `read_pixels` gives nearly the same in a fraction of the time.

    Returns:
        uint8 ``(crop height, crop width, 3)``; scaling to floats happens beside the model.
    """
    return _squashed(Loaded(image, 1), spec)


def _squashed(loaded: Loaded, spec: ImageSpec) -> Pixels:
    """As `to_pixels`, of a part of the image; it is turned upright once it is small."""
    pil = pillow()
    resample = pil.Image.Resampling.BILINEAR if spec.resample == "bilinear" else pil.Image.Resampling.BICUBIC
    image, part = loaded.image, loaded.box
    size = spec.resize if loaded.orientation >= 5 else spec.resize[::-1]
    if spec.fit == "shortest":
        part, size = _by_shortest(part or (0.0, 0.0, *image.size), min(spec.resize))
    if part is not None or image.size != size:
        image = image.resize(size, resample, part)
    image = _turned(image, loaded.orientation)
    height, width = image.height, image.width
    crop_height, crop_width = spec.crop
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return np.asarray(image)[top : top + crop_height, left : left + crop_width]


def _by_shortest(box: Box, shortest: int) -> tuple[Box, tuple[int, int]]:
    """What part of a picture to resize, and to what (width, height), so that its shorter side becomes `shortest`.

    Sizes are those of transformers' `get_resize_output_image_size`. Of a picture longer than `LONGEST` times its
    shorter side only the middle is taken, which is more than any crop shows: 1 x 60,000 pixels as a whole would become
    224 x 13,440,000.
    """
    left, top, right, bottom = box
    shorter = min(right - left, bottom - top)
    (left, right), width = _middle(left, right, int(shortest * (right - left) / shorter), LONGEST * shortest)
    (top, bottom), height = _middle(top, bottom, int(shortest * (bottom - top) / shorter), LONGEST * shortest)
    return (left, top, right, bottom), (width, height)


def _middle(start: float, stop: float, size: int, most: int) -> tuple[tuple[float, float], int]:
    """The middle `most` of the `size` pixels that a side becomes, or one more, and where they come from.

    They lie where they would lie if all were made, so a centre crop shows the same values.
    """
    if size <= most:
        return (start, stop), size
    kept = most + (size - most) % 2  # as many are left out on both sides
    left_out = (size - kept) // 2 * (stop - start) / size
    return (start + left_out, stop - left_out), kept


def encode_thumbnail(image: Image, *, max_side: int) -> bytes:
    """An RGB image as a JPEG of at most `max_side` pixels on either side, aspect ratio kept, never enlarged."""
    return _shrunk(Loaded(image.copy(), 1), max_side)


def _shrunk(loaded: Loaded, max_side: int) -> bytes:
    """As `encode_thumbnail`, of an image that nobody needs any more; it is turned upright once it is small."""
    image = _flattened(loaded.image)
    image.thumbnail((max_side, max_side))
    image = _turned(image, loaded.orientation)
    image.info.clear()  # a comment of a GIF may be too long for a JPEG
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return out.getvalue()
