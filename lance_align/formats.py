"""The kinds of image files: what they are called, how their bytes begin, and which of them may be opened.

The list is closed. Pillow opens more, and would start Ghostscript for an EPS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lance_align.errors import ArgumentError

DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "HEIF")
# Pillow's names, and HEIF, which pillow-heif opens.
FORMATS = (
    *DEFAULT_FORMATS,
    *("AVIF", "TIFF", "JPEG2000", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "PSD", "QOI"),
)
# What people call them besides: by their suffixes, or by a format that is one of these with more in it.
_ALSO: Mapping[str, str] = {
    "JPG": "JPEG",
    "JPE": "JPEG",
    "JFIF": "JPEG",
    "MPO": "JPEG",
    "APNG": "PNG",
    "DIB": "BMP",
    "HEIC": "HEIF",
    "HIF": "HEIF",
    "TIF": "TIFF",
    "JP2": "JPEG2000",
    "J2K": "JPEG2000",
    "PGM": "PPM",
    "PBM": "PPM",
    "PNM": "PPM",
}

# The first bytes of each. PCX and TGA have none that tell; a format that is not in `FORMATS` cannot be opened.
_MAGICS: Mapping[str, bytes] = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM.{4}.{4}.{4}[\x0c-\x7c]\0\0\0",
    "AVIF": rb"....ftyp(?:avi[fs]|m[is][fs]1.{4}(?:.{4}){0,12}?avi[fs])",
    "HEIF": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "ICO": rb"\0\0\x01\0[^\0].{3}",
    "PPM": rb"P[1-7][ \t\r\n]",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]",
    "DDS": rb"DDS ",
    "PSD": rb"8BPS",
    "QOI": rb"qoif",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "SVG": rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,200}?)?<svg",
    "PDF": rb"%PDF-",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
}
_KNOWN = tuple((name, re.compile(magic, re.DOTALL)) for name, magic in _MAGICS.items())
_HEAD_BYTES = 256

# Scripts and servers put a line break, a byte-order mark or a length before a file. What begins as another kind of
# file is that file, whatever picture lies in it: the first page of a PDF, the cover of a song, a preview.
LEADING_BYTES = 64
_LED = re.compile(b"|".join(_MAGICS[name] for name in ("JPEG", "PNG", "GIF", "WEBP")), re.DOTALL)
_CONTAINERS = re.compile(
    rb"PK|ID3|OggS|fLaC|RIFF|\x1f\x8b|\x1aE\xdf\xa3|BZh|7z\xbc\xaf|Rar!|....(?:ftyp|moov|mdat)", re.DOTALL
)


def named_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The formats of a user's list, in its order, each once.

    Raises:
        ArgumentError: a name is not known, or there is none.
    """
    given = [names] if isinstance(names, str) else names
    found = dict.fromkeys(_named(name) for each in given for name in each.split(","))
    if not found:
        raise ArgumentError(f"image_formats is empty; expected some of {', '.join(FORMATS)}")
    return tuple(found)


def _named(name: str) -> str:
    upper = name.strip().lstrip(".").upper()
    known = _ALSO.get(upper, upper)
    if known not in FORMATS:
        raise ArgumentError(f"image_formats={name!r} is not known; expected some of {', '.join(FORMATS)}")
    return known


def format_of(data: bytes | memoryview) -> tuple[str | None, int]:
    """The name of the format of a file, and where in the file it begins; None and 0 for an unknown one."""
    head = bytes(data[:_HEAD_BYTES])
    for name, magic in _KNOWN:
        if magic.match(head):
            return name, 0
    led = None if _CONTAINERS.match(head) else _LED.search(head, 0, LEADING_BYTES + 12)
    if led is not None and led.start() <= LEADING_BYTES:
        return format_of(data[led.start() :])[0], led.start()
    return None, 0
