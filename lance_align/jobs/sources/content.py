"""What a file is by its first bytes, for files whose names do not tell."""

from __future__ import annotations

from typing import Literal

HEAD_BYTES = 32

# Formats that Pillow decodes, with the extras of this project; JPEG XL and raw photographs are not among them.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_IMAGE_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_VIDEOS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")  # Matroska, FLV, MPEG


def kind_of(head: bytes) -> Literal["images", "videos"] | None:
    """What a file is that begins with `head`, of `HEAD_BYTES` bytes if it has so many; None for neither."""
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "images"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and head[14:18] in _BMP_HEADERS:
        return "images"
    if head[4:8] == b"ftyp":
        return "images" if head[8:12] in _IMAGE_BRANDS else "videos"
    if head.startswith(_VIDEOS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "videos"
    return None


_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
