"""CSV and its relatives: cells between commas, semicolons, tabs or bars, with a header line.

Python's `csv` parses them, strictly: pyarrow's reader takes everything behind a quotation that never closes for one
cell. Types are the narrowest that print each cell as it stands; ``007``, ``1e3`` and dates do not, so they are text.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import Looks, Source, Split
from lance_align.jobs.sources.lists import (
    MAX_CHARS,
    allow_long_cells,
    blocks,
    opened_lines,
    parts_of,
    splits_of,
    taken,
)
from lance_align.jobs.sources.location import Location
from lance_align.jobs.sources.roles import played_as_text
from lance_align.jobs.sources.texts import mended, mended_cells

DELIMITERS = (",", ";", "\t", "|")  # recognised, in this order
_DELIMITER_NAMES = {"\\t": "\t", "tab": "\t"}  # what a shell lets people write
_QUOTE = '"'
_SAID = re.compile('"?sep=([^"a-zA-Z0-9])"?', re.IGNORECASE)  # Excel's first line

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_FLOAT = re.compile(r"-?[0-9][0-9.e+-]*")
_NOT_FINITE = frozenset({"nan", "NaN", "inf", "-inf"})
_BOOLEANS = {"true": "true", "false": "true", "True": "True", "False": "True", "TRUE": "TRUE", "FALSE": "TRUE"}
_TRUTH = {word: word.lower() == "true" for word in _BOOLEANS}
_MAX_WHOLE_DOUBLE = 2**53  # doubles hold every whole number up to it
_TYPES: tuple[tuple[frozenset[str], Any], ...] = (
    (frozenset({"whole", "long"}), pa.int64()),
    (frozenset({"whole", "float", "not finite"}), pa.float64()),
    *((frozenset({spelling}), pa.bool_()) for spelling in set(_BOOLEANS.values())),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CsvSource(Source):
    """Delimited text, in UTF-8 or what a byte-order mark says; quoted line breaks allowed.

    Attributes:
        delimiter: what separates cells, or None to recognise it in each file's header line.
    """

    delimiter: str | None = None

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the range; other columns are not converted."""
        location = self.location.at(split.path)
        with opened_lines(location, "CSV", newline="") as lines:
            file = _File(location, lines, self.delimiter)
            places = {name: place for place, name in enumerate(file.names)}
            file.pass_over(split.start)
            for rows in blocks(_sized(taken(iter(file), split, location))):
                cells = list(zip(*rows, strict=True))
                arrays = {
                    name: _array(cells[places[name]], self.schema.field(name).type, name, location)
                    if name in places
                    else pa.nulls(len(rows), self.schema.field(name).type)
                    for name in columns
                }
                yield pa.table(arrays)


def open_csv(
    location: Location,
    files: list[str],
    *,
    allow_outside: bool,
    as_text: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    delimiter: str | None = None,
    looks: Looks = "images",
) -> CsvSource:
    """A source of CSV files; they are read through.

    Args:
        as_text: columns that the user gave a role.
        drop: columns that are not looked at.
        delimiter: one character, or ``tab``; None to recognise it.
        looks: what paths lead to.

    Raises:
        SourceError: a file cannot be parsed to its end, or its header line has nothing in common with another's.
    """
    delimiter = _checked_delimiter(delimiter)
    seen: dict[str, set[str]] = {}
    splits: list[Split] = []
    headers: dict[str, list[str]] = {}
    for path in files:
        with opened_lines(location.at(path), "CSV", newline="") as lines:
            file = _File(location.at(path), lines, delimiter)
            headers[path] = file.names
            splits += splits_of(path, _learn(file, seen))
    _check_headers(location, headers)
    schema = pa.schema([pa.field(name, _type(kinds)) for name, kinds in seen.items() if name not in drop])
    texts = played_as_text(schema, looks, said=as_text)
    types = {name: pa.field(name, pa.string() if name in texts else _type(kinds)) for name, kinds in seen.items()}
    parts = parts_of(location, headers, types, splits, drop=drop, allow_outside=allow_outside)
    return CsvSource(**parts, delimiter=delimiter)


class _File:
    """The rows of one file behind its header line; what does not fit is refused with its line.

    Attributes:
        names: the header's cells; none where the file is empty.
    """

    def __init__(self, location: Location, lines: Iterator[str], delimiter: str | None) -> None:
        self._location = location
        self._before = 0  # lines before the header: blank ones, and Excel's
        head = ""
        for head in lines:
            said = _SAID.fullmatch(head.strip("\r\n"))
            if said is not None:
                delimiter = delimiter or said.group(1)
            elif head.strip("\r\n"):
                break
            self._before += 1
        self._delimiter = delimiter or _recognised(head, location.path)
        allow_long_cells()
        self._rows = csv.reader(itertools.chain([head], lines), delimiter=self._delimiter, strict=True)
        try:
            self.names = [mended(name) for name in next(self._rows, [])]
        except csv.Error as error:
            raise SourceError(self._broken(self._before + 1, str(error))) from error
        if any("\0" in name for name in self.names):
            raise SourceError(
                f"{location.uri} has NUL characters in its header line; expected UTF-8, or UTF-16 with a byte-order "
                "mark: save it as UTF-8"
            )

    def __iter__(self) -> Iterator[list[str]]:
        width, line = len(self.names), self._line
        try:
            for row in self._rows:
                line = self._line
                if len(row) == width:
                    yield row
                elif row:  # else a blank line
                    raise SourceError(
                        f"{self._location.uri} cannot be read as CSV: line {line} has {len(row)} cells, the header "
                        f"line {width}; mend the line, or say what separates cells with --delimiter (it was taken for "
                        f"{self._delimiter!r})"
                    )
        except csv.Error as error:
            raise SourceError(self._broken(line + 1, str(error))) from error

    def pass_over(self, count: int) -> None:
        """Leave out rows that were looked at when the source was opened; at a third of the cost of reading them."""
        line = self._line
        try:
            collections.deque(itertools.islice(filter(None, self._rows), count), maxlen=0)
        except csv.Error as error:
            raise SourceError(self._broken(line + 1, str(error))) from error

    @property
    def _line(self) -> int:
        """The last line that was read, counted from 1."""
        return self._before + self._rows.line_num

    def _broken(self, first: int, error: str) -> str:
        place, last = f"{self._location.uri} cannot be read as CSV", self._line
        with opened_lines(self._location, "CSV", newline="") as lines:
            row = enumerate(itertools.islice(lines, first - 1, last), start=first)
            opened, is_closed = _last_quotation(row, self._delimiter)
        if is_closed:
            return (
                f"{place}: in line {last}, text follows the end of the quotation that opens in line {opened}; double "
                'the quotation marks that belong to a cell ("")'
            )
        if "field limit" in error:
            return (
                f"{place}: the quotation that opens in line {opened} is longer than {MAX_CHARS:,} characters; close it"
            )
        return (
            f"{place}: the quotation that opens in line {opened} never closes; close it, or double the mark if it "
            'belongs to the cell ("")'
        )


