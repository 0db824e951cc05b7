"""Bytes to RGB pixels: the only door for untrusted images, and the only file that opens them.

Whatever a file holds, the answer is an upright RGB image or a `RowError`; the header is checked before pixels are
decoded. Pillow is imported when the first image is decoded, so that text-only use works without it.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import MissingExtraError, RowError
from lance_align.spec import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image

# What the encoders and the LanceDB function take for one image; None stays None.
ImageInput: TypeAlias = "bytes | bytearray | memoryview | str | Path | Image | NDArray[np.uint8]"
Pixels: TypeAlias = NDArray[np.uint8]  # (height, width, 3)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What an image may be before it is decoded.

    Attributes:
        formats: Pillow format names that may be opened. TIFF is left out by default: its decoders have the longest
            history of memory faults.
        max_pixels: width times height of the header. Decoding 64 Mi pixels takes up to 0.8 GB (WebP: 1.2 GB); Pillow
            opens nothing above 178,956,970.
        max_bytes: size of the file.
    """

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
    max_pixels: int = 64 * 2**20
    max_bytes: int = 256 * 2**20


DEFAULT_LIMITS = DecodeLimits()

DEEP_BAND_PIXELS = 2**20


def decode(data: bytes | bytearray | memoryview, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """Decode one image file to an upright RGB image (the first frame of an animation).

    Transparency is dropped as ``Image.convert("RGB")`` does, so that vectors equal the reference processor's.

    Raises:
        RowError: `empty`, `too_large`, `format`, `unreadable` or `memory`; no other exception leaves this function.
        MissingExtraError: Pillow is not installed.
    """
    return _decode(data, limits, _flattened)


def decode_rgba(data: bytes | bytearray | memoryview, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """As `decode`, but an RGBA image: for artwork that is to be laid on a background."""
    return _decode(data, limits, lambda image: image.convert("RGBA"))


def check_size(data: bytes | bytearray | memoryview, *, limits: DecodeLimits) -> None:
    """Refuse a file by its length alone.

    Raises:
        RowError: `empty` or `too_large`.
    """
    if len(data) == 0:
        raise RowError("empty", "zero bytes")
    if len(data) > limits.max_bytes:
        raise RowError("too_large", f"{len(data)} bytes, the limit is {limits.max_bytes}")


def _decode(data: bytes | bytearray | memoryview, limits: DecodeLimits, convert: Callable[[Image], Image]) -> Image:
    pil = _pillow()
    check_size(data, limits=limits)
    try:
        with warnings.catch_warnings():
            # Pillow warns of decompression bombs and of odd metadata; the limits below answer both.
            warnings.simplefilter("ignore")
            return _open(pil, data, limits, convert)
    except RowError:
        raise
    except pil.UnidentifiedImageError:
        allowed = ", ".join(limits.formats)
        raise RowError(
            "format", f"not an image of an allowed format ({allowed}); starts with {bytes(data[:8])!r}"
        ) from None
    except pil.Image.DecompressionBombError:  # Pillow's own limit, whatever ours is
        most = min(limits.max_pixels, 2 * pil.Image.MAX_IMAGE_PIXELS)
        raise RowError("too_large", f"more pixels than the limit of {most}") from None
    except MemoryError:
        raise RowError("memory", "not enough memory to decode it") from None
    except Exception as error:  # noqa: BLE001 - hostile files raise OSError, SyntaxError, struct.error, … (measured)
        raise RowError("unreadable", f"{type(error).__name__}: {error}") from None


def _open(
    pil: Any, data: bytes | bytearray | memoryview, limits: DecodeLimits, convert: Callable[[Image], Image]
) -> Image:
    with pil.Image.open(io.BytesIO(data), formats=limits.formats) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise RowError("too_large", f"{width}x{height} pixels, the limit is {limits.max_pixels} in all")
        image.load()
        pil.ImageOps.exif_transpose(image, in_place=True)  # without it, one more copy of all pixels at the peak
        return convert(image)


def to_rgb(image: Image) -> Image:
    """An upright 8-bit RGB copy of a loaded Pillow image of any mode; EXIF orientation is applied, alpha is dropped."""
    return _flattened(_pillow().ImageOps.exif_transpose(image))


def _flattened(image: Image) -> Image:
    """An RGB copy of an upright image."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _deep_to_grey(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with transparency goes straight to RGB
    return image.convert("RGB")


def _deep_to_grey(image: Image) -> Image:
    """16- and 32-bit grey to 8 bits: Pillow's own conversion clips at 255 and turns such pictures white.

    Some rows at a time: as float64, 64 Mi pixels would take 537 MB more than once.
    """
    width, height = image.size
    rows = max(1, DEEP_BAND_PIXELS // width)
    bands = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    brightest = 65535.0
    if image.mode == "F":
        brightest = max(1e-12, *(float(_deep_values(image, band).max(initial=0.0)) for band in bands))
    grey = np.empty((height, width), dtype=np.uint8)
    for band in bands:
        grey[band[1] : band[3]] = np.clip(_deep_values(image, band) * (255.0 / brightest), 0, 255)
    return _pillow().Image.fromarray(grey)  # type: ignore[no-any-return]


def _deep_values(image: Image, band: tuple[int, int, int, int]) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image.crop(band), dtype=np.float64))


def load(value: ImageInput, *, limits: DecodeLimits = DEFAULT_LIMITS) -> Image:
    """Any accepted form of one image to an upright RGB image.

    Args:
        value: encoded bytes, a local path, a Pillow image, or a uint8 array ``(h, w)`` or ``(h, w, 1, 3 or 4)``.

    Raises:
        RowError: as `decode`, and `missing` for a path that cannot be read, `type` for anything else.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode(value, limits=limits)
    if isinstance(value, (str, Path)):
        return decode(_read_file(Path(value), limits), limits=limits)
    if isinstance(value, np.ndarray):
        return _from_array(value)
    pil = _pillow()
    if isinstance(value, pil.Image.Image):
        try:
            return to_rgb(value)
        except Exception as error:  # noqa: BLE001 - a lazily opened file is decoded here, so as in `decode`
            raise RowError("unreadable", f"{type(error).__name__}: {error}") from None
    raise RowError(
        "type", f"{type(value).__name__} cannot be an image; expected bytes, a path, a PIL image or a uint8 array"
    )


def _read_file(path: Path, limits: DecodeLimits) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
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
    image: Image = _pillow().Image.fromarray(np.ascontiguousarray(array))
    return image.convert("RGB")


def to_pixels(image: Image, spec: ImageSpec) -> Pixels:
    """Squash and centre-crop an RGB image to what the model takes.

    Returns:
        uint8 ``(crop height, crop width, 3)``; scaling to floats happens beside the model.
    """
    pil = _pillow()
    height, width = spec.resize
    resample = pil.Image.Resampling.BILINEAR if spec.resample == "bilinear" else pil.Image.Resampling.BICUBIC
    if image.size != (width, height):
        image = image.resize((width, height), resample)
    crop_height, crop_width = spec.crop
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return np.asarray(image)[top : top + crop_height, left : left + crop_width]


def encode_thumbnail(image: Image, *, max_side: int) -> bytes:
    """An RGB image as a JPEG of at most `max_side` pixels on either side, aspect ratio kept, never enlarged."""
    small = image.copy()
    small.thumbnail((max_side, max_side))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=85)
    return out.getvalue()


def _pillow() -> Any:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise MissingExtraError("Pillow", "images") from error
    return PIL
