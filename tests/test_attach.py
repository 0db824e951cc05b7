"""A model for tables that other people made: their columns, indexes, versions and functions stay as they are."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import EmbeddingFunction, get_registry, register
from lancedb.index import BTree, IvfFlat
from lancedb.pydantic import LanceModel, Vector

import lance_align
from lance_align.errors import ArgumentError, LanceAlignError, TableError
from lance_align.indexing.texts import build_text_index
from lance_align.tables.commits import Committer
from lance_align.tables.filling import Filler
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import TableLocation
from lance_align.tables.metadata import (
    FUNCTIONS_KEY,
    SPEC_KEY,
    embedded_column,
    error_column,
    error_columns,
    read_functions,
    read_specs,
)
from lance_align.testing import FAKE_SPEC
from tests.corpus import png
from tests.fake_tables import photos_schema, rows
from tests.fake_tables import png as colour

OTHER_SPEC = dataclasses.replace(FAKE_SPEC, fingerprint="another-fingerprint")


@register("test-letters")
class Letters(EmbeddingFunction):  # type: ignore[misc]
    """Somebody else's embedding function: how often a, b and c occur."""

    def ndims(self) -> int:
        return 3

    def compute_query_embeddings(self, query: str, *_args: Any, **_kwargs: Any) -> list[list[float]]:
        return [[float(query.count(letter)) for letter in "abc"]]

    def compute_source_embeddings(self, texts: Any, *_args: Any, **_kwargs: Any) -> list[list[float]]:
        values = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
        return [self.compute_query_embeddings(str(text))[0] for text in values]


def plain(directory: Path, count: int = 6, **columns: Any) -> Any:
    """A table that knows nothing of us: pictures, captions and a number."""
    table = pa.table(
        {
            "number": pa.array(range(count), pa.int64()),
            "picture": pa.array([png(number) for number in range(count)], pa.binary()),
            "caption": pa.array([f"picture {number}" for number in range(count)], pa.string()),
            **columns,
        }
    )
    return lancedb.connect(directory).create_table("plain", table)


def expected(seed: int) -> list[float]:
    vector: list[float] = lance_align.load_encoder("fake").encode_images([png(seed)]).vectors[0].tolist()
    return vector


def test_two_null_columns_and_a_function_and_nothing_else(tmp_path: Path) -> None:
    table = plain(tmp_path)
    table.create_index("number", config=BTree())
    before, data, index = table.schema, table.to_arrow(), table.list_indices()[0].index_uuid
    version, files = table.version, data_files(tmp_path)
    found = lance_align.attach(table, image="picture", model="fake")
    assert found == table.version == version + 2
    assert data_files(tmp_path) == files  # no row was written again
    assert table.schema.names == [*before.names, "vector", "error"]
    assert table.to_arrow().select(before.names).equals(data.select(before.names))
    assert table.schema.field("vector").type == pa.list_(pa.float32(), FAKE_SPEC.dim)
    assert table.to_arrow().column("vector").null_count == table.to_arrow().column("error").null_count == 6
    assert (table.list_indices()[0].index_uuid, table.list_indices()[0].num_indexed_rows) == (index, 6)
    assert error_column(table.schema, "vector") == "error"
    assert read_specs(table.schema) == {"vector": FAKE_SPEC}

    table.checkout(version)
    assert table.to_arrow().equals(data)


def test_new_rows_embed_themselves_and_words_search(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, image="picture", model="fake")
    table.add([{"number": 7, "picture": png(7), "caption": "seven"}])
    table.add(pa.table({"number": [8], "picture": pa.array([b"bad"], pa.binary())}), on_bad_vectors="null")
    added = {row["number"]: row for row in table.to_arrow().to_pylist()}
    assert added[7]["vector"] == expected(7)
    assert (added[8]["vector"], added[0]["vector"]) == (None, None)
    assert [row["number"] for row in table.search("any words").limit(9).to_list()] == [7]
    assert table.search(png(7)).limit(1).to_list()[0]["_distance"] == pytest.approx(0.0, abs=1e-6)


def test_texts(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, text="caption", model="fake", vector="caption_vector")
    assert embedded_column(table.schema, "caption_vector").kind == "text"  # type: ignore[union-attr]
    table.add([{"number": 9, "picture": png(9), "caption": "a new caption"}])
    assert table.search("a new caption").limit(1).to_list()[0]["number"] == 9


def test_again_makes_no_version_and_the_model_need_not_be_named(tmp_path: Path) -> None:
    table = plain(tmp_path)
    version = lance_align.attach(table, image="picture", model="fake")
    assert lance_align.attach(table, image="picture", model="fake") == version
    assert lance_align.attach(table, image="picture") == version
    assert lance_align.attach(plain_again(tmp_path), image="picture", model=FAKE_SPEC) == version


def plain_again(directory: Path) -> Any:
    return lancedb.connect(directory).open_table("plain")


def test_a_column_called_error_is_the_users_and_each_vector_has_its_own(tmp_path: Path) -> None:
    table = plain(tmp_path, error=pa.array(["mine"] * 6))
    lance_align.attach(table, image="picture", model="fake")
    lance_align.attach(table, text="caption", vector="words", model="fake")
    assert error_columns(table.schema) == {"vector": "vector_error", "words": "words_error"}
    assert error_column(table.schema, "words") == "words_error"
    assert error_column(table.schema, "nothing") == "error"
    assert set(table.to_arrow().column("error").to_pylist()) == {"mine"}
    assert [entry["vector_column"] for entry in read_functions(table.schema)] == ["vector", "words"]


def test_a_stopped_call_is_finished_by_the_next(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, image="picture", model="fake")
    # What a process leaves that dies between the two versions: the columns without the metadata.
    table.to_lance().update_schema_metadata({}, replace=True)
    table.checkout_latest()
    assert not read_functions(table.schema)
    with pytest.raises(TableError, match=r"belongs to a model with fingerprint fake-encoder.*another-fingerprint"):
        lance_align.attach(table, image="picture", model=OTHER_SPEC)
    names = table.schema.names
    lance_align.attach(table, image="picture", model="fake")
    assert table.schema.names == names
    assert read_specs(table.schema) == {"vector": FAKE_SPEC}


def test_another_functions_metadata_stays(tmp_path: Path) -> None:
    letters = get_registry().get("test-letters").create()

    class Note(LanceModel):
        body: str = letters.SourceField()
        vector: Vector(3) = letters.VectorField()  # type: ignore[valid-type]
        picture: bytes | None = None

    table = lancedb.connect(tmp_path).create_table("notes", schema=Note)
    table.add([{"body": "abba", "picture": png(1)}, {"body": "cab", "picture": png(2)}])
    theirs = read_functions(table.schema)
    with pytest.raises(TableError, match="belongs to the embedding function 'test-letters'"):
        lance_align.attach(table, image="picture", model="fake")
    lance_align.attach(table, image="picture", vector="picture_vector", model="fake")
    assert read_functions(table.schema)[:1] == theirs
    table.add([{"body": "bb", "picture": png(3)}])
    row = next(row for row in table.to_arrow().to_pylist() if row["body"] == "bb")
    assert (row["vector"], row["picture_vector"]) == ([0.0, 2.0, 0.0], expected(3))
    assert table.search("bbb", vector_column_name="vector").limit(1).to_list()[0]["body"] == "bb"
    assert table.search(png(3), vector_column_name="picture_vector").limit(1).to_list()[0]["body"] == "bb"


def test_a_table_made_the_lancedb_way_gets_its_reasons(tmp_path: Path) -> None:
    align = get_registry().get("align").create(name="fake")

    class Photo(LanceModel):
        picture: bytes | None = align.SourceField(default=None)
        vector: Vector(32) | None = align.VectorField(default=None)  # type: ignore[valid-type]

    table = lancedb.connect(tmp_path).create_table("photos", schema=Photo)
    table.add([{"picture": png(1)}])
    before = table.to_arrow()
    with pytest.raises(TableError, match=r"belongs to 'fake' with fingerprint fake-encoder-version-1, not to"):
        lance_align.attach(table, image="picture", model=OTHER_SPEC)
    lance_align.attach(table, image="picture", model="fake")
    assert table.schema.names == [*before.schema.names, "error"]
    assert table.to_arrow().column("vector").equals(before.column("vector"))
    assert len(read_functions(table.schema)) == 1


