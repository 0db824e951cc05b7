"""The pairs of a Lance table: those to train on, and those held out to measure with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.encoders.once import Once
from lance_align.errors import ArgumentError, SourceError
from lance_align.fetching import NO_URLS, FetchPolicy
from lance_align.hints import did_you_mean
from lance_align.images import DEFAULT_LIMITS, ImageInput
from lance_align.jobs.sources.location import References, locate
from lance_align.spec import ImageSpec
from lance_align.tables.creation import open_table
from lance_align.training import RowPairs
from lance_align.training.pairs import Row

_Places = NDArray[np.int64]


def table_pairs(
    uri: str,
    image: str,
    text: str,
    geometry: ImageSpec,
    *,
    version: int | None = None,
    held_out: int = 0,
    seed: int = 0,
    allow_outside: bool = False,
    fetching: FetchPolicy = NO_URLS,
) -> tuple[RowPairs, RowPairs | None]:
    """Rows of a Lance table, read when a batch wants them.

    Args:
        uri: such as ``db/photos.lance``.
        image: the column of pictures: encoded, or paths, which start from the folder of the table's database.
        text: the column of captions.
        geometry: what pictures are brought to.
        version: of the table; None for the latest.
        held_out: rows that are never trained on. Other rows that show one of their pictures, pixel for pixel, are
            skipped wherever they are drawn; a caption may be in both parts.
        seed: of the choice of those rows.
        allow_outside: let paths lead out of that folder.
        fetching: hosts that URLs in the rows may name.

    Returns:
        The rows to train on, and those held out; None for none.

    Raises:
        ArgumentError: fewer than two rows would be left to train on.
        SourceError: no such table or column, or one of a type that holds no pictures or captions.
        TableError: the table cannot be opened.
    """
    dataset = _open(uri, version, image, text)
    opened = _opener(dataset.schema, uri, image, References(locate(uri).parent(), allow_outside, fetching))
    _check_text(dataset.schema, uri, text)
    count = dataset.count_rows()
    if not 0 <= held_out <= max(0, count - 2):
        raise ArgumentError(f"held_out={held_out} of {count} rows; expected 0 to {max(0, count - 2)}")

    def fetch(places: _Places) -> list[Row]:
        rows = dataset.take(pa.array(places), columns=[image, text])
        return list(zip(rows[image].to_pylist(), rows[text].to_pylist(), strict=True))

    if not held_out:
        return RowPairs(fetch, count, geometry, opened), None
    kept = np.sort(np.random.default_rng((seed, count)).choice(count, size=held_out, replace=False))
    measured = RowPairs(_at(fetch, lambda places: kept[places]), held_out, geometry, opened)
    others = _at(fetch, lambda places: _beside(kept, places))
    return RowPairs(others, count - held_out, geometry, opened, without=Once(measured.pictures)), measured


def _opener(
    schema: pa.Schema, uri: str, image: str, references: References
) -> Callable[[ImageInput], ImageInput] | None:
    """What reads the files that a column of paths names; None for encoded pictures.

    Raises:
        SourceError: the column holds neither.
    """
    kind = _value_type(schema, image)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None
    if not _is_text(kind):
        raise SourceError(f"{uri}: column {image!r} is {kind}; expected encoded images as binary, or paths as strings")
    return lambda path: references.read(str(path), max_bytes=DEFAULT_LIMITS.max_bytes)[1]


def _check_text(schema: pa.Schema, uri: str, text: str) -> None:
    kind = _value_type(schema, text)
    if not _is_text(kind):
        more = "; give each caption a row of its own" if pa.types.is_nested(kind) else ""
        raise SourceError(f"{uri}: column {text!r} is {kind}; expected captions as strings{more}")


def _value_type(schema: pa.Schema, column: str) -> pa.DataType:
    kind: Any = schema.field(column).type
    value_type: pa.DataType = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return value_type


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _beside(kept: _Places, places: _Places) -> _Places:
    """Places among the rows that are not in `kept` (rising) to places among all; needs no list of a billion rows."""
    before = np.searchsorted(kept - np.arange(len(kept)), places, side="right")
    return places + before


def _at(fetch: Callable[[_Places], list[Row]], place: Callable[[_Places], _Places]) -> Callable[[_Places], list[Row]]:
    return lambda places: fetch(place(places))


def table_version(uri: str) -> int:
    """The latest version of a Lance table.

    Raises:
        SourceError: no such table.
        TableError: it cannot be opened.
    """
    return _open(uri, None).version


def row_count(uri: str, version: int | None) -> int:
    """Rows of a Lance table, at a version or, where it is None, the latest.

    Raises:
        SourceError, TableError: as `table_version`.
    """
    return int(_open(uri, version).count_rows())


def _open(uri: str, version: int | None, *columns: str) -> lance.LanceDataset:
    if Path(uri.removeprefix("file://")).is_file():
        raise SourceError(
            f"{uri} is a file; expected a Lance table such as lancedb/photos.lance: make one of it with embed first"
        )
    dataset = open_table(uri, version=version)
    if dataset is None and version is not None:
        raise SourceError(
            f"{uri} has no version {version}, which this run began with; train into another directory to begin anew"
        )
    if dataset is None:
        raise SourceError(f"{uri} is no Lance table; give the table's own folder, such as lancedb/photos.lance")
    missing = set(columns) - set(dataset.schema.names)
    if missing:
        name = min(missing)
        near = did_you_mean(name, dataset.schema.names)
        raise SourceError(f"{uri} has no column {name!r}; {near}it has {', '.join(dataset.schema.names)}")
    return dataset
