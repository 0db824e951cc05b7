"""A corpus of image files as the world brings them, in the shape of Pillow's own `Tests/images`: every mode and depth,
damage of every kind, bombs, and files that are no images at all. The same bytes on every machine with one Pillow.

Large files are made when they are asked for; nothing of it is stored.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

from lance_align.errors import RowErrorKind
from tests.pictures import encoded, scene

Expected = Literal["pixels", "either"] | RowErrorKind

FLIPS = 1000
TRUNCATED_AT = tuple(range(5, 100, 5))  # per cent of the bytes that are left
GIF_FRAMES = 10_000
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One file.

    Attributes:
        name: a file name that claims an image; unique in the corpus.
        make: its bytes.
        expected: pixels, a kind of reason, or either of both.
        heavy: takes a second, or tens of MB.
    """

    name: str
    make: Callable[[], bytes]
    expected: Expected
    heavy: bool = False


def corpus(*, heavy: bool = True, flips: int = FLIPS) -> list[Hostile]:
    """Every file, in the order of groups.

    Args:
        heavy: with those that take a second or tens of MB.
        flips: how many files have one byte changed.
    """
    groups = (good(), refused(), foreign(), lying(), bombs(), truncated(), flipped(flips))
    files = [file for group in groups for file in group if heavy or not file.heavy]
    assert len({file.name for file in files}) == len(files)
    return files


def good() -> Iterator[Hostile]:
    """Files that decode: every mode, bit depth and coding."""
    for name, data in _good_files().items():
        yield Hostile(name=f"good-{name}", make=lambda data=data: data, expected="pixels")
    yield Hostile(name="good-frames.gif", make=many_frames, expected="pixels", heavy=True)
    for width, height in ((65_500, 1), (1, 65_500), (65_500, 40), (40, 65_500)):
        yield Hostile(
            name=f"good-strip-{width}x{height}.png",
            make=functools.partial(plain_png, width, height, depth=1, colour=0),
            expected="pixels",
        )
    yield Hostile(name="good-strip.jpg", make=lambda: encoded(Image.new("RGB", (65_500, 8)), "JPEG"), expected="pixels")
    for depth, colour, kind in ((1, 0, "1"), (16, 0, "I16"), (8, 2, "rgb"), (8, 6, "rgba")):
        # 64 Mi pixels less a few: what the default limit lets through
        make = functools.partial(plain_png, 8191, 8191, depth=depth, colour=colour)
        yield Hostile(name=f"good-limit-{kind}.png", make=make, expected="pixels", heavy=True)
    make = functools.partial(plain_png, 65_500, 1024, depth=8, colour=2)
    yield Hostile(name="good-limit-strip.png", make=make, expected="pixels", heavy=True)


