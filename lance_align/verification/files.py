"""The files of one version of a table: all there, all readable."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from lance_align.verification.findings import Collector
from lance_align.verification.reading import WIDE_BATCH_ROWS, attempt, read_fragment


def check_files(dataset: Any, collector: Collector) -> None:
    """Every data, deletion and index file, the manifest and the transaction of this version exist in their size.

    Files of a shallow clone's origin lie in another folder and are not looked for.
    """
    there, error = attempt(_list, dataset)
    if there is None:
        collector.add("unreadable", [f"the list of files: {error}"])
        return
    for check in (_missing, _wrong_size, _wrong_index):
        found, error = attempt(check, dataset, there)
        collector.add("missing_file", sorted(found or ()))
        if error is not None:
            collector.add("unreadable", [f"the list of files: {error}"])


def check_other_columns(dataset: Any, collector: Collector, *, seen: Collection[str]) -> None:
    """Read every column that is not in `seen`, a few rows at a time, and forget it."""
    columns = [name for name in dataset.schema.names if name not in seen]
    if columns:
        for fragment in dataset.get_fragments():
            for _ in read_fragment(fragment, columns, collector, batch_rows=WIDE_BATCH_ROWS):
                pass


@dataclasses.dataclass(frozen=True, slots=True)
class _Listing:
    """What lies below the table's folder.

    Attributes:
        home: the folder as Lance spells it.
        sizes: bytes of each file, by its path from there.
    """

    home: str
    sizes: dict[str, int]


def _list(dataset: Any) -> _Listing:
    home, sizes = "", {}
    for batch in dataset.all_files():
        for row in batch.select(["base_uri", "path", "size_bytes"]).to_pylist():
            home = row["base_uri"]
            sizes[row["path"]] = row["size_bytes"]
    return _Listing(home, sizes)


def _missing(dataset: Any, there: _Listing) -> set[str]:
    version = int(dataset.version)
    return {
        row["path"]
        for batch in dataset.tracked_files(min_version=version)
        for row in batch.to_pylist()
        if row["version"] == version and row["base_uri"] == there.home and row["path"] not in there.sizes
    }


def _wrong_size(dataset: Any, there: _Listing) -> list[str]:
    return [
        f"data/{file.path} ({there.sizes[f'data/{file.path}']} bytes, {file.file_size_bytes} were written)"
        for fragment in dataset.get_fragments()
        for file in fragment.data_files()
        if file.file_size_bytes and there.sizes.get(f"data/{file.path}", file.file_size_bytes) != file.file_size_bytes
    ]


def _wrong_index(dataset: Any, there: _Listing) -> list[str]:
    """Lance lists the files of an index by what is there; only their bytes together tell that one is gone."""
    wrong = []
    for index in dataset.describe_indices():
        for segment in index.segments:
            folder = f"_indices/{segment.uuid}/"
            found = sum(size for path, size in there.sizes.items() if path.startswith(folder))
            if segment.base_id is None and segment.size_bytes and found != segment.size_bytes:
                wrong.append(f"{folder} of index {index.name} ({found} bytes, {segment.size_bytes} were written)")
    return wrong