def _last_quotation(lines: Iterable[tuple[int, str]], delimiter: str) -> tuple[int, bool]:
    """The line in which the last quotation of a broken row opens, and whether it ends before other text."""
    opened, inside, starts = 0, False, True
    for number, line in lines:
        place = 0
        while place < len(line):
            mark, place = line[place], place + 1
            if inside and mark == _QUOTE:
                after = line[place : place + 1]
                if after == _QUOTE:
                    place += 1
                elif after and after not in (delimiter, "\r", "\n"):
                    return opened, True
                else:
                    inside = False
            elif starts and not inside and mark == _QUOTE:
                opened, inside = number, True
            starts = not inside and mark in (delimiter, "\r", "\n")
    return opened, False


def _recognised(header: str, path: str) -> str:
    """The delimiter that makes most cells of a header line."""
    is_tsv = path.lower().endswith((".tsv", ".tsv.gz"))
    marks = sorted(DELIMITERS, key=lambda mark: mark != "\t") if is_tsv else DELIMITERS
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in marks}
    return max(counts, key=counts.__getitem__)  # the first of equals


def _checked_delimiter(delimiter: str | None) -> str | None:
    if delimiter is None:
        return None
    mark = _DELIMITER_NAMES.get(delimiter, delimiter)
    if len(mark) != 1 or mark in '"\r\n ' or not mark.isascii():
        raise SourceError(f"delimiter {delimiter!r} cannot separate cells; expected one character as , ; | or tab")
    return mark


def _check_headers(location: Location, headers: Mapping[str, Sequence[str]]) -> None:
    """Refuse a file without a header line among others: its first row would be lost, the rest would be null."""
    known: set[str] = set()
    for path, names in headers.items():
        if known and names and known.isdisjoint(names):
            raise SourceError(
                f"{location.at(path).uri} has none of the columns of the files before it, but {', '.join(names)}; "
                "expected a header line, and the same columns in all files"
            )
        known.update(names)
    if not known:
        raise SourceError(f"{location.uri} is empty; expected a header line and rows")


def _sized(rows: Iterable[list[str]]) -> Iterator[tuple[int, list[str]]]:
    return ((sum(map(len, row)), row) for row in rows)


def _learn(file: _File, seen: dict[str, set[str]]) -> int:
    """Note what kinds of cells each column has; how many rows there are."""
    kinds = [seen.setdefault(name, set()) for name in file.names]
    count = 0
    for rows in blocks(_sized(file)):
        count += len(rows)
        for known, cells in zip(kinds, zip(*rows, strict=True), strict=True):
            if "text" not in known:
                known.update(map(_kind, set(cells)))
    return count


def _kind(cell: str) -> str:
    """What a cell is beside text, if it prints back as it stands."""
    if not cell:
        return "null"
    if _WHOLE.fullmatch(cell):
        value = int(cell)
        return "whole" if abs(value) <= _MAX_WHOLE_DOUBLE else "long" if -(2**63) <= value < 2**63 else "text"
    if _FLOAT.fullmatch(cell) and _prints_back(cell):
        return "float"
    if cell in _NOT_FINITE:
        return "not finite"
    return _BOOLEANS.get(cell, "text")


def _prints_back(cell: str) -> bool:
    try:
        return repr(float(cell)) == cell
    except ValueError:
        return False


def _type(kinds: set[str]) -> Any:
    kinds = kinds - {"null"}
    if kinds <= {"not finite"}:  # words without a number among them, or nothing
        return pa.string()
    return next((kind for names, kind in _TYPES if kinds <= names), pa.string())


def _array(cells: Sequence[str], kind: Any, name: str, location: Location) -> Any:
    try:
        if pa.types.is_boolean(kind):
            return pa.array([_TRUTH[cell] if cell else None for cell in cells], kind)
        if pa.types.is_integer(kind):
            return pa.array([int(cell) if cell else None for cell in cells], kind)
        if pa.types.is_floating(kind):
            return pa.array([float(cell) if cell else None for cell in cells], kind)
    except (ValueError, KeyError, OverflowError) as error:
        raise SourceError(
            f"{location.uri} changed while it was read: column {name!r} is no {kind}; run again"
        ) from error
    try:
        return pa.array([cell or None for cell in cells], kind)
    except UnicodeEncodeError:
        return pa.array([cell or None for cell in mended_cells(cells)], kind)
