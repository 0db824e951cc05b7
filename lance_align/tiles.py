"""Rows to tiles: of each row its picture, opened in the decoder's process, its caption and its similarity."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from lance_align import images
from lance_align.errors import ArgumentError, RowError
from lance_align.formats import FORMATS
from lance_align.images import DEFAULT_LIMITS, DecodeLimits
from lance_align.sandbox import PictureDecoder

if TYPE_CHECKING:
    from PIL.Image import Image

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Any  # a LanceDB query, pa.Table, pa.RecordBatch, pandas or polars frame, or a sequence of `Row`
Metric = Literal["l2", "cosine", "dot"]

PICTURE_PX = 320  # longest side: a tile of 1.25 inches at twice a screen's resolution
IMAGES = ("image", "uri")
CAPTIONS = ("caption", "text", "name", "title", "id")
# What a job gave a vector may be of any format that it was told to admit.
EVERY_FORMAT = DecodeLimits(formats=FORMATS)

_DIGEST = re.compile("[0-9a-f]{32}")
_NO_CAPTIONS = re.compile("error|.*_error|content_hash|uri|image|id")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A picture, or the reason why there is none, with its caption and score."""

    picture: Image | str
    caption: str
    score: str


def tiles_of(
    rows: Rows, *, image: str | None, caption: str | None, metric: Metric, limits: DecodeLimits | None, max_rows: int
) -> list[Tile]:
    """The first rows, as `lance_align.explore.gallery` shows them.

    Raises:
        ArgumentError: the rows are none, or have no such column.
    """
    every = as_rows(rows)[:max_rows]
    column, words = image_column(every, image), _asked_or_usual_caption(every, caption)
    return [
        Tile(
            picture_of(row, column, limits),
            "" if words is None or row.get(words) is None else str(row[words]),
            _score(row, metric),
        )
        for row in every
    ]


def as_rows(rows: Rows) -> list[Row]:
    """Whatever LanceDB gives as dicts."""
    if hasattr(rows, "to_arrow"):  # a LanceDB query, a polars frame
        rows = rows.to_arrow()
    elif hasattr(rows, "iloc"):  # pandas; Arrow turns its several kinds of missing values into None
        rows = pa.Table.from_pandas(rows, preserve_index=False)
    if isinstance(rows, (pa.Table, pa.RecordBatch)):
        rows = rows.to_pylist()
    if isinstance(rows, (str, bytes, Mapping)) or not all(isinstance(row, Mapping) for row in rows):
        raise ArgumentError(
            f"{type(rows).__name__} holds no rows; expected a LanceDB query, an Arrow or pandas table, or a list of "
            "dicts"
        )
    return list(rows)


def require_column(rows: Sequence[Row], column: str) -> None:
    """Refuse rows without a column; no rows may have any."""
    if rows and column not in rows[0]:
        raise ArgumentError(f"the rows have no column {column!r}; they have {', '.join(map(str, rows[0]))}")


def image_column(rows: Sequence[Row], asked: str | None) -> str:
    """The column of pictures."""
    if asked is not None:
        require_column(rows, asked)
        return asked
    return next((name for name in IMAGES if rows and name in rows[0]), IMAGES[-1])


def _asked_or_usual_caption(rows: Sequence[Row], asked: str | None) -> str | None:
    if asked is None:
        return caption_column(rows)
    require_column(rows, asked)
    return asked


def caption_column(rows: Rows) -> str | None:
    """The column that a gallery of the rows has its captions from.

    >>> lance_align.explore.caption_column(table.search("red heart").limit(6))
    'caption'

    Args:
        rows: as in `lance_align.explore.gallery`.

    Returns:
        The first of ``caption``, ``text``, ``name``, ``title`` and ``id`` that says something; in place of ids that are
        digests, the first column of texts. None where no column says anything.
    """
    every = as_rows(rows)
    usual = next((name for name in CAPTIONS if any(_is_told(row.get(name)) for row in every)), None)
    if usual in (None, "id") and all(_DIGEST.fullmatch(str(row.get("id", "0" * 32))) for row in every):
        names = [str(name) for name in (every[0] if every else ()) if not _NO_CAPTIONS.fullmatch(str(name))]
        return next((name for name in names if any(_is_text(row.get(name)) for row in every)), usual)
    return usual


def _is_told(value: Any) -> bool:
    return value is not None and str(value).strip() != ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and not _DIGEST.fullmatch(value)


def _score(row: Row, metric: Metric) -> str:
    """The cosine of a search result; for vectors of norm 1 the squared distance that LanceDB calls l2 is 2 - 2 cos."""
    if row.get("_relevance_score") is not None:
        return f"relevance {row['_relevance_score']:.3f}"
    if row.get("_distance") is None:
        return ""
    return f"similarity {1 - row['_distance'] * (0.5 if metric == 'l2' else 1.0):.2f}"


def picture_of(row: Row, column: str, limits: DecodeLimits | None) -> Image | str:
    """A row's picture; without limits, of any format where the row has a vector, for a job has opened it then."""
    if limits is None:
        limits = EVERY_FORMAT if _is_embedded(row) else DEFAULT_LIMITS
    return opened(row.get(column), limits)


def _is_embedded(row: Row) -> bool:
    """Whether a search found it, or it has a vector and no error."""
    return row.get("_distance") is not None or (
        row.get("error") is None
        and any(isinstance(value, list) and value and isinstance(value[0], float) for value in row.values())
    )


def opened(value: Any, limits: DecodeLimits) -> Image | str:
    """An RGB image of at most `PICTURE_PX`, or the reason why there is none."""
    from PIL import Image

    if value is None:
        return "no picture"
    if isinstance(value, str) and value.startswith("file://"):
        value = Path(unquote(urlsplit(value).path))
    try:
        if isinstance(value, (str, Path)):
            value = images.read_file(Path(value), limits)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return Image.fromarray(PictureDecoder(limits=limits, max_side_px=PICTURE_PX).decode(value).pixels)
        return images.picture(value, max_side_px=PICTURE_PX, limits=limits)
    except RowError as error:
        return str(error)