@functools.cache
def _good_files() -> dict[str, bytes]:
    colour = scene(48, 40, seed=11)
    grey = colour.convert("L")
    alpha = colour.copy()
    alpha.putalpha(grey)
    deep = np.asarray(grey).astype(np.uint16) * 257
    frames: dict[str, Any] = {"save_all": True, "append_images": [scene(48, 40, seed=n) for n in (12, 13)]}
    palette = colour.quantize(16)
    files = {
        "1.png": encoded(grey.convert("1"), "PNG"),
        "l.png": encoded(grey, "PNG"),
        "la.png": encoded(alpha.convert("LA"), "PNG"),
        "p.png": encoded(palette, "PNG"),
        "p-1bit.png": encoded(colour.quantize(2), "PNG", bits=1),
        "p-2bit.png": encoded(colour.quantize(4), "PNG", bits=2),
        "p-4bit.png": encoded(palette, "PNG", bits=4),
        "p-index.png": encoded(palette, "PNG", transparency=3),
        "p-table.png": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "rgb.png": encoded(colour, "PNG"),
        "rgb-key.png": encoded(colour, "PNG", transparency=(1, 2, 3)),
        "rgba.png": encoded(alpha, "PNG"),
        "i16.png": encoded(Image.fromarray(deep), "PNG"),
        "icc.png": encoded(colour, "PNG", icc_profile=_profile()),
        "apng.png": encoded(colour, "PNG", **frames),
        "interlaced.png": interlaced_png(np.asarray(colour)),
        "l.jpg": encoded(grey, "JPEG"),
        "rgb.jpg": encoded(colour, "JPEG", quality=95),
        "quality-1.jpg": encoded(colour, "JPEG", quality=1),
        "420.jpg": encoded(colour, "JPEG", subsampling="4:2:0"),
        "444.jpg": encoded(colour, "JPEG", subsampling="4:4:4"),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "progressive.jpg": encoded(colour, "JPEG", progressive=True),
        "restart.jpg": encoded(colour, "JPEG", restart_marker_blocks=1),
        "icc.jpg": encoded(colour, "JPEG", icc_profile=_profile()),
        "comment.jpg": encoded(colour, "JPEG", comment=b"\x00\xff" * 30_000),
        "p.gif": encoded(palette, "GIF"),
        "l.gif": encoded(grey, "GIF", interlace=0),
        "interlaced.gif": encoded(palette, "GIF", interlace=1),
        "transparent.gif": encoded(palette, "GIF", transparency=3),
        "animated.gif": encoded(palette, "GIF", **frames, loop=0),
        "1.bmp": encoded(grey.convert("1"), "BMP"),
        "l.bmp": encoded(grey, "BMP"),
        "p.bmp": encoded(palette, "BMP"),
        "rgb.bmp": encoded(colour, "BMP"),
        "rgba.bmp": encoded(alpha, "BMP"),
        "lossy.webp": encoded(colour, "WEBP"),
        "lossless.webp": encoded(colour, "WEBP", lossless=True),
        "alpha.webp": encoded(alpha, "WEBP"),
        "animated.webp": encoded(colour, "WEBP", **frames),
        "name-lies.png": encoded(colour, "JPEG"),
        "one-pixel.gif": encoded(Image.new("L", (1, 1)), "GIF"),
        "trailing.png": encoded(colour, "PNG") + b"<?php ?>" * 100,
    }
    for colour_type, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        rows = np.repeat(deep[:, :, None], channels, axis=2).astype(">u2")
        files[f"16bit-{channels}.png"] = png(48, 40, [row.tobytes() for row in rows], depth=16, colour=colour_type)
    for depth in (2, 4):
        files[f"grey-{depth}bit.png"] = plain_png(48, 40, depth=depth, colour=0)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif-{orientation}.jpg"] = encoded(colour, "JPEG", exif=exif)
        files[f"exif-{orientation}.webp"] = encoded(colour, "WEBP", exif=exif)
    return files


def refused() -> Iterator[Hostile]:
    """Images of formats that Pillow opens and the default list does not name."""
    colour = scene(48, 40, seed=11)
    for kind in (
        "TIFF",
        "PPM",
        "TGA",
        "PCX",
        "SGI",
        "ICO",
        "ICNS",
        "EPS",
        "DDS",
        "MSP",
        "XBM",
        "PDF",
        "JPEG2000",
    ):
        picture = (
            colour.convert("1") if kind in ("MSP", "XBM") else colour.resize((32, 32)) if kind == "ICNS" else colour
        )
        try:
            data = encoded(picture, kind)
        except (OSError, KeyError):  # a Pillow built without this one
            continue
        yield Hostile(name=f"refused-{kind.lower()}.png", make=lambda data=data: data, expected="format")


