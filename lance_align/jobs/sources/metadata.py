"""Hugging Face's image folders: pictures, and beside them files called metadata that say more of each.

A metadata file names its pictures relative to itself, in ``file_name`` or a column that ends so (documentation of
datasets, "ImageFolder"). Here the rows are those of the metadata files, and the names become relative to the whole
folder, so that equal names in two sub-folders are two rows.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lance_align.jobs.ids import is_text_type
from lance_align.jobs.sources.base import Source, Split
from lance_align.jobs.sources.inline import is_inline
from lance_align.jobs.sources.texts import with_valid_text

NAMES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
UNNAMED = "pictures that no metadata file names"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MetadataSource(Source):
    """The rows of metadata files, their pictures named relative to the source's folder.

    Attributes:
        files: the source of the same rows as they stand in the files, its splits left out.
    """

    files: Source

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows, with the file's folder before the names of pictures."""
        folder = posixpath.dirname(self.location.relative(split.path))
        for table in self.files.tables(split, columns):
            yield _moved(table, folder) if is_metadata(split.path) else table


def open_metadata(files: Source, pictures: Sequence[str]) -> MetadataSource:
    """A source of metadata files.

    Args:
        files: the source of their rows.
        pictures: all that lie in the folder, relative to it; those that no row names are counted.
    """
    parts = {field.name: getattr(files, field.name) for field in dataclasses.fields(Source)}
    source = MetadataSource(**parts, files=dataclasses.replace(files, splits=()))
    columns = [field.name for field in source.schema if is_text_type(field.type)]  # --image may name any of them
    unnamed = set(pictures)
    for split in source.splits if pictures and columns else ():
        for table in source.read(split, columns=columns):
            for column in table.columns:
                names: list[Any] = column.to_pylist()
                unnamed.difference_update(posixpath.normpath(name) for name in names if name)
    return dataclasses.replace(
        source, left_out={**source.left_out, UNNAMED: len(unnamed)} if unnamed else source.left_out
    )


def is_metadata(path: str) -> bool:
    """Whether a file is one of metadata by its name."""
    return path.rpartition("/")[2].lower() in NAMES


def _names_files(field: pa.Field[Any]) -> bool:
    return (field.name == "file_name" or field.name.endswith("_file_name")) and is_text_type(field.type)


def _moved(table: pa.Table, folder: str) -> pa.Table:
    for number, field in enumerate(table.schema):
        if folder and _names_files(field):
            names: list[Any] = with_valid_text(table.select([number])).column(0).to_pylist()
            moved = pa.array([_below(folder, name) for name in names], field.type)
            table = table.set_column(number, field, moved)
    return table


def _below(folder: str, name: str | None) -> str | None:
    """A relative path behind the folder; a URI, an absolute path and a picture in the cell stay as they are."""
    if not name or "://" in name or name.startswith("/") or is_inline(name):
        return name
    return posixpath.join(folder, name)
