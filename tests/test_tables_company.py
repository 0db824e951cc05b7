"""Writers beside each other: every id once in every version, whoever adds, deletes, compacts or builds an index."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from lance_align.errors import JobError
from lance_align.tables.commits import Committer, Landed
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import table_location
from lance_align.tables.pending import Dropped
from lance_align.tables.schema import Layout, table_schema
from lance_align.testing import FAKE_SPEC

USER = pa.schema(
    [pa.field("caption", pa.string()), pa.field("facts", pa.json_()), pa.field("box", pa.list_(pa.int16()))]
)
SCHEMA = table_schema(USER, Layout(), FAKE_SPEC)


def rows(*ids: str, by: str = "me", error: str | None = None) -> pa.Table:
    """Rows that say who wrote them; what is tested here does not look at vectors."""
    fields = pa.schema([SCHEMA.field(name) for name in ("id", "caption", "facts", "box", "error")])
    columns = {"id": list(ids), "caption": [by] * len(ids), "facts": [f'{{"by":"{by}"}}'] * len(ids)}
    return pa.table({**columns, "box": [[1, 2]] * len(ids), "error": [error] * len(ids)}, schema=fields)


def write(committer: Committer, *ids: str, by: str = "me", replacing: tuple[str, ...] = ()) -> Landed:
    fragments = write_fragments(committer.uri, rows(*ids, by=by))
    return committer.commit(fragments, rows=len(ids), replacing=replacing)


def writers(uri: str, version: int | None = None) -> dict[str, str]:
    """Who wrote each id; fails if one id stands there twice."""
    table = lance.dataset(uri, version=version).to_table(columns=["id", "caption"]).to_pylist()
    found = {row["id"]: row["caption"] for row in table}
    assert len(found) == len(table)
    return found


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return table_location(tmp_path, "photos").uri


def test_an_id_that_another_writer_added_is_left_to_him(uri: str) -> None:
    mine, his = Committer.open_or_create(uri, SCHEMA), Committer.open_or_create(uri, SCHEMA)
    assert write(his, "b", "d", "g", by="him") == Landed(version=2, rows=3)
    learnt: list[str | None] = []

    def learn(ids: pa.StringArray) -> pa.StringArray:
        learnt.extend(ids.to_pylist())
        return ids

    first = write_fragments(uri, rows("a", "b", "c"))
    second = write_fragments(uri, rows("d", error="empty: zero bytes"))
    landed = mine.commit([*first, *second], rows=4, learn=learn)
    assert landed == Landed(version=3, rows=2, dropped=Dropped(rows=2, reasons={"empty": 1}))
    assert mine.commit([*first, *second], rows=4, learn=learn) == Landed(
        version=3, rows=0
    )  # tried again after an error
    assert learnt == ["b", "d", "g"]
    assert writers(uri) == {"a": "me", "b": "him", "c": "me", "d": "him", "g": "him"}
    assert write(mine, "g", "f").rows == 1  # learnt a round ago
    kept = lance.dataset(uri).to_table(filter="id = 'a'").to_pylist()[0]
    assert (kept["facts"], kept["box"]) == ('{"by":"me"}', [1, 2])  # rewritten without the row beside it
    write(his, "e", by="him")
    assert write(his, "a", by="him") == Landed(version=5, rows=0, dropped=Dropped(rows=1))


def test_rows_take_the_place_of_others_in_one_version(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    write(committer, "a", "b", "'; --")
    write(committer, "c")
    landed = write(committer, "'; --", "c", "new", by="me again", replacing=("'; --", "c", "not there"))
    assert (landed.version, landed.rows) == (4, 3)
    assert writers(uri) == {"a": "me", "b": "me", "'; --": "me again", "c": "me again", "new": "me again"}
    assert writers(uri, version=3) == {"a": "me", "b": "me", "'; --": "me", "c": "me"}


def test_an_update_between_is_replaced_all_the_same(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    write(committer, "a", "b")
    lance.dataset(uri).update({"caption": "'somebody'"}, where="id = 'a'")  # moves the row to another fragment
    lance.dataset(uri).optimize.compact_files()
    write(committer, "a", by="me again", replacing=("a",))
    assert writers(uri) == {"a": "me again", "b": "me"}


def test_a_row_added_in_the_very_moment_of_a_commit_stays_the_only_one(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    lance.write_dataset(rows("x", by="him"), uri, mode="append")
    moments = iter([True, False])

    def at_the_last_moment(ids: pa.StringArray) -> pa.StringArray:
        if next(moments):  # after the look at what others wrote, before the commit
            lance.write_dataset(rows("a", by="him"), uri, mode="append")
        return ids

    landed = committer.commit(write_fragments(uri, rows("a", "b")), rows=2, learn=at_the_last_moment)
    assert (landed.rows, landed.dropped.rows) == (1, 1)
    assert writers(uri) == {"x": "him", "a": "him", "b": "me"}


def test_a_data_file_that_is_gone_is_never_committed(uri: str) -> None:
    committer = Committer.open_or_create(uri, SCHEMA)
    fragments = write_fragments(uri, rows("a"))
    for file in Path(uri, "data").iterdir():
        file.unlink()
    with pytest.raises(JobError, match="is gone from"):
        committer.commit(fragments, rows=1)
    assert writers(uri) == {}
    write(committer, "a")


@contextlib.contextmanager
def meanwhile(*acts: Callable[[], object]) -> Iterator[None]:
    """Repeat acts in threads of their own; Lance's own conflicts are theirs to bear."""
    ended = threading.Event()

    def repeat(act: Callable[[], object]) -> None:
        while not ended.wait(0.01):
            try:
                act()
            except OSError as error:
                if "conflict" not in str(error):
                    raise

    with ThreadPoolExecutor(len(acts)) as threads:
        running = [threads.submit(repeat, act) for act in acts]
        try:
            yield
        finally:
            ended.set()
    for each in running:
        each.result()


def test_three_writers_of_the_same_ids_beside_everything_else(uri: str) -> None:
    Committer.open_or_create(uri, SCHEMA)
    names = [f"row-{number}" for number in range(60)]
    added = iter(range(1000))
    versions: set[int] = set()

    def look() -> None:
        seen = lance.dataset(uri)
        versions.add(seen.version)
        writers(uri, version=seen.version)

    def run(seed: int) -> int:
        committer = Committer.open_or_create(uri, SCHEMA)
        mine = random.Random(seed).sample(names, len(names))
        return sum(write(committer, *mine[at : at + 5], by=f"writer {seed}").rows for at in range(0, len(mine), 5))

    with (
        meanwhile(
            look,
            lambda: lance.write_dataset(rows(f"added-{next(added)}"), uri, mode="append"),
            lambda: lance.dataset(uri).delete("id LIKE 'added-%'"),
            lambda: lance.dataset(uri).optimize.compact_files(),
            lambda: lance.dataset(uri).create_scalar_index("id", "BTREE", replace=True),
        ),
        ThreadPoolExecutor(3) as threads,
    ):
        landed = list(threads.map(run, range(3)))
    assert sum(landed) == len(names)
    assert {name for name in writers(uri) if not name.startswith("added-")} == set(names)
    assert len(versions) > 3
    for version in lance.dataset(uri).versions():
        writers(uri, version=version["version"])
