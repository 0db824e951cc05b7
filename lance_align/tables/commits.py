"""Versions of a table: created once, then one a round, each landing exactly once, whoever else writes.

A round has to be compared with what others wrote and committed in one step, or two jobs would add one id twice. Lance
appends to whatever is there by then, so an append will not do. An update that names a fragment as removed conflicts
with any other update that names the same one, and Lance does not ask whether it exists: every round names fragment
2^32 - 1, which never does. Of two jobs that commit at once, the second is therefore told to look again, while
``add``, ``delete``, compaction and index building go on beside it (measured with pylance 14: four writers, 80 rounds
beside all four of these, none landed on a version it had not seen but for adds in the same few milliseconds, which
are looked at after the commit).
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata
from numpy.typing import NDArray

from lance_align.errors import JobError, LanceAlignError, TableError
from lance_align.tables.conflicts import attempts, may_retry, transaction_of
from lance_align.tables.creation import create_table, open_table
from lance_align.tables.failures import LANCE_ERRORS, lance_failures, table_error
from lance_align.tables.layout import ID
from lance_align.tables.metadata import read_table_id
from lance_align.tables.pending import Dropped, Pending
from lance_align.tables.removal import Removal, plan_removal
from lance_align.tables.schema import check_fits, check_null_fits
from lance_align.tables.trace import Trace

OUR_TURN = 2**32 - 1  # a fragment id that no table reaches
ID_BATCH_ROWS = 65_536

Learn = Callable[[pa.StringArray], pa.StringArray]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What became of a round.

    Attributes:
        version: of the table, the one that holds the round.
        rows: rows that landed in it.
        dropped: rows that did not, because another writer had added their ids since the job began; theirs stay.
        repeated: rows that did not, because they had landed before.
    """

    version: int
    rows: int
    dropped: Dropped = dataclasses.field(default_factory=Dropped)
    repeated: Dropped = dataclasses.field(default_factory=Dropped)


