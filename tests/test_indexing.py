"""Indexes: which one, how good it is, what is kept of it, and that a job's rows do not depend on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest

import lance_align
from lance_align import build_index, embed, load_encoder, search_settings
from lance_align.cli import run_command
from lance_align.errors import ArgumentError, JobError, LanceAlignError, MissingExtraError, TableError
from lance_align.indexing.sample import sample_queries, vocabulary
from lance_align.jobs.indexing import distributed_index
from lance_align.tables.index_plan import has_outgrown, plan_index
from lance_align.tables.search_settings import SETTINGS_KEY, SearchSettings
from lance_align.testing import FAKE_SPEC
from lance_align.verification import verify
from tests.corpus import parquet, pictures, png, stored
from tests.fake_tables import photos_schema

ROWS = 900
NULLS = 30


def unit(rows: int, *, seed: int) -> Any:
    """Vectors in a few clumps, as pictures are."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(40, FAKE_SPEC.dim))[draw.integers(0, 40, rows)] + draw.normal(
        size=(rows, FAKE_SPEC.dim)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write(directory: Path, *, rows: int = ROWS, nulls: int = NULLS, seed: int = 0, captions: bool = True) -> Any:
    """A LanceDB table of the fake model whose first rows have no vector."""
    schema = photos_schema()
    vectors = [None if row < nulls else vector for row, vector in enumerate(unit(rows, seed=seed))]
    names = [f"the {row}th of many things" if captions else None for row in range(rows)]
    columns: dict[str, Any] = {
        "id": [f"{seed}-{row}" for row in range(rows)],
        "caption": pa.array(names, pa.string()),
        "vector": pa.array(vectors, schema.field("vector").type),
    }
    for field in schema:
        columns.setdefault(field.name, pa.nulls(rows, field.type))
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    lance.write_dataset(
        table, str(directory / "t.lance"), mode="append" if (directory / "t.lance").exists() else "create"
    )
    return lancedb.connect(directory).open_table("t")


@pytest.fixture
def table(tmp_path: Path) -> Any:
    return write(tmp_path)


