"""The backfill job: vectors for the rows of a table that is there, written into these rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from lance_align.encoders import is_allowed, resolve_spec
from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import EngineName, check_options
from lance_align.errors import JobError, ModelError, TableError
from lance_align.fetching import FetchPolicy, fetch_policy
from lance_align.formats import named_formats
from lance_align.images import DEFAULT_LIMITS, DecodeLimits
from lance_align.jobs.checks import check_device, check_positive, check_writable
from lance_align.jobs.executors.base import ExecutorName
from lance_align.jobs.executors.choice import check_executor, executors
from lance_align.jobs.filling.gaps import ReadGaps, gap_source
from lance_align.jobs.filling.rounds import FillRounds
from lance_align.jobs.filling.running import FillJob
from lance_align.jobs.filling.vectors import VectorMaker
from lance_align.jobs.indexing import Indexing, check_indexing, index_objection, with_indexes
from lance_align.jobs.policy import Policy
from lance_align.jobs.report import JobReport, parse_max_errors
from lance_align.jobs.shape import ShapeOptions
from lance_align.jobs.sources.location import References, locate
from lance_align.jobs.watchdog import DEFAULT_STALL_SECONDS
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
    retry_errors: bool = False,
    allow_outside: bool = False,
    fetch_hosts: Annotated[Sequence[str] | FetchPolicy, Parameter(accepts_keys=False)] = (),
    image_formats: Sequence[str] = DEFAULT_LIMITS.formats,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
    max_bytes: int = DEFAULT_LIMITS.max_bytes,
    decode_seconds: float = 30.0,
    decode_memory_mb: int = 1024,
    max_errors: str | int | float | None = None,  # text first: the command line tries the types in this order
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
        retry_errors: forget the reasons of earlier runs first, in a version of its own, and embed these rows again.
        allow_outside: let image paths in the rows lead out of the database's folder, from which relative paths start.
        fetch_hosts: hosts that image URLs in the rows are fetched from: images.example.com, *.example.org, or * for any
            that is public; none by default. In Python also a `lance_align.fetching.FetchPolicy`.
        image_formats: names of the image formats that may be decoded, of `lance_align.formats.FORMATS`; suffixes
            such as jpg are understood. HEIF needs the extra ``heif``.
        max_pixels: most pixels of an image, checked before it is decoded.
        max_bytes: most bytes of an image file.
        decode_seconds: seconds after which the decoding of one image is given up.
        decode_memory_mb: memory that decoding one image may take, at least 256.
        max_errors: rows that may fail before the job counts as failed: a count (10) or a share of those written (1%).
        commit_rows: rows of whole fragments after which a version of the table is made.
        commit_seconds: seconds that a vector waits at most until one is made.
        block_rows: rows embedded at once; by default 1,024, or 128 for large images without a GPU.
        actors: processes that hold the model; by default one a GPU, or one for every eight CPUs.
        readers: tasks that read and decode at once, each on a CPU; by default the CPUs that the actors leave.
        threads: of each actor's model on a CPU; by default four, or what there is for each.
        device: where the model runs: auto, cpu, cuda.
        engine: what runs the image tower: openvino (on a CPU), torch, compiled (torch, after a minute of compiling: for
            long jobs on GPUs); by default OpenVINO on CPUs where it is installed, else torch.
        precision: what the model computes in: float32 or bfloat16; by default the latter on GPUs that can.
        index: what is done about indexes once no row is empty. auto: one that is there takes in the new rows, and where
            there is none and exact search would be slow, one is built; recall is measured with texts, and the report
            says what it is and what to write to search with it. distributed: the same, built on all nodes with
            lance-ray, as auto does by itself where it is installed and there are several. none: nothing.
        executor: what runs the job: ray, or local, which is this process. auto: local where no cluster is named (by
            RAY_ADDRESS, a running Ray, actors or readers) and there are at most 2,048 rows, else ray.
        stall_seconds: a worker that makes no progress for so long ends itself, and its work is tried again.
        storage_options: region, endpoint, credentials … of the database's object store, by Lance's names; what is not
            named is looked for in the environment. On the command line: --storage-options.region eu-north-1.
        progress: show progress on standard error.
        log_file: a file that progress is appended to, line by line.

    Returns:
        The account of the run. `rows_read` are the rows of the table, `already_there` those that had a vector or a
        reason.

    Raises:
        ArgumentError: the table, its model or an option cannot be used; nothing was changed.
        MissingExtraError: an optional package is missing.
        JobError: rows are still without vector and reason, too many failed, or an index could not be built (then
            `report` holds the account).
        Stopped: SIGTERM or Ctrl-C arrived in the main thread (a KeyboardInterrupt); what was made is committed.
    """
    started_at = datetime.now().astimezone()
    policy = Policy(max_errors=None if max_errors is None else parse_max_errors(max_errors))
    check_positive(
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
    check_executor(executor, options)
    check_device(device)
    check_writable("log file", log_file)
    limits = DecodeLimits(formats=named_formats(image_formats), max_pixels=max_pixels, max_bytes=max_bytes)
    check_indexing(index)
    location = table_location(os.fspath(db), table, storage_options=storage_options)
    filler = Filler(location.uri, vector, storage_options=location.storage_options)
    spec = _trusted(filler)
    check_options(spec, device=device, engine=engine, precision=precision)
    decoder = Decoder(
        image=spec.image,
        limits=limits,
        seconds=decode_seconds,
        memory_mb=decode_memory_mb,
    )
    references = References(locate(location.db), allow_outside, fetch_policy(fetch_hosts))
    is_image = filler.filling.kind == "image"
    if is_image:
        check_installed(spec.image)
    read = ReadGaps(source=gap_source(filler, location, references), decoder=decoder if is_image else None)
    with executors(executor, options, needs_ray=index == "distributed") as running:
        if retry_errors:
            filler.forget_errors()
        job = FillJob(
            filler=filler,
            rounds=FillRounds(filler, commit_rows=commit_rows, commit_seconds=commit_seconds),
            read=read,
            spec=spec,
            maker=VectorMaker,
            options=options,
        )
        report = job.run(running, started_at=started_at, progress=progress, log_file=log_file)
        report = with_indexes(report, location, [vector], index)
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
