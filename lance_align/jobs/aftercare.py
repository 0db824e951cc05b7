"""What a command does with a table after its job: remove what nobody needs, check what is there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lance_align.formats import named_formats
from lance_align.images import DEFAULT_LIMITS, DecodeLimits
from lance_align.tables.handles import lancedb_table
from lance_align.tables.location import table_location
from lance_align.tables.orphans import CleanupReport, cleanup
from lance_align.verification import Verification, verify


def clean_table(
    *, db: str | os.PathLike[str], table: str, storage_options: Mapping[str, str] | None = None
) -> CleanupReport:
    """`lance_align.cleanup` of a table by name: files that nobody needs and that are older than a day.

    Raises:
        TableError: see there.
    """
    return cleanup(lancedb_table(table_location(os.fspath(db), table, storage_options=storage_options)))


def verify_table(
    *,
    db: str | os.PathLike[str],
    table: str,
    storage_options: Mapping[str, str] | None = None,
    device: str = "auto",
    image_formats: Sequence[str] = DEFAULT_LIMITS.formats,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
    max_bytes: int = DEFAULT_LIMITS.max_bytes,
) -> Verification:
    """`lance_align.verify` of a table by name, with the limits of the job.

    Raises:
        TableError: see there.
    """
    limits = DecodeLimits(formats=named_formats(image_formats), max_pixels=max_pixels, max_bytes=max_bytes)
    place = table_location(os.fspath(db), table, storage_options=storage_options)
    return verify(lancedb_table(place), device=device, limits=limits)