def foreign() -> Iterator[Hostile]:
    """What is no image, under an image's name."""
    archive, ball = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("a.png"), encoded(scene(8, 8, seed=1), "PNG"))
    with tarfile.open(fileobj=ball, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.png"))
    samples: dict[str, bytes] = {
        "zip.png": archive.getvalue(),
        "tar.png": ball.getvalue(),
        "svg.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "html.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "json.jpg": b'{"error": "rate limited"}',
        "text.gif": "kein Bild: à é î õ ü\r\n".encode(),
        "pdf.jpg": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
        "elf.png": b"\x7fELF\x02\x01\x01" + bytes(57) + b"\x90" * 500,
        "exe.bmp": b"MZ" + bytes(62) + b"PE\0\0" + bytes(200),
        "gzip.webp": zlib.compress(bytes(1000), wbits=31),
        "mp4.jpg": b"\0\0\0\x18ftypmp42" + bytes(100),
        "wav.webp": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
        "pickle.png": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x08builtins\x94.",
        "script.png": b'#!/bin/sh\nrm -rf "$HOME"\n',
        "one-byte.png": b"\x89",
        "zeros.png": bytes(4096),
        "ones.jpg": b"\xff" * 4096,
        "lfs.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    }
    for name, data in samples.items():
        yield Hostile(name=f"foreign-{name}", make=lambda data=data: data, expected="format")
    heic = b"\0\0\0\x18ftypheic" + bytes(100)  # `format` without pillow-heif
    yield Hostile(name="foreign-heic.jpg", make=lambda: heic, expected="either")
    yield Hostile(name="foreign-empty.jpg", make=lambda: b"", expected="empty")
    yield Hostile(name="foreign-zeros-100MB.png", make=lambda: bytes(100 * 10**6), expected="format", heavy=True)
    yield Hostile(name="foreign-zeros-257MiB.bmp", make=lambda: bytes(257 * 2**20), expected="too_large", heavy=True)
    magics = {"png": b"\x89PNG\r\n\x1a\n", "jpg": b"\xff\xd8\xff\xe0", "gif": b"GIF89a", "bmp": b"BM", "webp": b"RIFF"}
    noise = random.Random(7)
    for kind, magic in magics.items():
        yield Hostile(name=f"foreign-magic.{kind}", make=lambda data=magic: data, expected="either")
        for number in range(5):
            data = magic + noise.randbytes(400)
            yield Hostile(name=f"foreign-noise-{number}.{kind}", make=lambda data=data: data, expected="either")


def lying() -> Iterator[Hostile]:
    """Headers that promise what does not follow."""
    whole = _good_files()
    big = struct.pack("<HH", 65_535, 65_535)
    samples: dict[str, tuple[bytes, Expected]] = {
        "size.gif": (b"GIF89a" + big + whole["p.gif"][10:], "too_large"),
        "size.bmp": (
            whole["rgb.bmp"][:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + whole["rgb.bmp"][26:],
            "either",
        ),
        "negative.bmp": (whole["rgb.bmp"][:18] + struct.pack("<ii", -48, -40) + whole["rgb.bmp"][26:], "either"),
        "offset.bmp": (whole["rgb.bmp"][:10] + b"\xff\xff\xff\x7f" + whole["rgb.bmp"][14:], "either"),
        "size.webp": (_webp_header(16_383, 16_383), "either"),
        "zero.png": (_png_header(0, 0), "either"),
        "zero-wide.png": (_png_header(0, 5), "either"),
        "largest.png": (_png_header(2**31 - 1, 2**31 - 1), "too_large"),
        "no-data.png": (_png_header(48, 40), "unreadable"),
        "wrong-depth.png": (_png_header(48, 40, depth=3), "either"),
        "wrong-crc.png": (whole["rgb.png"][:29] + b"\0\0\0\0" + whole["rgb.png"][33:], "either"),
        "text-bomb.png": (
            _with_chunk(whole["rgb.png"], b"zTXt", b"k\0\0" + zlib.compress(bytes(50 * 2**20))),
            "either",
        ),
        "profile-bomb.png": (
            _with_chunk(whole["rgb.png"], b"iCCP", b"k\0\0" + zlib.compress(bytes(50 * 2**20))),
            "either",
        ),
        "chunk-length.png": (whole["rgb.png"][:33] + b"\xff\xff\xff\xff" + whole["rgb.png"][37:], "either"),
        "many-chunks.png": (_with_chunk(whole["rgb.png"], b"tEXt", b"k\0v", times=20_000), "either"),
        "exif-loop.jpg": (
            _with_exif(whole["rgb.jpg"], b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x08\0\0\0"),
            "either",
        ),
        "height-zero.jpg": (_with_size(whole["rgb.jpg"], 48, 0), "either"),
        "size.jpg": (_with_size(whole["rgb.jpg"], 65_500, 65_500), "too_large"),
        "size-small.jpg": (_with_size(whole["rgb.jpg"], 8_000, 8_000), "either"),
    }
    for name, (data, expected) in samples.items():
        yield Hostile(name=f"lying-{name}", make=lambda data=data: data, expected=expected)


def bombs() -> Iterator[Hostile]:
    """PNGs of some kB that would be 81 to 196 million pixels."""
    for side in range(9_000, 14_001, 1_000):
        make = functools.partial(plain_png, side, side, depth=1, colour=0)
        yield Hostile(name=f"bomb-{side}.png", make=make, expected="too_large")
    for side, colour in ((9_000, 2), (9_000, 6), (12_000, 2), (14_000, 6)):
        make = functools.partial(plain_png, side, side, depth=8, colour=colour)
        yield Hostile(name=f"bomb-{side}-{colour}.png", make=make, expected="too_large", heavy=True)
    for width, height in ((65_500, 1_100), (1_100, 65_500), (65_500, 65_500)):
        make = functools.partial(plain_png, width, height, depth=1, colour=0)
        yield Hostile(name=f"bomb-strip-{width}x{height}.png", make=make, expected="too_large", heavy=width == height)


def truncated() -> Iterator[Hostile]:
    """One file of each coding, cut off at every 5 % of its length."""
    for name in _DAMAGED:
        whole = _good_files()[name]
        for percent in TRUNCATED_AT:
            part = whole[: len(whole) * percent // 100]
            stem, _, kind = name.rpartition(".")
            yield Hostile(name=f"truncated-{percent:02d}-{stem}.{kind}", make=lambda part=part: part, expected="either")


def flipped(count: int) -> Iterator[Hostile]:
    """Files with one byte changed."""
    chance = random.Random(20261121)
    for number in range(count):
        name = _DAMAGED[number % len(_DAMAGED)]
        damaged = bytearray(_good_files()[name])
        damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        yield Hostile(name=f"flipped-{number:04d}-{name}", make=lambda data=bytes(damaged): data, expected="either")


_DAMAGED = (
    "rgb.png",
    "p-index.png",
    "apng.png",
    "interlaced.png",
    "rgb.jpg",
    "progressive.jpg",
    "exif-6.jpg",
    "animated.gif",
    "rgb.bmp",
    "p.bmp",
    "lossy.webp",
    "lossless.webp",
    "animated.webp",
)


def png(width: int, height: int, rows: list[bytes], *, depth: int, colour: int, interlace: int = 0) -> bytes:
    """A PNG of unfiltered rows."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def plain_png(width: int, height: int, *, depth: int, colour: int) -> bytes:
    """A PNG of one colour, black or clear; making it takes no memory, whatever its size."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    packer = zlib.compressobj(1)
    row = bytes(1 + (width * channels * depth + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def interlaced_png(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG of RGB pixels; Pillow reads these and writes none."""
    height, width = pixels.shape[:2]
    parts = [pixels[top::down, left::right] for left, top, right, down in ADAM7]
    rows = [row.tobytes() for part in parts if part.size for row in part]
    return png(width, height, rows, depth=8, colour=2, interlace=1)


def many_frames() -> bytes:
    """A GIF of 10,000 frames of one pixel."""
    frame = b"\x21\xf9\x04\0\x01\0\0\0" + b"\x2c\0\0\0\0\x01\0\x01\0\0" + b"\x02\x02\x44\x01\0"
    return b"GIF89a\x01\0\x01\0\x80\0\0" + b"\0\0\0\xff\xff\xff" + frame * GIF_FRAMES + b";"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_header(width: int, height: int, *, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IEND", b"")


def _with_chunk(whole: bytes, kind: bytes, data: bytes, *, times: int = 1) -> bytes:
    """A PNG with chunks after its header."""
    return whole[:33] + _chunk(kind, data) * times + whole[33:]


def _with_exif(whole: bytes, exif: bytes) -> bytes:
    segment = b"Exif\0\0" + exif
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]


def _with_size(whole: bytes, width: int, height: int) -> bytes:
    """A baseline JPEG whose frame header says another size."""
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def _webp_header(width: int, height: int) -> bytes:
    """An extended WebP without a picture."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _profile() -> bytes:
    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile
