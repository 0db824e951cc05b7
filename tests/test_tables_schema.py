"""Columns, metadata and places of tables, and what is refused before anything is written."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

import lance
import lancedb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lance.schema import LanceSchema
from lancedb.embeddings import EmbeddingFunctionConfig, get_registry

import lance_align  # noqa: F401  # registers the function
from lance_align.errors import ArgumentError, LanceAlignError, TableError
from lance_align.tables.location import table_location
from lance_align.tables.names import is_refused, quoted
from lance_align.tables.schema import (
    FUNCTIONS_KEY,
    PRIMARY_KEY,
    SPEC_KEY,
    Embed,
    Layout,
    Store,
    check_fits,
    function_arguments,
    read_specs,
    table_schema,
)
from lance_align.testing import FAKE_SPEC

NO_COLUMNS = pa.schema([])
CAPTION = pa.schema([pa.field("caption", pa.string())])
OTHER_SPEC = dataclasses.replace(FAKE_SPEC, name="other/model", fingerprint="0123abcd", revision="c0ffee")


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (Layout(), ["id", "caption", "image", "vector", "error"]),
        (Layout(store="uri"), ["id", "caption", "uri", "vector", "error"]),
        (Layout(embed="text", store="none", text="caption"), ["id", "caption", "vector", "error"]),
        (Layout(embed="text", text="caption"), ["id", "caption", "image", "vector", "error"]),
        (Layout(embed="both", text="caption"), ["id", "caption", "image", "vector", "text_vector", "error"]),
    ],
)
def test_columns_of_each_layout(layout: Layout, names: list[str]) -> None:
    schema = table_schema(CAPTION, layout, FAKE_SPEC)
    assert schema.names == [*names, "content_hash", "vector_crc32"]
    assert schema.field("id") == pa.field("id", pa.string(), nullable=False)
    assert schema.field("error").type == pa.string()
    for column in layout.embedded:
        assert schema.field(column.vector).type == pa.list_(pa.float32(), FAKE_SPEC.dim)
    assert set(read_specs(schema)) == {column.vector for column in layout.embedded}
    assert set(read_specs(schema).values()) == {FAKE_SPEC}


def test_user_columns_are_kept_as_they_are_but_other_functions_and_keys_are_not_taken_over() -> None:
    user = pa.schema(
        [
            pa.field("key", pa.int64(), nullable=False, metadata={PRIMARY_KEY: b"true", b"unit": b"m"}),
            pa.field("size", pa.dictionary(pa.int8(), pa.string())),
        ],
        metadata={FUNCTIONS_KEY: b'[{"name": "huggingface"}]', b"pandas": b"{}"},
    )
    schema = table_schema(user, Layout(), FAKE_SPEC)
    assert schema.field("key") == user.field("key")
    assert schema.field("key").metadata == {b"unit": b"m"}
    assert schema.field("size") == user.field("size")
    assert schema.metadata.keys() == {FUNCTIONS_KEY, SPEC_KEY}
    assert b"huggingface" not in schema.metadata[FUNCTIONS_KEY]


def test_metadata_is_what_lancedb_itself_would_write() -> None:
    create = get_registry().get("align").create
    image, text = create(name="fake"), create(name="fake", source="text")
    written = get_registry().get_table_metadata(
        [
            EmbeddingFunctionConfig(source_column="image", vector_column="vector", function=image),
            EmbeddingFunctionConfig(source_column="caption", vector_column="text_vector", function=text),
        ]
    )
    schema = table_schema(CAPTION, Layout(embed="both", text="caption"), FAKE_SPEC)
    assert schema.metadata[FUNCTIONS_KEY] == written["embedding_functions"]
    assert image.safe_model_dump() == function_arguments(FAKE_SPEC, kind="image")


def test_lance_sees_the_primary_key_where_it_is_asked_for(tmp_path: Path) -> None:
    for primary_key in (False, True):
        schema = table_schema(NO_COLUMNS, Layout(), FAKE_SPEC, primary_key=primary_key)
        dataset = lance.write_dataset(schema.empty_table(), tmp_path / f"{primary_key}.lance")
        assert dataset.lance_schema.field("id").is_unenforced_primary_key() is primary_key


@pytest.mark.parametrize("name", ["id", "image", "vector", "error", "_distance", "_rowid"])
def test_a_column_the_table_needs_is_refused(name: str) -> None:
    with pytest.raises(TableError, match=rf"columns \['{name}'\], .*--drop {name}\), or rename them"):
        table_schema(pa.schema([pa.field(name, pa.int64())]), Layout(), FAKE_SPEC)


def test_a_name_that_another_layout_would_need_is_free() -> None:
    user = pa.schema([pa.field("uri", pa.string()), pa.field("text_vector", pa.int8())])
    assert "uri" in table_schema(user, Layout(), FAKE_SPEC).names


@pytest.mark.parametrize("name", ["", "a.b", "a`b", "`"])
def test_a_name_lance_refuses_is_refused_first(name: str) -> None:
    with pytest.raises(TableError, match=rf"refused by Lance .*--drop {re.escape(shlex.quote(name))}, or rename it"):
        table_schema(pa.schema([pa.field(name, pa.int64())]), Layout(), FAKE_SPEC)


def test_two_columns_of_one_name_are_refused() -> None:
    twice = pa.schema([pa.field("a", pa.int8()), pa.field("a", pa.int8())])
    with pytest.raises(TableError, match="two columns 'a'"):
        table_schema(twice, Layout(), FAKE_SPEC)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.string_view(), "change to string"),
        (pa.month_day_nano_interval(), "cannot store"),
        (pa.run_end_encoded(pa.int32(), pa.string()), "cannot store"),
        (pa.struct([]), "cannot store"),  # these and the next are taken, and then the table cannot be read
        (pa.map_(pa.string(), pa.list_(pa.struct({"a": pa.struct([])}))), "cannot store"),
        (pa.list_(pa.string(), 2), "cannot store"),
        (pa.struct({"a": pa.list_(pa.struct({"b": pa.int8()}), 2)}), "cannot store"),
    ],
)
def test_a_type_lance_would_lose_is_refused(kind: pa.DataType, said: str) -> None:
    with pytest.raises(TableError, match=f"'a' has type .*{said}.*cast it"):
        table_schema(pa.schema([pa.field("a", kind)]), Layout(), FAKE_SPEC)


def test_layouts_that_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="needs a text column"):
        Layout(embed="both")
    with pytest.raises(ArgumentError, match="needs the picture in the table"):
        Layout(embed="image", store="none")
    with pytest.raises(TableError, match="no text column 'caption'; the input has alt"):
        table_schema(pa.schema([pa.field("alt", pa.string())]), Layout(embed="text", text="caption"), FAKE_SPEC)


def test_vectors_of_another_model_are_refused_and_both_are_named() -> None:
    with pytest.raises(TableError) as caught:
        check_fits(
            table_schema(NO_COLUMNS, Layout(), FAKE_SPEC), table_schema(NO_COLUMNS, Layout(), OTHER_SPEC), uri="photos"
        )
    message = str(caught.value)
    assert "\n" not in message
    for part in ("'fake'", FAKE_SPEC.fingerprint, "'other/model'", "c0ffee", OTHER_SPEC.fingerprint):
        assert part in message


def test_a_table_that_does_not_name_its_model_is_refused() -> None:
    schema = table_schema(NO_COLUMNS, Layout(), FAKE_SPEC)
    with pytest.raises(TableError, match="does not say which model wrote its column 'vector'"):
        check_fits(schema.remove_metadata(), schema, uri="photos")


@pytest.mark.parametrize(
    ("existing", "said"),
    [
        (NO_COLUMNS, "no column 'caption'"),
        (pa.schema([pa.field("caption", pa.large_string())]), "'caption' of photos is large_string"),
        (pa.schema([pa.field("caption", pa.string(), nullable=False)]), "string not null"),
        (
            CAPTION.append(pa.field("extra", pa.int8(), nullable=False)),
            r"""'extra' \(int8\) that may not be null.*alter_columns\(\{"path": "extra", "nullable": True\}\)""",
        ),
    ],
)
def test_a_table_with_other_columns_is_refused(existing: pa.Schema, said: str) -> None:
    with pytest.raises(TableError, match=said):
        check_fits(
            table_schema(existing, Layout(), FAKE_SPEC), table_schema(CAPTION, Layout(), FAKE_SPEC), uri="photos"
        )


def test_a_table_with_more_nullable_columns_is_fine() -> None:
    labelled = CAPTION.append(pa.field("label", pa.string()))
    check_fits(table_schema(labelled, Layout(), FAKE_SPEC), table_schema(CAPTION, Layout(), FAKE_SPEC), uri="photos")


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda x: json.dumps(x).encode()
    )
)
@settings(max_examples=50, deadline=None)
def test_damaged_metadata_gives_a_typed_error_or_specs(text: bytes) -> None:
    schema = table_schema(NO_COLUMNS, Layout(), FAKE_SPEC).with_metadata({SPEC_KEY: text})
    specs = None
    try:
        specs = read_specs(schema)
    except LanceAlignError as error:
        message = str(error)
    assert specs == {} or "\n" not in message


@given(
    user=st.lists(
        st.tuples(
            st.text(min_size=1).filter(lambda name: not {".", "`", "\0"} & set(name)),
            st.sampled_from(
                [
                    pa.null(),
                    pa.bool_(),
                    pa.uint8(),
                    pa.float16(),
                    pa.decimal128(10, 2),
                    pa.timestamp("us", "Europe/Berlin"),
                    pa.duration("ms"),
                    pa.large_string(),
                    pa.binary(7),
                    pa.list_(pa.field("element", pa.int8(), nullable=False)),
                    pa.struct([pa.field("a", pa.list_(pa.string()))]),
                    pa.map_(pa.string(), pa.int64()),
                    pa.dictionary(pa.int16(), pa.string()),
                    pa.uuid(),
                    pa.json_(),
                ]
            ),
            st.booleans(),
        ),
        unique_by=lambda column: column[0],
        max_size=4,
    ),
    embed=st.sampled_from(["image", "text", "both"]),
    store=st.sampled_from(["bytes", "uri"]),
)
@settings(max_examples=30, deadline=None)
def test_any_columns_survive_lance(user: list[tuple[str, pa.DataType, bool]], embed: Embed, store: Store) -> None:
    taken = {"id", "image", "uri", "vector", "text_vector", "error", "words"}
    fields = [
        pa.field(name, kind, nullable=nullable or pa.types.is_null(kind))
        for name, kind, nullable in user
        if name not in taken
    ]
    layout = Layout(embed=embed, store=store, text="words")
    wanted = table_schema(pa.schema([*fields, pa.field("words", pa.string())]), layout, FAKE_SPEC)
    stored = lance.write_dataset(wanted.empty_table(), "memory://survive", mode="overwrite").schema
    check_fits(stored, wanted, uri="memory")
    assert stored.types == wanted.types
    assert LanceSchema.from_pyarrow(stored).to_pyarrow().names == wanted.names


@pytest.mark.parametrize("name", ["photos", "a.b", "-", "A_1"])
def test_lancedb_opens_the_table_where_we_put_it(tmp_path: Path, name: str) -> None:
    place = table_location(tmp_path / "my db", name)
    lance.write_dataset(CAPTION.empty_table(), place.uri)
    assert lancedb.connect(place.db).open_table(name).schema.names == ["caption"]


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "../x", "é", "a\0b", "a\n"])
def test_names_lancedb_refuses(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=r"table name .* letters, digits"):
        table_location(tmp_path, name)
    with pytest.raises(ValueError, match="Invalid table name"):
        lancedb.connect(tmp_path).create_table(name, schema=CAPTION)


@pytest.mark.parametrize(
    ("db", "uri"),
    [
        ("s3://bucket/db", "s3://bucket/db/t.lance"),
        ("s3://bucket/db/", "s3://bucket/db/t.lance"),
        ("gs://bucket", "gs://bucket/t.lance"),
        ("az://container/x", "az://container/x/t.lance"),
        ("s3+ddb://bucket/db?ddbTableName=locks", "s3+ddb://bucket/db/t.lance?ddbTableName=locks"),
        ("file:///data/my%20db", "/data/my db/t.lance"),
        ("/data/db", "/data/db/t.lance"),
        ("~/db", str(Path.home() / "db" / "t.lance")),
        ("db", str(Path.cwd() / "db" / "t.lance")),
    ],
)
def test_the_dataset_of_a_database(db: str, uri: str) -> None:
    assert table_location(db, "t").uri == uri


@pytest.mark.parametrize(
    "db",
    ["", "memory://", "db://cloud", "http://host/x", "a\0b", "~nosuchuser/x", "bad \udcff", "file:///a%00b"],
)
def test_databases_that_cannot_be_used(db: str) -> None:
    with pytest.raises(TableError, match=r"database|is not a path"):
        table_location(db, "t")


def test_credentials_are_not_shown() -> None:
    place = table_location("s3://bucket/db", "t", storage_options={"aws_secret_access_key": "hush"})
    assert place.storage_options == {"aws_secret_access_key": "hush"}
    assert "hush" not in repr(place)


@given(name=st.text(min_size=1).filter(lambda name: not is_refused(name) and "\0" not in name))
@example("select")
@example('it\'s "quoted", \\ and \n all')
@settings(max_examples=40, deadline=None)
def test_any_name_stands_in_a_condition(name: str) -> None:
    rows = pa.table({name: pa.array([1, None, None])})
    stored = lance.write_dataset(rows, "memory://quoted", mode="overwrite")
    assert stored.count_rows(f"{quoted(name)} IS NULL AND {quoted(name)} IS NULL") == 2
