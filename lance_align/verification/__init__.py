"""Is a table what its job promised? Every row and file checked, a sample of rows embedded again.

findings  what is wrong, in words, and the account of a run
reading   damaged data is a finding, not an exception
files     files of the version, and columns nothing else reads
metadata  the record of the models, the embedding functions
rows      ids, vectors, reasons, checksums
sample    rows embedded again
content   rows hashed again
verdicts  what all that says of a row
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lance_align.errors import ArgumentError, TableError
from lance_align.images import DEFAULT_LIMITS, DecodeLimits
from lance_align.tables.handles import dataset_of
from lance_align.tables.metadata import SPEC_KEY
from lance_align.verification.content import ContentChecks
from lance_align.verification.files import check_files, check_other_columns
from lance_align.verification.findings import Check, Collector, Finding, Verification
from lance_align.verification.metadata import check_metadata, recorded_vectors
from lance_align.verification.rows import RowChecks
from lance_align.verification.sample import SampleChecks
from lance_align.verification.verdicts import judge

__all__ = ["Check", "Finding", "Verification", "verify"]


def verify(
    table: Any,
    *,
    sample_rows: int = 64,
    seed: int = 0,
    device: str = "auto",
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> Verification:
    """Check a table against what the jobs promise; nothing is changed, and what is damaged never raises.

    Every row: ids are there and distinct, vectors are finite and have norm 1 within 0.001, a vector is null where and
    only where there is a reason, and vectors have the checksum they were written with, so that one flipped bit is
    found. Every column is read except pictures. Every file of the version exists. The metadata names the model that
    is found here, and every vector column can be searched. Some rows are embedded again from what the table stores,
    cosine above 0.998, and their content is hashed again.

    A row that another program changed and embedded, as LanceDB's ``merge_insert`` does, is told (``changed``) and not
    wrong. To know it from damage it is looked at like the sample: of such rows too, `sample_rows` at most.

    Not found: a flipped byte in an id, or in the picture or a text of a row outside the sample, as long as it can be
    read.

    Args:
        table: an open LanceDB table (of the synchronous API), made by `lance_align.embed` or given to
            `lance_align.attach`; the version it stands at is checked. It is read in batches: memory grows with
            the rows by 8 bytes an id.
        sample_rows: rows to embed again, drawn at random among those with a vector; 0 for none, and no model is loaded.
        seed: of the draw.
        device: where the model runs, as in `lance_align.load_encoder`.
        limits: what a picture may be; the ones the job was given.

    Returns:
        All that was found, `ok` if nothing is wrong. What cannot be checked here (a model that is not allowed, a
        picture that is elsewhere, a row of ``table.add`` without checksum) is in `unchecked` or not counted.

    Raises:
        ArgumentError: `sample_rows` is negative.
        TableError: not an open table, or none of ours: it does not say which model made its vectors.

    >>> lance_align.verify(table).ok
    True
    """
    if sample_rows < 0:
        raise ArgumentError(f"sample_rows={sample_rows}; expected 0 or more")
    dataset = _dataset(table)
    collector = Collector()
    check_files(dataset, collector)
    columns = check_metadata(dataset.schema, collector)
    checks = RowChecks(dataset, recorded_vectors(dataset.schema), collector, sample_rows=sample_rows, seed=seed)
    checks.run()
    pictures = [column.source for column in columns if column.kind == "image"]
    check_other_columns(dataset, collector, seen=(*checks.columns, *pictures))
    positions = np.union1d(checks.embedded, checks.suspects_sampled)
    sample = SampleChecks(dataset, collector, device=device, limits=limits)
    for column in columns:
        sample.run(column, positions)
    changed = ContentChecks(dataset, collector, limits=limits).changed(positions)
    judge(dataset, collector, sample, suspects=checks.suspects, changed=changed)
    return Verification(
        table_uri=str(dataset.uri),
        version=int(dataset.version),
        rows=sum(int(fragment.metadata.num_rows) for fragment in dataset.get_fragments()),
        vectors=checks.vectors,
        failed=checks.failed,
        checksummed=checks.checksummed,
        sampled=sample.compared,
        findings=collector.findings(),
        unchecked=tuple(collector.unchecked),
    )


def _dataset(table: Any) -> Any:
    """The Lance dataset of a table of ours."""
    dataset = dataset_of(table)
    if SPEC_KEY not in (dataset.schema.metadata or {}):
        raise TableError(
            f"{dataset.uri} does not say which model made its vectors, so there is nothing to verify; "
            "lance_align.attach makes it a table of ours"
        )
    return dataset
