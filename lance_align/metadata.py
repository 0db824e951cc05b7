"""An image file without what is not the picture: texts, profiles, comments and EXIF, of which the orientation is read.

Pillow reads such parts while it opens a file, and some turn a whole picture into an error: a text of 1 MiB, a checksum,
a tag of an odd type. So they are left out before. What decides pixels stays byte for byte, and is checked by Pillow.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

ORIENTATION = 0x0112  # of EXIF and TIFF; 1 to 8, of which 5 to 8 exchange width and height
MAX_TEXT_BYTES = 2**20
MAX_EXIFS = 4  # of a JPEG, of which one may be broken

_EXIF_HEADS = re.compile(rb"^(?:Exif\0[\0\xff])+")
_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)\s*([1-8])")


class Bare(NamedTuple):
    """A picture's file.

    Attributes:
        data: without what is not the picture.
        orientation: 1 to 8; None where the format's decoder is to say it.
    """

    data: bytes
    orientation: int | None


def bare(data: bytes, image_format: str | None) -> Bare:
    """Leave out what is not the picture. A file that is not built as its format says is left as it is."""
    strip = _STRIPS.get(image_format or "")
    if strip is None:
        return Bare(data, None)
    try:
        return strip(data)
    except (struct.error, IndexError, ValueError, OverflowError):
        return Bare(data, None)


def orientation_of(image: Any) -> int:
    """Of a loaded Pillow image; 1 where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_orientation(image.getexif().get(ORIENTATION)) or 1
    except Exception:  # noqa: BLE001 - odd EXIF makes Pillow raise anything, and is not the picture
        return 1