class Committer:
    """The only writer of table versions in a job; lives on the driver, one a job, used from one thread.

    It knows every data file that is in the table, so that it sees what others add, and looks for its own transaction
    before it repeats a commit that failed half-way: Lance would append again.
    """

    def __init__(self, dataset: Any, *, created: bool, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri: str = dataset.uri
        self.created = created
        self._dataset = dataset
        self._storage_options = storage_options
        self._last_id = _id(transaction_of(dataset, dataset.version))
        self._table_id = read_table_id(dataset.schema)
        self._fields = _field_ids(dataset)
        self._trace = Trace.of(dataset)
        self._files = {file for fragment in dataset.get_fragments() for file in _paths(fragment.metadata)}
        self._taken: set[str] = set()  # ids that others added and that rows of this job may have

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
        dataset = open_table(uri, storage_options=storage_options)
        created = False
        if dataset is None:
            dataset, created = create_table(uri, schema, storage_options=storage_options)
        check_fits(dataset.schema, schema, uri=uri)
        with lance_failures("read the ids of", uri):
            return cls(dataset, created=created, storage_options=storage_options)

    @property
    def version(self) -> int:
        """The version of the table that this committer last saw or made."""
        return int(self._dataset.version)

    @property
    def rows(self) -> int:
        """How many rows that version has."""
        return int(self._dataset.count_rows())

    @property
    def schema(self) -> pa.Schema:
        """The table's schema, with its metadata."""
        schema: pa.Schema = self._dataset.schema
        return schema

    def commit(
        self,
        fragments: Sequence[str],
        *,
        rows: int,
        replacing: Collection[str] = (),
        learn: Learn | None = None,
        repeated: NDArray[np.bool_] | None = None,
    ) -> Landed:
        """Add fragments to the latest version of the table, all of them or none.

        Fragments that are in the table already are left out, so repeating a call does no harm. Rows whose id another
        writer added since this committer opened the table are left out too.

        Args:
            fragments: what `lance_align.tables.fragments.write_fragments` returned.
            rows: how many rows they hold together.
            replacing: ids of rows that take the place of the table's rows with these ids, in the same version.
            learn: told the ids that others have added since the last call, in arrays; answers those that this
                committer may still be given, which it then leaves out. None: it remembers them all.
            repeated: ``(rows,)``: rows that landed in an earlier call, or stand in these fragments once more; they are
                left out. In the order of the fragments and of the rows in each. None for no such rows.

        Returns:
            What landed; the present version and no rows if there is nothing to add.

        Raises:
            JobError: the fragments hold another number of rows than declared, or a data file is gone; nothing is
                committed.
            TableError: another writer replaced the table or changed its columns, or the storage failed.
        """
        metadata = [FragmentMetadata.from_json(text) for text in fragments]
        held = sum(int(fragment.num_rows) for fragment in metadata)
        if held != rows:
            raise JobError(f"fragments for {self.uri} hold {held} rows, but {rows} were written; nothing was committed")
        fresh = {_paths(fragment): fragment for fragment in metadata if not self._files.issuperset(_paths(fragment))}
        if not fresh:
            return Landed(version=self.version, rows=0)
        pending = Pending(uri=self.uri, fragments=tuple(metadata), storage_options=self._storage_options)
        given, again = pending.files, Dropped()
        if repeated is not None and repeated.any():
            pending, again = pending.without_rows(repeated, self._dataset)
        # By their files: one that is given twice lands once.
        staying = {_paths(each): each for each in pending.fragments if not self._files.issuperset(_paths(each))}
        pending = dataclasses.replace(pending, fragments=tuple(staying.values()))
        dropped = self._land(pending, given, pa.array(list(replacing), pa.string()), learn or _all)
        return Landed(version=self.version, rows=pending.rows - dropped.rows, dropped=dropped, repeated=again)

    def _land(self, pending: Pending, given: set[str], replacing: pa.StringArray, learn: Learn) -> Dropped:
        transaction_id = str(uuid.uuid4())
        dropped, left_out, trace = Dropped(), set[str](), self._trace
        seen = self.version
        for is_last in attempts():
            try:
                if self._catch_up(transaction_id):
                    break
                self._look(learn)
                contested = self._contested(pending, replacing)
                if len(contested):
                    pending, fewer = pending.without(contested, self._dataset)
                    dropped += fewer
                    left_out.update(_texts(contested))
                seen = self.version
                trace = Trace.by_ids(pa.array(sorted(left_out), pa.string())) if left_out else self._trace
                if pending.fragments:
                    pending.check_files()
                    trace = pending.trace()
                    self._commit(pending.fragments, plan_removal(self._dataset, replacing), transaction_id)
                break
            except LANCE_ERRORS as error:
                if isinstance(error, LanceAlignError):
                    raise
                if not may_retry(error) or is_last:
                    if self._landed_after_all(transaction_id):
                        break
                    raise self._commit_error(error) from error
        self._files |= given | pending.files  # both, or what was written again would land once more
        self._trace = trace
        if learn is not _all:
            self._taken -= left_out  # of one job each row comes once
        if self.version <= seen + 1:
            return dropped
        # An `add` landed in the same few milliseconds, with which nothing makes a round conflict.
        self._look(learn)
        contested = self._contested(pending, replacing)
        if len(contested):
            self._withdraw(contested, pending)
            dropped += pending.count(contested)
        return dropped

    def _commit(self, new: Sequence[FragmentMetadata], removal: Removal, transaction_id: str) -> None:
        update = lance.LanceOperation.Update(
            removed_fragment_ids=[*removal.removed, OUR_TURN],
            updated_fragments=list(removal.updated),
            new_fragments=list(new),
            fields_modified=[],
        )
        transaction = lance.Transaction(read_version=self.version, operation=update, uuid=transaction_id)
        self._dataset = lance.LanceDataset.commit(self._dataset, transaction, max_retries=0)
        self._last_id = transaction_id

    def _look(self, learn: Learn) -> None:
        """Learn the ids in fragments that others have added since the table was last looked at."""
        strangers = [
            fragment
            for fragment in self._dataset.get_fragments()
            if not self._files.issuperset(_paths(fragment.metadata))
        ]
        if strangers:
            scanner = self._dataset.scanner(columns=[ID], fragments=strangers, batch_size=ID_BATCH_ROWS)
            for batch in scanner.to_batches():
                self._taken.update(_texts(learn(batch.column(ID))))
            self._files.update(file for fragment in strangers for file in _paths(fragment.metadata))

    def _contested(self, pending: Pending, replacing: pa.StringArray) -> pa.StringArray:
        """Ids of the pending rows that others have added."""
        if not self._taken:
            return pa.array([], pa.string())
        replaced = set(_texts(replacing))
        names = [name for name in _texts(pending.ids()) if name in self._taken and name not in replaced]
        return pa.array(names, pa.string())

    def _withdraw(self, ids: pa.StringArray, pending: Pending) -> None:
        """Take back rows of a committed round that landed beside others' rows of the same ids."""
        for is_last in attempts():
            try:
                fragments = self._dataset.get_fragments()
                own = [fragment for fragment in fragments if pending.files & set(_paths(fragment.metadata))]
                removal = plan_removal(self._dataset, ids, fragments=own)
                if removal.rows:
                    self._commit((), removal, str(uuid.uuid4()))
                return
            except LANCE_ERRORS as error:
                if not may_retry(error) or is_last:
                    raise self._commit_error(error) from error
                self._dataset.checkout_latest()

    def _catch_up(self, transaction_id: str) -> bool:
        """Move to the latest version; True if our transaction is among the new ones.

        Raises:
            TableError: the table was replaced, rolled back, lost one of our columns, or has one that our rows lack.
        """
        seen = self._dataset.version
        self._dataset.checkout_latest()
        history = [transaction_of(self._dataset, version) for version in range(seen, self.version + 1)]
        # The one we saw is None where old versions were cleaned up.
        if not history or (self._last_id is not None and _id(history[0]) not in (None, self._last_id)):
            raise self._replaced()
        self._last_id = _id(history[-1])
        news = [transaction for transaction in history[1:] if transaction is not None]
        if any(transaction.uuid == transaction_id for transaction in news):
            return True
        for transaction in news:
            if isinstance(transaction.operation, (lance.LanceOperation.Overwrite, lance.LanceOperation.Restore)):
                raise TableError(
                    f"{self.uri} was overwritten or rolled back by another writer; run the same command again to "
                    "write what is missing"
                )
        if read_table_id(self.schema) != self._table_id:
            raise self._replaced()
        if None in history:
            self._trace = self._found_again()
        if not self._fields <= _field_ids(self._dataset):
            raise TableError(
                f"a column of {self.uri} was dropped or changed by another writer; run again with the columns it has"
            )
        check_null_fits(self.schema, {name for _, name, _ in self._fields}, uri=self.uri)
        return False

    def _replaced(self) -> TableError:
        return TableError(f"{self.uri} was replaced by another writer; run the same command again")

    def _found_again(self) -> Trace:
        """The trace of our last commit batch in a version whose history nobody can read any more."""
        found = self._trace.found(self._dataset)
        if found is None:
            raise TableError(
                f"{self.uri} has none of the rows that it had last, and its history was cleaned up: another writer "
                "overwrote it, rolled it back or deleted them; run the same command again to write what is missing"
            )
        return found

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


def _first_sentence(error: BaseException) -> str:
    return str(error).split(", /", 1)[0].strip()


def _all(ids: pa.StringArray) -> pa.StringArray:
    """Nobody knows which ids are still to come."""
    return ids


def _texts(ids: pa.StringArray) -> list[str]:
    texts: list[Any] = ids.to_pylist()
    return texts
