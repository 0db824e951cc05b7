"""Zero-shot labels beside the vectors of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

import lance_align
from lance_align.errors import ArgumentError, LanceAlignError, ModelError, TableError
from lance_align.tables.commits import Committer
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import TableLocation
from lance_align.tables.schema import Layout, table_schema
from lance_align.testing import FAKE_SPEC
from tests.fake_tables import BLUE, CAPTION, GREEN, RED, photos_schema, png, rows

LABELS = ["car", "cat", "tree"]


def test_labels_are_those_of_the_pictures(photos: Any) -> None:
    before = photos.schema
    version = lance_align.add_labels(photos, LABELS, template="this is a {}")
    assert photos.version == version
    table = photos.to_arrow()
    assert (
        table.schema.remove_metadata()
        == before.append(pa.field("label", pa.string()))
        .append(pa.field("label_probability", pa.float32()))
        .remove_metadata()
    )
    assert photos.schema.metadata == before.metadata
    expected = lance_align.zero_shot([png(RED), png(GREEN), png(BLUE)], LABELS, template="this is a {}", model="fake")
    found = {row["id"]: row for row in table.to_pylist()}
    for name, shares in zip([RED, GREEN, BLUE], expected, strict=True):
        assert found[name]["label"] == LABELS[int(shares.argmax())]
        assert found[name]["label_probability"] == pytest.approx(float(shares.max()), rel=1e-5)
    assert (found["broken"]["label"], found["broken"]["label_probability"]) == (None, None)
    assert photos.search("x").where(f"label = '{found[RED]['label']}'").limit(9).to_list()


def test_many_fragments_and_only_null_vectors(place: TableLocation, photos: Any) -> None:
    committer = Committer.open_or_create(place.uri, photos_schema())
    nothing = rows(["n1", "n2"], images=[None, None], captions=["", ""])
    more = [rows([f"p{n}"], images=[png(f"#{n:06x}")], captions=[None]) for n in range(5)]
    fragments = [json for table in (nothing, *more) for json in write_fragments(place.uri, table)]
    committer.commit(fragments, rows=7)
    lance_align.add_labels(photos, LABELS, column="what")
    labels = {row["id"]: row["what"] for row in photos.to_arrow().to_pylist()}
    assert {name for name, label in labels.items() if label is None} == {"broken", "n1", "n2"}
    committer.commit(write_fragments(place.uri, rows(["later"], images=[png(RED)], captions=[None])), rows=1)
    photos.checkout_latest()
    assert photos.search().where("id = 'later'").to_list()[0]["what"] is None


def test_two_sets_of_labels(photos: Any) -> None:
    lance_align.add_labels(photos, LABELS)
    lance_align.add_labels(photos, ["day", "night"], column="time")
    assert {"label", "time", "time_probability"} <= set(photos.schema.names)


@pytest.mark.parametrize(
    ("add", "kind", "said"),
    [
        (lambda t: lance_align.add_labels(t, []), ArgumentError, "at least two"),
        (lambda t: lance_align.add_labels(t, ["car"]), ArgumentError, "at least two"),
        (lambda t: lance_align.add_labels(t, "car"), ArgumentError, "expected a list"),
        (lambda t: lance_align.add_labels(t, LABELS, template="car"), ArgumentError, "no place for the label"),
        (lambda t: lance_align.add_labels(t, LABELS, column="caption"), TableError, "'caption' already"),
        (lambda t: lance_align.add_labels(t, LABELS, vector_column="text"), TableError, "no vector column 'text'"),
        (lambda t: lance_align.add_labels(t, LABELS, column="a.b"), ArgumentError, "a period or a backtick"),
        (lambda t: lance_align.add_labels(t, LABELS, model="no such model"), ModelError, "unknown model"),
    ],
)
def test_bad_arguments_leave_the_table_as_it_was(
    photos: Any, add: Callable[[Any], int], kind: type[LanceAlignError], said: str
) -> None:
    version = photos.version
    with pytest.raises(kind, match=said) as caught:
        add(photos)
    assert "\n" not in str(caught.value)
    photos.checkout_latest()
    assert photos.version == version


def test_a_table_that_does_not_name_its_model(tmp_path: Path) -> None:
    schema = table_schema(CAPTION, Layout(), FAKE_SPEC).remove_metadata()
    table = lancedb.connect(tmp_path).create_table("plain", schema=schema)
    table.add(rows([RED], images=[png(RED)], captions=[None]).replace_schema_metadata(None))
    with pytest.raises(TableError, match="does not say which model wrote 'vector'"):
        lance_align.add_labels(table, LABELS)
    lance_align.add_labels(table, LABELS, model="fake")
    expected = lance_align.zero_shot([png(RED)], LABELS, model="fake")[0]
    assert table.to_arrow()["label"].to_pylist() == [LABELS[int(np.argmax(expected))]]


def test_another_model_than_the_tables_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(FAKE_SPEC, fingerprint="0123abcd")
    table = lancedb.connect(tmp_path).create_table("other", schema=table_schema(CAPTION, Layout(), other))
    with pytest.raises(ModelError, match=f"fingerprint 0123abcd.*{FAKE_SPEC.fingerprint}.*leave model out"):
        lance_align.add_labels(table, LABELS, model="fake")
    with pytest.raises(ModelError, match="written by 'fake' with fingerprint 0123abcd"):
        lance_align.add_labels(table, LABELS)
