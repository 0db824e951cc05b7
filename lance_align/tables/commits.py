"""Versions of a table: created once, then one append a round, each landing exactly once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata

from lance_align.errors import JobError, LanceAlignError, TableError
from lance_align.tables.failures import LANCE_ERRORS, table_error
from lance_align.tables.schema import check_fits

MAX_ATTEMPTS = 8
FIRST_PAUSE_S = 0.1  # doubles with each attempt: 12.7 s in all, on top of the 20 rebases Lance makes by itself


class Committer:
    """The only writer of table versions in a job; lives on the driver, one a job, used from one thread.

    Lance appends again when it is given the same fragments again, so a committer knows every data file that is in the
    table, and looks for its own transaction before it repeats a commit that failed half-way.
    """

    def __init__(self, dataset: Any, *, created: bool) -> None:
        self.uri: str = dataset.uri
        self.created = created
        self._dataset = dataset
        self._last_id = next(iter(map(_id, dataset.get_transactions(1))), None)
        self._fields = _field_ids(dataset)
        self._files = {file for fragment in dataset.get_fragments() for file in _paths(fragment.metadata)}

    @classmethod
    def open_or_create(
        cls, uri: str, schema: pa.Schema, *, storage_options: Mapping[str, str] | None = None
    ) -> Committer:
        """Open a table, or create it empty with its columns and metadata in one version.

        Safe in a race: of several creators one wins and the others open what it made. Nothing is ever overwritten.

        Args:
            uri: where the table lies, see `lance_align.tables.location`.
            schema: what `lance_align.tables.schema.table_schema` made.

        Raises:
            TableError: the table belongs to another model or has other columns, or it cannot be opened or created.
        """
        options = dict(storage_options) if storage_options else None
        dataset = _open(uri, options)
        created = False
        if dataset is None:
            dataset, created = _create(uri, schema, options)
        check_fits(dataset.schema, schema, uri=uri)
        return cls(dataset, created=created)

    @property
    def version(self) -> int:
        """The version of the table that this committer last saw or made."""
        return int(self._dataset.version)

    @property
    def schema(self) -> pa.Schema:
        """The table's schema, with its metadata."""
        schema: pa.Schema = self._dataset.schema
        return schema

    def commit(self, fragments: Sequence[str], *, rows: int) -> int:
        """Append fragments to the latest version of the table, all of them or none.

        Fragments that are in the table already are left out, so repeating a call does no harm.

        Args:
            fragments: what `lance_align.tables.fragments.write_fragments` returned.
            rows: how many rows they hold together.

        Returns:
            The version of the table that holds them; the present one if there is nothing to append.

        Raises:
            JobError: the fragments hold another number of rows than declared; nothing is committed.
            TableError: another writer replaced the table or changed its columns, or the storage failed.
        """
        metadata = [FragmentMetadata.from_json(text) for text in fragments]
        held = sum(int(fragment.num_rows) for fragment in metadata)
        if held != rows:
            raise JobError(f"fragments for {self.uri} hold {held} rows, but {rows} were written; nothing was committed")
        fresh = {_paths(fragment): fragment for fragment in metadata if not self._files.issuperset(_paths(fragment))}
        if fresh:
            self._append(list(fresh.values()))
            self._files.update(path for paths in fresh for path in paths)
        return self.version

    def _append(self, fragments: list[FragmentMetadata]) -> None:
        transaction_id = str(uuid.uuid4())
        append = lance.LanceOperation.Append(fragments)
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                if self._catch_up(transaction_id):
                    return
                transaction = lance.Transaction(
                    read_version=self._dataset.version, operation=append, uuid=transaction_id
                )
                self._dataset, self._last_id = lance.LanceDataset.commit(self._dataset, transaction), transaction_id
                return
            except LANCE_ERRORS as error:
                if isinstance(error, LanceAlignError):
                    raise
                if not _may_retry(error) or attempt == MAX_ATTEMPTS - 1:
                    if self._landed_after_all(transaction_id):
                        return
                    raise self._commit_error(error) from error

    def _catch_up(self, transaction_id: str) -> bool:
        """Move to the latest version; True if our transaction is among the new ones.

        Raises:
            TableError: the table was replaced, rolled back, or lost one of our columns.
        """
        seen = self._dataset.version
        self._dataset.checkout_latest()
        behind = self._dataset.version - seen
        history = self._dataset.get_transactions(behind + 1) if behind >= 0 else []
        # Shorter where old versions were cleaned up; the last one is then not the one we saw.
        if behind < 0 or (len(history) > behind and _id(history[-1]) != self._last_id):
            raise TableError(f"{self.uri} was replaced by another writer; run the same command again")
        self._last_id = _id(history[0]) if history else None
        news = [transaction for transaction in history[:behind] if transaction is not None]
        if any(transaction.uuid == transaction_id for transaction in news):
            return True
        for transaction in news:
            if isinstance(transaction.operation, (lance.LanceOperation.Overwrite, lance.LanceOperation.Restore)):
                raise TableError(
                    f"{self.uri} was overwritten or rolled back by another writer; run the same command again to "
                    "write what is missing"
                )
        if not self._fields <= _field_ids(self._dataset):
            raise TableError(
                f"a column of {self.uri} was dropped or changed by another writer; run again with the columns it has"
            )
        return False

    def _landed_after_all(self, transaction_id: str) -> bool:
        """Whether a commit that reported a failure is in the table; an object store may lose the answer only."""
        try:
            return self._catch_up(transaction_id)
        except LANCE_ERRORS:
            return False

    def _commit_error(self, error: BaseException) -> TableError:
        if isinstance(error, CommitConflictError):
            return TableError(
                f"another writer changed {self.uri} in a way that new rows cannot follow ({_first_sentence(error)}); "
                "run the same command again when it has finished"
            )
        return table_error(error, doing="commit to", uri=self.uri)


