"""The describing job: texts about the pictures of a table that is there, written into its rows."""

from __future__ import annotations

import dataclasses
import functools
import os
from datetime import datetime
from typing import Unpack

import pyarrow as pa

from lance_align.describers.checkpoints import DEFAULT_NEW_TOKENS, resolve_describer
from lance_align.describers.loading import check_describer
from lance_align.describers.prompts import Prompt
from lance_align.describers.spec import MAX_SIDE_PX, Task
from lance_align.encoders.checkpoints import resolve_spec
from lance_align.errors import ArgumentError, JobError
from lance_align.jobs.backfill import backfill
from lance_align.jobs.columns import find_image
from lance_align.jobs.executors.choice import executors
from lance_align.jobs.filling.gaps import ReadGaps, gap_source
from lance_align.jobs.filling.rounds import FillRounds
from lance_align.jobs.filling.running import FillJob
from lance_align.jobs.filling.texts import TextMaker
from lance_align.jobs.indexing import index_objection, with_text_index
from lance_align.jobs.options import RunKeywords, RunOptions
from lance_align.jobs.policy import Policy
from lance_align.jobs.progress import announce
from lance_align.jobs.report import JobReport
from lance_align.jobs.sources.location import References, locate
from lance_align.sandbox import PictureDecoder
from lance_align.tables.creation import open_table
from lance_align.tables.descriptions import Description, add_description
from lance_align.tables.filling import Filler
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import TableLocation, missing_table, table_location
from lance_align.tables.metadata import read_functions

LOCAL_ROWS = 64  # described in this process: a text costs seconds, so more are worth a cluster's start


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DescribeOptions(RunOptions):
    """A text takes seconds where a vector takes milliseconds: smaller commits, at longer intervals."""

    commit_rows: int = 1_000
    commit_seconds: float = 300.0
    block_rows: int | None = 32  # images of 3 MiB each


