"""Which columns a table has besides the user's own, and which of them are embedded."""

from __future__ import annotations

import dataclasses
from typing import Literal

from lance_align.errors import ArgumentError

ID = "id"
IMAGE = "image"
URI = "uri"
VECTOR = "vector"
TEXT_VECTOR = "text_vector"
ERROR = "error"
CONTENT_HASH = "content_hash"  # of the row that was embedded: tells changed rows from unchanged ones
VECTOR_CRC32 = "vector_crc32"  # of its vectors: Lance does not checksum its pages (measured, pylance 14)

# Column names that LanceDB adds to results or Lance keeps for itself.
TAKEN_NAMES = ("_distance", "_rowid", "_rowaddr", "_score", "_relevance_score")

Embed = Literal["image", "text", "both"]
Store = Literal["bytes", "uri", "none"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedColumn:
    """A source column, the vector column made from it, and whether the source is a picture or a text."""

    source: str
    vector: str
    kind: Literal["image", "text"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which columns a table has besides the user's own.

    Attributes:
        embed: what gets a vector; with ``both`` the picture's is `vector` and the text's `text_vector`.
        store: what stands for a picture: its `bytes` (as they were, or a thumbnail) in the column ``image``, its
            location in the column ``uri``, or nothing, which only ``embed="text"`` allows.
        text: the user's column that holds the text; needed unless ``embed="image"``.
        thumbnails: the bytes are thumbnails, so that vectors cannot be made again from them.

    Raises:
        ArgumentError: the three do not go together.
    """

    embed: Embed = "image"
    store: Store = "bytes"
    text: str | None = None
    thumbnails: bool = False

    def __post_init__(self) -> None:
        if self.embed != "image" and self.text is None:
            raise ArgumentError(f"embed={self.embed!r} needs a text column; say which one holds the text")
        if self.embed != "text" and self.store == "none":
            raise ArgumentError(
                f"embed={self.embed!r} needs the picture in the table; keep its bytes, a thumbnail or its uri"
            )

    @property
    def embedded(self) -> tuple[EmbeddedColumn, ...]:
        """The vector columns, `vector` first."""
        image = EmbeddedColumn(source=IMAGE if self.store == "bytes" else URI, vector=VECTOR, kind="image")
        if self.embed == "image":
            return (image,)
        vector = VECTOR if self.embed == "text" else TEXT_VECTOR
        text = EmbeddedColumn(source=self.text or "", vector=vector, kind="text")
        return (text,) if self.embed == "text" else (image, text)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The names this layout takes; a user's column of the same name has to be renamed."""
        picture = {"bytes": (IMAGE,), "uri": (URI,), "none": ()}[self.store]
        return (ID, *picture, *(column.vector for column in self.embedded), ERROR, CONTENT_HASH, VECTOR_CRC32)
