"""``lance-align search``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from cyclopts import Parameter
from lancedb.expr import col, lit
from rich.console import Console
from rich.table import Table

from lance_align.cli.command import application, print_out
from lance_align.cli.tables import NamedTable, named_table
from lance_align.errors import ArgumentError
from lance_align.hints import did_you_mean
from lance_align.indexing.building import search_settings
from lance_align.jobs.checks import check_positive, check_writable
from lance_align.queries import PICTURE_SUFFIXES, Query
from lance_align.tables.failures import lance_failures
from lance_align.tables.layout import CONTENT_HASH, ID, VECTOR_CRC32
from lance_align.tables.metadata import error_columns

app = application(
    "lance-align search",
    """Search a table with words, images, or both, and print what is found: rank, id, similarity, texts.

Words that are the path of an image file are that image. A number and a star weigh a part: `2*blue`.

    lance-align search "a red car" --db ./lancedb --table photos
    lance-align search --image car.jpg --plus "2*blue" --minus red --table photos --sheet found.html
    lance-align search --like 0017 --where "year > 2020" --limit 50 --json --table photos
    cat queries.txt | lance-align search - --table photos --json
""",
)

_WEIGHED = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*\*\s*(.+)", re.DOTALL)
STANDARD_INPUT = "-"
SHEETS = (".png", ".html")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One query.

    Attributes:
        title: for people.
        query: what is embedded.
        image: the image it begins with; None for words.
        like: the id of the row it begins with, which is not among what is found.
    """

    title: str
    query: Query
    image: Path | None = None
    like: str | None = None


@app.default
def search(
    words: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    *,
    db: str = "./lancedb",
    table: str,
    image: Path | None = None,
    like: str | None = None,
    plus: Sequence[str] = (),
    minus: Sequence[str] = (),
    where: str | None = None,
    limit: int = 10,
    columns: Sequence[str] = (),
    vector: str | None = None,
    model: str | None = None,
    json_lines: Annotated[bool, Parameter(name="--json", negative=())] = False,
    sheet: Path | None = None,
    storage_options: dict[str, str] | None = None,
) -> None:
    """Search.

    Args:
        words: what to look for, or the path of an image; - reads queries from standard input, one a line.
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        image: an image to begin with.
        like: the id of a row to begin with: more like this one.
        plus: words or image files to add, such as "a red car" or 0.5*car.jpg.
        minus: words or image files to take away.
        where: an SQL condition on the rows.
        limit: most rows a query.
        columns: the columns to print; by default those of text.
        vector: the vector column; by default the only one, or the one called vector.
        model: the model that the table names, if it is not a known one: to say its name is to trust it.
        json_lines: print a line of JSON for each query, with all columns but images and vectors.
        sheet: draw what is found: FILE.png, or FILE.html, which holds all of it and can be sent to anybody.
        storage_options: of the database's object store, by Lance's names.
    """
    check_positive(limit=limit)
    _check_sheet(sheet)
    if words is None and image is None and like is None and not plus:
        raise ArgumentError("nothing to look for; expected words, --image FILE, --like ID or --plus WORDS")
    named = named_table(db=db, table=table, vector=vector, model=model, storage_options=storage_options)
    shown = _shown_columns(named.schema, columns)
    found: list[tuple[Asked, list[dict[str, Any]]]] = []
    for asked in _asked(named, words, image=image, like=like, plus=plus, minus=minus):
        rows = _rows(named, asked, where=where, limit=limit)
        print_out(_json_line(asked, rows) if json_lines else _as_table(asked, rows, shown))
        if sheet is not None:
            found.append((asked, rows))
    if sheet is not None:
        print(f"wrote {_draw(found, sheet)}", file=sys.stderr)


def _asked(
    named: NamedTable,
    words: str | None,
    *,
    image: Path | None,
    like: str | None,
    plus: Sequence[str],
    minus: Sequence[str],
) -> Iterator[Asked]:
    """The queries, each with all that is added and taken away."""
    if image is not None and not image.expanduser().is_file():
        raise ArgumentError(f"--image {image} does not exist; {_near_file(image)}expected an image file")
    if words == STANDARD_INPUT:
        lines: Iterator[str | None] = (line.strip() for line in sys.stdin if line.strip())
    else:
        lines = iter([words])
    for line in lines:
        parts: list[tuple[str, Query]] = []
        if line is not None:
            parts.append(_part(line))
        if image is not None:
            parts.append((image.name, Query(image.expanduser())))
        if like is not None:
            parts.append((f"like {like}", Query(_vector_of(named, like))))
        parts += [(f"+ {text}", query) for text, query in map(_part, plus)]
        parts += [(f"- {text}", -query) for text, query in map(_part, minus)]
        query = parts[0][1]
        for _, part in parts[1:]:
            query = query + part
        pictures = [part.value for part in query.parts[:1] if isinstance(part.value, Path)]
        title = " ".join(text for text, _ in parts).removeprefix("+ ")
        yield Asked(title=title, query=query, image=next(iter(pictures), None), like=like)


