"""JSON Lines: one JSON object a line.

Python's `json` parses them: pyarrow's reader makes timestamps of strings that look like dates, and ends with the first
odd line.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.base import Looks, Source, Split
from lance_align.jobs.sources.lists import blocks, opened_lines, parts_of, splits_of, taken
from lance_align.jobs.sources.location import Location
from lance_align.jobs.sources.roles import may_play, played_as_text
from lance_align.jobs.sources.texts import mended, mended_cells

_Place = tuple[str, int]  # a file's URI and a line of it, counted from 1

MAX_BAD_LINES = 100  # then nobody reads on
MAX_NAMED_LINES = 3
MAX_DEPTH = 64  # of lists and objects in each other
MAX_BITS = 1000  # of a whole number; a double takes 1,024
_MAX_WHOLE_DOUBLE = 2**53  # doubles hold every whole number up to it
_NUMBERS = frozenset({"whole", "minus", "long", "long minus", "unsigned", "huge", "float"})
_SCALARS = _NUMBERS | {"text", "boolean"}
_TYPES: tuple[tuple[frozenset[str], Any], ...] = (
    (frozenset(), pa.string()),  # without a single value: Lance cannot hold the null type usefully
    (frozenset({"text"}), pa.string()),
    (frozenset({"boolean"}), pa.bool_()),
    (frozenset({"whole", "minus", "long", "long minus"}), pa.int64()),
    (frozenset({"whole", "long", "unsigned"}), pa.uint64()),
    (_NUMBERS, pa.float64()),
)
_KINDS = {str: "text", float: "float", list: "list", dict: "object", type(None): "null"}
# For people; the other kinds are a number.
_WORDS = {"text": "text", "boolean": "true or false", "object": "an object", "list": "a list", "null": "null"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JsonlSource(Source):
    """One JSON object a line, in UTF-8 or what a byte-order mark says."""

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the range; only their lines are parsed, other columns are not converted."""
        location = self.location.at(split.path)
        with opened_lines(location, "JSON Lines", newline="\n") as lines:
            numbered = taken(itertools.islice(_full(lines), split.start, None), split, location)
            for texts in blocks((len(line), (number, line)) for number, line in numbered):
                rows = [_row(line, number, location) for number, line in texts]
                yield pa.table(
                    {
                        name: _array([row.get(name) for row in rows], self.schema.field(name).type, name, location)
                        for name in columns
                    }
                )


def _row(line: str, number: int, location: Location) -> dict[str, Any]:
    try:
        return _parsed(line)
    except ValueError as error:  # it was an object when the job began
        raise SourceError(f"{location.uri} changed while it was read: line {number}: {error}; run again") from error


def open_jsonl(
    location: Location,
    files: list[str],
    *,
    allow_outside: bool,
    as_text: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    looks: Looks = "images",
) -> JsonlSource:
    """A source of JSON Lines files; they are read through.

    Args:
        as_text: columns that the user gave a role.
        drop: columns that are not looked at.
        looks: what paths lead to.

    Raises:
        SourceError: a line is no JSON object, or a column holds values that have no type in common; both are named.
    """
    columns: dict[str, _Column] = {}
    splits: list[Split] = []
    names: dict[str, list[str]] = {}
    for path in files:
        with opened_lines(location.at(path), "JSON Lines", newline="\n") as lines:
            here: dict[str, None] = {}
            splits += splits_of(path, _learn(_full(lines), location.at(path).uri, columns, here, drop))
            names[path] = list(here)
    if not splits:
        raise SourceError(f"{location.uri} is empty; expected one JSON object a line")
    types = {name: _field(name, column, said=as_text, looks=looks) for name, column in columns.items()}
    schema = pa.schema([field for name, field in types.items() if name not in drop])
    for name in played_as_text(schema, looks, said=as_text):
        if columns[name].is_scalar:
            types[name] = pa.field(name, pa.string())
    return JsonlSource(**parts_of(location, names, types, splits, drop=drop, allow_outside=allow_outside))


@dataclasses.dataclass(slots=True)
class _Column:
    """What the values of a column, of a key of an object, or of the items of a list are.

    Attributes:
        kinds: each kind with the place where it was seen first.
        items: of lists.
        fields: of objects.
    """

    kinds: dict[str, _Place] = dataclasses.field(default_factory=dict)
    items: _Column | None = None
    fields: dict[str, _Column] = dataclasses.field(default_factory=dict)

    def learn(self, value: Any, place: _Place, depth: int = 1) -> None:
        """Note one value.

        Raises:
            SourceError: it has more levels, or more digits, than a table holds.
        """
        if value is None:
            return
        kind = _kind(value)
        if depth > MAX_DEPTH or (kind == "huge" and value.bit_length() > MAX_BITS):
            seen = "more than 300 digits" if kind == "huge" else f"more than {MAX_DEPTH} levels"
            raise SourceError(f"{place[0]} line {place[1]} has a value of {seen}; mend the line, or --drop the column")
        self.kinds.setdefault(kind, place)
        if kind == "list":
            self.items = self.items or _Column()
            for item in value:
                self.items.learn(item, place, depth + 1)
        elif kind == "object":
            for key, item in value.items():
                self.fields.setdefault(key, _Column()).learn(item, place, depth + 1)

    @property
    def is_scalar(self) -> bool:
        return self.kinds.keys() <= _SCALARS

    def type(self, name: str) -> Any:
        """The type that holds all of them; a SourceError names two that no type holds."""
        kinds = self.kinds.keys()
        if kinds == {"list"}:
            return pa.list_((self.items or _Column()).type(f"{name}[]"))
        if kinds == {"object"}:
            return pa.struct([(key, column.type(f"{name}.{key}")) for key, column in self.fields.items()])
        found = next((kind for names, kind in _TYPES if kinds <= names), None)
        if found is None:
            raise _conflict(name, self.kinds)
        return found


