"""Which column is the picture, which the text, which the id; and what the table's columns become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.ids import is_id_type, is_text_type
from lance_align.jobs.sources import Source
from lance_align.jobs.sources.base import Looks
from lance_align.jobs.sources.roles import DATA_NAMES, ID_NAMES, PATH_NAMES, TEXT_NAMES
from lance_align.tables.schema import ID, IMAGE, URI, Embed, Layout

Keep = Literal["bytes", "thumbnail", "uri"]
ImageKind = Literal["bytes", "path", "struct"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a source and their roles.

    Attributes:
        embed: what gets vectors.
        keep: how a picture stands in the table; None where there is no picture.
        image: the column with pictures, or None.
        image_kind: encoded ``bytes``, a ``path``, or a ``struct`` of both as Hugging Face datasets writes it.
        text: the column with texts, or None.
        id: the column that names a row, or None for the digest of the row.
        travelling: the columns that arrive unchanged, `text` among them.
    """

    embed: Embed
    keep: Keep | None
    image: str | None
    image_kind: ImageKind | None
    text: str | None
    id: str | None
    travelling: tuple[str, ...]

    @property
    def layout(self) -> Layout:
        """The same, as the table sees it."""
        store: Literal["bytes", "uri", "none"] = (
            "none" if self.keep is None else "uri" if self.keep == "uri" else "bytes"
        )
        return Layout(embed=self.embed, store=store, text=self.text, thumbnails=self.keep == "thumbnail")


def choose_columns(
    source: Source,
    *,
    image: str | None = None,
    text: str | None = None,
    id: str | None = None,  # noqa: A002  the word the user writes
    embed: Embed | None = None,
    keep: Keep = "bytes",
    drop: Sequence[str] = (),
) -> Columns:
    """Settle roles from what was said, what the format defines, and names and types, in that order.

    Args:
        embed: None for ``image`` where there is an image column, else ``text``.
        drop: columns that do not travel.

    Raises:
        SourceError: a column does not exist, has a type that cannot play its role, or none was found for a role
            that is needed; the message lists the columns.
    """
    schema = source.schema
    for name in (image, text, id, *drop):
        if name is not None and name not in (*schema.names, *source.dropped):
            raise SourceError(f"{source.location.uri} has no column {name!r}; {_seen(schema)}")
    offered = pa.schema([field for field in schema if field.name not in drop])
    said = image or (None if embed == "text" and keep == "bytes" else source.image)
    image = said or (None if embed == "text" else find_image(offered, source.looks))
    text = text or source.text or _find_text(offered, needed=embed in ("text", "both") or image is None)
    id = id or source.id or _find(offered, ID_NAMES, is_id_type)  # noqa: A001
    embed = embed or ("image" if image is not None else "text")
    _check_roles(source, embed=embed, image=image, text=text, id=id)
    kind = _image_kind(schema.field(image), source.looks) if image is not None else None
    if keep == "uri" and embed != "text" and kind != "path":
        raise SourceError(f"keep='uri' needs a column of paths, but {image!r} holds bytes; keep bytes or a thumbnail")
    carries = image is not None and embed != "text"
    own_name = URI if keep == "uri" else IMAGE
    replaced = {id, *((image,) if carries and (kind != "path" or image == own_name) else ())}
    return Columns(
        embed=embed,
        keep=keep if carries else None,
        image=image if carries else None,
        image_kind=kind if carries else None,
        text=text if embed != "image" else None,
        id=id,
        travelling=tuple(name for name in offered.names if name not in replaced),
    )


def _check_roles(
    source: Source,
    *,
    embed: Embed,
    image: str | None,
    text: str | None,
    id: str | None,  # noqa: A002
) -> None:
    schema, uri, looks = source.schema, source.location.uri, source.looks
    if embed in ("image", "both"):
        if image is None:
            raise SourceError(f"{uri} has no column that looks like {looks}; name it with --image; {_seen(schema)}")
        _image_kind(schema.field(image), looks)
    if embed in ("text", "both"):
        if text is None:
            raise SourceError(f"{uri} has no column that looks like texts; name it with --text; {_seen(schema)}")
        if not is_text_type(schema.field(text).type):
            raise SourceError(f"text column {text!r} is {schema.field(text).type}; expected strings")
    if id is not None and not is_id_type(schema.field(id).type):
        raise SourceError(f"id column {id!r} is {schema.field(id).type}; expected text or whole numbers")
    if id != ID and ID in schema.names and id is not None:
        raise SourceError(
            f"{uri} has a column {ID!r} besides the id column {id!r}, and the table needs that name; drop it with "
            f"--drop {ID}, or use it as the id"
        )


def _image_kind(field: pa.Field[pa.DataType], looks: Looks) -> ImageKind:
    kind = field.type
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if _is_binary(kind):
        return "bytes"
    if is_text_type(kind):
        return "path"
    if pa.types.is_struct(kind) and "bytes" in kind.names and _is_binary(kind.field("bytes").type):
        return "struct"
    raise SourceError(
        f"{looks[:-1]} column {field.name!r} is {field.type}; expected binary, a path as text, or bytes in a struct"
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_image_data(kind: pa.DataType) -> bool:
    return _is_binary(kind) or (
        pa.types.is_struct(kind) and "bytes" in kind.names and _is_binary(kind.field("bytes").type)
    )


def find_image(schema: pa.Schema, looks: Looks) -> str | None:
    """The column that looks like pictures, or videos, by its name and type; None where none does, or several do."""
    of_data, of_paths = DATA_NAMES[looks], PATH_NAMES[looks]
    named = _find(schema, of_data, _is_image_data) or _find(schema, of_paths, is_text_type)
    if named is not None:
        return named
    binaries = [field.name for field in schema if _is_image_data(field.type)]
    return binaries[0] if len(binaries) == 1 else None


def _find_text(schema: pa.Schema, *, needed: bool) -> str | None:
    named = _find(schema, TEXT_NAMES, is_text_type)
    if named is not None or not needed:
        return named
    texts = [field.name for field in schema if is_text_type(field.type) and field.name not in ID_NAMES]
    return texts[0] if len(texts) == 1 else None


def _find(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    by_lower = {field.name.lower(): field for field in reversed(list(schema))}
    for name in names:
        field = by_lower.get(name)
        if field is not None and fits(field.type):
            return str(field.name)
    return None


def _seen(schema: pa.Schema) -> str:
    return "its columns are " + ", ".join(f"{field.name} ({field.type})" for field in schema)
