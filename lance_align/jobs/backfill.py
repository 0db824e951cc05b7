"""The backfill job: vectors for the rows of a table that is there, written into these rows."""

from __future__ import annotations

import functools
import os
from datetime import datetime
from typing import Unpack

from lance_align.encoders import is_allowed, resolve_spec
from lance_align.encoders.engines.base import EngineName, check_options
from lance_align.errors import JobError, ModelError, TableError
from lance_align.jobs.executors.choice import executors
from lance_align.jobs.filling.gaps import ReadGaps, gap_source
from lance_align.jobs.filling.rounds import FillRounds
from lance_align.jobs.filling.running import FillJob
from lance_align.jobs.filling.vectors import VectorMaker
from lance_align.jobs.indexing import Indexing, check_indexing, index_objection, with_indexes
from lance_align.jobs.options import RunKeywords, RunOptions
from lance_align.jobs.policy import Policy
from lance_align.jobs.progress import announce
from lance_align.jobs.report import JobReport
from lance_align.jobs.sources.location import References, locate
from lance_align.sandbox import Decoder
from lance_align.spec import ModelSpec
from lance_align.tables.filling import Filler
from lance_align.tables.location import table_location
from lance_align.visuals import check_installed


def backfill(
    *,
    db: str | os.PathLike[str] = "./lancedb",
    table: str,
    vector: str = "vector",
    engine: EngineName = "auto",
    index: Indexing = "auto",
    **options: Unpack[RunKeywords],
) -> JobReport:
    """Embed every row of a LanceDB table that has neither a vector nor a reason, on Ray; run it again and it goes on.

    For tables that `lance_align.attach` was called on, and for those that the embed job made. A row gets its vector,
    or a null vector and the reason in the error column; nothing else of it changes. Afterwards no row is without
    both, and that includes rows which others added, moved or compacted meanwhile.

    What a run costs besides the model: every round writes the vector column of the fragments it touches anew. So whole
    fragments are gathered, and one is split only when `commit_seconds` are over: a fragment that takes ten times as
    long is written ten times. Finding out what is missing reads the vector column of fragments that have been filled
    before, once a run. Replaced files stay as long as older versions do.

    Args:
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        vector: the vector column.
        engine: what runs the image tower: openvino (on a CPU), torch, compiled (torch, after a minute of compiling: for
            long jobs on GPUs); by default OpenVINO on CPUs where it is installed, else torch.
        index: what is done about indexes once no row is empty. auto: one that is there takes in the new rows, and where
            there is none and exact search would be slow, one is built; recall is measured with texts, and the report
            says what it is and what to write to search with it. distributed: the same, built on all nodes with
            lance-ray, as auto does by itself where it is installed and there are several. none: nothing.
        **options: see `lance_align.RunOptions`.

    Returns:
        The account of the run. `rows_read` are the rows of the table, `already_there` those that had a vector or a
        reason.

    Raises:
        ArgumentError: the table, its model or an option cannot be used; nothing was changed.
        MissingExtraError: an optional package is missing.
        JobError: rows are still without vector and reason, too many failed, or an index could not be built (then
            `report` holds the account).
        Stopped: SIGTERM or Ctrl-C arrived in the main thread (a KeyboardInterrupt); what was made is committed.

    >>> version = lance_align.attach(table, text="caption", vector="caption_vector", model="align-tiny")
    >>> lance_align.backfill(table="demo", vector="caption_vector", executor="local").embedded
    60
    """
    started_at = datetime.now().astimezone()
    run = RunOptions(**options)
    policy = Policy(max_errors=run.failures_allowed)
    tell = functools.partial(announce, show=run.progress, log_file=run.log_file)
    shape = run.shape(engine)
    check_indexing(index)
    location = table_location(os.fspath(db), table, storage_options=run.storage_options)
    tell(f"looking at {location.uri}")
    filler = Filler(location.uri, vector, storage_options=location.storage_options)
    spec = _trusted(filler)
    check_options(spec, device=run.device, engine=engine, precision=run.precision)
    decoder = Decoder(
        image=spec.image,
        limits=run.limits,
        seconds=run.decode_seconds,
        memory_mb=run.decode_memory_mb,
    )
    references = References(locate(location.db), run.allow_outside, run.fetching)
    is_image = filler.filling.kind == "image"
    if is_image:
        check_installed(spec.image)
    read = ReadGaps(source=gap_source(filler, location, references), decoder=decoder if is_image else None)
    with executors(run.executor, shape, tell=tell, needs_ray=index == "distributed") as running:
        if run.retry_errors:
            filler.forget_errors()
        job = FillJob(
            filler=filler,
            rounds=FillRounds(filler, commit_rows=run.commit_rows, commit_seconds=run.commit_seconds),
            read=read,
            spec=spec,
            maker=VectorMaker,
            options=shape,
            limit=run.limit,
        )
        report = job.run(running, started_at=started_at, progress=run.progress, log_file=run.log_file)
        report = with_indexes(report, location, [vector], index, tell=tell)
    objection = policy.objection(report) or index_objection(report)
    if objection is not None:
        raise JobError(objection, report)
    return report


def _trusted(filler: Filler) -> ModelSpec:
    """The model that the table names, if it may be loaded, as it is found here.

    Raises:
        TableError: the column holds texts about pictures.
        ModelError: it is neither known nor allowed, or is another one by now.
    """
    named = filler.filling.spec
    if not isinstance(named, ModelSpec):
        raise TableError(f"{filler.filling.target!r} of {filler.uri} is described, not embedded; run describe again")
    if not is_allowed(named.name, named.revision):
        raise ModelError(
            f"{filler.uri} names the model {named.name!r}, which is not a known checkpoint; if you trust it, name it "
            f"with --model, or call lance_align.allow_models({named.name!r}) first"
        )
    spec = resolve_spec(named.name, revision=named.revision)
    if spec.fingerprint != named.fingerprint:
        raise ModelError(
            f"{filler.uri} wants vectors of {named.name!r} with fingerprint {named.fingerprint}, but the one found "
            f"here has {spec.fingerprint}; attach it to another vector column"
        )
    return spec
