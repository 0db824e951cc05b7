"""Which column is the picture, which the text, which the id; and what the table's columns become."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.hints import did_you_mean
from lance_align.jobs.ids import ID_TYPES, is_id_type, is_text_type
from lance_align.jobs.sources import Source
from lance_align.jobs.sources.base import Looks
from lance_align.jobs.sources.roles import DATA_NAMES, ID_NAMES, PATH_NAMES, TEXT_NAMES
from lance_align.tables.schema import ID, IMAGE, URI, Embed, Layout

Keep = Literal["bytes", "thumbnail", "uri"]
ImageKind = Literal["bytes", "path", "struct"]

# Columns that hold pictures by their names too, but not clearly: several a row, numbered, or behind a network.
_OF_A_PICTURE = r"s?([_ -]?(url|uri|link|path|file|file_?name)s?)?([_ -]?\d+)?"
_OF_FILES = r"(.+[_ -])?file_?names?"  # as image folders call several in a row
_NEARLY_NAMED: Mapping[Looks, re.Pattern[str]] = {
    "images": re.compile(f"(image|img|picture|photo){_OF_A_PICTURE}|{_OF_FILES}"),
    "videos": re.compile(f"(video|clip|movie){_OF_A_PICTURE}|{_OF_FILES}"),
}
_ADDRESSES = frozenset({"url", "urls", "link", "href"})  # of pages as often as of pictures, never texts


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
            raise SourceError(
                f"{source.location.uri} has no column {name!r}; {did_you_mean(name, schema.names)}{_seen(schema)}"
            )
    offered = pa.schema([field for field in schema if field.name not in drop])
    # Where folders' names say a column, all rows of a folder have one value: a label, but no role.
    own = pa.schema([field for field in offered if field.name not in source.partitions])
    id = id or source.id or _find(own, ID_NAMES, is_id_type)  # noqa: A001
    id = id or (ID if ID in own.names else None)  # noqa: A001  which has no other place in the table
    said = image or (None if embed == "text" and keep == "bytes" else source.image)
    names = DATA_NAMES[source.looks]  # the bytes of an id are no picture, unless they are called so
    shown = pa.schema([f for f in own if f.name != id or is_text_type(f.type) or f.name.lower() in names])
    image = said or (None if embed == "text" else find_image(shown, source.looks))
    if image is None and embed != "text":
        _check_no_pictures(source, shown)
    needs_text = embed in ("text", "both") or image is None
    text = text or source.text or _find_text(source, own, needed=needs_text, taken=(image, id))
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
            raise SourceError(
                f"{uri} has no column that looks like texts (ids and names of files are none); name it with --text; "
                f"{_seen(schema)}"
            )
        if not is_text_type(schema.field(text).type):
            raise SourceError(f"text column {text!r} is {schema.field(text).type}; expected strings")
    if id is not None and not is_id_type(schema.field(id).type):
        raise SourceError(
            f"id column {id!r} is {schema.field(id).type}; expected {ID_TYPES}; cast it, or leave it out with --drop "
            f"{shlex.quote(id)}"
        )
    if id is not None and id == image and _is_image_data(schema.field(id).type):
        raise SourceError(f"id column {id!r} is {schema.field(id).type}, the {looks} themselves; expected their names")
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
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return _is_binary(kind) or (
        pa.types.is_struct(kind) and "bytes" in kind.names and _is_binary(kind.field("bytes").type)
    )


def find_image(schema: pa.Schema, looks: Looks) -> str | None:
    """The column that looks like pictures, or videos, by its name and type; None where none does, or several do."""
    of_data, of_paths = DATA_NAMES[looks], PATH_NAMES[looks]
    named = [name for word in of_data if (name := _find(schema, (word,), _is_image_data)) is not None]
    if len(named) > 1 and named[0].lower() != of_data[0]:
        return None
    found = named[0] if named else _find(schema, of_paths, is_text_type)
    if found is not None:
        return found
    binaries = [field.name for field in schema if _is_image_data(field.type)]
    return binaries[0] if len(binaries) == 1 else None


def _check_no_pictures(source: Source, offered: pa.Schema) -> None:
    """Refuse to take texts for what is to be embedded where columns may well be the pictures.

    Raises:
        SourceError: names those columns.
    """
    looks = source.looks
    fetches = bool(source.references.fetching.hosts)  # then the addresses are those of pictures
    found = [
        field for field in offered if _may_be_image(field, looks) or (fetches and field.name.lower() in _ADDRESSES)
    ]
    if not found:
        return
    names = ", ".join(f"{field.name} ({field.type})" for field in found)
    lists = [field.name for field in found if _is_listing(field.type)]
    several = f" {lists[0]!r} holds several {looks} a row: give each a row of its own first." if lists else ""
    one = next((field.name for field in found if _is_image_data(field.type) or is_text_type(field.type)), None)
    remedy = f"name one with --image {one}, " if one is not None else "name another column with --image, "
    raise SourceError(
        f"{source.location.uri} has {'columns' if len(found) > 1 else 'a column'} that may be the {looks}: {names}."
        f"{several} Expected one {looks[:-1]} a row: {remedy}or embed texts with --embed text"
    )


def _may_be_image(field: pa.Field[Any], looks: Looks) -> bool:
    """By what it holds, or by a name that says so; numbers with such a name are counts, or name rows elsewhere."""
    kind: Any = field.type.value_type if _is_listing(field.type) else field.type
    named = _NEARLY_NAMED[looks].fullmatch(field.name.lower()) is not None
    return _is_image_data(kind) or (named and not pa.types.is_primitive(field.type))


def _is_listing(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _find_text(source: Source, offered: pa.Schema, *, needed: bool, taken: Sequence[str | None]) -> str | None:
    """The column of texts by its name, or where one is needed the only one that may be.

    Raises:
        SourceError: several may be, and none has a name that tells.
    """
    named = _find(offered, TEXT_NAMES, is_text_type)
    if named is not None or not needed:
        return named
    no_texts = {*taken, *ID_NAMES, *PATH_NAMES[source.looks], *_ADDRESSES}
    texts = [
        field.name
        for field in offered
        if is_text_type(field.type) and field.name not in taken and field.name.lower() not in no_texts
    ]
    if len(texts) > 1:
        raise SourceError(
            f"{source.location.uri} has columns that may be the texts: {', '.join(texts)}; name one with --text"
        )
    return texts[0] if texts else None


def _find(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    by_lower = {field.name.lower(): field for field in reversed(list(schema))}
    for name in names:
        field = by_lower.get(name)
        if field is not None and fits(field.type):
            return str(field.name)
    return None


def _seen(schema: pa.Schema) -> str:
    return "its columns are " + ", ".join(f"{field.name} ({field.type})" for field in schema)
