"""Paths inside data lead to files below the source's own folder, and nowhere else unless the user says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lance_align.errors import RowError
from lance_align.jobs.sources.location import References, locate


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


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.png", "https://example.org/a.png"])
def test_urls_are_never_fetched(url: str, root: Path) -> None:
    with pytest.raises(RowError, match="URLs are not fetched"):
        read(root, url, allow_outside=True)


def test_large_files_are_refused_unread(root: Path) -> None:
    with (root / "large.png").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(RowError, match=r"^too_large: 1099511627776 bytes, the limit is 100"):
        read(root, "large.png")
