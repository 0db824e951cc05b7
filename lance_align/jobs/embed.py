"""The main job: rows of images and texts to a LanceDB table of vectors that searches itself."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Unpack

import pyarrow as pa

from lance_align.encoders import allow_models, is_allowed, resolve_spec
from lance_align.encoders.engines.base import EngineName, check_options
from lance_align.errors import ArgumentError, JobError, ModelError
from lance_align.jobs.checks import check_choices, check_positive, check_texts
from lance_align.jobs.columns import Keep, choose_columns
from lance_align.jobs.executors.choice import executors
from lance_align.jobs.indexing import Indexing, check_indexing, index_objection, with_indexes
from lance_align.jobs.ledger.ledger import OnChanged
from lance_align.jobs.options import RunKeywords, RunOptions
from lance_align.jobs.policy import Duplicates, Policy, WhenGone
from lance_align.jobs.progress import announce
from lance_align.jobs.report import JobReport
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.running import Job
from lance_align.jobs.sources import Format, open_source
from lance_align.jobs.sources.opening import check_there
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import Target
from lance_align.sandbox import Decoder
from lance_align.spec import DEFAULT_MODEL, ModelSpec
from lance_align.tables.commits import Committer
from lance_align.tables.creation import open_table
from lance_align.tables.location import TableLocation, table_location
from lance_align.tables.metadata import error_columns, read_specs
from lance_align.tables.schema import Embed, table_schema
from lance_align.visuals import check_installed


def embed(
    source: str | os.PathLike[str],
    *,
    db: str | os.PathLike[str] = "./lancedb",
    table: str,
    model: str | None = None,
    revision: str | None = None,
    embed: Embed | None = None,
    image: str | None = None,
    text: str | None = None,
    id: str | None = None,  # noqa: A002  the word the user writes
    drop: Sequence[str] = (),
    keep: Keep = "bytes",
    thumbnail_px: int = 256,
    format: Format | None = None,  # noqa: A002
    delimiter: str | None = None,
    labels_from_folders: bool = False,
    duplicates: Duplicates = "skip",
    on_changed: OnChanged = "skip",
    gone: WhenGone = "ignore",
    engine: EngineName = "auto",
    index: Indexing = "auto",
    **options: Unpack[RunKeywords],
) -> JobReport:
    """Embed every row of a source into a LanceDB table, here or on Ray; run it again and only new rows are done.

    Args:
        source: a folder of images (or of videos, for a model that looks at them), a file or folder of Parquet, Arrow,
            Feather, CSV, JSON Lines or WebDataset tars, or a Lance table; a local path or an object-store URI.
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name; it is created, or continued if the same model and columns made it.
        model: a known checkpoint, a hub id, or a local directory; by default the one that wrote the table, else
            kakaobrain/align-base.
        revision: the hub commit of the model.
        embed: what gets vectors: image, text, or both; by default image where there is an image column, else text.
        image: the column of images or videos (bytes or paths); by default recognised by name and type.
        text: the column of texts; by default recognised.
        id: the column of ids (text, whole numbers, decimals, UUIDs, bytes, dates or times); by default one called id,
            the path in a folder, else a 128-bit digest of the row's columns, those of `drop` left out.
        drop: columns that are not looked at and do not travel; one that is named for a role is read for it alone.
        keep: what the table keeps of an image: its bytes, a thumbnail (JPEG), or its uri (paths only).
        thumbnail_px: longest side of a thumbnail.
        format: what the source is, where its name does not tell.
        delimiter: what separates the cells of CSV files (, ; | or tab); by default recognised in the header line.
        labels_from_folders: make the folder that each picture of a folder lies in a column label.
        duplicates: what becomes of rows of the input that share an id. The first in the input's order (files by name)
            counts, always; error makes the others a failure, before any row is written if ids come from a column.
        on_changed: what becomes of rows whose id the table holds with another content. skip does not look. The other
            two read these rows, images included, and compare a hash with the table's: update embeds changed rows
            again, in place of the old ones, and rows without a hash (of table.add) too; error leaves them and fails
            at the end. A row whose image cannot be read is left alone.
        gone: what becomes of rows of the table that the input does not have, whoever wrote them before this run:
            ignore them, list them in the report, or remove them once everything else has succeeded.
        engine: what runs the image tower: openvino (on a CPU), torch, compiled (torch, after a minute of compiling: for
            long jobs on GPUs); by default OpenVINO on CPUs where it is installed, else torch.
        index: what is done about indexes once every row is in. auto: one that is there takes in the new rows, and where
            there is none and exact search would be slow, one is built; recall is measured with texts, and the report
            says what it is and what to write to search with it. distributed: the same, built on all nodes with
            lance-ray, as auto does by itself where it is installed and there are several. none: nothing.
        **options: see `lance_align.RunOptions`.

    Returns:
        The account of the run; every row of the source is in it.

    Raises:
        ArgumentError: the source, a column, the model or the table cannot be used; nothing was changed.
        MissingExtraError: an optional package is missing.
        JobError: not every row is in the table; or it is, but too many failed, an index could not be built, or there
            were duplicates or changed rows where these are errors (then `report` holds the account).
        Stopped: SIGTERM or Ctrl-C arrived in the main thread (a KeyboardInterrupt); what was written is committed.

    >>> lance_align.embed("photos", table="photos", model="align-tiny", executor="local").embedded
    3
    """
    started_at = datetime.now().astimezone()
    run = RunOptions(**options)
    check_positive(thumbnail_px=thumbnail_px)
    tell = functools.partial(announce, show=run.progress, log_file=run.log_file)
    policy = Policy(
        duplicates=duplicates,
        on_changed=on_changed,
        retry_errors=run.retry_errors,
        gone=gone,
        max_errors=run.failures_allowed,
    )
    shape = run.shape(engine)
    if run.limit is not None and gone != "ignore":
        raise ArgumentError(f"gone={gone!r} with limit={run.limit}: rows beyond the limit are not gone; leave one out")
    check_choices(words=Keep, keep=keep)
    if embed is not None:
        check_choices(words=Embed, embed=embed)
    check_texts(drop=drop)
    check_indexing(index)
    tell(f"looking at {os.fspath(source)}")
    check_there(source)
    location = table_location(os.fspath(db), table, storage_options=run.storage_options)
    spec = resolve_spec(model, revision=revision) if model is not None else _default_spec(location, revision)
    check_options(spec, device=run.device, engine=engine, precision=run.precision)
    rows = open_source(
        source,
        format=format,
        allow_outside=run.allow_outside,
        fetching=run.fetching,
        as_text=[column for column in (image, text, id) if column is not None],
        drop=[column for column in drop if column not in (image, text, id)],  # read for their role, and left behind
        delimiter=delimiter,
        looks="images" if spec.image.frames is None else "videos",
        labels_from_folders=labels_from_folders,
    )
    if run.limit is not None:
        rows = rows.first(run.limit)
    columns = choose_columns(rows, image=image, text=text, id=id, embed=embed, keep=keep, drop=drop)
    if columns.image is not None:
        check_installed(spec.image)
    allow_models(spec.name)  # who names a model trusts it: this process may search the table it makes
    travelling = pa.schema([rows.schema.field(name) for name in columns.travelling])
    schema = table_schema(travelling, columns.layout, spec)
    decoder = Decoder(
        image=spec.image,
        limits=run.limits,
        thumbnail_px=thumbnail_px if columns.keep == "thumbnail" else None,
        seconds=run.decode_seconds,
        memory_mb=run.decode_memory_mb,
    )
    reader = Reader(
        source=dataclasses.replace(rows, splits=()),
        columns=columns,
        decoder=decoder if columns.image is not None else None,
    )
    target = Target(uri=location.uri, schema=schema, layout=columns.layout, storage_options=location.storage_options)
    with executors(run.executor, shape, tell=tell, needs_ray=index == "distributed") as running:
        if not running.may_be_local:
            running.ray()  # before there is a table: a cluster that does not answer leaves none
        committer = Committer.open_or_create(target.uri, schema, storage_options=target.storage_options)
        job = Job(
            source=rows,
            reader=reader,
            spec=spec,
            target=target,
            rounds=Rounds(committer, commit_rows=run.commit_rows, commit_seconds=run.commit_seconds),
            options=shape,
            policy=policy,
            rows_there=committer.rows,
            limit=run.limit,
        )
        report = job.run(running, started_at=started_at, progress=run.progress, log_file=run.log_file)
        report = with_indexes(report, location, [column.vector for column in columns.layout.embedded], index, tell=tell)
    objection = policy.objection(report) or index_objection(report)
    if objection is not None:
        raise JobError(objection, report)
    return report


def _default_spec(location: TableLocation, revision: str | None) -> ModelSpec:
    """The model that wrote the table, if there is one and it may be loaded, else the default.

    Raises:
        ModelError: the table names a model that is neither known nor allowed; or as `resolve_spec`.
        TableError: the table cannot be opened.
    """
    dataset = open_table(location.uri, storage_options=location.storage_options)
    specs = {} if dataset is None else read_specs(dataset.schema)
    attached = {} if dataset is None else error_columns(dataset.schema)
    there = next((spec for vector, spec in specs.items() if vector not in attached), None)
    if there is None:
        return resolve_spec(DEFAULT_MODEL, revision=revision)
    if not is_allowed(there.name, there.revision):
        raise ModelError(
            f"{location.uri} names the model {there.name!r:.200}, which is not a known checkpoint; if you trust it, "
            "name it with --model"
        )
    return resolve_spec(there.name, revision=revision or there.revision)
