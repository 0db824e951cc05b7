"""Paths inside data lead to files below the source's own folder, and nowhere else unless the user says so."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from lance_align.errors import RowError, SourceError
from lance_align.jobs.sources import open_source
from lance_align.jobs.sources.location import Location, References, locate


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


def test_large_files_are_refused_unread(root: Path) -> None:
    with (root / "large.png").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(RowError, match=r"^too_large: 1099511627776 bytes, the limit is 100"):
        read(root, "large.png")


def test_a_file_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad \xff.png")).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"bad \\xff\.png is not UTF-8, so no row can be called by it; rename it"):
        open_source(tmp_path)