def test_tables_of_the_embed_job_take_a_second_model(photos: Any) -> None:
    version, before = photos.version, photos.to_arrow()
    assert lance_align.attach(photos, image="image", model="fake") == version  # it is attached already
    lance_align.attach(photos, image="image", vector="vector_base", model=OTHER_SPEC)
    assert photos.to_arrow().select(before.schema.names).equals(before)
    assert error_columns(photos.schema) == {"vector_base": "vector_base_error"}
    assert error_column(photos.schema, "vector") == "error"
    assert {name: spec.fingerprint for name, spec in read_specs(photos.schema).items()} == {
        "vector": FAKE_SPEC.fingerprint,
        "vector_base": OTHER_SPEC.fingerprint,
    }


def test_the_embed_job_goes_on_beside_an_attached_column(place: TableLocation, photos: Any) -> None:
    lance_align.attach(photos, image="image", vector="second", model="fake")
    committer = Committer.open_or_create(place.uri, photos_schema())
    new = rows(["new"], images=[png(3)], captions=["new"])
    committer.commit(write_fragments(place.uri, new), rows=1)
    survey = Filler(place.uri, "second").survey()
    assert (survey.rows, survey.empty) == (5, 5)
    assert Filler(place.uri, "vector").survey().empty == 0


def test_two_at_once_are_one(tmp_path: Path) -> None:
    plain(tmp_path)
    outcomes = at_once(tmp_path, [FAKE_SPEC] * 4)
    assert outcomes.count(None) == 4, outcomes
    table = plain_again(tmp_path)
    assert table.schema.names == ["number", "picture", "caption", "vector", "error"]
    assert len(read_functions(table.schema)) == 1


def test_of_two_models_at_once_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    plain(tmp_path)
    outcomes = at_once(tmp_path, [FAKE_SPEC, OTHER_SPEC])
    assert outcomes.count(None) == 1
    refused = next(outcome for outcome in outcomes if outcome is not None)
    assert isinstance(refused, TableError)
    schema = plain_again(tmp_path).schema
    winner = (FAKE_SPEC, OTHER_SPEC)[outcomes.index(None)]
    assert read_specs(schema) == {"vector": winner}
    assert read_functions(schema)[0]["model"]["fingerprint"] == winner.fingerprint


def at_once(directory: Path, specs: list[Any]) -> list[Exception | None]:
    """Attach from several threads, each with a handle of its own; what each raised."""
    outcomes: list[Exception | None] = [None] * len(specs)
    start = threading.Barrier(len(specs))

    def one(number: int) -> None:
        table = plain_again(directory)
        start.wait()
        try:
            lance_align.attach(table, image="picture", model=specs[number])
        except LanceAlignError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def attached(**options: Any) -> Callable[[Any], int]:
    return lambda table: lance_align.attach(table, **({"model": "fake"} | options))


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (attached(), ArgumentError, "expected exactly one of them"),
        (attached(image="picture", text="caption"), ArgumentError, "expected exactly one of them"),
        (attached(image="photo"), TableError, r"no column 'photo'; its columns are number \(int64\), picture"),
        (attached(image="number"), TableError, "'number' of table 'plain' is int64; expected encoded images"),
        (attached(text="picture"), TableError, "'picture' of table 'plain' is binary; expected strings"),
        (attached(image="tags"), TableError, "is list<item: string>; expected"),
        (attached(image="picture", vector="a.b"), ArgumentError, "must not be empty or contain a period"),
        (attached(image="picture", vector="_distance"), ArgumentError, "cannot be a column's name"),
        (attached(image="picture", vector="caption"), TableError, "'caption' of table 'plain' is string, but vectors"),
        (attached(image="picture", vector="short"), TableError, r"is fixed_size_list<item: float>\[2\], but vectors"),
        (attached(image="picture", vector="full"), TableError, "does not say which model made them"),
        (attached(image="picture", model="no such model"), LanceAlignError, "unknown model"),
    ],
)
def test_what_is_refused_leaves_the_table_as_it_was(
    tmp_path: Path, act: Callable[[Any], int], kind: type[LanceAlignError], said: str
) -> None:
    full: pa.Array[Any] = pa.array([expected(0)] * 6, pa.list_(pa.float32(), 32))
    short: pa.Array[Any] = pa.array([[0.0, 1.0]] * 6, pa.list_(pa.float32(), 2))
    table = plain(tmp_path, tags=pa.array([["a"]] * 6), short=short, full=full)
    version = table.version
    with pytest.raises(kind, match=said) as caught:
        act(table)
    assert "\n" not in str(caught.value)
    table.checkout_latest()
    assert table.version == version


