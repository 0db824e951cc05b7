"""Pictures of tables: galleries, contact sheets, maps of embeddings, failed rows. Rows go in, a PNG or HTML comes out.

    >>> from lance_align import explore
    >>> sheet = explore.gallery(table.search("red heart").limit(6), title="Found")
    >>> sheet.save("found.png")
    PosixPath('found.png')

Rows are what LanceDB gives: ``table.search(...)`` itself, an Arrow or pandas table, or a list of dicts. Each function
returns a `Sheet`, which Jupyter shows and `Sheet.save` writes, or an `HtmlSheet`. Cells are untrusted: a process of its
own opens pixels, texts are never read as markup, and a picture that cannot be opened becomes a tile with the reason.
Letters that no installed font has are shown as their code points. All but `html_sheet` need the extra ``plots``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lance_align.errors import ArgumentError
from lance_align.html_sheets import HtmlLine, HtmlSheet, html_page
from lance_align.images import DEFAULT_LIMITS, DecodeLimits, ImageInput
from lance_align.sheets import ERROR_INK, GAP, GREY, TILE_HEIGHT, TILE_SIDE, Canvas, Sheet
from lance_align.tiles import (
    Metric,
    Rows,
    Tile,
    as_rows,
    caption_column,
    image_column,
    opened,
    picture_of,
    require_column,
    tiles_of,
)

__all__ = [
    "ComposedQuery",
    "HtmlSheet",
    "QueryPart",
    "Sheet",
    "caption_column",
    "composed",
    "contact_sheet",
    "embedding_map",
    "failures",
    "gallery",
    "html_sheet",
]

QUERY_WIDTH = 1.9  # inches, the column of queries


class QueryPart(Protocol):
    """One weighted part of a composed query, as in `lance_align.Query`.

    >>> lance_align.Query("red").parts[0].kind
    'text'
    """

    @property
    def value(self) -> Any: ...
    @property
    def weight(self) -> float: ...
    @property
    def kind(self) -> str: ...


class ComposedQuery(Protocol):
    """What `composed` draws; `lance_align.Query` is one.

    >>> [part.weight for part in (lance_align.Query(picture) - 0.5 * lance_align.Query("red")).parts]
    [1.0, -0.5]
    """

    @property
    def parts(self) -> Sequence[QueryPart]: ...


def gallery(
    rows: Rows,
    *,
    image: str | None = None,
    caption: str | None = None,
    title: str = "",
    columns: int = 6,
    max_rows: int = 48,
    metric: Metric = "l2",
    credit: str = "",
    limits: DecodeLimits | None = None,
) -> Sheet:
    """Pictures with a caption and, in search results, their similarity to the query.

    Args:
        rows: see the module; no rows give a sheet that says so.
        image: the column with encoded bytes or local paths. None: ``image`` where there is one, else ``uri``.
        caption: the column written below. None: see `caption_column`.
        title: a heading.
        columns: pictures side by side.
        max_rows: how many are shown, from the first.
        metric: the distance that ``_distance`` holds, to turn it into a cosine: LanceDB's default is l2.
        credit: a line at the bottom, for a licence.
        limits: what an image may be. None: `lance_align.images.DecodeLimits` as it is, of any format where the row has
            a vector.

    Raises:
        ArgumentError: a named column does not exist, or a number is below 1.
        JobError: the process that opens pictures cannot be started.
        MissingExtraError: matplotlib is not installed.

    >>> lance_align.explore.gallery(table.search("red heart").limit(12), title="Found").save("gallery.png")
    PosixPath('gallery.png')
    """
    if columns < 1 or max_rows < 1:
        raise ArgumentError(f"columns={columns}, max_rows={max_rows}; expected whole numbers from 1")
    tiles = tiles_of(rows, image=image, caption=caption, metric=metric, limits=limits, max_rows=max_rows)
    lines = max(1, math.ceil(len(tiles) / columns))
    head = 0.42 if title else 0.0
    canvas = Canvas(columns * (TILE_SIDE + GAP) - GAP, head + lines * TILE_HEIGHT, credit)
    if title:
        canvas.text(0, 0, title, size=12, weight="bold")
    if not tiles:
        canvas.text(0, head + 0.1, "no rows", colour=GREY)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        canvas.tile(column * (TILE_SIDE + GAP), head + row * TILE_HEIGHT, tile)
    return canvas.sheet()


def contact_sheet(
    results: Mapping[str, Rows],
    *,
    pictures: Mapping[str, ImageInput] | None = None,
    image: str | None = None,
    caption: str | None = None,
    title: str = "",
    columns: int = 6,
    metric: Metric = "l2",
    credit: str = "",
    limits: DecodeLimits | None = None,
) -> Sheet:
    """One line a query: the query on the left, its first results beside it.

    Args:
        results: from the query's words to its rows, in the order shown.
        pictures: the query's picture, for those of `results` that were asked with one.
        image, caption, title, columns, metric, credit, limits: as in `gallery`.

    Raises:
        ArgumentError: as `gallery`; also without any query, or with a picture for a query that is not there.
        MissingExtraError: matplotlib is not installed.

    >>> results = {words: table.search(words).limit(6) for words in ("red heart", "vehicle")}
    >>> lance_align.explore.contact_sheet(results).save("sheet.png")
    PosixPath('sheet.png')
    """
    pictures = _checked_pictures(results, pictures, columns=columns)
    head = 0.5 if title else 0.0
    width = QUERY_WIDTH + columns * (TILE_SIDE + GAP) - GAP
    canvas = Canvas(width, head + len(results) * (TILE_HEIGHT + GAP) - GAP, credit)
    if title:
        canvas.text(0, 0, title, size=13, weight="bold")
    for number, (query, rows) in enumerate(results.items()):
        top = head + number * (TILE_HEIGHT + GAP)
        canvas.rule(top - GAP / 2)
        if query in pictures:
            canvas.tile(0, top, Tile(opened(pictures[query], limits or DEFAULT_LIMITS), query, ""))
        else:
            canvas.text(0, top + 0.3, f"“{query}”", size=11, weight="bold", width=QUERY_WIDTH - GAP, lines=4)
        tiles = tiles_of(rows, image=image, caption=caption, metric=metric, limits=limits, max_rows=columns)
        if not tiles:
            canvas.text(QUERY_WIDTH, top + 0.3, "no rows", colour=GREY)
        for column, tile in enumerate(tiles):
            canvas.tile(QUERY_WIDTH + column * (TILE_SIDE + GAP), top, tile)
    return canvas.sheet()


def html_sheet(
    results: Mapping[str, Rows],
    *,
    pictures: Mapping[str, ImageInput] | None = None,
    image: str | None = None,
    caption: str | None = None,
    title: str = "",
    max_rows: int = 48,
    metric: Metric = "l2",
    credit: str = "",
    limits: DecodeLimits | None = None,
) -> HtmlSheet:
    """As `contact_sheet`, as one HTML file to send to somebody: it holds its pictures, runs no script, loads nothing.

    Pictures are small JPEGs made here; none of the table's own bytes are in the file. It needs Pillow only.

    >>> results = {words: table.search(words).limit(6) for words in ("red heart", "vehicle")}
    >>> lance_align.explore.html_sheet(results, title="Found").save("found.html")
    PosixPath('found.html')

    Args:
        results, pictures: as in `contact_sheet`.
        image, caption, title, max_rows, metric, credit, limits: as in `gallery`; `max_rows` of each query.

    Raises:
        ArgumentError: as `contact_sheet`.
    """
    pictures = _checked_pictures(results, pictures, max_rows=max_rows)
    lines = []
    for query, rows in results.items():
        asked = opened(pictures[query], limits or DEFAULT_LIMITS) if query in pictures else None
        tiles = tiles_of(rows, image=image, caption=caption, metric=metric, limits=limits, max_rows=max_rows)
        lines.append(HtmlLine(query, asked, tiles))
    return html_page(lines, title=title, credit=credit)


def _checked_pictures(
    results: Mapping[str, Rows], pictures: Mapping[str, ImageInput] | None, **numbers: int
) -> Mapping[str, ImageInput]:
    """The queries' pictures; refused are no query, a picture of none, and numbers below 1."""
    pictures = pictures or {}
    if not results or min(numbers.values()) < 1 or not pictures.keys() <= results.keys():
        said = ", ".join(f"{name}={value}" for name, value in numbers.items())
        raise ArgumentError(
            f"results for {list(results)}, pictures for {list(pictures)}, {said}; expected at least one query and a "
            "number from 1, and pictures only for queries that have results"
        )
    return pictures


