"""The pages of a Parquet column: how much memory each takes, before anything is decompressed.

pyarrow decompresses a page whole, whatever the size of the batches that are asked for, and believes the footer. A page
of zeros of some kilobytes can become 2 GiB. Each page begins with its sizes, as a Thrift struct in the compact protocol
(https://github.com/apache/parquet-format, PageHeader).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

HEADER_BYTES = (2**12, 2**24)  # nearly always, and as pyarrow's limit: statistics may hold two values of the page
MAX_PAGE_BYTES = 64 * 2**20  # a larger page must weigh something in the file as well
MAX_RATIO = 200  # of such a page's sizes; pictures do not compress, and texts not so well

_I32, _STRUCT = 5, 12
_DICTIONARY = 2  # of PageType


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Sizes that a page's header tells.

    Attributes:
        is_dictionary: whether it holds values that rows of other pages name by number.
        bytes: of its content, decompressed.
        stored_bytes: of its content in the file.
    """

    is_dictionary: bool
    bytes: int
    stored_bytes: int


def pages(file: Any, start: int, stop: int) -> Iterator[Page]:
    """The pages between two places of a file.

    Raises:
        ArrowInvalid: a header cannot be read, or a page claims far more than it weighs.
    """
    while start < stop:
        fields, length = _header(file, start)
        if not fields:  # padding
            return
        try:
            page = Page(fields[1] == _DICTIONARY, fields[2], fields[3])
        except KeyError as error:
            raise pa.ArrowInvalid(f"the page at byte {start} does not tell its size") from error
        if page.bytes < 0 or page.stored_bytes < 0:
            raise pa.ArrowInvalid(f"the page at byte {start} has a negative size")
        if page.bytes > max(MAX_PAGE_BYTES, MAX_RATIO * page.stored_bytes):
            raise pa.ArrowInvalid(
                f"the page at byte {start} claims {page.bytes:,} bytes from {page.stored_bytes:,}; expected at most "
                f"{MAX_RATIO} times as many, or smaller pages"
            )
        yield page
        start += length + page.stored_bytes


def _header(file: Any, start: int) -> tuple[dict[int, int], int]:
    """The numbers in a page's header, and its length."""
    for size in HEADER_BYTES:
        try:
            return _struct(memoryview(file.read_at(size, start)), 0)
        except IndexError:
            continue
        except RecursionError:
            break
    raise pa.ArrowInvalid(f"the page at byte {start} has no header that can be read")


def _struct(data: memoryview, at: int) -> tuple[dict[int, int], int]:
    """The 32-bit fields of a struct by their numbers, and where it ends; other fields are passed over."""
    fields: dict[int, int] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if not step:
            number, at = _integer(data, at)
        else:
            number += step
        if kind == _I32:
            fields[number], at = _integer(data, at)
        else:
            at = _passed(data, at, kind)
    return fields, at + 1


def _passed(data: memoryview, at: int, kind: int) -> int:
    """Where a value ends."""
    if kind in (1, 2):  # true and false are their own values
        return at
    if kind == 3:
        return at + 1
    if kind in (4, _I32, 6):
        return _integer(data, at)[1]
    if kind == 7:
        return at + 8
    if kind == 8:
        length, at = _natural(data, at)
        return at + length
    if kind == _STRUCT:
        return _struct(data, at)[1]
    raise IndexError(kind)  # a page header has no lists and no maps


def _natural(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _integer(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _natural(data, at)
    return (value >> 1) ^ -(value & 1), at