def test_another_source_for_the_same_vector_is_refused(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, image="picture", model="fake")
    with pytest.raises(TableError, match="made from the image column 'picture', not from the text column 'caption'"):
        lance_align.attach(table, text="caption", model="fake")
    with pytest.raises(TableError, match=r"belongs to 'fake' with fingerprint fake-enc.*another-fingerprint"):
        lance_align.attach(table, image="picture", model=OTHER_SPEC)


def test_a_column_for_reasons_that_is_taken(tmp_path: Path) -> None:
    table = plain(tmp_path, error=pa.array([1] * 6), vector_error=pa.array([1] * 6))
    with pytest.raises(TableError, match="has a column 'vector_error' already"):
        lance_align.attach(table, image="picture", model="fake")


def test_null_columns_of_the_right_type_are_taken_over(tmp_path: Path) -> None:
    table = plain(tmp_path)
    table.add_columns(pa.schema([pa.field("vector", pa.list_(pa.float32(), 32))]))
    lance_align.attach(table, image="picture", model="fake")
    assert table.schema.names == ["number", "picture", "caption", "vector", "error"]


@pytest.mark.parametrize("damage", [b"{", b"{}", b"[1]", b'[{"vector_column": "vector", "name": "align"}]'])
def test_damaged_metadata_is_not_written_over(tmp_path: Path, damage: bytes) -> None:
    uri = tmp_path / "plain.lance"
    vector: pa.Array[Any] = pa.nulls(1, pa.list_(pa.float32(), 32))
    lance.write_dataset(pa.table({"picture": pa.array([png(0)], pa.binary()), "vector": vector}), uri)
    lance.dataset(uri).update_schema_metadata({FUNCTIONS_KEY.decode(): damage.decode()})
    with pytest.raises(TableError):
        lance_align.attach(Handle(uri), image="picture", model="fake")


class Handle:
    """A table whose metadata LanceDB itself cannot read: what `attach` needs of one."""

    name = "plain"

    def __init__(self, uri: Path) -> None:
        self.uri = uri

    def checkout_latest(self) -> None:
        """Always there."""

    def to_lance(self) -> Any:
        return lance.dataset(self.uri)


def test_tables_without_rows_and_with_holes_in_their_field_ids(tmp_path: Path) -> None:
    table = plain(tmp_path)
    table.drop_columns(["number"])
    table.delete("true")
    lance_align.attach(table, image="picture", model="fake")
    table.add([{"picture": png(1), "caption": "one"}])
    assert table.to_arrow().to_pylist() == [{"picture": png(1), "caption": "one", "vector": expected(1), "error": None}]


def test_the_oldest_storage_format_is_refused_in_one_line(tmp_path: Path) -> None:
    data = pa.table({"picture": pa.array([png(0)], pa.binary())})
    lance.write_dataset(data, tmp_path / "old.lance", data_storage_version="legacy")
    table = lancedb.connect(tmp_path).open_table("old")
    with pytest.raises(TableError, match=r"could not attach a model to old: .*legacy"):
        lance_align.attach(table, image="picture", model="fake")


def test_the_metadata_is_what_lancedb_itself_writes(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, image="picture", model="fake")
    metadata = table.schema.metadata
    config = table.embedding_functions["vector"]
    assert (config.source_column, config.function.name, config.function.source) == ("picture", "fake", "image")
    theirs = json.loads(get_registry().get_table_metadata([config])[FUNCTIONS_KEY.decode()])
    ours = json.loads(metadata[FUNCTIONS_KEY])
    assert {**theirs[0], "model": None} == {**ours[0], "model": None}
    assert list(json.loads(metadata[SPEC_KEY])) == ["vector"]


