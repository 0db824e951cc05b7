"""Columns in the names of folders, as Hive, Spark and pyarrow write them: ``split=train/year=2024/part-0.parquet``.

A value is a whole number where every value of its column prints back as it stands, else text: ``month=01`` stays
``01``. `__HIVE_DEFAULT_PARTITION__` is null. What a row says itself goes before what its folder says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # all of them are int64


def partition_values(relative: str) -> Mapping[str, str | None]:
    """What the folders of a file say: column to value.

    Args:
        relative: the file's path as seen from the source's folder.
    """
    pairs = (folder.partition("=") for folder in relative.split("/")[:-1])
    values = {_decoded(key): _decoded(value) for key, equals, value in pairs if key and equals}
    return {key: None if value == NULL else value for key, value in values.items()}


def partition_fields(relatives: Iterable[str]) -> list[pa.Field[Any]]:
    """The columns that the folders of all files give, in the order they appear."""
    seen: dict[str, bool] = {}  # whether all its values are whole numbers
    for relative in relatives:
        for name, value in partition_values(relative).items():
            seen[name] = seen.get(name, True) and (value is None or _WHOLE.fullmatch(value) is not None)
    return [pa.field(name, pa.int64() if whole else pa.string()) for name, whole in seen.items()]


def _decoded(text: str) -> str:
    return unquote(text, errors="backslashreplace")