def composed(
    query: ComposedQuery,
    rows: Rows,
    *,
    image: str | None = None,
    caption: str | None = None,
    columns: int = 6,
    metric: Metric = "l2",
    credit: str = "",
    limits: DecodeLimits | None = None,
) -> Sheet:
    """A composed query: its parts with their weights in the first line, the results below.

    Args:
        query: a `lance_align.Query`.
        rows, image, caption, columns, metric, credit, limits: as in `gallery`; one line of results is shown.

    Raises:
        ArgumentError: as `gallery`, or more parts than fit into a line of `columns`.
        MissingExtraError: matplotlib is not installed.

    >>> query = lance_align.Query(picture) + 2 * lance_align.Query("blue")
    >>> lance_align.explore.composed(query, table.search(query).limit(6)).save("composed.png")
    PosixPath('composed.png')
    """
    if not 1 <= len(query.parts) <= columns:
        raise ArgumentError(f"the query has {len(query.parts)} parts; expected 1 to {columns} (columns={columns})")
    below = TILE_SIDE + 0.4
    canvas = Canvas(columns * (TILE_SIDE + GAP) - GAP, below + 0.15 + TILE_HEIGHT, credit)
    for number, part in enumerate(query.parts):
        left = number * (TILE_SIDE + GAP)
        sign = "−" if part.weight < 0 else "+" if number else ""
        weight = "" if abs(part.weight) == 1 else f"{abs(part.weight):g} × "
        if part.kind == "image":
            canvas.tile(
                left, 0, Tile(opened(part.value, limits or DEFAULT_LIMITS), f"{sign} {weight}this picture".strip(), "")
            )
        else:
            words = f"“{part.value}”" if part.kind == "text" else "an embedding"
            canvas.text(
                left, TILE_SIDE / 2 - 0.2, f"{sign} {weight}{words}", size=12, weight="bold", width=TILE_SIDE, lines=4
            )
    canvas.rule(below)
    tiles = tiles_of(rows, image=image, caption=caption, metric=metric, limits=limits, max_rows=columns)
    if not tiles:
        canvas.text(0, below + 0.25, "no rows", colour=GREY)
    for column, tile in enumerate(tiles):
        canvas.tile(column * (TILE_SIDE + GAP), below + 0.15, tile)
    return canvas.sheet()


