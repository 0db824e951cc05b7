"""The pairs of a Lance table: those to train on, and those held out to measure with."""

from __future__ import annotations

from collections.abc import Callable

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lance_align.errors import ArgumentError, SourceError
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
) -> tuple[RowPairs, RowPairs | None]:
    """Rows of a Lance table, read when a batch wants them.

    Args:
        uri: such as ``db/photos.lance``.
        image: the column of encoded pictures.
        text: the column of captions.
        geometry: what pictures are brought to.
        version: of the table; None for the latest.
        held_out: rows that are never trained on. A picture or caption that is in the table twice may be in both parts.
        seed: of the choice of those rows.

    Returns:
        The rows to train on, and those held out; None for none.

    Raises:
        ArgumentError: fewer than two rows would be left to train on.
        SourceError: no such table or column.
        TableError: the table cannot be opened.
    """
    dataset = _open(uri, version, image, text)
    count = dataset.count_rows()
    if not 0 <= held_out <= max(0, count - 2):
        raise ArgumentError(f"held_out={held_out} of {count} rows; expected 0 to {max(0, count - 2)}")

    def fetch(places: _Places) -> list[Row]:
        rows = dataset.take(pa.array(places), columns=[image, text])
        return list(zip(rows[image].to_pylist(), rows[text].to_pylist(), strict=True))

    if not held_out:
        return RowPairs(fetch, count, geometry), None
    kept = np.sort(np.random.default_rng((seed, count)).choice(count, size=held_out, replace=False))
    return (
        RowPairs(_at(fetch, lambda places: _beside(kept, places)), count - held_out, geometry),
        RowPairs(_at(fetch, lambda places: kept[places]), held_out, geometry),
    )


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


def _open(uri: str, version: int | None, *columns: str) -> lance.LanceDataset:
    dataset = open_table(uri, version=version)
    if dataset is None and version is not None:
        raise SourceError(
            f"{uri} has no version {version}, which this run began with; train into another directory to begin anew"
        )
    if dataset is None:
        raise SourceError(f"{uri} is no Lance table; give the table's own folder, such as lancedb/photos.lance")
    missing = set(columns) - set(dataset.schema.names)
    if missing:
        raise SourceError(f"{uri} has no column {sorted(missing)}; it has {dataset.schema.names}")
    return dataset
