"""Pictures that stand in a text cell: data URIs, and base64 without one."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from lance_align.errors import RowError
from lance_align.jobs.sources.content import kind_of

_HEAD_CHARS = 64  # what base64 of any picture has; they hold the first 48 bytes
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*+={0,2}+\s*+")
_URL_SAFE = str.maketrans("-_", "+/")


def is_inline(text: str) -> bool:
    """Whether a cell holds a picture and no path: it begins as a data URI, or as the base64 of a picture or video.

    A path is not taken for base64: that has no period, and what it says begins as a picture's file does.
    """
    return text[:5].lower() == "data:" or _is_base64(text)


def inline_bytes(text: str, *, max_bytes: int) -> bytes:
    """The bytes of a cell that `is_inline`.

    Raises:
        RowError: `too_large` before anything over `max_bytes` is decoded, or `unreadable`.
    """
    head, comma, body = text.partition(",") if text[:5].lower() == "data:" else (";base64", ",", text)
    if not comma:
        raise RowError("unreadable", "a data URI without a comma")
    encoded = head.lower().endswith(";base64")
    if len(body) > (2 * max_bytes if encoded else 3 * max_bytes):  # with line breaks, or three characters a byte
        raise RowError("too_large", f"{len(body)} characters for a picture of at most {max_bytes} bytes")
    data = unquote_to_bytes(body)
    if encoded:
        plain = data.decode("ascii", "replace").translate(_URL_SAFE)
        try:
            data = base64.b64decode(_padded("".join(plain.split())), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RowError("unreadable", f"base64 that cannot be decoded: {error}") from None
    if len(data) > max_bytes:
        raise RowError("too_large", f"{len(data)} bytes, the limit is {max_bytes}")
    return data


def _is_base64(text: str) -> bool:
    if len(text) < _HEAD_CHARS or "." in text[:256]:
        return False
    head = "".join(text[: 2 * _HEAD_CHARS].split())[:_HEAD_CHARS].rstrip("=").translate(_URL_SAFE)
    try:
        data = base64.b64decode(_padded(head), validate=True)
    except (binascii.Error, ValueError):
        return False
    return kind_of(data) is not None and _BASE64.fullmatch(text) is not None


def _padded(text: str) -> str:
    return text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