def embedding_map(
    rows: Rows,
    *,
    vector: str = "vector",
    image: str | None = None,
    title: str = "",
    max_thumbnails: int = 250,
    credit: str = "",
    limits: DecodeLimits | None = None,
) -> Sheet:
    """Where rows lie to each other: their vectors along the two directions of largest variance (PCA).

    Every row is a dot; as many as fit without covering each other are shown as thumbnails.

    Args:
        rows: see the module; those whose vector is null are left out, and counted below the map.
        vector: the column of embeddings, ``(dim,)`` each.
        max_thumbnails: at most so many pictures are opened.
        image, title, credit, limits: as in `gallery`.

    Raises:
        ArgumentError: a named column does not exist, or vectors of different lengths.
        MissingExtraError: matplotlib is not installed.

    >>> lance_align.explore.embedding_map(table.search().limit(2_000)).save("map.png")
    PosixPath('map.png')
    """
    every = as_rows(rows)
    require_column(every, vector)
    kept = [row for row in every if row.get(vector) is not None]
    canvas = Canvas(9.0, 7.2, credit)
    if title:
        canvas.text(0, 0, title, size=13, weight="bold")
    if not kept:
        canvas.text(0, 0.5, "no rows with a vector", colour=GREY)
        return canvas.sheet()
    if len({len(row[vector]) for row in kept}) > 1:
        raise ArgumentError(f"column {vector!r} holds vectors of different lengths; expected one model's embeddings")
    points, share = _principal_plane(np.array([row[vector] for row in kept], dtype=np.float64))
    spots = np.array([[0.3, 0.7]]) + points * np.array([[8.4, 5.9]])  # inches from the top left
    canvas.dots(spots)
    column = image_column(kept, image)
    side = min(0.6, max(0.36, 9 / math.sqrt(len(kept))))
    for index in _spread(spots, apart=side + 0.02, limit=max_thumbnails):
        x, y = spots[index] - side / 2
        canvas.picture(float(x), float(y), side, picture_of(kept[index], column, limits))
    left_out = f"; {len(every) - len(kept)} without a vector" if len(every) > len(kept) else ""
    canvas.text(
        0, 7.0, f"{len(kept)} rows{left_out}; these two directions hold {share:.0%} of the variance", colour=GREY
    )
    return canvas.sheet()