def _part(text: str) -> tuple[str, Query]:
    """Words or an image file, with its weight."""
    weighed = _WEIGHED.fullmatch(text)
    weight, value = (float(weighed[1]), weighed[2]) if weighed else (1.0, text)
    path = Path(value).expanduser()
    if value.lower().endswith(PICTURE_SUFFIXES):
        if not path.is_file():
            near = _near_file(path)
            raise ArgumentError(
                f"the image {value!r:.200} does not exist; {near}expected words, or the path of an image"
            )
        return text, Query(path, weight)
    return text, Query(value, weight)


def _near_file(path: Path) -> str:
    with contextlib.suppress(OSError):  # there is no such folder, or nobody may look into it
        return did_you_mean(path.name, [file.name for file in path.parent.iterdir()])
    return ""


def _vector_of(named: NamedTable, key: str) -> Any:
    """The vector of the row with an id.

    Raises:
        ArgumentError: there is no such row, or it has none.
    """
    if ID not in named.schema.names:
        raise ArgumentError(f"--like {key!r:.80}, but the table has no column {ID!r}; it has {_names(named.schema)}")
    kind: Any = named.schema.field(ID).type
    value = key if pa.types.is_string(kind) or pa.types.is_large_string(kind) else int(key) if key.isdigit() else key
    with lance_failures("search", str(named.table.name)):
        rows = named.table.search().where(col(ID) == lit(value)).select([named.vector]).limit(1).to_list()
    if not rows:
        raise ArgumentError(f"--like {key!r:.80}: the table has no row with this id")
    if rows[0][named.vector] is None:
        raise ArgumentError(f"--like {key!r:.80}: this row has no vector; its error column says why")
    return np.asarray(rows[0][named.vector], np.float32)


def _rows(named: NamedTable, asked: Asked, *, where: str | None, limit: int) -> list[dict[str, Any]]:
    """What is found, each row with its similarity to the query, which is a cosine."""
    (vector,) = named.function.compute_query_embeddings(asked.query)
    with lance_failures("search", str(named.table.name)):
        query = named.table.search(vector, vector_column_name=named.vector)
        query = search_settings(named.table, vector=named.vector).apply(query).limit(limit + (asked.like is not None))
        rows: list[dict[str, Any]] = (query.where(where, prefilter=True) if where else query).to_list()
    if asked.like is not None:
        rows = [row for row in rows if str(row.get(ID)) != asked.like][:limit]
    for row in rows:
        own = np.asarray(row[named.vector], np.float64)
        row["similarity"] = float(own @ vector / (np.linalg.norm(own) or 1.0))
    return rows


def _shown_columns(schema: pa.Schema, asked: Sequence[str]) -> list[str]:
    for name in asked:
        if name not in schema.names:
            raise ArgumentError(
                f"the table has no column {name!r:.80}; {did_you_mean(name, schema.names)}it has {_names(schema)}"
            )
    if asked:
        return list(asked)
    hidden = {ID, CONTENT_HASH, "error", *error_columns(schema).values()}
    return [field.name for field in schema if _is_text(field.type) and field.name not in hidden]


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _names(schema: pa.Schema) -> str:
    return ", ".join(schema.names)


def _as_table(asked: Asked, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """For people, as wide as the terminal; of a cell one line is shown."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    drawn = Table(title=asked.title, title_justify="left", box=None, pad_edge=False, show_edge=False)
    drawn.add_column("rank", justify="right", no_wrap=True, min_width=4)
    drawn.add_column(ID, no_wrap=True, overflow="ellipsis", min_width=8, max_width=32)
    drawn.add_column("similarity", justify="right", no_wrap=True, min_width=10)
    for name in columns:
        drawn.add_column(name, no_wrap=True, overflow="ellipsis")
    for rank, row in enumerate(rows, start=1):
        cells = (" ".join(str("" if row[name] is None else row[name]).split()) for name in columns)
        drawn.add_row(str(rank), str(row.get(ID, "")), f"{row['similarity']:.3f}", *cells)
    with console.capture() as captured:
        console.print(drawn if rows else f"{asked.title}\nno rows")
    return captured.get().rstrip("\n")


def _json_line(asked: Asked, rows: Sequence[dict[str, Any]]) -> str:
    hits = [
        {"rank": rank} | {name: value for name, value in row.items() if _is_plain(name, value)}
        for rank, row in enumerate(rows, start=1)
    ]
    return json.dumps({"query": asked.title, "hits": hits}, ensure_ascii=False, default=str)


def _is_plain(name: str, value: Any) -> bool:
    is_vector = isinstance(value, list) and len(value) > 0 and isinstance(value[0], float)
    return not (name.startswith("_") or name in (CONTENT_HASH, VECTOR_CRC32) or isinstance(value, bytes) or is_vector)


def _check_sheet(sheet: Path | None) -> None:
    if sheet is not None and sheet.suffix.lower() not in SHEETS:
        raise ArgumentError(f"--sheet {sheet}; expected a file that ends in .png or .html")
    check_writable("sheet", sheet)


def _draw(found: Sequence[tuple[Asked, list[dict[str, Any]]]], sheet: Path) -> Path:
    from lance_align import explore

    draw = explore.contact_sheet if sheet.suffix.lower() == ".png" else explore.html_sheet
    results = {asked.title: rows for asked, rows in found}
    pictures = {asked.title: asked.image for asked, _ in found if asked.image is not None}
    return draw(results, pictures=pictures).save(sheet)
