"""What must be true of a table after any fault and one plain re-run of the same command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa

from lance_align.tables.layout import Layout
from lance_align.tables.metadata import TABLE_KEY
from lance_align.tables.orphans import cleanup
from lance_align.tables.schema import table_schema
from lance_align.testing import FAKE_SPEC, FakeEncoder

FAKE = FakeEncoder()


def check(db: Path, name: str, source: pa.Table, *, reasons: frozenset[str] = frozenset()) -> None:
    """Check I1 to I7 and I10 of a table that `embed(model="fake")` made of `source` (columns id, image and others).

    Args:
        reasons: kinds of reasons that good rows may have because of the faults; by default none.
    """
    table = lancedb.connect(db).open_table(name)
    rows = {row["id"]: row for row in table.to_arrow().to_pylist()}
    expected: list[str] = source.column("id").to_pylist()
    assert table.count_rows() == len(rows), "I2: an id stands in the table twice"
    assert set(rows) == set(expected), "I1: the table has not just the ids of the input"
    embedded = FAKE.encode_images(source.column("image").to_pylist())
    for index, row_id in enumerate(expected):
        row, wanted = rows[row_id], embedded[index]
        assert (row["vector"] is None) == (row["error"] is not None), f"I5: {row_id}: {row['error']}"
        if row["vector"] is not None:
            assert wanted is not None
            assert np.array_equal(np.array(row["vector"], np.float32), wanted), f"I4: the vector of {row_id}"
            assert abs(np.linalg.norm(row["vector"]) - 1) < 1e-3, f"I3: the norm of {row_id}"
        elif wanted is not None:
            assert row["error"].split(":")[0] in reasons, f"{row_id} is good, but: {row['error']}"
        for column in source.column_names:
            assert row[column] == source.column(column)[index].as_py(), f"{column} of {row_id}"
    some = next((row for row in rows.values() if row["vector"] is not None), None)
    if some is not None:
        assert table.search(some["vector"]).limit(1).to_list()[0]["id"] == some["id"], "I6: search"
    wanted_schema = table_schema(source.drop_columns(["id", "image"]).schema, Layout(), FAKE_SPEC)
    metadata = {key: value for key, value in table.schema.metadata.items() if key != TABLE_KEY}  # drawn at random
    assert metadata == wanted_schema.metadata, "I10: metadata"
    check_no_orphans(table)


def check_no_orphans(table: Any) -> None:
    """I7: after `cleanup` every data file belongs to a version of the table."""
    cleanup(table, min_age_s=0)
    dataset = table.to_lance()
    needed = {
        file.path
        for version in dataset.versions()
        for fragment in dataset.checkout_version(version["version"]).get_fragments()
        for file in fragment.data_files()
    }
    found = {path.name for path in Path(dataset.uri, "data").glob("*.lance")}
    assert {Path(path).name for path in needed} == found, "I7: orphan files"


def count(uri: Path) -> int:
    """Rows of a Lance table that a killed job may not have made yet."""
    versions = uri / "_versions"
    return int(lance.dataset(str(uri)).count_rows()) if versions.exists() and any(versions.iterdir()) else 0
