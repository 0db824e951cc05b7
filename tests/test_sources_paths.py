"""Paths inside data lead to files below the source's own folder, and nowhere else unless the user says so."""

from __future__ import annotations

import base64
import contextlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import lancedb
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lance_align
from lance_align import embed
from lance_align.encoders import resolve_spec
from lance_align.encoders.permissions import is_allowed
from lance_align.errors import ModelError, RowError, SourceError
from lance_align.jobs.sources import open_source
from lance_align.jobs.sources.location import Location, References, locate
from tests.corpus import png, stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a b%20é.png").write_bytes(b"inside")
    (tmp_path / "secret.png").write_bytes(b"outside")
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2" / "x.png").write_bytes(b"outside")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "inner.png").symlink_to(tmp_path / "data" / "deep" / "a b%20é.png")
    os.mkfifo(tmp_path / "data" / "pipe.png")
    return tmp_path / "data"


def read(root: Path, path: str, *, allow_outside: bool = False) -> bytes:
    return References(locate(root), allow_outside).read(path, max_bytes=100)[1]


@pytest.mark.parametrize("path", ["deep/a b%20é.png", "./deep/../deep/a b%20é.png", "inner.png"])
def test_relative_paths_start_at_the_folder(path: str, root: Path) -> None:
    assert read(root, path) == b"inside"
    assert read(root, str(root / path)) == b"inside"


@pytest.mark.parametrize(
    "path", ["../secret.png", "{up}/secret.png", "../data-2/x.png", "link.png", "file://{up}/secret.png"]
)
def test_nothing_outside_is_read_unless_allowed(path: str, root: Path) -> None:
    path = path.format(up=root.parent)
    with pytest.raises(RowError, match=r"^missing: .* lies outside .*--allow-outside$"):
        read(root, path)
    assert read(root, path, allow_outside=True) == b"outside"


