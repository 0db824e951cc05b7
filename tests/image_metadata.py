"""Pictures with metadata as the world writes it: odd, cut, wrong, and far too long."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.pictures import encoded, scene

PICTURE = scene(60, 40, seed=5)
UNDONE = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_TAGS = (0x100, 0x10E, 0x11A, 0x11B, 0x128, 0x132, 0x14A, 0x201, 0x202, 0x8769, 0x8825, 0x927C, 0x9286, 0xA005)


def tiff_directory(*entries: bytes, order: str = "<", claimed: int | None = None) -> bytes:
    """A TIFF header and one directory, as EXIF has them."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(entries) if claimed is None else claimed) + b"".join(entries) + bytes(4)


def entry(tag: int, kind: int, count: int, value: bytes, *, order: str = "<") -> bytes:
    """An entry of a TIFF directory."""
    return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")


def oriented(orientation: int) -> bytes:
    """An entry that says the orientation as cameras do."""
    return entry(0x0112, 3, 1, struct.pack("<H", orientation))


def exif(chance: random.Random, orientation: int | None) -> bytes:
    """EXIF of random tags, types, counts and places."""
    entries = [
        entry(
            chance.choice(_TAGS), chance.randint(0, 20), chance.choice((0, 1, 2, 5, 1000, 2**31)), chance.randbytes(4)
        )
        for _ in range(chance.randint(0, 6))
    ]
    if orientation is not None:
        entries.append(oriented(orientation))
    chance.shuffle(entries)
    return tiff_directory(*entries, claimed=len(entries) + chance.choice((0, 0, 1, 60))) + chance.randbytes(40)


def segment(marker: int, body: bytes) -> bytes:
    """A marker segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def in_jpeg(whole: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments behind its start."""
    return whole[:2] + b"".join(segments) + whole[2:]


def chunk(kind: bytes, body: bytes, *, is_wrong: bool = False) -> bytes:
    """A chunk of a PNG, perhaps with a wrong checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ is_wrong)


def in_png(whole: bytes, *chunks: bytes, at_the_end: bool = False) -> bytes:
    """A PNG with chunks before or behind its pixels."""
    at = len(whole) - 12 if at_the_end else 33
    return whole[:at] + b"".join(chunks) + whole[at:]


def _jpeg(picture: Image.Image, chance: random.Random, orientation: int | None) -> bytes:
    names = (b"JFIF\0", b"Adobe\0", b"MPF\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0008BIM", b"FPXR\0", b"Exif\0\0")
    parts = [
        segment(
            chance.choice((0xE0, 0xE2, 0xED, 0xEE, 0xEF, 0xFE)),
            chance.choice(names)[: chance.randint(1, 30)] + chance.randbytes(chance.randint(0, 9)),
        )
        for _ in range(chance.randint(0, 4))
    ]
    if orientation is not None:
        parts.append(segment(0xE1, b"Exif\0\0" + exif(chance, orientation)))
    return in_jpeg(encoded(picture, "JPEG", quality=95), *parts)


def _png(picture: Image.Image, chance: random.Random, orientation: int | None) -> bytes:
    kinds = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"acTL", b"fcTL", b"fdAT")
    parts = [
        chunk(
            chance.choice((*kinds, b"bKGD", b"hIST", b"sBIT", b"sPLT", b"tRNS", b"abCd")),
            chance.randbytes(chance.choice((0, 1, 3, 9, 30))),
            is_wrong=chance.random() < 0.3,
        )
        for _ in range(chance.randint(0, 4))
    ]
    if orientation is not None:
        parts.append(chunk(b"eXIf", exif(chance, orientation)))
    return in_png(encoded(picture, "PNG"), *parts, at_the_end=chance.random() < 0.3)


def _webp(picture: Image.Image, chance: random.Random, orientation: int | None) -> bytes:
    said = exif(chance, orientation) if orientation is not None else chance.randbytes(20)
    whole = encoded(picture, "WEBP", quality=95, exif=b"Exif\0\0" + said, xmp=chance.randbytes(30))
    return whole[: -chance.choice((1, 9))] if chance.random() < 0.4 else whole  # within the last text


def _tiff(picture: Image.Image, chance: random.Random, orientation: int | None) -> bytes:
    whole = bytearray(encoded(picture, "TIFF", compression=chance.choice((None, "tiff_lzw", "tiff_adobe_deflate"))))
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    entries = [bytes(whole[start + 2 + 12 * n : start + 14 + 12 * n]) for n in range(count)]
    entries += [
        entry(chance.choice(_TAGS[1:]), chance.randint(0, 18), chance.choice((0, 1, 2, 5, 100)), chance.randbytes(4))
        for _ in range(chance.randint(0, 4))
    ]
    entries += [oriented(orientation)] if orientation is not None else []
    whole[4:8] = struct.pack("<I", len(whole))
    return bytes(whole) + tiff_directory(*sorted(entries, key=lambda each: struct.unpack_from("<H", each)))[8:]


def _gif(picture: Image.Image, chance: random.Random, orientation: int | None) -> bytes:  # noqa: ARG001  it has none
    whole = encoded(picture.quantize(64), "GIF")
    start = 13 + 3 * 2 ** ((whole[10] & 7) + 1)
    blocks = [
        b"\x21"
        + bytes([chance.choice((0xFE, 0xFF, 0x01, 0xF9, 0x77))])
        + b"".join(
            bytes([len(each)]) + each
            for each in (
                chance.choice((b"NETSCAPE2.0"[: chance.randint(1, 11)], chance.randbytes(chance.randint(1, 30))))
                for _ in range(chance.randint(0, 3))
            )
        )
        + b"\0"
        for _ in range(chance.randint(0, 4))
    ]
    return whole[:start] + b"".join(blocks) + whole[start:]


def _avif(picture: Image.Image, chance: random.Random, orientation: int | None) -> bytes:  # noqa: ARG001  not by EXIF
    return encoded(picture, "AVIF", quality=95, exif=exif(chance, None), xmp=chance.randbytes(20))


def heic(picture: Image.Image, chance: random.Random | None = None) -> bytes:
    """A HEIC file, with odd EXIF where there is a chance of it; needs pillow-heif."""
    import pillow_heif

    out = io.BytesIO()
    said = {} if chance is None else {"exif": b"Exif\0\0" + exif(chance, None), "xmp": chance.randbytes(20)}
    pillow_heif.from_pillow(picture).save(out, quality=95, **said)
    return out.getvalue()


# Each makes a file of a picture, whose EXIF has an orientation where one is given and the format's EXIF turns pictures.
KINDS: dict[str, Callable[[Image.Image, random.Random, int | None], bytes]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "TIFF": _tiff,
    "GIF": _gif,
    "AVIF": _avif,
}