def as_orientation(value: object) -> int | None:
    """A tag's value, whatever its type; None for what is no orientation."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = value.strip("\0 ")
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return number if 1 <= number <= 8 else None


def _of_exif(exif: bytes) -> int | None:
    """Of a TIFF header and its first directory, whatever else is wrong with them."""
    exif = _EXIF_HEADS.sub(b"", exif)
    try:
        return _Directory.read(exif).orientation
    except struct.error:
        return None


def _of_xmp(xmp: bytes) -> int | None:
    found = _XMP.search(xmp)
    return int(found[1]) if found else None


def _jpeg(data: bytes) -> Bare:
    """Without application data and comments before the first scan.

    JFIF's and Adobe's markers decide how colours are coded, where they are as long as libjpeg asks.
    """
    kept: list[bytes | memoryview] = [data[:2]]
    exifs: list[bytes] = []
    xmp = b""
    view, at = memoryview(data), 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            break
        body = data[at + 4 : min(end, at + 4 + 32)]
        if marker == 0xE1 and body.startswith(b"Exif\0") and len(exifs) < MAX_EXIFS:
            exifs.append(data[at + 4 : end])
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = data[at + 4 : end]
        if (
            not (0xE0 <= marker <= 0xEF or marker == 0xFE)
            or (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14)
            or (marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12)
        ):
            kept.append(view[at:end])
        at = end
    found = next(filter(None, map(_of_exif, exifs)), None) or _of_xmp(xmp)
    is_read = data[at : at + 2] == b"\xff\xda"  # else there is junk, behind which Pillow goes on
    return Bare(b"".join([*kept, view[at:]]), found or (1 if is_read else None))


_PNG_TRANSPARENCY = {0: 2, 2: 6, 3: 1}  # the least bytes of tRNS for a type of colour


def _png(data: bytes) -> Bare:
    """Critical chunks and transparency alone; an animation's first picture is the one that they show."""
    kept: list[bytes | memoryview] = [data[:8]]
    exif = raw = xmp = b""
    view, at = memoryview(data), 8
    colour = data[25]
    while at + 8 <= len(data):
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        is_critical = not kind[0] & 0x20
        if not kind.isalpha() or (is_critical and end > len(data)):
            kept.append(view[at:])  # cut or damaged, as Pillow will say
            break
        if kind == b"tRNS":
            checked = struct.unpack_from(">I", data, end - 4)[0] == zlib.crc32(view[at + 4 : end - 4])
            if checked and length >= _PNG_TRANSPARENCY.get(colour, 2**32):
                kept.append(view[at:end])
        elif is_critical:
            kept.append(view[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = data[at + 8 : at + 8 + 80].partition(b"\0")[0]
            if keyword in (b"Raw profile type exif", b"Raw profile type APP1") and not raw:
                raw = _text(kind, data[at + 9 + len(keyword) : end - 4])
            elif keyword == b"XML:com.adobe.xmp" and not xmp:
                xmp = _text(kind, data[at + 9 + len(keyword) : end - 4])
        at = end
        if kind == b"IEND":
            break
    orientation = _of_exif(exif or _hexadecimal(raw)) if exif or raw else None
    return Bare(b"".join(kept), orientation or _of_xmp(xmp) or 1)


def _text(kind: bytes, body: bytes) -> bytes:
    """The first MiB of a PNG's text at most, without its keyword."""
    is_packed = kind == b"zTXt"
    if kind == b"zTXt":
        body = body[1:]
    elif kind == b"iTXt":
        is_packed = body[:1] == b"\x01"
        body = b"".join(body[2:].split(b"\0", 2)[2:])  # behind the language and the translated keyword
    if not is_packed:
        return body[:MAX_TEXT_BYTES]
    try:
        return zlib.decompressobj().decompress(body, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _hexadecimal(raw: bytes) -> bytes:
    """EXIF as ImageMagick writes it into a text: a name, a length, and lines of digits."""
    try:
        return bytes.fromhex("".join(raw.decode("ascii").split("\n")[3:]))
    except ValueError:
        return b""


_WEBP_PICTURE = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")


def _webp(data: bytes) -> Bare:
    kept: list[bytes | memoryview] = []
    exif = xmp = b""
    view, at, size = memoryview(data), 12, 4
    while at + 8 <= len(data):
        kind, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        end = at + 8 + length + length % 2
        if kind == b"VP8X":
            # Its first byte says what else there is; 0x2c: profile, EXIF, XMP.
            kept += [view[at : at + 8], bytes([data[at + 8] & ~0x2C]), view[at + 9 : end]]
        elif kind in _WEBP_PICTURE:
            kept.append(view[at:end])
        elif kind == b"EXIF":
            exif = data[at + 8 : at + 8 + length]
        elif kind == b"XMP ":
            xmp = data[at + 8 : at + 8 + length]
        if kind == b"VP8X" or kind in _WEBP_PICTURE:
            size += end - at
        at = end
    head = b"RIFF" + struct.pack("<I", size) + b"WEBP"
    return Bare(b"".join([head, *kept]), (_of_exif(exif) if exif else None) or _of_xmp(xmp) or 1)


# Tags that decide pixels: sizes, strips and tiles, compression and its tables, colours; TIFF 6.0 and libtiff's own.
_TIFF_PICTURE = frozenset(
    (
        *(254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332),
        *(334, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 50674),
    )
)
_TIFF_NUMBERS: Mapping[int, str] = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 17: "q"}
_TIFF_TEXT, _TIFF_RATIONALS = 2, {5: "II", 10: "ii"}


class _Directory(NamedTuple):
    """The first directory of a TIFF, which EXIF is too.

    Attributes:
        data: the whole.
        order: of bytes, as `struct` says it.
        is_big: BigTIFF, with 64 bits for offsets.
        start: where the directory stands.
        claimed: how many entries it says it has.
        entries: those that are there, as bytes.
    """

    data: bytes
    order: str
    is_big: bool
    start: int
    claimed: int
    entries: list[bytes]

    @classmethod
    def read(cls, data: bytes) -> _Directory:
        """Read the entries; struct.error for what is no TIFF."""
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None:
            raise struct.error("not a TIFF")
        is_big = 43 in data[2:4]
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
        size, at = (20, start + 8) if is_big else (12, start + 2)
        last = min(count, (len(data) - at) // size)
        return cls(data, order, is_big, start, count, [data[at + size * n : at + size * (n + 1)] for n in range(last)])

    def tag(self, entry: bytes) -> int:
        """The tag of an entry."""
        return int(struct.unpack_from(self.order + "H", entry)[0])

    @property
    def orientation(self) -> int | None:
        """The first that can be read."""
        found = (self._number(entry) for entry in self.entries if self.tag(entry) == ORIENTATION)
        return next((value for value in map(as_orientation, found) if value is not None), None)

    def _number(self, entry: bytes) -> object:
        """The first value of an entry; None for a type that is no number."""
        (kind,) = struct.unpack_from(self.order + "H", entry, 2)
        field = entry[12:] if self.is_big else entry[8:]
        shape = _TIFF_NUMBERS.get(kind) or _TIFF_RATIONALS.get(kind)
        if kind == _TIFF_TEXT:
            return field
        if shape is None:
            return None
        if struct.calcsize("=" + shape) > len(field):
            (place,) = struct.unpack(self.order + ("Q" if self.is_big else "I"), field)
            field = self.data[place:]
        try:
            values = struct.unpack_from(self.order + shape, field)
        except struct.error:
            return None
        return values[0] if len(values) == 1 else values[0] / values[1] if values[1] else None


def _tiff(data: bytes) -> Bare:
    """The first directory without other tags, and without a next one; written over the old one, where it fits."""
    directory = _Directory.read(data)
    if len(directory.entries) < directory.claimed:
        return Bare(data, None)
    kept = [entry for entry in directory.entries if directory.tag(entry) in _TIFF_PICTURE]
    count = struct.pack(directory.order + ("Q" if directory.is_big else "H"), len(kept))
    written = count + b"".join(kept) + bytes(8 if directory.is_big else 4)
    start = directory.start
    return Bare(b"".join([data[:start], written, data[start + len(written) :]]), directory.orientation or 1)


def _gif(data: bytes) -> Bare:
    """Without extensions before the first picture, but for the one that names its transparent colour."""
    at = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    kept: list[bytes | memoryview] = [data[:at]]
    while data[at] == 0x21:
        end = at + 2
        while data[end]:
            end += 1 + data[end]
        end += 1
        if data[at + 1 : at + 3] == b"\xf9\x04" and end == at + 8:
            kept.append(data[at:end])
        at = end
    return Bare(b"".join([*kept, memoryview(data)[at:]]), None)


# The entry of an item that is EXIF or XMP, in a list of a file's items (ISO 14496-12, 8.11.6).
_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))(?:Exif|mime)", re.DOTALL)


def _iso(data: bytes) -> Bare:
    """Without EXIF and XMP, which say nothing of the orientation here: items are turned by properties of their own."""
    return Bare(_ITEM.sub(rb"\1skip", data), None)


_STRIPS: Mapping[str, Callable[[bytes], Bare]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "TIFF": _tiff,
    "AVIF": _iso,
    "HEIF": _iso,
}