@pytest.mark.parametrize(
    "path", ["", "a\0b", "no.png", "deep", "pipe.png", "gopher://x", "deep/a b%20é.png/x", "x" * 5000]
)
def test_what_is_no_file_is_missing(path: str, root: Path) -> None:
    with pytest.raises(RowError, match=r"^missing: "):
        read(root, path, allow_outside=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.png", "https://example.org/a.png", "HTTP://127.0.0.1/a.png"])
def test_urls_are_not_fetched_by_default(url: str, root: Path) -> None:
    with pytest.raises(RowError, match=r"^fetch: .* URLs are not fetched; --fetch-hosts allows hosts"):
        read(root, url, allow_outside=True)


@pytest.mark.parametrize("uri", ["s3://any-bucket/a.png", "hdfs://127.0.0.1:9/a.png", "gs://bucket/a.png", "s3://"])
def test_a_uri_in_a_row_makes_no_connection(uri: str, root: Path) -> None:
    """Making pyarrow's filesystem for s3://any-bucket asks AWS where it lies; the refusal comes before."""
    with pytest.raises(RowError, match=r"^missing: .* lies outside .*--allow-outside$"):
        read(root, uri)


@pytest.mark.parametrize(
    ("uri", "inside"),
    [
        ("mock://bucket/in/a b.png", True),
        ("mock://bucket/in/a%20b.png", True),
        ("mock://bucket/in/../in/a b.png", True),
        ("mock://bucket/in/../secret.png", False),
        ("mock://bucket/in/%2e%2e/secret.png", False),
        ("mock://other/in/a b.png", False),
        ("mock://bucket/in/a b.png?endpoint_override=127.0.0.1:9", False),
    ],
)
def test_uris_of_the_sources_own_store_are_read_through_it(uri: str, inside: bool, tmp_path: Path) -> None:
    (tmp_path / "bucket" / "in").mkdir(parents=True)
    (tmp_path / "bucket" / "in" / "a b.png").write_bytes(b"inside")
    (tmp_path / "bucket" / "secret.png").write_bytes(b"outside")
    store = Location(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "bucket/in", "mock://")
    references = References(store)
    if inside:
        assert references.read(uri, max_bytes=100) == ("mock://bucket/in/a b.png", b"inside")
    else:
        with pytest.raises(RowError, match=r"^missing: .* lies outside mock://bucket/in"):
            references.read(uri, max_bytes=100)


@pytest.mark.parametrize(("query", "seconds"), [("", 30), ("?scheme=http", 30), ("?retry_limit_seconds=5", 5)])
def test_googles_store_gives_up_in_time(query: str, seconds: int) -> None:
    """By itself it tries for 15 minutes, which no row has; what the user says counts."""
    found = locate(f"gs://anonymous@bucket/a.png{query}")
    assert found.path == "bucket/a.png"
    filesystem: Any = found.filesystem
    assert filesystem.__reduce__()[1][0]["retry_time_limit"] == timedelta(seconds=seconds)


def test_large_files_are_refused_unread(root: Path) -> None:
    with (root / "large.png").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(RowError, match=r"^too_large: 1099511627776 bytes, the limit is 100"):
        read(root, "large.png")


def test_a_file_is_read_to_its_limit_whatever_size_it_announces(root: Path) -> None:
    announced = Path("/proc/self/maps")
    if not announced.exists():
        pytest.skip("there is no /proc")
    assert announced.stat().st_size == 0
    with pytest.raises(RowError, match=r"^too_large: over 100 bytes"):
        read(root, str(announced), allow_outside=True)


@pytest.mark.parametrize(
    "reference",
    [
        "file:///x%00y.png",
        "circle.png",
        "circle.png/x",
        "~nosuchuser/x.png",
        "a\ud800b.png",
        "file://\udcff",
        "mailto:x",
        "data:",
        "data:image/png;base64,!!!!",
        "data:image/png",
        "://",
        "\x00",
        "//",
        "file://host/x",
        "s3://",
        "C:\\x",
    ],
)
@pytest.mark.parametrize("allow_outside", [False, True])
def test_whatever_a_reference_is_it_is_a_reason(reference: str, allow_outside: bool, root: Path) -> None:
    (root / "circle.png").symlink_to("circle.png")
    references = References(locate(root), allow_outside)
    references.is_remote(reference)
    references.is_outside(reference)
    with pytest.raises(RowError):
        references.read(reference, max_bytes=100)


@settings(max_examples=60, deadline=None)
@given(reference=st.text() | st.text("/.%:~\0ab\\").map("file://{}".format), allow_outside=st.booleans())
def test_any_text_is_a_file_or_a_reason(
    reference: str, allow_outside: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    references = References(locate(tmp_path_factory.getbasetemp()), allow_outside)
    with contextlib.suppress(RowError):
        references.read(reference, max_bytes=100)


PICTURE = png(1, side_px=40)


@pytest.mark.parametrize(
    "cell",
    [
        "data:image/png;base64," + base64.b64encode(PICTURE).decode(),
        "DATA:;charset=x;BASE64," + base64.b64encode(PICTURE).decode().rstrip("="),
        "data:image/png;base64," + quote(base64.b64encode(PICTURE).decode()),
        "data:image/png," + quote(PICTURE),
        base64.b64encode(PICTURE).decode(),
        base64.urlsafe_b64encode(PICTURE).decode(),
        base64.encodebytes(PICTURE).decode(),
    ],
)
def test_a_picture_in_a_cell_is_decoded_and_never_waited_for(cell: str, root: Path) -> None:
    store = Location(pafs.SubTreeFileSystem("/", pafs.LocalFileSystem()), "x", "mock://")
    for references in (References(locate(root)), References(store, allow_outside=True)):
        assert not references.is_remote(cell)
        assert references.read(cell, max_bytes=10**6) == (None, PICTURE)
        with pytest.raises(RowError, match=r"^too_large"):
            references.read(cell, max_bytes=1000)


@pytest.mark.parametrize(
    "path", ["9j/4AAQSkZJRgABAQAAAQABAAD/x", "iVBORw0KGgo/" * 20 + "a.png", "x" * 100, "deep/" * 30]
)
def test_a_path_is_not_taken_for_base64(path: str, root: Path) -> None:
    with pytest.raises(RowError, match=r"^missing"):
        read(root, path)


@pytest.mark.parametrize("uri", ["", "~nosuchuser/x", "a\0b", "bad \udcff", "file:///a%00b", "file:///%ff"])
def test_a_source_that_is_no_path_is_one_line(uri: str) -> None:
    with pytest.raises(SourceError, match=r"is not a path|cannot be opened|does not exist|cannot be reached"):
        open_source(uri)


def test_a_source_of_another_type_is_one_line() -> None:
    for source in (None, 5, ["a"]):
        with pytest.raises(SourceError, match="expected a path or a URI"):
            open_source(cast(Any, source))


@pytest.mark.parametrize("name", ["~nosuchuser/x", "a\0b", "owner/na\0me", "bad \udcff"])
def test_a_model_that_is_no_path_is_one_line(name: str) -> None:
    assert not is_allowed(name)
    with pytest.raises(ModelError):
        resolve_spec(name)


def test_a_circle_of_links_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    assert not is_allowed(str(tmp_path / "a"))
    with pytest.raises(ModelError):
        resolve_spec(str(tmp_path / "a"))


def test_one_path_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(PICTURE)
    (tmp_path / "circle.png").symlink_to("circle.png")
    inline = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    cells = ["good.png", "circle.png", "file:///x%00y.png", inline, "~nosuchuser/x.png"]
    pq.write_table(pa.table({"id": [*"01234"], "image": cells}), tmp_path / "list.parquet")
    report = embed(
        tmp_path / "list.parquet",
        db=tmp_path,
        table="t",
        model="fake",
        keep="uri",
        progress=False,
        index="none",
        executor="local",
    )
    assert (report.embedded, report.failed, dict(report.reasons)) == (2, 3, {"missing": 3})
    uris = [row["uri"] for row in stored(tmp_path, "t")]
    assert (uris[0], uris[3]) == (str(tmp_path / "good.png"), None)
    assert backfilled_rows(tmp_path) == 5


def backfilled_rows(db: Path) -> int:
    """Rows of a table of paths that a backfill has looked at; none of them ends it."""
    table = lancedb.connect(db).open_table("t")
    lance_align.attach(table, image="image", vector="more", model="fake")
    report = lance_align.backfill(db=db, table="t", vector="more", progress=False, executor="local")
    return report.embedded + report.failed
