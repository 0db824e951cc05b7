"""Vectors and texts into rows that are in a table already: what is missing, and versions that fill it in.

A row is known by its address, the fragment and its place in it. An address stays the row's own as long as the fragment
has the same data file for the column that was read; deletions only hide rows, and compaction makes other fragments. So
a round is committed only onto fragments whose source file is the one that was read, and on exactly the version this
was looked up in: Lance tells of any change of the same fragments in between, and the round is looked at again.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.commit import CommitConflictError

from lance_align import faults
from lance_align.describers.spec import DescriberSpec
from lance_align.errors import LanceAlignError, TableError
from lance_align.spec import ModelSpec
from lance_align.tables.checksums import vector_checksums
from lance_align.tables.conflicts import attempts, transaction_of
from lance_align.tables.creation import open_table
from lance_align.tables.descriptions import read_description
from lance_align.tables.failures import LANCE_ERRORS, lance_failures, table_error
from lance_align.tables.layout import VECTOR_CRC32
from lance_align.tables.location import missing_table
from lance_align.tables.metadata import embedded_column, error_column, error_columns, read_specs
from lance_align.tables.names import quoted

ADDRESS = "_rowaddr"  # Lance's: the fragment's id in the upper 32 bits, the place in it in the lower

Files = tuple[tuple[str, ...], str]
Fields = dict[str, tuple[int, str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """One column of a table that a model makes, vectors or texts, and what it is made from.

    Attributes:
        sources: the columns it is made from; first the picture, or the text.
        kind: what the first of them is.
        target: the column.
        error: the column that says why there is no value.
        spec: the model, as the table has it: not to be trusted before it is compared with a checkpoint.
    """

    sources: tuple[str, ...]
    kind: Literal["image", "text"]
    target: str
    error: str
    spec: ModelSpec | DescriberSpec

    @classmethod
    def of(cls, schema: pa.Schema, target: str, *, uri: str) -> Filling:
        """Read it from a table's schema.

        Raises:
            TableError: no model is attached to the column, it is of another type than vectors are written in, or one of
                the columns is missing.
        """
        filling = cls._described(schema, target) or cls._embedded(schema, target)
        if filling is None or target not in schema.names:
            raise TableError(
                f"{uri} does not say how {target!r} is made; lance_align.attach(table, image=…) attaches a model to it"
            )
        for source in filling.sources:
            if source not in schema.names:
                raise TableError(f"{uri} has no column {source!r} any more, from which {target!r} is made")
        return filling

    @classmethod
    def _embedded(cls, schema: pa.Schema, vector: str) -> Filling | None:
        column, error = embedded_column(schema, vector), error_column(schema, vector)
        spec = read_specs(schema).get(vector)
        if column is None or error is None or spec is None or vector not in schema.names:
            return None
        found, expected = schema.field(vector).type, pa.list_(pa.float32(), spec.dim)
        if found != expected:
            raise TableError(
                f"{vector!r} is {found}, but a job writes {expected}; attach the model to another vector column"
            )
        return cls(sources=(column.source,), kind=column.kind, target=vector, error=error, spec=spec)

    @classmethod
    def _described(cls, schema: pa.Schema, target: str) -> Filling | None:
        description, error = read_description(schema, target), error_columns(schema).get(target)
        if description is None or error is None:
            return None
        return cls(sources=description.sources, kind="image", target=target, error=error, spec=description.spec)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A fragment with rows that have neither a value nor a reason: `empty` of its `rows`."""

    fragment: int
    rows: int
    empty: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one version of a table lacks."""

    version: int
    rows: int
    gaps: tuple[Gap, ...]

    @property
    def empty(self) -> int:
        """Rows without a value and without a reason."""
        return sum(gap.empty for gap in self.gaps)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What became of a round.

    Attributes:
        rows: rows that got their value or their reason.
        reasons: how many got which kind of reason.
        left: rows that got neither: another writer moved them, changed their source, or filled them first.
    """

    rows: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    left: int = 0