def _conflict(name: str, kinds: Mapping[str, _Place]) -> SourceError:
    (one, (uri, line)), (other, (uri_of_other, line_of_other)) = _two_that_differ(kinds)
    column = name.split(".")[0].split("[]")[0]
    return SourceError(
        f"{uri} line {line} has {one} in {name!r}, {uri_of_other} line {line_of_other} has {other}; expected one type: "
        f"mend the lines, or leave the column out with --drop {column}"
    )


def _two_that_differ(kinds: Mapping[str, _Place]) -> list[tuple[str, _Place]]:
    """The last kind to appear, which is seldom, and the first that is another in words."""
    words: dict[str, _Place] = {}
    for kind, place in kinds.items():
        words.setdefault(_WORDS.get(kind, "a number"), place)
    found = list(words.items())
    return [found[-1], found[0]]


def _field(name: str, column: _Column, *, said: Sequence[str], looks: Looks) -> pa.Field[Any]:
    try:
        return pa.field(name, column.type(name))
    except SourceError:
        if column.is_scalar and (name in said or may_play(name, looks)):
            return pa.field(name, pa.string())  # a number among texts
        raise


def _learn(
    lines: Iterator[tuple[int, str]], uri: str, columns: dict[str, _Column], here: dict[str, None], drop: Sequence[str]
) -> int:
    """Note the kinds of values of each column, and the columns of this file; how many rows there are.

    Raises:
        SourceError: lines are no JSON objects; the first of them are named.
    """
    count = 0
    bad: list[tuple[int, str]] = []
    for number, line in lines:
        count += 1
        if count == 1 and line.lstrip("\ufeff \t\r\n").startswith("["):
            raise SourceError(
                f"{uri} cannot be read as JSON Lines: it holds an array; expected one object a line: write each "
                "item on a line of its own, for example with: jq -c '.[]' list.json > list.jsonl"
            )
        try:
            row = _parsed(line)
        except ValueError as error:
            bad.append((number, str(error)))
            if len(bad) == MAX_BAD_LINES:
                break
            continue
        place = (uri, number)
        for name, value in row.items():
            here[name] = None
            column = columns.get(name) or columns.setdefault(name, _Column())
            if type(value) is str:
                column.kinds.setdefault("text", place)
            elif name not in drop:
                column.learn(value, place)
    if bad:
        named = ", ".join(f"line {number} ({reason})" for number, reason in bad[:MAX_NAMED_LINES])
        more = f" and {len(bad) - MAX_NAMED_LINES} more" if len(bad) > MAX_NAMED_LINES else ""
        raise SourceError(
            f"{uri} cannot be read as JSON Lines: {named}{more}; expected one object a line: mend these lines, or take "
            "them out"
        )
    return count


def _full(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip(" \t\r\n"))


def _parsed(line: str) -> dict[str, Any]:
    """The object of a line, its keys without bytes that are no UTF-8 and halves of surrogate pairs.

    Raises:
        ValueError: it is none, has a key twice, or a number beyond all floats.
    """
    try:
        row = _DECODER.decode(line)
        if not isinstance(row, dict):
            raise ValueError(_WORDS.get(_kind(row), "a number"))
        if "\\u" in line or not _is_text(line):
            return {mended(key): _with_valid_text(value) for key, value in row.items()}
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    return row


def _is_text(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_valid_text(value: Any) -> Any:
    """What is nested is mended; texts of their own are mended with the others of their column."""
    if isinstance(value, list):
        return [mended(item) if isinstance(item, str) else _with_valid_text(item) for item in value]
    if isinstance(value, dict):
        pairs = value.items()
        return {mended(key): mended(item) if isinstance(item, str) else _with_valid_text(item) for key, item in pairs}
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return row


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is too big a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite)  # `json.loads` would make one a line


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if abs(value) <= _MAX_WHOLE_DOUBLE:
            return "whole" if value >= 0 else "minus"
        if -(2**63) <= value < 2**63:
            return "long" if value >= 0 else "long minus"
        return "unsigned" if 0 <= value < 2**64 else "huge"
    return _KINDS[type(value)]


def _array(values: Sequence[Any], kind: Any, name: str, location: Location) -> Any:
    try:
        fitted = [_fitted(value, kind) for value in values]
        if pa.types.is_string(kind):
            return _text_array(fitted)
        return pa.array(fitted, kind)
    except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise SourceError(
            f"{location.uri} changed while it was read: column {name!r} is no {kind} any more; run again"
        ) from error


def _text_array(texts: Sequence[str | None]) -> Any:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array(mended_cells(texts), pa.string())


def _fitted(value: Any, kind: Any) -> Any:
    """A value as the type of its column takes it: numbers among texts as text, whole numbers among floats as floats."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value)
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_list(kind):
        return [_fitted(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: _fitted(value.get(field.name), field.type) for field in kind}
    return value