def _open(uri: str, storage_options: dict[str, str] | None) -> lance.LanceDataset | None:
    """The dataset, or None where there is none."""
    try:
        return lance.dataset(uri, storage_options=storage_options)
    except LANCE_ERRORS as error:
        if "was not found" in str(error):  # a ValueError like any other (pylance 14)
            return None
        raise table_error(error, doing="open", uri=uri) from error


def _create(uri: str, schema: pa.Schema, storage_options: dict[str, str] | None) -> tuple[lance.LanceDataset, bool]:
    """Create the table, or open what another writer created in the meantime.

    ``lance.write_dataset(mode="create")`` looks for a table and then overwrites what appeared since: with 8 threads 93
    of 150 races had several winners (pylance 14). A transaction on version 0 without retries has exactly one (150 of
    150), since the first manifest is put only where there is none. Its storage version is Lance's stable one (2.2).
    """
    creation = lance.Transaction(read_version=0, operation=lance.LanceOperation.Overwrite(schema, []))
    try:
        dataset = lance.LanceDataset.commit(uri, creation, storage_options=storage_options, max_retries=0)
        return dataset, True
    except LANCE_ERRORS as error:
        winner = _open(uri, storage_options)
        if winner is None:
            raise table_error(error, doing="create", uri=uri) from error
        return winner, False


def _field_ids(dataset: lance.LanceDataset) -> set[tuple[int, str, str]]:
    """(id, name, type) of each column: data files name columns by these ids."""
    types = {field.name: str(field.type) for field in dataset.schema}
    return {(field.id(), field.name(), types[field.name()]) for field in dataset.lance_schema.fields()}


def _id(transaction: lance.Transaction | None) -> str | None:
    """Names a version: a table that was removed and made anew has others. None where Lance did not keep it."""
    return None if transaction is None else str(transaction.uuid)


def _paths(fragment: FragmentMetadata) -> tuple[str, ...]:
    """Data files of a fragment; Lance names each by a random number, so a name stands for its rows."""
    return tuple(str(file.path) for file in fragment.files)


def _may_retry(error: BaseException) -> bool:
    return isinstance(error, CommitConflictError) and bool(error.retryable)


def _first_sentence(error: BaseException) -> str:
    return str(error).split(", /", 1)[0].strip()
