"""Columns of texts that a model writes about pictures: what each is made from and by, kept in its field's metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import lance
import pyarrow as pa

from lance_align.describers.prompts import Prompt
from lance_align.describers.spec import DescriberSpec
from lance_align.errors import ArgumentError, LanceAlignError, ModelError, TableError
from lance_align.hints import did_you_mean
from lance_align.tables.conflicts import attempts, is_conflict
from lance_align.tables.failures import LANCE_ERRORS, lance_failures
from lance_align.tables.layout import ERROR
from lance_align.tables.metadata import ERROR_OF_KEY, error_columns, field_metadata
from lance_align.tables.names import check_new_name

DESCRIPTION_KEY = b"lance_align:describer"  # of a described column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a described column is made from, and by which model.

    Attributes:
        image: the column of pictures: encoded bytes, or text that is a path or a URI.
        spec: the model and what it is asked.
    """

    image: str
    spec: DescriberSpec

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that the prompt names."""
        return Prompt(self.spec.prompt).columns if self.spec.prompt is not None else ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns it is made from, that of the pictures first."""
        return tuple(dict.fromkeys((self.image, *self.named)))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"image": self.image, "spec": json.loads(self.spec.to_json())}, sort_keys=True)


def read_description(schema: pa.Schema, column: str) -> Description | None:
    """What is recorded of a column; None for one that no describer made.

    Raises:
        TableError: the record is damaged.
    """
    text = field_metadata(schema, column).get(DESCRIPTION_KEY) if column in schema.names else None
    if text is None:
        return None
    try:
        raw: Any = json.loads(text)
        found = Description(image=str(raw["image"]), spec=DescriberSpec.from_json(json.dumps(raw["spec"])))
        found.sources  # noqa: B018  a prompt that cannot be read is found out here
    except (ValueError, KeyError, TypeError, RecursionError, ModelError, ArgumentError) as error:
        raise TableError(
            f"the record of what described {column!r} is damaged ({error}); describe into another column"
        ) from error
    return found


def add_description(
    uri: str, column: str, description: Description, *, storage_options: Mapping[str, str] | None = None
) -> None:
    """Give a table, anyone's, a column for texts and one for reasons, both null; one version, where they are missing.

    A column in which another describer has written no text yet, though reasons perhaps, is begun anew.

    Args:
        uri: of the Lance dataset.
        column: for the texts; the reasons go into ``{column}_error``.
        description: what is recorded.

    Raises:
        ArgumentError: `column` cannot be a name, or the prompt names a column that the table does not have or that
            holds no single values.
        TableError: the pictures are missing or of another type, the column is there and another model, prompt or
            nobody known wrote it, or the table cannot be written.
    """
    check_new_name(column, argument="column")
    options = dict(storage_options) if storage_options else None
    with lance_failures("add a column to", uri):
        for is_last in attempts():
            dataset: Any = lance.dataset(uri, storage_options=options)
            _check_sources(dataset.schema, description, uri=uri)
            objection = _objection(dataset.schema, column, description, uri=uri)
            if objection == "":
                return
            if objection is not None and _has_text(dataset, column):
                raise TableError(objection)
            try:
                stale = {error_columns(dataset.schema).get(column)}  # the texts it explained are gone
                if objection is not None:
                    stale |= {column, f"{column}_{ERROR}"}
                if leaving := [name for name in dataset.schema.names if name in stale]:
                    dataset.drop_columns(leaving)
                dataset.add_columns(pa.schema(_fields(dataset.schema, column, description, uri=uri)))
                return
            except LANCE_ERRORS as error:
                if isinstance(error, LanceAlignError) or not is_conflict(error) or is_last:
                    raise


def _fields(schema: pa.Schema, column: str, description: Description, *, uri: str) -> list[pa.Field[Any]]:
    error = f"{column}_{ERROR}"
    if error in schema.names:
        raise TableError(f"{uri} has a column {error!r} already, the name that {column!r} needs; choose another column")
    record: dict[bytes | str, bytes | str] = {DESCRIPTION_KEY: description.to_json().encode()}
    return [
        pa.field(column, pa.string(), metadata=record),
        pa.field(error, pa.string(), metadata={ERROR_OF_KEY: column.encode()}),
    ]


def _objection(schema: pa.Schema, column: str, description: Description, *, uri: str) -> str | None:
    """Why a column that a describer writes is not this one; nothing where it is, None where there is no such column.

    Raises:
        TableError: the column is nobody's known.
    """
    if column not in schema.names:
        return None
    advice = "choose another column, or drop this one first"
    there = read_description(schema, column)
    if there is None:
        raise TableError(f"{uri} has a column {column!r} that was not made by a describer; {advice}")
    if there.image != description.image:
        return f"{column!r} of {uri} describes {there.image!r}, not {description.image!r}; {advice}"
    unequal = there.spec.differences(description.spec)
    if not unequal:
        return ""
    return (
        f"{column!r} of {uri} was written by {there.spec.name!r}, not as {description.spec.name!r} would now: "
        f"{unequal}; {advice}"
    )


def _has_text(dataset: Any, column: str) -> bool:
    batches = dataset.scanner(columns=[column]).to_batches()
    return any(batch.column(column).null_count < len(batch) for batch in batches)


def _check_sources(schema: pa.Schema, description: Description, *, uri: str) -> None:
    seen = ", ".join(f"{field.name} ({field.type})" for field in schema)
    image = description.image
    if image not in schema.names:
        raise TableError(f"{uri} has no column {image!r}; {did_you_mean(image, schema.names)}its columns are {seen}")
    kind = schema.field(image).type
    if not any(fits(kind) for fits in (pa.types.is_binary, pa.types.is_large_binary, *_TEXTS)):
        raise TableError(f"column {image!r} of {uri} is {kind}; expected encoded images as binary, or paths as strings")
    for name in description.named:
        if name not in schema.names:
            raise ArgumentError(f"the prompt names {name!r}, which {uri} does not have; its columns are {seen}")
        if not any(fits(schema.field(name).type) for fits in _SINGLE):
            raise ArgumentError(
                f"the prompt names {name!r}, which is {schema.field(name).type}; expected text, a number, a time"
                " or a boolean"
            )


_TEXTS = (pa.types.is_string, pa.types.is_large_string)
_SINGLE = (*_TEXTS, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal)
