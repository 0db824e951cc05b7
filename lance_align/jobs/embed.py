"""The main job: rows of images and texts to a LanceDB table of vectors that searches itself."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import pyarrow as pa
from cyclopts import Parameter

from lance_align.encoders import allow_models, resolve_spec
from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import EngineName, check_options
from lance_align.errors import JobError
from lance_align.fetching import FetchPolicy, fetch_policy
from lance_align.formats import named_formats
from lance_align.images import DEFAULT_LIMITS, DecodeLimits
from lance_align.jobs.checks import check_choices, check_device, check_positive, check_texts, check_writable
from lance_align.jobs.columns import Keep, choose_columns
from lance_align.jobs.executors.base import ExecutorName
from lance_align.jobs.executors.choice import check_executor, executors
from lance_align.jobs.indexing import Indexing, check_indexing, index_objection, with_indexes
from lance_align.jobs.ledger.ledger import OnChanged
from lance_align.jobs.policy import Duplicates, Policy, WhenGone
from lance_align.jobs.report import JobReport, parse_max_errors
from lance_align.jobs.rounds import Rounds
from lance_align.jobs.running import Job
from lance_align.jobs.shape import ShapeOptions
from lance_align.jobs.sources import Format, open_source
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import Target
from lance_align.jobs.watchdog import DEFAULT_STALL_SECONDS
from lance_align.sandbox import Decoder
from lance_align.tables.commits import Committer
from lance_align.tables.location import table_location
from lance_align.tables.schema import Embed, table_schema
from lance_align.visuals import check_installed


def embed(
    source: str | os.PathLike[str],
    *,
    db: str | os.PathLike[str] = "./lancedb",
    table: str,
    model: str = "align-tiny",
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
    allow_outside: bool = False,
    fetch_hosts: Annotated[Sequence[str] | FetchPolicy, Parameter(accepts_keys=False)] = (),
    image_formats: Sequence[str] = DEFAULT_LIMITS.formats,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
    max_bytes: int = DEFAULT_LIMITS.max_bytes,
    decode_seconds: float = 30.0,
    decode_memory_mb: int = 1024,
    max_errors: str | int | float | None = None,  # text first: the command line tries the types in this order
    duplicates: Duplicates = "skip",
    on_changed: OnChanged = "skip",
    retry_errors: bool = False,
    gone: WhenGone = "ignore",
    commit_rows: int = 10_000,
    commit_seconds: float = 60.0,
    block_rows: int | None = None,
    actors: int | None = None,
    readers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    index: Indexing = "auto",
    executor: ExecutorName = "auto",
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    storage_options: dict[str, str] | None = None,
    progress: bool = True,
    log_file: str | os.PathLike[str] | None = None,
) -> JobReport:
    """Embed every row of a source into a LanceDB table, here or on Ray; run it again and only new rows are done.

    Args:
        source: a folder of images (or of videos, for a model that looks at them), a file or folder of Parquet, Arrow,
            Feather, CSV, JSON Lines or WebDataset tars, or a Lance table; a local path or an object-store URI.
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name; it is created, or continued if the same model and columns made it.
        model: a known checkpoint, a hub id, or a local directory.
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
        allow_outside: let image paths in the rows lead out of the source's folder.
        fetch_hosts: hosts that image URLs in the rows are fetched from: images.example.com, *.example.org, or * for any
            that is public; none by default. In Python also a `lance_align.fetching.FetchPolicy`.
        image_formats: names of the image formats that may be decoded, of `lance_align.formats.FORMATS`; suffixes
            such as jpg are understood. HEIF needs the extra ``heif``.
        max_pixels: most pixels of an image, checked before it is decoded.
        max_bytes: most bytes of an image file.
        decode_seconds: seconds after which the decoding of one image is given up.
        decode_memory_mb: memory that decoding one image may take, at least 256.
        max_errors: rows that may fail before the job counts as failed: a count (10) or a share of those written (1%).
        duplicates: what becomes of rows of the input that share an id. The first in the input's order (files by name)
            counts, always; error makes the others a failure, before any row is written if ids come from a column.
        on_changed: what becomes of rows whose id the table holds with another content. skip does not look. The other
            two read these rows, images included, and compare a hash with the table's: update embeds changed rows
            again, in place of the old ones, and rows without a hash (of table.add) too; error leaves them and fails
            at the end. A row whose image cannot be read is left alone.
        retry_errors: embed rows of the table without a vector again, in place of the old ones.
        gone: what becomes of rows of the table that the input does not have, whoever wrote them before this run:
            ignore them, list them in the report, or remove them once everything else has succeeded.
        commit_rows: rows after which a version of the table is made.
        commit_seconds: seconds after which one is made.
        block_rows: rows embedded and written at once; by default 1,024, or 128 of videos and, without a GPU, of large
            images.
        actors: processes that hold the model; by default one a GPU, or one for every eight CPUs.
        readers: tasks that read and decode at once, each on a CPU; by default the CPUs that the actors leave.
        threads: of each actor's model on a CPU; by default four, or what there is for each.
        device: where the model runs: auto, cpu, cuda.
        engine: what runs the image tower: openvino (on a CPU), torch, compiled (torch, after a minute of compiling: for
            long jobs on GPUs); by default OpenVINO on CPUs where it is installed, else torch.
        precision: what the model computes in: float32 or bfloat16; by default the latter on GPUs that can.
        index: what is done about indexes once every row is in. auto: one that is there takes in the new rows, and where
            there is none and exact search would be slow, one is built; recall is measured with texts, and the report
            says what it is and what to write to search with it. distributed: the same, built on all nodes with
            lance-ray, as auto does by itself where it is installed and there are several. none: nothing.
        executor: what runs the job: ray, or local, which is this process. auto: local where no cluster is named (by
            RAY_ADDRESS, a running Ray, actors or readers) and the table lacks at most 2,048 rows, else ray.
        stall_seconds: a worker that makes no progress for so long ends itself, and its work is tried again.
        storage_options: region, endpoint, credentials … of the database's object store, by Lance's names; what is not
            named is looked for in the environment. On the command line: --storage-options.region eu-north-1.
        progress: show progress on standard error.
        log_file: a file that progress is appended to, line by line.

    Returns:
        The account of the run; every row of the source is in it.

    Raises:
        ArgumentError: the source, a column, the model or the table cannot be used; nothing was changed.
        MissingExtraError: an optional package is missing.
        JobError: not every row is in the table; or it is, but too many failed, an index could not be built, or there
            were duplicates or changed rows where these are errors (then `report` holds the account).
        Stopped: SIGTERM or Ctrl-C arrived in the main thread (a KeyboardInterrupt); what was written is committed.
    """
    started_at = datetime.now().astimezone()
    policy = Policy(
        duplicates=duplicates,
        on_changed=on_changed,
        retry_errors=retry_errors,
        gone=gone,
        max_errors=None if max_errors is None else parse_max_errors(max_errors),
    )
    check_positive(
        thumbnail_px=thumbnail_px,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        commit_rows=commit_rows,
        commit_seconds=commit_seconds,
        block_rows=block_rows,
        actors=actors,
        readers=readers,
        threads=threads,
        stall_seconds=stall_seconds,
    )
    options = ShapeOptions(
        actors=actors,
        readers=readers,
        threads=threads,
        block_rows=block_rows,
        stall_seconds=stall_seconds,
        device=device,
        engine=engine,
        precision=precision,
    )
    check_choices(words=Keep, keep=keep)
    if embed is not None:
        check_choices(words=Embed, embed=embed)
    check_texts(drop=drop)
    check_executor(executor, options)
    check_device(device)
    check_writable("log file", log_file)
    limits = DecodeLimits(formats=named_formats(image_formats), max_pixels=max_pixels, max_bytes=max_bytes)
    check_indexing(index)
    location = table_location(os.fspath(db), table, storage_options=storage_options)
    spec = resolve_spec(model, revision=revision)
    check_options(spec, device=device, engine=engine, precision=precision)
    rows = open_source(
        source,
        format=format,
        allow_outside=allow_outside,
        fetching=fetch_policy(fetch_hosts),
        as_text=[column for column in (image, text, id) if column is not None],
        drop=[column for column in drop if column not in (image, text, id)],  # read for their role, and left behind
        delimiter=delimiter,
        looks="images" if spec.image.frames is None else "videos",
        labels_from_folders=labels_from_folders,
    )
    columns = choose_columns(rows, image=image, text=text, id=id, embed=embed, keep=keep, drop=drop)
    if columns.image is not None:
        check_installed(spec.image)
    allow_models(spec.name)  # who names a model trusts it: this process may search the table it makes
    travelling = pa.schema([rows.schema.field(name) for name in columns.travelling])
    schema = table_schema(travelling, columns.layout, spec)
    decoder = Decoder(
        image=spec.image,
        limits=limits,
        thumbnail_px=thumbnail_px if columns.keep == "thumbnail" else None,
        seconds=decode_seconds,
        memory_mb=decode_memory_mb,
    )
    reader = Reader(
        source=dataclasses.replace(rows, splits=()),
        columns=columns,
        decoder=decoder if columns.image is not None else None,
    )
    target = Target(uri=location.uri, schema=schema, layout=columns.layout, storage_options=location.storage_options)
    with executors(executor, options, needs_ray=index == "distributed") as running:
        if not running.may_be_local:
            running.ray()  # before there is a table: a cluster that does not answer leaves none
        committer = Committer.open_or_create(target.uri, schema, storage_options=target.storage_options)
        job = Job(
            source=rows,
            reader=reader,
            spec=spec,
            target=target,
            rounds=Rounds(committer, commit_rows=commit_rows, commit_seconds=commit_seconds),
            options=options,
            policy=policy,
            rows_there=committer.rows,
        )
        report = job.run(running, started_at=started_at, progress=progress, log_file=log_file)
        report = with_indexes(report, location, [column.vector for column in columns.layout.embedded], index)
    objection = policy.objection(report) or index_objection(report)
    if objection is not None:
        raise JobError(objection, report)
    return report
