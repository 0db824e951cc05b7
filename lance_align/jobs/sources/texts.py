r"""Text that is not UTF-8, and other cells that are not what their column says.

Files can hold any bytes in a text column, and nothing on the way looks at them: Lance writes them and cannot read the
column again (pylance 14), Python cannot make a string of them. Here they become text: each byte that is not UTF-8 is
written as ``\xff``, so that people see what was there. No such writing keeps all of them apart from all valid text and
leaves valid text alone; it does so within a table of rows, see `mended_cells`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.ids import is_text_type
from lance_align.jobs.sources.location import first_line

_LONE = re.compile("[\ud800-\udfff]")


def with_valid_text(table: pa.Table) -> pa.Table:
    """The table with UTF-8 in every text, at any depth of lists, structs, maps and dictionaries.

    Raises:
        SourceError: a column's lengths or offsets lead out of its data: reading it would read other memory.
    """
    for number, name in enumerate(table.column_names):
        column = table.column(number)
        if not _is_valid(column):
            table = table.set_column(number, table.field(number), _mended(column, name))
    return table


def mended(text: str) -> str:
    r"""Text without lone surrogates; other text is left alone.

    Those that stand for bytes (``surrogateescape``) become ``\xff``, others ``\ud83d``; the text's own backslashes are
    doubled then, so that two such texts stay two.
    """
    if _LONE.search(text) is None:
        return text
    return _LONE.sub(_escape, text.replace("\\", "\\\\"))


def mended_cells(cells: Sequence[str | None]) -> list[str | None]:
    r"""Cells of a column, each `mended`, and two different cells stay two.

    Valid text stays as it is, whatever it is. Where a cell of it reads like a mended one (``\xff``, four characters),
    the mended one's backslashes are doubled until it reads differently.
    """
    shown = [None if cell is None else mended(cell) for cell in cells]
    valid = {cell for cell, text in zip(cells, shown, strict=True) if cell == text}
    for row, (cell, text) in enumerate(zip(cells, shown, strict=True)):
        while text is not None and text != cell and text in valid:
            text = shown[row] = text.replace("\\", "\\\\")
    return shown


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _is_valid(column: pa.ChunkedArray[Any]) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _mended(column: pa.ChunkedArray[Any], name: str) -> pa.ChunkedArray[Any]:
    return pa.chunked_array([_mended_chunk(chunk, name) for chunk in column.chunks], column.type)


def _mended_chunk(chunk: Any, name: str) -> Any:
    if isinstance(chunk, pa.ExtensionArray):
        return pa.ExtensionArray.from_storage(chunk.type, _mended_chunk(chunk.storage, name))
    if isinstance(chunk, pa.DictionaryArray):
        plain = pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(_binary(chunk.type.value_type)))
        values = _checked(plain, name).to_pylist()
        texts: Any = pa.array(_texts(values, chunk.type.value_type), chunk.type.value_type)
        return texts.dictionary_encode().cast(chunk.type)
    values = _checked(chunk.cast(_binary(chunk.type)), name).to_pylist()
    return pa.array(_texts(values, chunk.type), chunk.type)


def _checked(chunk: Any, name: str) -> Any:
    try:
        chunk.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SourceError(f"column {name!r} is damaged ({first_line(error)}); write the file again") from error
    return chunk


def _binary(kind: Any) -> Any:
    """The type with binary in place of text; casting to it looks at no byte."""
    if is_text_type(kind):
        return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    if pa.types.is_map(kind):
        return pa.map_(_binary(kind.key_type), _binary(kind.item_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_binary(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_binary(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_binary(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _binary(field.type)) for field in kind])
    return kind


def _texts(values: Sequence[Any], kind: Any) -> list[Any]:
    if is_text_type(kind):
        return mended_cells([None if value is None else value.decode("utf-8", "surrogateescape") for value in values])
    return [_text(value, kind) for value in values]


def _text(value: Any, kind: Any) -> Any:
    """A cell of the binary type as a cell of the type it stands for."""
    if value is None:
        return None
    if is_text_type(kind):
        return mended(value.decode("utf-8", "surrogateescape"))
    if pa.types.is_map(kind):
        return [(_text(key, kind.key_type), _text(item, kind.item_type)) for key, item in value]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_text(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: _text(value[field.name], field.type) for field in kind}
    return value
