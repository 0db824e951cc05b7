"""An image file's bytes to its picture as Pillow decodes it: the only place where an image file is opened.

What kind of file it is decides what opens it, and whether it may be opened. What is not the picture is left out first
(`metadata`); then the header is checked, and only then are pixels decoded. A JPEG that lacks its end marker alone is
whole (`truncation`).
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from lance_align.errors import MissingExtraError, RowError
from lance_align.formats import DEFAULT_FORMATS, FORMATS, format_of, named_formats
from lance_align.metadata import bare, orientation_of
from lance_align.truncation import END, ended

if TYPE_CHECKING:
    from PIL.Image import Image

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

BAND_PIXELS = 2**20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What an image may be before it is decoded.

    Attributes:
        formats: what may be opened, of `lance_align.formats.FORMATS`; suffixes such as jpg are understood. HEIF needs
            the extra ``heif``. TIFF is left out by default: its decoders have the longest history of memory faults.
        max_pixels: width times height of the header. Decoding 64 Mi pixels takes up to 0.8 GB (WebP: 1.2 GB); Pillow
            opens nothing above 178,956,970.
        max_bytes: size of the file.

    Raises:
        ArgumentError: a format is not known; named as the job's option.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    max_pixels: int = 64 * 2**20
    max_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        """Give formats their names."""
        object.__setattr__(self, "formats", named_formats(self.formats))


DEFAULT_LIMITS = DecodeLimits()


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A decoded image, not yet turned upright.

    Attributes:
        image: nobody else needs it.
        orientation: 1 to 8.
        box: the part of it that is the picture where it was scaled: of 4001 pixels at 1/8, 500.125 of 501. None where
            it was not.
    """

    image: Image
    orientation: int
    box: Box | None = None


def check_size(data: bytes | bytearray | memoryview, *, limits: DecodeLimits) -> None:
    """Refuse a file by its length alone.

    Raises:
        RowError: `empty` or `too_large`.
    """
    if len(data) == 0:
        raise RowError("empty", "zero bytes")
    if len(data) > limits.max_bytes:
        raise RowError("too_large", f"{len(data)} bytes, the limit is {limits.max_bytes}")


def load_file(pil: Any, data: bytes | bytearray | memoryview, limits: DecodeLimits, scaled_to: int | None) -> Loaded:
    """Recognise, check, decode.

    Args:
        scaled_to: least pixels of either side of a JPEG that may be scaled; None for full size.
    """
    whole = bytes(data)
    image_format, start = format_of(whole)
    _check_format(image_format, limits, whole)
    picture, orientation = bare(whole[start:], image_format)
    if image_format == "JPEG" and END not in picture:
        mended = ended(picture, lambda each: _digest(pil, each, limits))
        if mended is None:
            raise RowError("unreadable", "the JPEG is truncated: it has no end marker, and pixels are missing")
        picture = mended
    loaded = _decoded(pil, picture, image_format, limits, scaled_to)
    return dataclasses.replace(loaded, orientation=orientation or orientation_of(loaded.image))


def _check_format(image_format: str | None, limits: DecodeLimits, data: bytes) -> None:
    admitted = ", ".join(limits.formats)
    if image_format is None or image_format in limits.formats:
        return
    if image_format not in FORMATS:
        raise RowError("format", f"{image_format} cannot be decoded; expected {admitted}")
    raise RowError(
        "format",
        f"{image_format} is not admitted; expected {admitted}, or --image-formats {' '.join(limits.formats)} "
        f"{image_format}; starts with {data[:8]!r}",
    )


def _decoded(
    pil: Any, data: bytes, image_format: str | None, limits: DecodeLimits, scaled_to: int | None = None
) -> Loaded:
    if image_format == "HEIF":
        return Loaded(_heif(pil, data, limits), 1)
    with _opened(pil, data, image_format, limits) as image:
        size = image.size
        _check_pixels(size, limits)
        drafted = image.draft(None, (scaled_to, scaled_to)) if scaled_to else None  # None for all but JPEG
        image.load()
        return Loaded(image, 1, drafted[1] if drafted and image.size != size else None)


@contextmanager
def _opened(pil: Any, data: bytes, image_format: str | None, limits: DecodeLimits) -> Iterator[Any]:
    """By Pillow, which swallows why a decoder refused; asked alone, the decoder says it."""
    try:
        image = pil.Image.open(io.BytesIO(data), formats=[image_format] if image_format else _by_pillow(limits))
    except pil.UnidentifiedImageError:
        if image_format is not None:
            pil.Image.OPEN[image_format][0](io.BytesIO(data), "")
        allowed = ", ".join(limits.formats)
        raise RowError("format", f"not an image of an allowed format ({allowed}); starts with {data[:8]!r}") from None
    with image:
        yield image


def _by_pillow(limits: DecodeLimits) -> list[str]:
    return [name for name in limits.formats if name != "HEIF"]


def _heif(pil: Any, data: bytes, limits: DecodeLimits) -> Image:
    """The primary picture of a HEIF file, which libheif turns upright; Pillow learns of no new format.

    Raises:
        RowError: `format` where pillow-heif is not installed, as for a format that is not admitted.
    """
    try:
        import pillow_heif
    except ImportError:
        raise RowError("format", f"HEIF: {MissingExtraError('pillow_heif', 'heif')}") from None
    file = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
    _check_pixels(file.size, limits)
    image = file[file.primary_index]
    try:
        pixels = image.data
    except OSError as error:
        raise (MemoryError if "memory" in str(error).lower() else error) from None
    _check_pixels(image.size, limits)  # decoding may say another size
    decoded: Image = pil.Image.frombuffer(image.mode, image.size, pixels, "raw", image.mode, image.stride)
    return decoded


def _check_pixels(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise RowError("too_large", f"{width}x{height} pixels, the limit is {limits.max_pixels} in all")


def _digest(pil: Any, data: bytes, limits: DecodeLimits) -> int:
    """A checksum of a JPEG's pixels at full size."""
    image = _decoded(pil, data, "JPEG", limits).image
    digest = 0
    for band in bands(image):
        digest = zlib.crc32(image.crop(band).tobytes(), digest)
    return digest


def bands(image: Image) -> list[tuple[int, int, int, int]]:
    """Boxes that cover an image, of some rows each."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    return [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]


def pillow() -> Any:
    try:
        import PIL
        import PIL.Image
    except ImportError as error:
        raise MissingExtraError("Pillow", "images") from error
    return PIL
