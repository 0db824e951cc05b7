"""Whether a JPEG without its end marker has all its pixels.

libjpeg makes grey of what is missing, without an error that Pillow passes on. So the headers of the scans are read:
they must have brought every coefficient in full. Then the data are continued in several ways. If one of them changes a
pixel, the last scan wanted more.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from lance_align.errors import RowError

END = b"\xff\xd9"
# Bytes that may stand behind the last scan without being missed; see `ended`.
TRAILING_BYTES = 16

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within a scan: no stuffed byte, no restart, no fill
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_NOISE = tuple(bytes(random.Random(seed).choices(range(1, 255), k=64)) for seed in range(9))


def ended(data: bytes, digest: Callable[[bytes], int]) -> bytes | None:
    """A JPEG with the end marker that it lacks; None where pixels are missing too.

    A download that was cut may end in thousands of zeros, which are taken for coefficients. So the picture has to be
    whole without a run of equal bytes at the end, or it has to need the last bytes.

    Args:
        data: from the start marker on.
        digest: decodes a JPEG at its full size, to a number that differs where pixels do.
    """
    stop = _last_scan_end(data)
    if stop is None:
        return None
    body = data[:stop]
    is_whole = _is_settled(body.rstrip(body[-1:]), digest) or (
        _is_settled(body, digest) and not _is_settled(body[:-TRAILING_BYTES], digest)
    )
    return body + END if is_whole else None


def _is_settled(body: bytes, digest: Callable[[bytes], int]) -> bool:
    """Whether no continuation changes a pixel."""
    digests = set()
    for continued in _continuations(body):
        try:
            digests.add(digest(body + continued))
        except (MemoryError, RowError):
            raise
        except Exception:  # noqa: BLE001 - as in `images`: what damaged files make decoders raise is not known
            return False
        if len(digests) > 1:
            return False
    return True


def _continuations(body: bytes) -> Iterator[bytes]:
    """Nothing, for which libjpeg makes up zeros; then noise, and its complement, which differs at the first bit.

    Restart markers are among it, for a scan that was cut between two intervals wants the next of them.
    """
    yield END
    restarts = _RESTART.findall(body, body.rfind(b"\xff\xda"))
    first = restarts[-1][1] + 1 if restarts else 0
    for flip in (0, 0xFF):
        parts = [bytes(byte ^ flip for byte in noise) for noise in _NOISE]
        later = (bytes([0xFF, 0xD0 + (first + number) % 8]) + part for number, part in enumerate(parts[1:]))
        yield b"".join([parts[0], *later, END])


def _last_scan_end(data: bytes) -> int | None:
    """Where the last scan ends; None unless the scans bring every coefficient of every component in full."""
    at, end = 2, None
    missing: set[tuple[int, int]] | None = None  # component, coefficient
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        body = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        at += 4 + len(body)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            missing = {(component, place) for component in body[6::3] for place in range(64)}
        elif marker == 0xDA and missing is not None and len(body) >= 4:
            first, last, precision = body[-3:]
            if precision & 15 == 0:
                missing -= {(component, place) for component in body[1:-3:2] for place in range(first, last + 1)}
            found = _MARKER.search(data, at)
            at = end = found.start() if found else len(data) - (data[-1] == 0xFF)
    return None if missing else end