@pytest.fixture
def small_tables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs build an index whatever the number of rows."""
    monkeypatch.setattr("lance_align.tables.index_plan.EXACT_BYTES", 0)


def missing(table: Any) -> int:
    table.checkout_latest()
    (index,) = [each for each in table.list_indices() if each.columns == ["vector"]]
    return int(index.num_unindexed_rows)


def test_the_plan_follows_from_rows_and_dimension() -> None:
    assert plan_index(1000, 640) is None
    assert plan_index(0, 640) is None
    many, more = plan_index(200_000, 640), plan_index(20_000_000, 640)
    assert many is not None
    assert more is not None
    assert many.partitions < more.partitions
    assert not has_outgrown(400, rows_when_built=100)
    assert has_outgrown(401, rows_when_built=100)


@pytest.mark.parametrize(
    "kind",
    [
        "IVF_FLAT",
        "IVF_SQ",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("IVF_PQ", "IVF_RQ")),
        "IVF_HNSW_SQ",
    ],
)
def test_the_recall_that_is_reported_is_the_true_one(table: Any, kind: str) -> None:
    report = build_index(table, index=kind)
    assert (report.action, report.type, report.rows) == ("built", kind, ROWS - NULLS)
    assert report.recall is not None
    queries = sample_queries(table, "vector")
    rows = [row for row in table.to_arrow().to_pylist() if row["vector"] is not None]
    vectors = np.array([row["vector"] for row in rows], np.float32)
    shares = []
    for query in queries.vectors:
        best = {rows[place]["id"] for place in np.argsort(-(vectors @ query))[:10]}
        found = report.settings.apply(table.search(query)).limit(10).to_list()
        assert all(row["vector"] is not None for row in found)
        shares.append(len(best & {row["id"] for row in found}) / 10)
    assert report.recall == pytest.approx(np.mean(shares), abs=1e-6)
    assert report.recall >= 0.97
    assert search_settings(table) == report.settings
    assert len(queries.vectors) == 200
    assert "200 texts of the column 'caption'" in report.to_lines()[1]


def test_settings_are_raised_until_enough_is_found_and_kept(table: Any) -> None:
    report = build_index(table, index="IVF_PQ")  # four bytes a vector find too little by themselves
    assert report.settings.refine_factor is not None
    assert str(report.settings) == "".join(
        f".{name}({value})"
        for name, value in (("nprobes", report.settings.nprobes), ("refine_factor", report.settings.refine_factor))
        if value is not None
    )
    assert str(report.settings) in report.to_lines()[-1]
    again = build_index(table)
    assert (again.action, again.settings, again.recall) == ("kept", report.settings, report.recall)
    table.create_index("vector", config=lancedb.index.IvfFlat(num_partitions=4))
    assert search_settings(table) == SearchSettings()  # they were another index's
    assert verify(table).ok or not [each for each in verify(table).findings if "metadata" in str(each)]


@pytest.mark.parametrize("damage", ["{", "[]", "3", '{"vector": {"name": 1}}', '{"vector": {"settings": null}}'])
def test_a_damaged_record_costs_its_settings_only(table: Any, damage: str) -> None:
    build_index(table, index="IVF_SQ")
    table.to_lance().update_schema_metadata({SETTINGS_KEY.decode(): damage})
    table.checkout_latest()
    assert search_settings(table) == SearchSettings()
    assert build_index(table).action == "kept"
    assert table.search("a red car").limit(3).to_list()


def test_few_rows_need_no_index_and_no_version(table: Any) -> None:
    before = table.version
    report = build_index(table)
    assert (report.action, report.to_lines()) == (
        "none",
        [f"index of vector: none, exact search of {ROWS:,} vectors is fast enough"],
    )
    table.checkout_latest()
    assert table.version == before
    assert search_settings(table) == SearchSettings()


def test_queries_are_texts_of_the_table_or_of_a_vocabulary(tmp_path: Path) -> None:
    table = write(tmp_path, captions=False)
    queries = sample_queries(table, "vector")
    assert "built-in vocabulary" in queries.said
    words = vocabulary()
    assert words == vocabulary()
    assert len(set(words)) == len(words) == len(queries.vectors)
    np.testing.assert_array_equal(queries.vectors, load_encoder("fake").encode_texts(words).vectors)
    table.to_lance().update_schema_metadata({"embedding_functions": "[]"})
    table.checkout_latest()
    queries = sample_queries(table, "vector")
    assert "vectors of the table itself" in queries.said
    np.testing.assert_allclose(np.linalg.norm(queries.vectors, axis=1), 1, atol=1e-5)
    assert build_index(table, index="IVF_SQ").recall is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"index": "IVF"}, "expected auto or one of IVF_FLAT"),
        ({"vector": "nothing"}, "has no vector column 'nothing'"),
        ({"vector": "caption"}, "has no vector column 'caption'"),
        ({"target_recall": 1.5}, "target_recall=1.5"),
    ],
)
def test_a_bad_argument_is_a_line(table: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as caught:
        build_index(table, **options)
    assert "\n" not in str(caught.value)


def test_what_lancedb_cannot_build_is_a_line(tmp_path: Path) -> None:
    table = write(tmp_path, rows=20, nulls=20)
    with pytest.raises(TableError, match="has no vectors"):
        build_index(table, index="IVF_SQ")
    table = write(tmp_path, seed=1)
    (tmp_path / "t.lance" / "_indices").write_bytes(b"")
    with pytest.raises(TableError, match="could not build an index \\(IVF_SQ\\) of 'vector'") as caught:
        build_index(table, index="IVF_SQ")
    assert "\n" not in str(caught.value)
    assert len(table.search("a red car").limit(10).to_list()) == 10


def test_rows_that_came_later_are_taken_in_and_measured_again(tmp_path: Path) -> None:
    table = write(tmp_path)
    built = build_index(table, index="IVF_SQ")
    write(tmp_path, rows=20, nulls=0, seed=1)
    extended = build_index(table)
    assert (extended.action, extended.added, extended.recall) == ("extended", 20, built.recall)
    assert missing(table) == 0
    query = unit(20, seed=1)[7]
    found = table.search(query).fast_search().limit(1).to_list()  # looks into the index alone
    assert found[0]["id"] == "1-7"
    write(tmp_path, rows=200, nulls=0, seed=2)
    extended = build_index(table)
    assert (extended.action, extended.added, extended.rows) == ("extended", 200, ROWS + 220)
    assert extended.measure_s > 0


@pytest.mark.usefixtures("small_tables_too")
def test_a_table_that_has_outgrown_its_index_gets_another(tmp_path: Path) -> None:
    table = write(tmp_path, rows=200, nulls=0)
    few = build_index(table).partitions
    write(tmp_path, rows=700, nulls=0, seed=1)
    report = build_index(table)
    assert (report.action, report.rows) == ("built", 900)
    assert report.partitions is not None
    assert report.partitions >= (few or 0)
    assert len(table.list_indices()) == 1


def test_an_index_that_the_user_built_is_extended_and_never_replaced(tmp_path: Path) -> None:
    table = write(tmp_path, rows=200, nulls=0)
    table.create_index("vector", config=lancedb.index.IvfFlat(num_partitions=2), name="mine")
    write(tmp_path, rows=900, nulls=0, seed=1)
    report = build_index(table)
    assert (report.action, report.type, report.added, report.recall) == ("extended", "IVF_FLAT", 900, None)
    assert [index.name for index in table.list_indices()] == ["mine"]
    assert missing(table) == 0


@pytest.mark.usefixtures("small_tables_too")
def test_a_job_indexes_what_it_wrote_and_keeps_its_promises(tmp_path: Path) -> None:
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    first = embed(parquet(pictures(60), tmp_path / "a.parquet"), **options)
    assert [(index.vector, index.action, index.rows) for index in first.indexes] == [("vector", "built", 60)]
    assert first.indexes[0].queries == "60 texts of the column 'caption'"
    assert first.indexes[0].recall is not None
    assert first.indexes[0].recall >= 0.97
    assert "recall@10" in first.to_text()
    assert json.loads(first.to_json())["indexes"][0]["type"] == first.indexes[0].type
    table = lancedb.connect(tmp_path).open_table("t")
    assert table.version == first.table_version

    same = embed(tmp_path / "a.parquet", **options)
    assert (same.already_there, same.embedded, same.indexes[0].action) == (60, 0, "kept")
    assert same.table_version == first.table_version

    rows = pictures(80).slice(10)  # ten are gone, twenty are new, and one has changed
    images = [png(1000), *rows["image"].to_pylist()[1:]]
    rows = rows.set_column(rows.schema.get_field_index("image"), "image", pa.array(images, pa.binary()))
    later = embed(parquet(rows, tmp_path / "b.parquet"), **options, on_changed="update", gone="remove")
    assert (later.embedded, later.updated, later.removed) == (21, 1, 10)
    assert later.indexes[0].action == "extended"
    assert missing(table) == 0
    found = {row["id"]: row for row in stored(tmp_path, "t")}
    assert set(found) == {f"row-{number}" for number in range(10, 80)}
    for name, picture in (("row-10", png(1000)), ("row-79", png(79)), ("row-20", png(20))):
        hits = table.search(picture).fast_search().limit(2).to_list()
        assert hits[0]["id"] == name
        assert hits[0]["_distance"] < 1e-2
    assert "row-3" not in {row["id"] for row in table.search(png(3)).limit(70).to_list()}
    assert verify(table).ok


@pytest.mark.usefixtures("small_tables_too")
def test_an_index_that_fails_is_told_and_loses_no_row(tmp_path: Path) -> None:
    source = parquet(pictures(40), tmp_path / "in.parquet")
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "model": "fake", "progress": False}
    assert embed(source, **options, index="none").indexes == ()
    (tmp_path / "t.lance" / "_indices").write_bytes(b"")
    with pytest.raises(JobError, match="every row is in the table, but the index of 'vector'") as caught:
        embed(source, **options)
    assert "\n" not in str(caught.value)
    report = caught.value.report
    assert isinstance(report, lance_align.JobReport)
    assert (report.already_there, report.indexes[0].action) == (40, "failed")
    assert "index of vector: failed" in report.to_text()
    assert len(stored(tmp_path, "t")) == 40
    (tmp_path / "t.lance" / "_indices").unlink()
    assert embed(source, **options).indexes[0].action == "built"


@pytest.mark.usefixtures("small_tables_too")
def test_the_command_line_and_both_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = parquet(pictures(40), tmp_path / "in.parquet")
    given = [source, "--db", tmp_path, "--table", "t", "--model", "fake", "--no-progress", "--embed", "both"]
    arguments = list(map(str, given))
    run_command("embed", [*arguments, "--index", "none"])
    assert "index of" not in capsys.readouterr().out
    run_command("embed", arguments)
    out = capsys.readouterr().out
    assert "index of vector: built" in out
    assert "index of text_vector: built" in out
    with pytest.raises(SystemExit) as caught:
        run_command("embed", [*arguments, "--index", "quick"])
    assert caught.value.code == 2


@pytest.mark.slow  # a cluster starts
@pytest.mark.usefixtures("ray_session")
def test_the_cluster_builds_it_too(tmp_path: Path) -> None:
    write(tmp_path, rows=600)
    table = write(tmp_path, rows=600, seed=1)
    report = build_index(table, index="IVF_SQ", build=distributed_index)
    assert (report.action, report.rows, missing(table)) == ("built", 1200 - 2 * NULLS, 0)
    assert report.recall is not None
    assert report.recall >= 0.97
    write(tmp_path, rows=20, nulls=0, seed=2)
    assert build_index(table).action == "extended"
    assert missing(table) == 0


def test_without_lance_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lance_align.jobs.indexing.LANCE_RAY", "no_such_package")
    source = parquet(pictures(2), tmp_path / "in.parquet")
    with pytest.raises(MissingExtraError, match=r"lance-align\[distributed\]"):
        embed(source, db=tmp_path, table="t", model="fake", index="distributed", progress=False)
    assert not (tmp_path / "t.lance").exists()
    with pytest.raises(LanceAlignError, match="expected one of auto, distributed, none"):
        embed(source, db=tmp_path, table="t", model="fake", index="quick", progress=False)  # type: ignore[arg-type]