def describe(
    *,
    db: str | os.PathLike[str] = "./lancedb",
    table: str,
    column: str,
    model: str,
    revision: str | None = None,
    image: str | None = None,
    task: Task | None = None,
    prompt: str | None = None,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
    max_side_px: int = MAX_SIDE_PX,
    fts: bool = False,
    embed: str | None = None,
    vector: str | None = None,
    **options: Unpack[RunKeywords],
) -> JobReport:
    """Describe the pictures of a LanceDB table that have neither a text nor a reason; run again, it goes on.

    The table may be anyone's. A column for the texts and one for reasons, ``{column}_error``, are added where they are
    missing, with the model, the prompt and all that decides a text in the column's metadata; another model or prompt is
    refused, and gets a column of its own. A row gets its text, or none and the reason; nothing else of it changes. A
    text that ends at `max_new_tokens` is kept, and its reason says ``cut``.

    Texts are the model's likeliest tokens, one after the other; no row's text depends on which rows share its batch,
    but for the last bits of its numbers. What a run costs besides the model is what `lance_align.backfill` says.

    Args:
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        column: the column for the texts.
        model: a hub id or a local directory: BLIP, InstructBLIP, LLaVA, or another image-text-to-text model of
            transformers with a chat template, in safetensors.
        revision: the hub commit of the model.
        image: the column of pictures: encoded bytes, or paths; by default the one that is embedded, or looks like it.
        task: caption or question, for a checkpoint of BLIP that does not say which it is; instruction for the others.
        prompt: the beginning of a caption, a question, or an instruction. {name} stands for what the row has in
            that column, {{ and }} for braces. A row with a null there gets no text.
        max_new_tokens: where a text ends at the latest.
        temperature: 0 for the likeliest token each time; above it, tokens are drawn at random.
        seed: of that randomness. The same picture, prompt and seed give the same text.
        max_side_px: larger pictures are reduced to this longest side before the model's own processor sees them.
        fts: build the column's full-text index, or extend it by new rows.
        embed: embed the texts afterwards with this model: a known checkpoint, a hub id, or a local directory.
        vector: the vector column for that; by default {column}_vector.
        **options: see `lance_align.RunOptions`; commit_rows is 1,000, commit_seconds 300 and block_rows 32.

    Returns:
        The account of the run: `embedded` counts the described rows, `cut` those among them that were cut, `then` is
        the account of embedding the texts.

    Raises:
        ArgumentError: the table, the model, the prompt or an option cannot be used; nothing was changed.
        JobError: rows are still without text and reason, too many failed, or an index could not be built (then
            `report` holds the account).
        Stopped: SIGTERM or Ctrl-C arrived in the main thread (a KeyboardInterrupt); what was made is committed.

    >>> report = lance_align.describe(
    ...     table="demo", column="description", model="Salesforce/blip-image-captioning-base",
    ...     max_new_tokens=16, limit=4, executor="local",
    ... )
    >>> report.rows_written
    4
    """
    started_at = datetime.now().astimezone()
    run = DescribeOptions(**options)
    policy = Policy(max_errors=run.failures_allowed)
    tell = functools.partial(announce, show=run.progress, log_file=run.log_file)
    shape = run.shape("torch")
    decoder = PictureDecoder(
        max_side_px=max_side_px,
        limits=run.limits,
        seconds=run.decode_seconds,
        memory_mb=run.decode_memory_mb,
    )
    spec = resolve_describer(
        model,
        revision=revision,
        task=task,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        precision=run.precision,
        max_side_px=max_side_px,
    )
    location = table_location(os.fspath(db), table, storage_options=run.storage_options)
    tell(f"looking at {location.uri}")
    references = References(locate(location.db), run.allow_outside, run.fetching)
    description = Description(image=image or _image_of(location), spec=spec)
    check_describer(spec)
    if embed is not None:
        resolve_spec(embed)
    add_description(location.uri, column, description, storage_options=location.storage_options)
    filler = Filler(location.uri, column, storage_options=location.storage_options)
    with executors(run.executor, shape, tell=tell) as running:
        if run.retry_errors:
            filler.forget_errors()
        job = FillJob(
            filler=filler,
            rounds=FillRounds(filler, commit_rows=run.commit_rows, commit_seconds=run.commit_seconds),
            read=ReadGaps(
                source=gap_source(filler, location, references),
                decoder=decoder,
                prompt=None if prompt is None else Prompt(prompt),
            ),
            spec=spec,
            maker=TextMaker,
            most_local=LOCAL_ROWS,
            options=shape,
            limit=run.limit,
        )
        report = job.run(running, started_at=started_at, progress=run.progress, log_file=run.log_file)
        if fts:
            report = with_text_index(report, location, column)
        if embed is not None:
            report = _embedded(report, location, column, vector or f"{column}_vector", embed, run)
    objection = policy.objection(report) or index_objection(report)
    if objection is not None:
        raise JobError(objection, report)
    return report


def _image_of(location: TableLocation) -> str:
    """The table's pictures: what an image function of ours embeds, else what looks like it.

    Raises:
        TableError: it cannot be opened.
        ArgumentError: there is no such table, or none of its columns does.
    """
    dataset = open_table(location.uri, storage_options=location.storage_options)
    if dataset is None:
        raise missing_table(location.uri)
    schema: pa.Schema = dataset.schema
    models = [(entry.get("source_column"), entry.get("model")) for entry in read_functions(schema)]
    embedded = [name for name, model in models if isinstance(model, dict) and model.get("source") == "image"]
    found = next((name for name in embedded if name in schema.names), None) or find_image(schema, "images")
    if found is None:
        seen = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise ArgumentError(f"{location.uri} has no column that looks like pictures; name it with image; it has {seen}")
    return str(found)


def _embedded(
    report: JobReport, location: TableLocation, column: str, vector: str, model: str, run: RunOptions
) -> JobReport:
    """The report, with that of embedding the texts.

    Raises:
        LanceAlignError: the model cannot be attached, or the backfill failed; the texts are in.
    """
    from lance_align.attaching import attach  # LanceDB takes seconds, which a job need not begin with

    attach(lancedb_table(location), text=column, vector=vector, model=model)
    try:
        then = backfill(
            db=location.db, table=location.name, vector=vector, **run.keywords(without=("block_rows", "precision"))
        )
    except JobError as error:
        if isinstance(error.report, JobReport):
            raise JobError(str(error), dataclasses.replace(report, then=error.report)) from error
        raise
    return dataclasses.replace(report, then=then, table_version=then.table_version)
