"""Splits are read again where the storage fails in passing, and every row still comes once."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lance_align.errors import SourceError
from lance_align.jobs.sources import Source, Split
from lance_align.jobs.sources.location import References, locate
from lance_align.jobs.stages.reading import read_split

ROWS = pa.table({"id": [str(number) for number in range(10)]})


class FlakySource(Source):
    """Gives ten rows one by one; what it is told to raise comes before a row."""

    raises: list[tuple[int, Exception]]

    def tables(self, split: Split, columns: Sequence[str]) -> Iterator[pa.Table]:  # noqa: ARG002  there is one
        for row in range(ROWS.num_rows):
            if self.raises and self.raises[0][0] == row:
                raise self.raises.pop(0)[1]
            yield ROWS.select(columns).slice(row, 1)


def flaky(folder: Path, *raises: tuple[int, Exception]) -> Any:
    place = locate(folder)
    source = FlakySource(location=place, schema=ROWS.schema, splits=(), references=References(place))
    object.__setattr__(source, "raises", list(raises))
    return source


def ids(source: Any) -> list[str]:
    return [name for table in read_split(source, Split(path="")) for name in table.column("id").to_pylist()]


def shard_error() -> SourceError:
    error = SourceError("the shard cannot be read")
    error.__cause__ = OSError(errno.EIO, "input/output error")
    return error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), TimeoutError("x"), shard_error()])
def test_what_passes_is_tried_again(error: Exception, tmp_path: Path) -> None:
    assert ids(flaky(tmp_path, (4, error), (2, error))) == ROWS.column("id").to_pylist()
    assert ids(flaky(tmp_path, (0, error))) == ROWS.column("id").to_pylist()


@pytest.mark.parametrize(
    "error", [FileNotFoundError("x"), PermissionError("x"), SourceError("not a tar"), ValueError("x")]
)
def test_what_lasts_is_told_at_once(error: Exception, tmp_path: Path) -> None:
    source = flaky(tmp_path, (4, error), (4, error))
    with pytest.raises(type(error)):
        ids(source)
    assert len(source.raises) == 1


def test_a_third_failure_is_the_last(tmp_path: Path) -> None:
    source = flaky(tmp_path, *[(row, OSError(errno.EIO, "x")) for row in (1, 3, 5, 7)])
    with pytest.raises(OSError, match="x"):
        ids(source)
    assert len(source.raises) == 1
