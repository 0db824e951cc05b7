"""A table against its promises: what is sound passes, and each damage is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lance_align
from lance_align import Verification
from lance_align.encoders import load_encoder
from lance_align.errors import ArgumentError, TableError
from lance_align.jobs.columns import Keep, choose_columns
from lance_align.jobs.sources import open_source
from lance_align.tables.checksums import vector_checksums
from lance_align.tables.commits import Committer
from lance_align.tables.digests import content_hash, row_digests
from lance_align.tables.done import read_failed_ids
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import TableLocation, table_location
from lance_align.tables.metadata import FUNCTIONS_KEY, SPEC_KEY
from lance_align.tables.schema import Layout, table_schema
from lance_align.testing import FAKE_SPEC
from tests.damage import data_files, flip, place_of, vector_bytes
from tests.fake_tables import BLUE, CAPTION, GREEN, RED, photos_schema, png, rows

MANY = 60
KEEPS: tuple[Keep, ...] = ("bytes", "thumbnail", "uri")


def opened(place: TableLocation) -> Any:
    """A handle that has read nothing yet: Lance caches pages a session."""
    return lancedb.connect(place.db).open_table(place.name)


def checks(found: Verification) -> dict[str, int]:
    return {finding.check: finding.count for finding in found.findings}


def examples(found: Verification, check: str) -> tuple[str, ...]:
    return next(finding.examples for finding in found.findings if finding.check == check)


@pytest.fixture
def many(tmp_path: Path) -> TableLocation:
    """Sixty pictures in three fragments."""
    place = table_location(tmp_path / "db", "many")
    committer = Committer.open_or_create(place.uri, photos_schema())
    for start in range(0, MANY, 20):
        numbers = range(start, start + 20)
        table = rows(
            [f"id-{number:03}" for number in numbers],
            images=[png(f"#{number * 7919:06x}") for number in numbers],
            captions=[f"caption {number}" for number in numbers],
        )
        committer.commit(write_fragments(place.uri, table), rows=20)
    return place


def write(directory: Path, layout: Layout, columns: dict[str, Any]) -> TableLocation:
    """A table of any layout; vectors and checksums are made here."""
    place = table_location(directory, "made")
    schema = table_schema(CAPTION, layout, FAKE_SPEC)
    encoder = load_encoder("fake")
    filled = dict(columns)
    vectors = []
    for column in layout.embedded:
        values = columns[column.source]
        embedded = encoder.encode_images(values) if column.kind == "image" else encoder.encode_texts(values)
        made = [vector if vector is None else vector.tolist() for vector in embedded]
        vectors.append(pa.array(made, schema.field(column.vector).type))
        filled[column.vector] = vectors[-1]
    filled["vector_crc32"] = vector_checksums(vectors)
    size = len(columns["id"])
    arrays = [filled.get(name, pa.nulls(size, schema.field(name).type)) for name in schema.names]
    table = pa.table(
        [pa.array(a, f.type) if isinstance(a, list) else a for a, f in zip(arrays, schema, strict=True)], schema
    )
    committer = Committer.open_or_create(place.uri, schema)
    committer.commit(write_fragments(place.uri, table), rows=size)
    return place


def test_a_sound_table(many: TableLocation, photos: Any) -> None:
    found = lance_align.verify(opened(many))
    assert found.ok
    assert (found.rows, found.vectors, found.failed, found.checksummed, found.sampled) == (60, 60, 0, 60, 60)
    assert (found.version, found.findings, found.unchecked) == (4, (), ())
    assert "nothing wrong was found" in found.to_text()
    assert json.loads(found.to_json())["ok"] is True
    found.raise_if_bad()
    found = lance_align.verify(photos, sample_rows=2)
    assert (found.ok, found.rows, found.vectors, found.failed, found.sampled) == (True, 4, 3, 1, 2)


def test_an_empty_table(tmp_path: Path) -> None:
    place = table_location(tmp_path, "empty")
    Committer.open_or_create(place.uri, photos_schema())
    found = lance_align.verify(opened(place))
    assert (found.ok, found.rows, found.sampled) == (True, 0, 0)


def test_with_the_real_model(tmp_path: Path) -> None:
    spec = lance_align.resolve_spec("align-tiny")
    place = table_location(tmp_path, "real")
    schema = table_schema(CAPTION, Layout(), spec)
    Committer.open_or_create(place.uri, schema)
    table = opened(place)
    table.add([{"id": colour, "caption": colour, "image": png(colour)} for colour in (RED, GREEN, BLUE)])
    found = lance_align.verify(table, device="cpu")
    assert (found.ok, found.vectors, found.sampled, found.checksummed) == (True, 3, 3, 0)
    table.update(where=f"id = '{RED}'", values={"image": png(GREEN)})
    assert examples(lance_align.verify(table, device="cpu"), "different_vector")[0].startswith(f"{RED} (cosine ")


# Bit 0 of a float's first byte is the lowest of its mantissa; byte 3, bit 7 is its sign.
@pytest.mark.parametrize(("row", "byte", "bit"), [(0, 0, 0), (19, 127, 7), (20, 64, 0), (37, 3, 7), (59, 126, 6)])
def test_one_flipped_bit_of_a_vector_names_its_row(many: TableLocation, row: int, byte: int, bit: int) -> None:
    stored = opened(many).to_arrow().to_pylist()[row]
    path, at = place_of(many.uri, vector_bytes(stored["vector"]))
    flip(path, at + byte, bit)
    assert opened(many).search(stored["vector"]).limit(1).to_list()  # nothing else notices
    found = lance_align.verify(opened(many), sample_rows=0)
    assert not found.ok
    assert examples(found, "checksum") == (stored["id"],)
    with pytest.raises(TableError, match=stored["id"]):
        found.raise_if_bad()


def test_a_flipped_bit_of_a_second_vector(tmp_path: Path) -> None:
    columns = {"id": ["a", "b"], "caption": ["one", "two"], "image": [png(RED), png(GREEN)]}
    place = write(tmp_path, Layout(embed="both", text="caption"), columns)
    found = lance_align.verify(opened(place))
    assert (found.ok, found.vectors, found.sampled, found.checksummed) == (True, 4, 4, 2)
    path, at = place_of(place.uri, vector_bytes(opened(place).to_arrow()["text_vector"][1].as_py()))
    flip(path, at + 40)
    assert examples(lance_align.verify(opened(place)), "checksum") == ("b",)


def test_a_flipped_bit_anywhere_is_a_finding_or_nothing(many: TableLocation) -> None:
    """Never an exception; and nothing is found only where ids, captions, pictures or hashes are still readable."""
    before = opened(many).to_arrow()
    path = data_files(many.uri)[0]
    whole = path.read_bytes()
    random = np.random.default_rng(7)
    seen: set[str] = set()
    for at in random.integers(0, len(whole), 150).tolist():
        flip(path, at, int(random.integers(8)))
        found = lance_align.verify(opened(many), sample_rows=0)
        seen.update(checks(found))
        if found.ok:
            after = opened(many).to_lance().to_table(columns=["vector", "error"])
            assert after["vector"].equals(before["vector"])
            assert after["error"].equals(before["error"])
        path.write_bytes(whole)
    assert {"checksum", "unreadable"} <= seen


def test_damaged_texts_are_named_by_column_and_fragment(many: TableLocation) -> None:
    path, at = place_of(many.uri, b"id-025")
    flip(path, at, 7)  # no longer UTF-8
    found = lance_align.verify(opened(many), sample_rows=0)
    assert examples(found, "unreadable")[0].startswith(f"id in fragment 1 ({path.name}): ")
    assert found.vectors == 40  # the other fragments were read
    flip(path, at, 7)
    path, at = place_of(many.uri, b"caption 3")
    flip(path, at + 2, 7)
    found = lance_align.verify(opened(many), sample_rows=0)
    assert [line.split(" in ")[0] for line in examples(found, "unreadable")] == ["caption"]
    assert found.vectors == 60


def test_files_that_are_gone(many: TableLocation) -> None:
    opened(many).delete("id = 'id-030'")
    opened(many).to_lance().create_scalar_index("id", "BTREE")
    deletion = next(Path(many.uri, "_deletions").iterdir())
    index = next(Path(many.uri, "_indices").rglob("*.lance"))
    for path in (deletion, data_files(many.uri)[2], index):
        content = path.read_bytes()
        path.unlink()
        found = lance_align.verify(opened(many), sample_rows=0)
        name = str((path.parent if path == index else path).relative_to(many.uri))
        assert [line.split(" of ")[0].rstrip("/") for line in examples(found, "missing_file")] == [name]
        path.write_bytes(content)
    assert lance_align.verify(opened(many)).ok
    path.write_bytes(content[:-1])
    assert "of index id_idx (" in examples(lance_align.verify(opened(many)), "missing_file")[0]


def test_ids(many: TableLocation) -> None:
    committer = Committer.open_or_create(many.uri, photos_schema())
    for _ in range(2):
        committer_table = rows(["id-003", "id-010"], images=[png(RED), png(RED)], captions=[None, None])
        fragments = write_fragments(many.uri, committer_table)
        lance.LanceDataset.commit(
            many.uri,
            lance.LanceOperation.Append([lance.FragmentMetadata.from_json(text) for text in fragments]),
            read_version=opened(many).version,
        )
    found = lance_align.verify(opened(many))
    assert checks(found) == {"duplicate_id": 4}
    assert set(examples(found, "duplicate_id")) == {"id-003", "id-010"}
    assert committer.version == 4
    table = opened(many)
    table.delete("id in ('id-003', 'id-010')")
    table.alter_columns({"path": "id", "nullable": True})
    assert lance_align.verify(table).ok
    table.add([{"id": None, "image": png(RED)}])
    assert examples(lance_align.verify(table), "null_id") == ("row 58",)


def test_reasons(photos: Any) -> None:
    photos.add([{"id": "silent", "image": b"no picture"}], on_bad_vectors="null")
    photos.update(where=f"id = '{BLUE}'", values={"error": "odd: but true"})
    found = lance_align.verify(photos)
    assert checks(found) == {"no_reason": 1, "stray_reason": 1}
    assert examples(found, "no_reason") == ("silent",)
    assert examples(found, "stray_reason") == (BLUE,)
    assert "on_bad_vectors='null'" in found.to_text()


def test_vectors_of_other_programs(photos: Any) -> None:
    ones = [1.0] * 32
    for name, vector in {
        "long": ones,
        "nan": [float("nan"), *ones[1:]],
        "zero": [0.0] * 32,
        "inf": [1e30] * 32,
    }.items():
        schema = photos.schema
        row = {"id": [name], "caption": [None], "image": [png(RED)], "vector": [vector]}
        lance.write_dataset(
            pa.table({**row}, schema=pa.schema([schema.field(key) for key in row])), photos.uri, mode="append"
        )
    photos.checkout_latest()
    found = lance_align.verify(photos, sample_rows=0)
    assert checks(found) == {"not_finite": 1, "norm": 3}
    assert examples(found, "not_finite") == ("nan",)
    assert set(examples(found, "norm")) == {"long", "zero", "inf"}


def test_the_sample_finds_changed_pictures_and_follows_deletions(many: TableLocation) -> None:
    table = opened(many)
    table.delete("id in ('id-000', 'id-021', 'id-022')")
    table.update(where="id = 'id-040'", values={"image": png(RED)})
    table.update(where="id = 'id-050'", values={"image": b"damaged"})
    found = lance_align.verify(table)
    assert checks(found) == {"source": 1, "different_vector": 1}
    assert examples(found, "different_vector")[0].startswith("id-040 (cosine ")
    assert examples(found, "source")[0].startswith("id-050 (format: ")
    assert found.sampled == 56
    assert lance_align.verify(table, sample_rows=0).ok
    assert lance_align.verify(table, sample_rows=20, seed=3) == lance_align.verify(table, sample_rows=20, seed=3)
    seeds = {lance_align.verify(table, sample_rows=20, seed=seed).ok for seed in range(8)}
    assert seeds == {True, False}  # twenty of 57 rows are not always the same


def test_thumbnails_are_not_compared_with_vectors_of_originals(tmp_path: Path) -> None:
    place = write(tmp_path, Layout(thumbnails=True), {"id": ["a"], "image": [png(RED)]})
    table = opened(place)
    table.update(where="id = 'a'", values={"image": png(GREEN)})
    found = lance_align.verify(table)
    assert (found.ok, found.sampled) == (True, 0)
    assert "thumbnails" in found.unchecked[0]


def test_pictures_that_are_files(tmp_path: Path) -> None:
    names = ["red.png", "green.png", "blue.png"]
    for name in names:
        (tmp_path / name).write_bytes(png(name.split(".")[0]))
    places = [str(tmp_path / name) for name in names]
    place = write(tmp_path, Layout(store="uri"), {"id": names, "uri": places})
    assert lance_align.verify(opened(place)).sampled == 3
    Path(places[0]).unlink()
    Path(places[1]).write_bytes(png(BLUE))
    table = opened(place)
    table.update(where="id = 'blue.png'", values={"uri": "https://example.com/blue.png"})
    found = lance_align.verify(table)
    assert checks(found) == {"source": 1, "different_vector": 1}
    assert examples(found, "source")[0].startswith("red.png (missing: ")
    assert examples(found, "different_vector")[0].startswith("green.png ")
    assert "nothing is fetched" in found.unchecked[0]


def without(metadata: dict[str, str], key: bytes) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name != key.decode()}


def change(functions: str, **changes: Any) -> str:
    entries = json.loads(functions)
    model = {key: value for key, value in changes.items() if key in entries[0]["model"]}
    entries[0]["model"].update(model)
    entries[0].update({key: value for key, value in changes.items() if key not in model})
    return json.dumps(entries)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 31}, "has dim 31, the record 32"),
        ({"fingerprint": "other"}, "has fingerprint 'other'"),
        ({"name": "align-tiny"}, "has name 'align-tiny'"),
        ({"source": "sound"}, "takes 'sound'"),
        ({"source": "text"}, "large_binary, which cannot hold texts"),
        ({"source_column": "picture"}, "'picture' is not there"),
        ({"vector_column": "other"}, "0 embedding functions"),
    ],
)
def test_contradicting_metadata(photos: Any, changes: dict[str, Any], words: str) -> None:
    dataset = photos.to_lance()
    functions = photos.schema.metadata[FUNCTIONS_KEY].decode()
    dataset.update_schema_metadata({FUNCTIONS_KEY.decode(): change(functions, **changes)})
    photos.checkout_latest()
    found = lance_align.verify(photos)
    assert checks(found) == {"metadata": 1}
    assert words in examples(found, "metadata")[0]
    assert found.checksummed == 3  # the rows are checked all the same


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", "null", '"x"', "[" * 100_000])
def test_damaged_metadata(photos: Any, text: str) -> None:
    for key in (FUNCTIONS_KEY, SPEC_KEY):
        dataset = lance.dataset(photos.uri)
        before = dataset.schema.metadata[key].decode()
        dataset.update_schema_metadata({key.decode(): text})
        table = lancedb.connect(Path(photos.uri).parent).open_table("photos")
        assert "metadata" in checks(lance_align.verify(table)), key
        lance.dataset(photos.uri).update_schema_metadata({key.decode(): before})


def test_other_functions_are_left_alone(photos: Any) -> None:
    entries = json.loads(photos.schema.metadata[FUNCTIONS_KEY])
    entries.append({"name": "someone's", "source_column": "caption", "vector_column": "theirs", "model": {}})
    photos.to_lance().update_schema_metadata({FUNCTIONS_KEY.decode(): json.dumps(entries)})
    photos.checkout_latest()
    assert lance_align.verify(photos).ok


def with_spec(photos: Any, **changes: Any) -> Any:
    """The table, after both its records of the model were changed alike."""
    spec = json.loads(photos.schema.metadata[SPEC_KEY])
    spec["vector"].update(changes)
    functions = change(photos.schema.metadata[FUNCTIONS_KEY].decode(), **changes)
    photos.to_lance().update_schema_metadata({SPEC_KEY.decode(): json.dumps(spec), FUNCTIONS_KEY.decode(): functions})
    photos.checkout_latest()
    return photos


def test_another_model_here(photos: Any) -> None:
    found = lance_align.verify(with_spec(photos, fingerprint="an older one"))
    assert checks(found) == {"model": 1}
    assert FAKE_SPEC.fingerprint in examples(found, "model")[0]
    assert found.sampled == 0


def test_a_model_that_nobody_allowed_is_not_looked_for(photos: Any, tmp_path: Path) -> None:
    found = lance_align.verify(with_spec(photos, name=str(tmp_path)))
    assert (found.ok, found.sampled, found.checksummed) == (True, 0, 3)
    assert "allow_models" in found.unchecked[0]


def test_a_model_that_cannot_be_had(photos: Any) -> None:
    found = lance_align.verify(with_spec(photos, name="kakaobrain/align-base", revision="0" * 40))
    assert (found.ok, found.sampled) == (True, 0)
    assert found.unchecked[0].startswith("the model of vector: ")


def test_the_version_of_the_handle_is_checked(many: TableLocation) -> None:
    table = opened(many)
    table.update(where="id = 'id-001'", values={"error": "odd: error"})
    assert not lance_align.verify(table).ok
    table.checkout(4)
    assert lance_align.verify(table).ok


def test_odd_ids_stay_on_their_line(photos: Any) -> None:
    name = "a\nb\x1b[31m\u202e" + "x" * 1000
    photos.add([{"id": name, "image": b"no picture"}], on_bad_vectors="null")
    found = lance_align.verify(photos)
    assert examples(found, "no_reason") == (name[:200],)
    assert "      a\\nb\\x1b[31m\\u202exxx" in found.to_text()


def test_what_is_none_of_ours(tmp_path: Path, photos: Any) -> None:
    plain = lancedb.connect(tmp_path).create_table("plain", [{"vector": [1.0, 0.0]}])
    with pytest.raises(TableError, match="does not say which model"):
        lance_align.verify(plain)
    with pytest.raises(TableError, match="str is not a table"):
        lance_align.verify("photos")
    with pytest.raises(ArgumentError, match="sample_rows=-1"):
        lance_align.verify(photos, sample_rows=-1)


def test_attached_columns_have_reasons_of_their_own(photos: Any, tmp_path: Path) -> None:
    lance_align.attach(photos, text="caption", vector="words", model="fake")
    found = lance_align.verify(photos)
    assert checks(found) == {"no_reason": 4}  # nothing is filled yet
    assert (found.vectors, found.failed, found.checksummed, found.sampled) == (3, 1, 3, 3)
    photos.add([{"id": "new", "image": png(RED), "caption": "new words"}])
    found = lance_align.verify(photos)
    assert checks(found) == {"no_reason": 4}
    assert (found.vectors, found.sampled) == (5, 5)

    plain = lancedb.connect(tmp_path).create_table(
        "plain", [{"number": 7, "words": "red"}, {"number": 7, "words": None}]
    )
    lance_align.attach(plain, text="words", model="fake")
    found = lance_align.verify(plain)
    assert checks(found) == {"no_reason": 2}
    assert examples(found, "no_reason") == ("row 0", "row 1")
    assert any("ids are distinct" in line for line in found.unchecked)
    plain.delete("number = 7")
    plain.add([{"number": 8, "words": "green"}])
    assert (lance_align.verify(plain).ok, lance_align.verify(plain).sampled) == (True, 1)


def test_a_job_says_that_it_keeps_thumbnails(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(RED))
    source = open_source(tmp_path)
    for keep in KEEPS:
        assert choose_columns(source, keep=keep).layout.thumbnails is (keep == "thumbnail")


def advice(found: Verification) -> str:
    return " ".join(finding.advice for finding in found.findings if finding.check != "changed")


def test_a_merge_insert_is_told_from_damage(many: TableLocation) -> None:
    """LanceDB embeds the row again and knows nothing of our checksum and hash."""
    table = opened(many)
    updates = [{"id": f"id-{number:03}", "caption": "mine", "image": png(GREEN)} for number in (3, 21)]
    table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(
        [*updates, {"id": "new", "caption": "new", "image": png(RED)}]
    )
    found = lance_align.verify(table)
    assert found.ok
    assert checks(found) == {"changed": 2}
    assert set(examples(found, "changed")) == {"id-003", "id-021"}
    assert "delete" not in "".join(finding.advice for finding in found.findings)
    assert "told:" in found.to_text()
    found.raise_if_bad()
    unseen = lance_align.verify(table, sample_rows=0)  # nobody can tell without the model
    assert checks(unseen) == {"checksum": 2}
    assert "if another program wrote these vectors, nothing is to be done" in advice(unseen)


def test_a_merge_insert_beside_damage(many: TableLocation) -> None:
    table = opened(many)
    row = {"id": "id-003", "caption": "mine", "image": png(GREEN)}
    table.merge_insert("id").when_matched_update_all().execute([row])
    stored = next(row for row in table.to_arrow().to_pylist() if row["id"] == "id-040")
    for byte, bit, what in ((4, 0, "checksum"), (3, 7, "checksum")):  # of the mantissa; the sign
        path, at = place_of(many.uri, vector_bytes(stored["vector"]))
        flip(path, at + byte, bit)
        found = lance_align.verify(opened(many))
        assert (found.ok, checks(found)) == (False, {what: 1, "changed": 1})
        assert examples(found, what) == ("id-040",)
        flip(path, at + byte, bit)


def test_an_error_that_a_merge_insert_left_is_not_a_reason_to_delete(photos: Any) -> None:
    photos.merge_insert("id").when_matched_update_all().execute(
        [{"id": "broken", "caption": "whole now", "image": png(GREEN)}]
    )
    found = lance_align.verify(photos)
    assert checks(found) == {"stray_reason": 1, "changed": 1}
    assert "delete" not in advice(found)
    assert [names.to_pylist() for names in read_failed_ids(photos.uri, ["vector"])] in ([], [[]])  # nothing to retry
    photos.update(where="id = 'broken'", values={"error": None})
    assert lance_align.verify(photos).ok


def test_a_flipped_byte_of_a_caption_or_a_picture_is_found(many: TableLocation) -> None:
    path, at = place_of(many.uri, b"caption 33")
    flip(path, at + 3)
    found = lance_align.verify(opened(many))
    assert checks(found) == {"changed": 1}  # the vector is of the picture, which is whole
    assert examples(found, "changed") == ("id-033",)
    flip(path, at + 3)
    picture = opened(many).to_arrow().column("image")[33].as_py()
    path, at = place_of(many.uri, picture)
    seen: set[str] = set()
    for byte in range(0, len(picture), 5):
        flip(path, at + byte, 2)
        found = lance_align.verify(opened(many))
        (what,) = checks(found)
        assert checks(found)[what] == 1
        assert examples(found, what)[0].startswith("id-033")
        assert found.ok == (what == "changed")
        seen.add(what)
        flip(path, at + byte, 2)
    assert "source" in seen
    assert lance_align.verify(opened(many)).findings == ()


def test_columns_added_dropped_or_renamed_by_others_do_not_make_rows_look_changed(many: TableLocation) -> None:
    table = opened(many)
    table.add_columns({"kind": "'bird'", "length": "length(caption)"})
    lance_align.add_labels(table, ["a", "b"])
    lance_align.attach(table, text="caption", vector="words", model="fake")
    assert checks(lance_align.verify(table)) == {"no_reason": 60}
    table.drop_columns(["words", "words_error"])
    table.alter_columns({"path": "caption", "rename": "title"})
    found = lance_align.verify(table)
    assert "columns were changed since" in " ".join(found.unchecked)
    assert checks(found) == {"metadata": 1}  # the entry of `words`, with which LanceDB's add fails
    table.drop_columns(["title"])
    assert "changed" not in checks(lance_align.verify(table))


def test_rows_of_an_input_with_fewer_columns_have_their_hash_too(many: TableLocation) -> None:
    schema = table_schema(pa.schema([]), Layout(), FAKE_SPEC)
    committer = Committer.open_or_create(many.uri, schema)
    table = rows(["fewer"], images=[png(RED)], captions=[None]).drop_columns(["caption"])
    nothing = row_digests(table.select([]))
    fewer = content_hash(nothing[0], png(RED))
    table = table.set_column(table.schema.names.index("content_hash"), "content_hash", pa.array([fewer]))
    committer.commit(write_fragments(many.uri, table), rows=1)
    assert lance_align.verify(opened(many)).findings == ()


SEARCH_FAILS: dict[str, tuple[Callable[[Any], object], str]] = {
    "dropped": (lambda table: table.drop_columns(["vector"]), "searches of it and table.add fail"),
    "renamed": (lambda table: table.alter_columns({"path": "vector", "rename": "emb"}), "is it 'emb' now"),
    "source renamed": (lambda table: table.alter_columns({"path": "image", "rename": "shot"}), "'image' is not there"),
    "no function": (lambda table: set_functions(table, []), "0 embedding functions"),
    "a stranger's": (lambda table: set_functions(table, [{"name": "theirs", "vector_column": "vector"}]), "'theirs'"),
    "an argument": (lambda table: set_functions(table, None, beam=3), "has 'beam', which it does not take"),
}


def set_functions(table: Any, entries: Any, **arguments: Any) -> None:
    if entries is None:
        entries = json.loads(table.schema.metadata[FUNCTIONS_KEY])
        entries[0]["model"].update(arguments)
    table.to_lance().update_schema_metadata({FUNCTIONS_KEY.decode(): json.dumps(entries)})


@pytest.mark.parametrize("what", SEARCH_FAILS)
def test_a_table_whose_searches_must_fail_is_found_and_not_gone_on_with(
    photos: Any, place: TableLocation, what: str
) -> None:
    spoil, said = SEARCH_FAILS[what]
    spoil(photos)
    found = lance_align.verify(opened(place))
    assert said in examples(found, "metadata")[0]
    assert "attach" in advice(found)
    with pytest.raises(TableError) as caught:  # a run that finds nothing to do would call it finished
        Committer.open_or_create(place.uri, photos_schema())
    assert "\n" not in str(caught.value)
    if what in ("no function", "a stranger's", "an argument"):
        assert 'lance_align.attach(table, image="image", vector="vector") writes the function again' in str(
            caught.value
        )
        lance_align.attach(opened(place), image="image")
        assert lance_align.verify(opened(place)).ok
        Committer.open_or_create(place.uri, photos_schema())


def test_another_text_column_for_the_same_vectors_is_refused(tmp_path: Path) -> None:
    place = write(tmp_path, Layout(embed="text", store="none", text="caption"), {"id": ["a"], "caption": ["one"]})
    table = opened(place)
    table.add_columns({"title": "caption"})
    user = CAPTION.append(pa.field("title", pa.string()))
    other = table_schema(user, Layout(embed="text", store="none", text="title"), FAKE_SPEC)
    with pytest.raises(TableError, match="made from the text column 'caption', not from the text column 'title'"):
        Committer.open_or_create(place.uri, other)


LAYOUTS: dict[str, dict[str, Any]] = {
    "bytes": {},
    "texts": {"embed": "text"},
    "both": {"embed": "both", "text": "caption"},
    "uri": {"image": "path", "keep": "uri", "drop": ["image"]},
    "paths": {"image": "path", "drop": ["image"]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_the_job_have_the_hash_of_their_content(tmp_path: Path, layout: str) -> None:
    pictures = [png(f"#{number * 7919:06x}") for number in range(6)]
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(picture)
    source = pa.table(
        {
            "id": [f"id-{number}" for number in range(6)],
            "caption": ["one", None, "three", "four", "five", "six"],
            "path": [f"{number}.png" for number in range(6)],
            "number": pa.array(range(6), pa.int16()),
            "price": pa.array([1, None, 3, 4, 5, 6], pa.decimal128(10, 2)),
            "when": pa.array([1, 2, 3, None, 5, 6], pa.timestamp("us", "UTC")),
            "tags": pa.array([["a"], [], None, ["b", None], ["c"], ["d"]]),
            "kind": pa.array(["bird", "fish"] * 3).dictionary_encode(),
            "box": pa.array([{"x": 1, "y": None}] * 6),
            "image": pa.array(pictures, pa.binary()),
        }
    )
    pq.write_table(source, tmp_path / "in.parquet")
    options = LAYOUTS[layout]
    where: dict[str, Any] = {
        "db": tmp_path / "db",
        "table": "made",
        "model": "fake",
        "executor": "local",
        "progress": False,
    }
    lance_align.embed(tmp_path / "in.parquet", **where, **options)
    table = opened(table_location(tmp_path / "db", "made"))
    found = lance_align.verify(table)
    assert (found.findings, found.unchecked) == ((), ())
    table.update(where="id = 'id-3'", values={"number": 70})
    assert examples(lance_align.verify(table), "changed") == ("id-3",)