def failures(rows: Rows, *, error: str = "error", key: str = "id", title: str = "", max_rows: int = 20) -> Sheet:
    """The rows that could not be embedded: how many of each kind, then the first ones with their reasons.

    Args:
        rows: see the module; those whose `error` is null are left out, and if none are left the sheet says so.
        error: the column of reasons, ``"kind: detail"``.
        key: the column that names a row.
        title: a heading; by default the number of rows.
        max_rows: how many are listed.

    Raises:
        ArgumentError: a column does not exist, or `max_rows` is below 1.
        MissingExtraError: matplotlib is not installed.

    >>> lance_align.explore.failures(table.search().where("error IS NOT NULL").limit(1_000)).save("failures.png")
    PosixPath('failures.png')
    """
    if max_rows < 1:
        raise ArgumentError(f"max_rows={max_rows}; expected a whole number from 1")
    every = as_rows(rows)
    for column in (error, key):
        require_column(every, column)
    failed = [row for row in every if row.get(error) is not None]
    kinds = Counter(str(row[error]).partition(":")[0] for row in failed)
    shown = failed[:max_rows]
    canvas = Canvas(9.0, 0.45 + 0.22 * (len(kinds) + len(shown) + 2 if failed else 0), "")
    canvas.text(0, 0, title or f"{len(failed)} of {len(every)} rows have no vector", size=13, weight="bold")
    top = 0.45
    for kind, number in kinds.most_common():
        canvas.bar(1.5, top, 4.0 * number / len(failed), 0.12)
        canvas.text(0, top, kind, width=1.4)
        canvas.text(1.6 + 4.0 * number / len(failed), top, str(number), colour=GREY)
        top += 0.22
    for row in shown:
        top += 0.22
        canvas.text(0, top, str(row.get(key)), width=2.7)
        canvas.text(2.8, top, str(row[error]), colour=ERROR_INK)
    if len(failed) > len(shown):
        canvas.text(0, top + 0.25, f"and {len(failed) - len(shown)} more", colour=GREY)
    return canvas.sheet()


def _principal_plane(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coordinates ``(n, 2)`` between 0 and 1 along the two directions of largest variance, and their share of it."""
    centred = vectors - vectors.mean(axis=0)
    # The directions are eigenvectors of a (dim, dim) matrix, however many rows there are.
    variances, directions = np.linalg.eigh(centred.T @ centred)
    top = directions[:, ::-1][:, :2]
    top = top * np.sign(top[np.abs(top).argmax(axis=0), range(top.shape[1])])  # eigenvectors have no sign of their own
    points = np.zeros((len(vectors), 2))
    points[:, : top.shape[1]] = centred @ top
    total = float(variances.sum())
    points = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), 1e-12)
    return points, float(variances[-2:].sum()) / total if total else 1.0


def _spread(spots: NDArray[np.float64], *, apart: float, limit: int) -> list[int]:
    """Indices of spots no two of which are nearer than `apart` on both axes; earlier rows go first."""
    chosen: list[int] = []
    for index, spot in enumerate(spots):
        if len(chosen) == limit:
            break
        if not chosen or (np.abs(spots[chosen] - spot).max(axis=1) >= apart).all():
            chosen.append(index)
    return chosen