class Filler:
    """Fills one column; lives on the driver, one a job, used from one thread."""

    def __init__(self, uri: str, target: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Open the table.

        Raises:
            TableError: there is none, no model is attached to the column, or the column is one of several that share
                an error column.
        """
        self.uri = uri
        self._dataset: Any = open_table(uri, storage_options=storage_options)
        if self._dataset is None:
            raise missing_table(uri)
        with lance_failures("open", uri):
            self.filling = Filling.of(self._dataset.schema, target, uri=uri)
            self._written = self._columns_written()
            self._fields = self._field_ids()
        self._source_files: dict[int, Files] = {}
        self._target_files: dict[int, Files] = {}
        self._missing: dict[int, int] = {}  # rows that are empty, by fragment, after the last survey or round
        self._full: dict[int, Files] = {}  # fragments that this filler has filled, as it left them

    @property
    def version(self) -> int:
        """The version that was last seen or made."""
        return int(self._dataset.version)

    @property
    def schema(self) -> pa.Schema:
        """The table's schema."""
        schema: pa.Schema = self._dataset.schema
        return schema

    def survey(self) -> Survey:
        """Look at the latest version for rows that have neither a value nor a reason.

        A fragment that was never filled costs nothing; of others the column is read, and not kept.

        Raises:
            TableError: a column is gone, or the table cannot be read.
        """
        with lance_failures("look for empty rows in", self.uri):
            self._catch_up()
            gaps, rows = [], 0
            self._source_files, self._target_files, self._missing = {}, {}, {}
            for fragment in self._dataset.get_fragments():
                here = int(fragment.count_rows())
                rows += here
                empty = self._count_empty(fragment, here)
                self._missing[fragment.fragment_id] = empty
                if empty:
                    gaps.append(Gap(fragment=fragment.fragment_id, rows=here, empty=empty))
                    self._remember(fragment.metadata)
            return Survey(version=self.version, rows=rows, gaps=tuple(gaps))

    def first(self, survey: Survey, rows: int) -> Survey:
        """The same survey with the first of its empty rows alone.

        Raises:
            TableError: the table cannot be read.
        """
        gaps: list[Gap] = []
        for gap in survey.gaps:
            if not rows:
                break
            if gap.empty > rows:
                gap = Gap(fragment=gap.fragment, rows=self._rows_until(gap, rows), empty=rows)
            gaps.append(gap)
            rows -= gap.empty
        return dataclasses.replace(survey, gaps=tuple(gaps))

    def _rows_until(self, gap: Gap, number: int) -> int:
        """How many rows of a fragment, from its first, hold so many empty ones."""
        if gap.empty == gap.rows:
            return number
        columns = [self.filling.target, self.filling.error]
        seen = 0
        with lance_failures("look for empty rows in", self.uri):
            for batch in self._dataset.get_fragment(gap.fragment).to_batches(columns=columns):
                empty = pc.and_(batch.column(0).is_null(), batch.column(1).is_null())
                places = np.flatnonzero(empty.to_numpy(zero_copy_only=False))
                if len(places) >= number:
                    return seen + int(places[number - 1]) + 1
                number -= len(places)
                seen += batch.num_rows
        return gap.rows

    def fill(self, rows: Mapping[int, pa.Table]) -> Filled:
        """Write values and reasons in one version; each fragment's column is written anew for that.

        Args:
            rows: by fragment: the columns `ADDRESS`, the target and the error column, of rows that the last survey
                found empty. Rows that the table has not got any more, or that are not empty any more, are left out.

        Raises:
            TableError: a column is gone or belongs to another model now, or the table cannot be written.
        """
        filled, counts = self._write({key: self._with_checksums(table) for key, table in rows.items()}, self._empty)
        self._note(counts)
        return filled

    def forget_errors(self) -> int:
        """Take the reasons away from rows without a value, in one version, so that they are empty again.

        Returns:
            How many rows had one.

        Raises:
            TableError: as `fill`.
        """
        target, error = self.filling.target, self.filling.error
        failed = f"{quoted(target)} IS NULL AND {quoted(error)} IS NOT NULL"
        with lance_failures("look for failed rows in", self.uri):
            self._catch_up()
            rows: dict[int, pa.Table] = {}
            for fragment in self._dataset.get_fragments():
                addresses = _addresses(self._dataset, fragment, failed)
                if len(addresses):
                    self._remember(fragment.metadata)
                    rows[fragment.fragment_id] = pa.table(
                        {ADDRESS: addresses, error: pa.nulls(len(addresses), pa.string())}
                    )
        return self._write(rows, failed)[0].rows

    @property
    def _empty(self) -> str:
        return f"{quoted(self.filling.target)} IS NULL AND {quoted(self.filling.error)} IS NULL"

    def _write(self, rows: Mapping[int, pa.Table], condition: str) -> tuple[Filled, dict[int, int]]:
        """One version with new values; how many rows each fragment got."""
        transaction_id = str(uuid.uuid4())
        filled, counts = Filled(), dict[int, int]()
        began = self.version
        for is_last in attempts():
            try:
                self._catch_up()
                if self._landed(transaction_id, since=began):
                    break
                filled, update, counts = self._update(rows, condition)
                if filled.rows:
                    transaction = lance.Transaction(read_version=self.version, operation=update, uuid=transaction_id)
                    self._dataset = lance.LanceDataset.commit(self._dataset, transaction, max_retries=0)
                break
            except LANCE_ERRORS as error:
                if isinstance(error, LanceAlignError):
                    raise
                if not isinstance(error, CommitConflictError) or is_last:  # where retrying is of no use, columns tell
                    raise table_error(error, doing="fill", uri=self.uri) from error
        return filled, counts

    def _note(self, counts: Mapping[int, int]) -> None:
        """Remember how a round left its fragments, so that nobody has to look into them again."""
        for key, count in counts.items():
            fragment = self._dataset.get_fragment(key)
            if fragment is None:
                continue
            self._target_files[key] = self._files(fragment.metadata, self._written)
            self._missing[key] = self._missing.get(key, count + 1) - count
            if self._missing[key] <= 0:
                self._full[key] = self._target_files[key]

    def _update(self, rows: Mapping[int, pa.Table], condition: str) -> tuple[Filled, Any, dict[int, int]]:
        """New data files for the fragments as they are now, and how many rows each got."""
        written: dict[int, pa.Table] = {}
        metadata, fields, offsets, left = [], set[int](), {}, 0
        for key, table in rows.items():
            fragment = self._dataset.get_fragment(key)
            fresh = None if fragment is None else self._fresh(fragment, table, condition)
            left += table.num_rows - (0 if fresh is None else fresh.num_rows)
            if fragment is None or fresh is None or fresh.num_rows == 0:
                continue
            faults.reach("before_fragment", rows=fresh.num_rows)
            changed, modified, matched = fragment.update_columns(fresh, left_on=ADDRESS, with_offsets=True)
            faults.reach("after_fragment", rows=fresh.num_rows)
            metadata.append(changed)
            fields.update(modified)
            offsets[key] = matched
            written[key] = fresh
        update = lance.LanceOperation.Update(
            updated_fragments=metadata,
            fields_modified=sorted(fields),
            update_mode="rewrite_columns",
            updated_fragment_offsets=offsets,
        )
        reasons: Counter[str] = Counter()
        for table in written.values():
            texts: list[Any] = table.column(self.filling.error).drop_null().to_pylist()
            reasons.update(text.split(":", 1)[0] for text in texts)
        counts = {key: table.num_rows for key, table in written.items()}
        return Filled(rows=sum(counts.values()), reasons=dict(reasons), left=left), update, counts

    def _fresh(self, fragment: Any, table: pa.Table, condition: str) -> pa.Table | None:
        """The rows that may still be written: None if the source is another, fewer if others wrote some."""
        if self._files(fragment.metadata, self.filling.sources) != self._source_files.get(fragment.fragment_id):
            return None
        if self._files(fragment.metadata, self._written) == self._target_files.get(fragment.fragment_id):
            return table
        return table.filter(pc.is_in(table.column(ADDRESS), value_set=_addresses(self._dataset, fragment, condition)))

    def _remember(self, metadata: Any) -> None:
        self._source_files[metadata.id] = self._files(metadata, self.filling.sources)
        self._target_files[metadata.id] = self._files(metadata, self._written)

    def _count_empty(self, fragment: Any, rows: int) -> int:
        if self._files(fragment.metadata, self._written) == self._full.get(fragment.fragment_id):
            return 0
        if not self._files(fragment.metadata, [self.filling.target, self.filling.error])[0]:
            return rows  # both columns were added without data
        return int(fragment.count_rows(self._empty))

    def _files(self, metadata: Any, columns: Sequence[str]) -> Files:
        """Names of the data files that hold these columns; Lance names each by a random number and never changes it."""
        wanted = {self._fields[name][0] for name in columns}
        names = tuple(str(file.path) for file in metadata.files if wanted & set(file.fields))
        return names, str(getattr(metadata, "overlays", ""))

    def _columns_written(self) -> list[str]:
        own = [self.filling.target, self.filling.error]
        schema = self.schema
        if self.filling.target in error_columns(schema):
            return own  # an added column: vector_crc32 is not about it
        if len([name for name in read_specs(schema) if name in schema.names and name not in error_columns(schema)]) > 1:
            raise TableError(
                f"the vectors of {self.uri} share the column {self.filling.error!r}; run the embed job on its source "
                "again, with --retry-errors"
            )
        return [*own, VECTOR_CRC32] if VECTOR_CRC32 in schema.names else own

    def _with_checksums(self, table: pa.Table) -> pa.Table:
        if VECTOR_CRC32 not in self._written:
            return table
        sums = vector_checksums([table.column(self.filling.target)])
        return table.append_column(VECTOR_CRC32, sums)

    def _catch_up(self) -> None:
        """Move to the latest version.

        Raises:
            TableError: a column is gone or another one, or belongs to another model.
        """
        self._dataset.checkout_latest()
        now = Filling.of(self.schema, self.filling.target, uri=self.uri)
        if now != self.filling or self._field_ids() != self._fields:
            raise TableError(
                f"{self.filling.target!r} of {self.uri} was changed by another writer, or what it is made from; "
                "run the same command again"
            )

    def _field_ids(self) -> Fields:
        """(id, type) of the columns that are read and written: data files name columns by these ids."""
        wanted = {*self.filling.sources, *self._written}
        types = {field.name: str(field.type) for field in self.schema}
        fields = {field.name(): field.id() for field in self._dataset.lance_schema.fields()}
        return {name: (fields[name], types[name]) for name in wanted if name in fields}

    def _landed(self, transaction_id: str, *, since: int) -> bool:
        """Whether a commit that reported a failure is in the table; an object store may lose the answer only."""
        news = (transaction_of(self._dataset, version) for version in range(since + 1, self.version + 1))
        return any(transaction is not None and transaction.uuid == transaction_id for transaction in news)


def _addresses(dataset: Any, fragment: Any, condition: str) -> pa.Array[Any]:
    """The addresses of a fragment's rows for which a condition holds."""
    scanner = dataset.scanner(columns=[], filter=condition, fragments=[fragment], with_row_address=True)
    found: pa.Array[Any] = pa.concat_arrays(
        [pa.array([], pa.uint64()), *(batch.column(ADDRESS) for batch in scanner.to_batches())]
    )
    return found
