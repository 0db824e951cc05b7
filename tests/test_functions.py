"""Plain LanceDB code searches and fills tables; table metadata can make us load nothing that was not allowed."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from PIL import Image

import lance_align
from lance_align.benchmarks.weights import build_model
from lance_align.errors import ArgumentError, LanceAlignError, ModelError, TableError
from lance_align.functions import AlignFunction
from lance_align.images import load, to_pixels
from lance_align.tables.location import TableLocation
from lance_align.tables.schema import FUNCTIONS_KEY, Layout, read_specs, table_schema
from lance_align.testing import FAKE_SPEC
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config
from tests.fake_tables import BLUE, CAPTION, GREEN, RED, photos_schema, png, vector_of

Row = dict[str, Any]


def ids(query: Any) -> list[str]:
    return [row["id"] for row in query.to_list()]


def test_pictures_find_themselves(photos: Any, tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    path.write_bytes(png(BLUE))
    pixels = np.asarray(Image.open(path))
    for query in (png(BLUE), Image.open(path), path, lance_align.Query(pixels), lance_align.Query(path)):
        (row,) = photos.search(query).limit(1).to_list()
        assert row["id"] == BLUE
        assert row["_distance"] < 1e-6


def test_words_and_composed_queries_give_the_encoders_vectors(photos: Any) -> None:
    encoder = lance_align.load_encoder("fake")
    composed = lance_align.Query(png(RED)) + "blue" - 0.5 * lance_align.Query("red")
    for query, vector in (
        ("a red car", encoder.encode_texts(["a red car"]).vectors[0]),
        (composed, composed.encode(encoder)),
    ):
        assert photos.search(query).limit(3).to_list() == photos.search(vector).limit(3).to_list()


def test_filters_limits_and_rows_without_a_vector(photos: Any) -> None:
    assert sorted(ids(photos.search("anything").limit(10))) == sorted([RED, GREEN, BLUE])  # not the broken one
    assert ids(photos.search(png(RED)).where("caption != 'a red square'", prefilter=True).limit(1)) != [RED]
    assert ids(photos.search(png(RED)).where("caption = 'a blue square'", prefilter=False).limit(1)) == []
    assert ids(photos.search(png(RED)).where("caption = 'a blue square'").metric("cosine").limit(5)) == [BLUE]


def test_the_asynchronous_api(place: TableLocation) -> None:
    async def search() -> list[list[Row]]:
        table = await (await lancedb.connect_async(place.db)).open_table(place.name)
        words = await table.search("a red car")
        picture = await table.search(Image.new("RGB", (8, 8), RED), query_type="vector")  # LanceDB cannot guess it
        composed = await table.search(lance_align.Query(png(RED)) - 0.1 * lance_align.Query("x"), query_type="vector")
        await table.add([{"id": "new", "caption": "", "image": png(GREEN)}])
        added = table.query().where("id = 'new'").select(["vector"])
        return [await query.limit(1).to_list() for query in (words, picture, composed, added)]

    words, picture, composed, added = asyncio.run(search())
    assert len(words) == 1
    assert [row["id"] for row in (*picture, *composed)] == [RED, RED]
    np.testing.assert_array_equal(np.float32(added[0]["vector"]), vector_of(png(GREEN)))


def test_new_rows_embed_themselves_as_the_job_would(photos: Any) -> None:
    photos.add([{"id": f"new-{colour}", "caption": None, "image": png(colour)} for colour in (RED, GREEN)])
    photos.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(
        [{"id": RED, "caption": "now green", "image": png(GREEN)}, {"id": "merged", "image": png(BLUE), "caption": ""}]
    )
    rows = {row["id"]: row for row in photos.to_arrow().to_pylist()}
    assert len(rows) == photos.count_rows() == 7
    for name, colour in {"new-red": RED, "new-green": GREEN, RED: GREEN, "merged": BLUE, BLUE: BLUE}.items():
        assert rows[name]["image"] == png(colour)
        np.testing.assert_array_equal(np.float32(rows[name]["vector"]), vector_of(png(colour)))


def test_many_rows_in_one_add(photos: Any) -> None:
    colours = [f"#{number:06x}" for number in range(0, 300_000, 1999)]
    photos.add([{"id": colour, "image": png(colour)} for colour in colours])
    assert ids(photos.search(png(colours[100])).limit(1)) == [colours[100]]


def test_bad_new_rows_become_null_vectors_where_lancedb_is_told_so(
    photos: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad: list[Row] = [
        {"id": "junk", "image": b"junk"},
        {"id": "none", "image": None},
        {"id": "good", "image": png(RED)},
    ]
    with pytest.raises(RuntimeError, match="on_bad_vectors='null'"):  # LanceDB's default is to refuse
        photos.add(bad)
    with caplog.at_level(logging.WARNING, logger="lance_align"):
        caplog.clear()
        photos.add(bad, on_bad_vectors="null")
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == ["2 of 3 rows have no vector"]
    rows = {row["id"]: row["vector"] for row in photos.to_arrow().to_pylist()}
    assert rows["junk"] is None
    assert rows["none"] is None
    assert rows["good"] is not None


@pytest.mark.parametrize("query", [b"junk", 3.5, Path("/no/such.png"), lance_align.Query("a") - "a"])
def test_a_bad_query_is_one_line_at_once(photos: Any, query: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        photos.search(query)
    assert "\n" not in str(caught.value)


def test_paths_in_the_table_and_captions(tmp_path: Path) -> None:
    (tmp_path / "a red.png").write_bytes(png(RED))
    db = lancedb.connect(tmp_path)
    schema = table_schema(CAPTION, Layout(embed="both", store="uri", text="caption"), FAKE_SPEC)
    table = db.create_table("places", schema=schema)
    table.add(
        [
            {"id": "path", "uri": str(tmp_path / "a red.png"), "caption": "x"},
            {"id": "uri", "uri": (tmp_path / "a red.png").as_uri(), "caption": "y"},
        ]
    )
    table.add([{"id": "gone", "uri": "/no/such.png", "caption": None}], on_bad_vectors="null")
    rows = {row["id"]: row for row in table.to_arrow().to_pylist()}
    for name in ("path", "uri"):
        np.testing.assert_array_equal(np.float32(rows[name]["vector"]), vector_of(png(RED)))
        assert rows[name]["text_vector"] is not None
    assert (rows["gone"]["vector"], rows["gone"]["text_vector"]) == (None, None)
    with pytest.raises(ValueError, match="vector column name"):  # LanceDB wants to know which of the two
        table.search("x")
    assert ids(table.search("x", vector_column_name="text_vector").limit(1)) == ["path"]


@pytest.mark.parametrize("caption", ["", " ", "\n\t\u3000", None])
def test_a_blank_caption_has_no_vector_as_in_the_job(tmp_path: Path, caption: str | None) -> None:
    schema = table_schema(CAPTION, Layout(embed="text", store="none", text="caption"), FAKE_SPEC)
    table = lancedb.connect(tmp_path).create_table("captions", schema=schema)
    rows = [{"id": "blank", "caption": caption}, {"id": "words", "caption": " words "}]
    with pytest.raises(RuntimeError, match="on_bad_vectors='null'"):
        table.add(rows)
    table.add(rows, on_bad_vectors="null")
    vectors = {row["id"]: row["vector"] for row in table.to_arrow().to_pylist()}
    assert vectors["blank"] is None
    np.testing.assert_array_equal(
        np.float32(vectors["words"]), lance_align.load_encoder("fake").encode_texts([" words "])[0]
    )
    assert ids(table.search("").limit(1)) == ["words"]  # a query may be empty: see `text_reason`


def test_tables_made_the_lancedb_way(tmp_path: Path) -> None:
    align = get_registry().get("align")
    pictures, captions = align.create(name="fake"), align.create(name="fake", source="text")

    class Photo(LanceModel):
        name: str
        caption: str = captions.SourceField()
        image: bytes = pictures.SourceField()
        vector: Vector(pictures.ndims()) = pictures.VectorField()
        text_vector: Vector(captions.ndims()) = captions.VectorField()

    table = lancedb.connect(tmp_path).create_table("photos", schema=Photo)
    table.add([{"name": colour, "caption": f"so {colour}", "image": png(colour)} for colour in (RED, BLUE)])
    table = lancedb.connect(tmp_path).open_table("photos")
    picture = table.search(png(BLUE), vector_column_name="vector").limit(1).to_list()[0]
    words = table.search("so red", vector_column_name="text_vector").limit(1).to_list()[0]
    assert (picture["name"], words["name"]) == (BLUE, RED)
    np.testing.assert_array_equal(np.float32(picture["vector"]), vector_of(png(BLUE)))


@pytest.mark.parametrize("numbers", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_vector_columns_of_any_float_type_take_rows(tmp_path: Path, numbers: pa.DataType) -> None:
    align = get_registry().get("align").create(name="fake")

    class Photo(LanceModel):
        name: str
        image: bytes = align.SourceField()
        vector: Vector(align.ndims(), value_type=numbers) = align.VectorField()

    table = lancedb.connect(tmp_path).create_table("photos", schema=Photo)
    table.add([{"name": colour, "image": png(colour)} for colour in (RED, BLUE)])
    table.merge_insert("name").when_not_matched_insert_all().execute([{"name": GREEN, "image": png(GREEN)}])
    assert table.schema.field("vector").type.value_type == numbers
    for colour in (RED, BLUE, GREEN):
        (row,) = table.search(png(colour)).limit(1).to_list()
        assert row["name"] == colour
        np.testing.assert_allclose(np.float32(row["vector"]), vector_of(png(colour)), atol=1e-3)


def test_plain_dicts_need_a_table_without_a_declared_key(tmp_path: Path) -> None:
    """Why `table_schema` does not declare the primary key: the day this fails, it can."""
    table = lancedb.connect(tmp_path).create_table(
        "photos", schema=table_schema(CAPTION, Layout(), FAKE_SPEC, primary_key=True)
    )
    with pytest.raises(RuntimeError, match="must not be nullable"):
        table.add([{"id": "a", "image": png(RED)}])
    not_null = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("image", pa.binary())])
    table.add(pa.table({"id": ["a"], "image": [png(RED)]}, schema=not_null))
    assert ids(table.search(png(RED)).limit(1)) == ["a"]


def test_the_arguments_a_table_stores_are_complete_and_name_no_device() -> None:
    function = AlignFunction.create(name="fake")
    assert function.safe_model_dump() == {
        "name": "fake",
        "revision": None,
        "dim": 32,
        "fingerprint": FAKE_SPEC.fingerprint,
        "source": "image",
        "device": "$var:align_device:auto",
    }
    assert (function.device, function.max_retries, function.ndims()) == ("auto", 0, 32)


@pytest.fixture
def align_device() -> Iterator[None]:
    get_registry().set_var("align_device", "cpu")
    yield
    get_registry()._variables.pop("align_device")  # the registry has no way to unset one


@pytest.mark.usefixtures("align_device")
def test_the_device_of_a_machine_is_a_lancedb_variable() -> None:
    function = AlignFunction.create(**AlignFunction.create(name="fake").safe_model_dump())
    assert function.device == "cpu"
    assert "cpu" not in json.dumps(function.safe_model_dump())


def test_copies_are_equal_and_work() -> None:
    function = AlignFunction.create(name="fake", source="text")
    for twin in (pickle.loads(pickle.dumps(function)), copy.deepcopy(function)):  # noqa: S301  # our own bytes
        assert twin == function
        assert hash(twin) == hash(function)
        assert twin.safe_model_dump() == function.safe_model_dump()
        assert twin.encoder() is function.encoder()


def with_functions(text: str) -> pa.Schema:
    return photos_schema().with_metadata({FUNCTIONS_KEY: text.encode()})


def changed(**arguments: object) -> pa.Schema:
    (entry,) = json.loads(photos_schema().metadata[FUNCTIONS_KEY])
    return with_functions(json.dumps([{**entry, "model": {**entry["model"], **arguments}}]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "evil/model"}, r"'evil/model', which is not a known checkpoint.*allow_models\('evil/model'\)"),
        ({"name": "/tmp/evil", "fingerprint": None}, "'/tmp/evil', which is not a known checkpoint"),
        ({"fingerprint": "0123"}, f"fingerprint 0123.*{FAKE_SPEC.fingerprint}"),
        ({"dim": 31}, "length 31, but it makes 32"),
        ({"dim": "32"}, "does not take dim='32'"),
        ({"dim": -1}, "does not take dim=-1"),
        ({"source": "video"}, "does not take source='video'"),
        ({"trust_remote_code": True}, "does not take trust_remote_code=True"),
        ({"name": "$var:secret:x"}, "takes no variable for name"),
    ],
)
def test_metadata_that_names_something_else_opens_but_does_not_search(
    tmp_path: Path, arguments: Row, said: str
) -> None:
    db = lancedb.connect(tmp_path)
    db.create_table("photos", schema=changed(**arguments))
    table = db.open_table("photos")
    assert table.count_rows() == 0
    assert table.search([0.0] * 32).limit(1).to_list() == []
    with pytest.raises(ModelError, match=said) as caught:
        table.search("a red car")
    assert "\n" not in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    arguments=st.dictionaries(
        st.sampled_from(["name", "revision", "dim", "fingerprint", "source", "device", "max_retries", "model_config"])
        | st.text(max_size=10),
        values,
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_arguments_in_metadata_work_or_give_our_error(arguments: Row) -> None:
    (entry,) = json.loads(photos_schema().metadata[FUNCTIONS_KEY])
    metadata = {b"embedding_functions": json.dumps([{**entry, "model": {**entry["model"], **arguments}}]).encode()}
    try:
        function = get_registry().parse_functions(metadata)["vector"].function
        function.compute_query_embeddings_with_retry("words")
    except LanceAlignError as error:
        assert "\n" not in str(error)  # noqa: PT017  # either outcome is right


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model(small_config(), seed=0, warm_up=8)
    return save_checkpoint(model, tmp_path_factory.mktemp("model"), preprocessor=SMALL_PREPROCESSOR)


def test_one_encoder_a_process_and_only_the_tower_a_query_needs(small_model: Path, tmp_path: Path) -> None:
    lance_align.allow_models(small_model)
    function = AlignFunction.create(name=str(small_model))
    assert function.encoder().loaded_towers == frozenset()
    schema = table_schema(CAPTION, Layout(), lance_align.resolve_spec(str(small_model)))
    db = lancedb.connect(tmp_path)
    db.create_table("photos", schema=schema)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda words: db.open_table("photos").search(words).to_list(), ["red", "green", "blue", "x"]))
    assert "image" not in function.encoder().loaded_towers
    db.open_table("photos").search(png(RED)).to_list()
    assert "image" in function.encoder().loaded_towers
    assert AlignFunction.create(**function.safe_model_dump()).encoder() is function.encoder()


def test_a_real_model_gives_one_vector_through_every_door(small_model: Path, tmp_path: Path) -> None:
    lance_align.allow_models(small_model)
    schema = table_schema(CAPTION, Layout(), lance_align.resolve_spec(str(small_model)))
    table = lancedb.connect(tmp_path).create_table("photos", schema=schema)
    colours = [RED, GREEN, BLUE]
    table.add([{"id": colour, "image": png(colour)} for colour in colours])
    pixels = [to_pixels(load(png(colour)), read_specs(schema)["vector"].image) for colour in colours]
    expected = lance_align.load_encoder(str(small_model)).encode_pixels(np.stack(pixels))
    stored = np.array([row["vector"] for row in table.to_arrow().to_pylist()])
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    for colour in colours:
        (row,) = table.search(png(colour)).limit(1).to_list()
        assert (row["id"], round(row["_distance"], 5)) == (colour, 0)


def test_a_model_that_was_not_allowed_is_not_read(tmp_path: Path) -> None:
    function = AlignFunction.create(name=str(tmp_path / "no model here"))
    with pytest.raises(ModelError, match="not a known checkpoint"):
        function.ndims()
    with pytest.raises(ModelError, match="not a known checkpoint"):
        function.compute_source_embeddings(["x"])


def test_a_job_says_at_once_that_it_writes_no_vectors_of_16_bits(place: TableLocation) -> None:
    table = lancedb.connect(place.db).open_table(place.name)
    table.alter_columns({"path": "vector", "data_type": pa.list_(pa.float16(), FAKE_SPEC.dim)})
    table.add([{"id": "new", "image": png(RED)}])  # by LanceDB it works
    with pytest.raises(TableError, match=r"'vector' is fixed_size_list<item: halffloat>\[32\], but a job writes"):
        lance_align.backfill(db=place.db, table=place.name, executor="local")


COLD_THREADS = """
import threading
import lance_align

barrier, found, failed = threading.Barrier(16), [], []

def spec():
    return lance_align.resolve_spec("align-tiny").dim

def encoder():
    return len(lance_align.load_encoder("align-tiny", device="cpu").encode_texts(["x"])[0])

def registry():
    import lancedb  # first, as everybody does: LanceDB's own modules deadlock where two threads begin elsewhere
    from lancedb.embeddings import get_registry
    return get_registry().get("align").create(name="align-tiny").ndims()

def function():
    return lance_align.AlignFunction.create(name="align-tiny").ndims()

def first(use):
    barrier.wait()
    try:
        found.append(use())
    except BaseException as error:
        failed.append(repr(error))

threads = [threading.Thread(target=first, args=(use,)) for use in (spec, encoder, registry, function) * 4]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(found == [256] * 16, failed)
"""


def test_threads_of_a_new_process_may_all_begin_at_once() -> None:
    """A threaded server's first requests. Neither transformers nor LanceDB can be taken while another imports it."""
    done = subprocess.run([sys.executable, "-c", COLD_THREADS], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True []", done.stderr