def data_files(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("data/*.lance")}


def test_vectors_are_searched_beside_an_index_on_another_column(tmp_path: Path) -> None:
    count = 300
    others = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(others.ravel()), 8)
    table = plain(tmp_path, count, other=column)
    table.create_index("other", config=IvfFlat(num_partitions=2))
    lance_align.attach(table, image="picture", model="fake")
    stats = table.index_stats("other_idx")
    assert (stats.num_indexed_rows, stats.num_unindexed_rows) == (count, 0)
    assert table.search(others[5], vector_column_name="other").limit(1).to_list()[0]["number"] == 5


def renamed(table: Any, **names: str) -> Any:
    for old, new in names.items():
        table.alter_columns({"path": old, "rename": new})
    return table


def test_a_vector_column_that_was_dropped_binds_nobody(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, image="picture", model="fake")
    table.update(where="number = 0", values={"error": "format: an old reason"})
    table.drop_columns(["vector"])
    lance_align.attach(table, text="caption", model=OTHER_SPEC)
    assert read_specs(table.schema) == {"vector": OTHER_SPEC}
    assert embedded_column(table.schema, "vector").source == "caption"  # type: ignore[union-attr]
    assert error_columns(table.schema) == {"vector": "error"}
    assert table.to_arrow().column("error").null_count == 6  # an old reason would pass for one of the new model


def test_entries_of_columns_that_are_gone_do_not_stand_in_the_way_of_new_rows(tmp_path: Path) -> None:
    table = plain(tmp_path)
    lance_align.attach(table, image="picture", model="fake")
    lance_align.attach(table, text="caption", vector="words", model="fake")
    table.drop_columns(["vector"])
    with pytest.raises(KeyError):  # LanceDB's add, as long as the entry is there
        table.add([{"number": 9, "picture": png(9), "caption": "nine"}])
    lance_align.attach(table, text="caption", vector="more", model="fake")
    assert [entry["vector_column"] for entry in read_functions(table.schema)] == ["words", "more"]
    table.add([{"number": 9, "picture": png(9), "caption": "nine"}])
    assert table.search("nine", vector_column_name="words").limit(1).to_list()[0]["number"] == 9


def test_a_job_s_table_takes_its_vector_back(photos: Any, place: TableLocation) -> None:
    photos.drop_columns(["vector"])
    lance_align.attach(photos, image="image", model="fake")
    data = photos.to_arrow()
    assert {name: data.column(name).null_count for name in ("vector", "error", "vector_crc32")} == {
        "vector": 4,
        "error": 4,
        "vector_crc32": 4,
    }
    assert data.column("content_hash").null_count == 0
    committer = Committer.open_or_create(place.uri, photos_schema())  # the job goes on with it
    committer.commit(write_fragments(place.uri, rows(["new"], images=[png(3)], captions=["new"])), rows=1)
    assert Filler(place.uri, "vector").survey().empty == 4
    photos.checkout_latest()
    found = lance_align.verify(photos)
    assert [(finding.check, finding.count) for finding in found.findings] == [("no_reason", 4)]
    assert (found.checksummed, found.sampled) == (1, 1)


def test_renamed_columns_are_declared_again(photos: Any, tmp_path: Path) -> None:
    renamed(photos, vector="emb", image="shot")
    with pytest.raises(TableError, match=r"does not say which model made them.*where the column was renamed"):
        lance_align.attach(photos, image="shot", vector="emb", model=OTHER_SPEC)
    with pytest.raises(TableError, match="made from the image column 'image', not from the text column"):
        lance_align.attach(photos, text="caption", vector="emb", model="fake")
    before = photos.to_arrow()
    lance_align.attach(photos, image="shot", vector="emb", model="fake")
    assert photos.to_arrow().equals(before)
    assert list(read_specs(photos.schema)) == ["emb"]
    assert photos.search(colour("red")).limit(1).to_list()[0]["id"] == "red"
    photos.add([{"id": "new", "shot": png(3), "caption": "new"}])
    assert lance_align.verify(photos).ok

    table = plain(tmp_path / "other")
    lance_align.attach(table, image="picture", model="fake")
    renamed(table, vector="emb", picture="shot")
    lance_align.attach(table, image="shot", vector="emb", model="fake")
    assert table.schema.names == ["number", "shot", "caption", "emb", "error"]
    assert error_columns(table.schema) == {"emb": "error"}
    assert Filler(str(tmp_path / "other" / "plain.lance"), "emb").survey().empty == 6


