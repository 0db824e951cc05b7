"""What the three jobs have in common: limits, commits, resources, where they run, how they tell.

`RunOptions` documents and checks each option once. A job takes them as keywords of its own (`RunKeywords`), so that
``embed(source, table="t", commit_rows=500)`` and ``--commit-rows 500`` read the same.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import Annotated, TypedDict, cast

from cyclopts import Parameter

from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import EngineName
from lance_align.fetching import FetchPolicy, fetch_policy
from lance_align.formats import named_formats
from lance_align.images import DEFAULT_LIMITS, DecodeLimits
from lance_align.jobs.checks import check_device, check_positive, check_writable
from lance_align.jobs.executors.base import ExecutorName
from lance_align.jobs.executors.choice import check_executor
from lance_align.jobs.report import parse_max_errors
from lance_align.jobs.shape import ShapeOptions
from lance_align.jobs.watchdog import DEFAULT_STALL_SECONDS

FetchHosts = Annotated[Sequence[str] | FetchPolicy, Parameter(accepts_keys=False)]
_POSITIVE = "limit max_pixels max_bytes commit_rows commit_seconds block_rows actors readers threads stall_seconds"
MaxErrors = str | int | float | None  # text first: the command line tries the types in this order


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `lance_align.embed`, `lance_align.backfill` and `lance_align.describe` that are the same.

    Attributes:
        limit: rows to do at most, for a trial: of a source its first ones, of a table the first that lack something.
        retry_errors: forget the errors of earlier runs first, and try these rows again.
        allow_outside: let image paths in the rows lead out of the source's folder, or of the database's.
        fetch_hosts: hosts that image URLs in the rows are fetched from: images.example.com, *.example.org, or * for any
            that is public; none by default. In Python also a `lance_align.fetching.FetchPolicy`.
        image_formats: names of the image formats that may be decoded, of `lance_align.formats.FORMATS`; suffixes
            such as jpg are understood. HEIF needs the extra ``heif``.
        max_pixels: most pixels of an image, checked before it is decoded.
        max_bytes: most bytes of an image file.
        decode_seconds: seconds after which the decoding of one image is given up.
        decode_memory_mb: memory that decoding one image may take, at least 256.
        max_errors: rows that may fail before the job counts as failed: a count (10) or a share of those written (1%).
        commit_rows: rows after which a version of the table is made.
        commit_seconds: seconds after which one is made.
        block_rows: rows embedded and written at once; by default 1,024, or 128 of videos and, without a GPU, of large
            images. Of descriptions 32, and fewer where memory runs out.
        actors: processes that hold the model; by default one a GPU, or one for every eight CPUs.
        readers: tasks that read and decode at once, each on a CPU; by default the CPUs that the actors leave.
        threads: of each actor's model on a CPU; by default four, or what there is for each.
        device: where the model runs: auto, cpu, cuda.
        precision: what the model computes in: float32 or bfloat16; by default the latter on GPUs that can.
        executor: what runs the job: ray, or local, which is this process. auto: local where no cluster is named (by
            RAY_ADDRESS, a running Ray, actors or readers) and at most 2,048 rows are missing (64 descriptions), else
            ray.
        stall_seconds: a worker that makes no progress for so long ends itself, and its work is tried again.
        storage_options: region, endpoint, credentials … of the database's object store, by Lance's names; what is not
            named is looked for in the environment. On the command line: --storage-options.region eu-north-1.
        progress: show progress on standard error.
        log_file: a file that progress is appended to, line by line.

    Raises:
        ArgumentError: an option cannot be used; its name, what was seen and what was expected.

    Example:
        >>> from lance_align import RunOptions
        >>> RunOptions(max_errors="1%", executor="local").limits.max_pixels
        67108864
    """

    limit: int | None = None
    retry_errors: bool = False
    allow_outside: bool = False
    fetch_hosts: FetchHosts = ()
    image_formats: Sequence[str] = DEFAULT_LIMITS.formats
    max_pixels: int = DEFAULT_LIMITS.max_pixels
    max_bytes: int = DEFAULT_LIMITS.max_bytes
    decode_seconds: float = 30.0
    decode_memory_mb: int = 1024
    max_errors: MaxErrors = None
    commit_rows: int = 10_000
    commit_seconds: float = 60.0
    block_rows: int | None = None
    actors: int | None = None
    readers: int | None = None
    threads: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    executor: ExecutorName = "auto"
    stall_seconds: float = DEFAULT_STALL_SECONDS
    storage_options: dict[str, str] | None = None
    progress: bool = True
    log_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_positive(**{name: getattr(self, name) for name in _POSITIVE.split()})
        check_executor(self.executor, self.shape("auto"))
        check_device(self.device)
        check_writable("log file", self.log_file)
        _ = self.limits, self.fetching, self.failures_allowed

    @property
    def limits(self) -> DecodeLimits:
        """What an image may be."""
        formats = named_formats(self.image_formats)
        return DecodeLimits(formats=formats, max_pixels=self.max_pixels, max_bytes=self.max_bytes)

    @property
    def fetching(self) -> FetchPolicy:
        """The hosts that images are fetched from."""
        return fetch_policy(self.fetch_hosts)

    @property
    def failures_allowed(self) -> int | float | None:
        """`max_errors` as a count (int) or a share (float)."""
        return None if self.max_errors is None else parse_max_errors(self.max_errors)

    def keywords(self, *, without: Collection[str] = ()) -> RunKeywords:
        """The options as keywords for another job, some of them left at its defaults."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in without]
        return cast("RunKeywords", {name: getattr(self, name) for name in names})

    def shape(self, engine: EngineName) -> ShapeOptions:
        """What the user says about resources."""
        return ShapeOptions(
            actors=self.actors,
            readers=self.readers,
            threads=self.threads,
            block_rows=self.block_rows,
            stall_seconds=self.stall_seconds,
            device=self.device,
            engine=engine,
            precision=self.precision,
        )


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions` as keywords of a job, for type checkers; a test keeps the two alike."""

    limit: int | None
    retry_errors: bool
    allow_outside: bool
    fetch_hosts: FetchHosts
    image_formats: Sequence[str]
    max_pixels: int
    max_bytes: int
    decode_seconds: float
    decode_memory_mb: int
    max_errors: MaxErrors
    commit_rows: int
    commit_seconds: float
    block_rows: int | None
    actors: int | None
    readers: int | None
    threads: int | None
    device: str
    precision: Precision
    executor: ExecutorName
    stall_seconds: float
    storage_options: dict[str, str] | None
    progress: bool
    log_file: str | os.PathLike[str] | None
