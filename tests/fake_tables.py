"""Tables written by the fake encoder, for tests of what reads and searches them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from lance_align.encoders import load_encoder
from lance_align.tables.checksums import vector_checksums
from lance_align.tables.commits import Committer
from lance_align.tables.digests import content_hash, row_digests
from lance_align.tables.fragments import write_fragments
from lance_align.tables.location import TableLocation, table_location
from lance_align.tables.schema import Layout, table_schema
from lance_align.testing import FAKE_SPEC

RED, GREEN, BLUE = "red", "green", "blue"
CAPTION = pa.schema([pa.field("caption", pa.string())])


def png(colour: str) -> bytes:
    """A small picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def rows(ids: Sequence[str], *, images: Sequence[bytes | None], captions: Sequence[str | None]) -> pa.Table:
    """Rows as the job writes them: of the schema of `photos_schema`."""
    embedded = load_encoder("fake").encode_images(images)
    schema = photos_schema()
    vectors = [vector if vector is None else list(map(float, vector)) for vector in embedded]
    column: pa.Array[Any] = pa.array(vectors, schema.field("vector").type)
    texts: pa.Array[Any] = pa.array(captions, pa.string())
    return pa.table(
        {
            "id": list(ids),
            "caption": list(captions),
            "image": list(images),
            "vector": column,
            "error": list(embedded.reasons),
            "content_hash": list(map(content_hash, row_digests(pa.table({"caption": texts})), images)),
            "vector_crc32": vector_checksums([column]),
        },
        schema=schema,
    )


def photos_schema() -> pa.Schema:
    """`id`, `caption`, `image`, `vector`, `error` and the two hashes."""
    return table_schema(CAPTION, Layout(), FAKE_SPEC)


def write_photos(directory: Path) -> TableLocation:
    """A table of a red, a green and a blue picture, and of a fourth row that is not a picture."""
    place = table_location(directory, "photos")
    committer = Committer.open_or_create(place.uri, photos_schema())
    table = rows(
        [RED, GREEN, BLUE, "broken"],
        images=[png(RED), png(GREEN), png(BLUE), b"not a picture"],
        captions=["a red square", "a green square", "a blue square", None],
    )
    committer.commit(write_fragments(place.uri, table), rows=4)
    return place


def vector_of(picture: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the fake makes of a picture."""
    return load_encoder("fake").encode_images([picture]).vectors[0]