@pytest.mark.parametrize("name", ["Größe der Katze", 'a "b"', "it's", "select", "a\\b", "x`y"])
def test_any_name_that_lance_reads(tmp_path: Path, name: str) -> None:
    """A backtick is written by Lance, and then never read again: it is refused."""
    table = plain(tmp_path)
    if "`" in name:
        with pytest.raises(ArgumentError, match="a backtick"):
            lance_align.attach(table, image="picture", vector=name, model="fake")
        strange = lancedb.connect(tmp_path).create_table("strange", pa.table({name: [b"a picture"]}))
        with pytest.raises(TableError, match="cannot be read by Lance"):
            lance_align.attach(strange, image=name, model="fake")
        with pytest.raises(ArgumentError, match="a backtick"):
            lance_align.add_labels(table, ["a", "b"], column=name)
        return
    renamed(table, picture=f"{name} picture")
    lance_align.attach(table, image=f"{name} picture", vector=name, model="fake")
    assert lance_align.attach(table, image=f"{name} picture", vector=name, model="fake") == table.version
    filler = Filler(str(tmp_path / "plain.lance"), name)
    assert filler.survey().empty == 6
    assert filler.forget_errors() == 0
    table.add([{"number": 7, f"{name} picture": png(7), "caption": "seven"}])
    assert lance_align.build_index(table, vector=name, index="IVF_FLAT").rows == 1
    lance_align.add_labels(table, ["a", "b"], vector_column=name)
    assert filler.survey().empty == 6


WRITERS: dict[str, Callable[[Any], object]] = {
    "attach": lambda table: lance_align.attach(table, image="image", vector="second", model="fake"),
    "add_labels": lambda table: lance_align.add_labels(table, ["a", "b"]),
    "add_areas": lambda table: lance_align.add_areas(table, ["a", "b"]),
    "build_index": lambda table: lance_align.build_index(table, index="IVF_FLAT"),
    "build_text_index": lambda table: build_text_index(table, "caption"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("newest", [False, True])
def test_a_version_that_was_checked_out_is_not_written_to(photos: Any, writer: str, newest: bool) -> None:
    photos.delete("id = 'broken'")
    photos.checkout(3 if newest else 2)
    with pytest.raises(TableError, match=r"stands at version \d, which was checked out.*checkout_latest"):
        WRITERS[writer](photos)
    assert photos.version == (3 if newest else 2)
    photos.checkout_latest()
    assert photos.version == 3


def test_a_handle_that_is_merely_behind_is_moved(tmp_path: Path) -> None:
    table = plain(tmp_path)
    plain_again(tmp_path).delete("number = 0")
    assert table.version == 1
    lance_align.attach(table, image="picture", model="fake")
    assert table.count_rows() == 5


@pytest.mark.parametrize("half", [pa.float16(), pa.float64()])
def test_vectors_in_other_precisions(photos: Any, place: TableLocation, half: pa.DataType) -> None:
    photos.alter_columns({"path": "vector", "data_type": pa.list_(half, 32)})
    with pytest.raises(TableError, match="vector"):
        Filler(place.uri, "vector")
    with pytest.raises(TableError, match=r"'vector' of .* holds vectors in .*alter_columns"):
        Committer.open_or_create(place.uri, photos_schema())
    with pytest.raises(TableError, match="column 'vector' of table 'photos' is fixed_size_list"):
        lance_align.attach(photos, image="image", model="fake")
    assert photos.search(colour("red")).limit(1).to_list()[0]["id"] == "red"
    assert lance_align.verify(photos).ok
