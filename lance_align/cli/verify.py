"""``lance-align verify``."""

from __future__ import annotations

from collections.abc import Sequence

from lance_align.cli.command import application
from lance_align.images import DEFAULT_LIMITS
from lance_align.jobs.aftercare import verify_table

app = application(
    "lance-align verify",
    """Check every row and file of a table, and embed some rows again; findings make the exit status 1.

    lance-align verify --db ./lancedb --table photos
""",
)


@app.default
def verify(
    *,
    db: str = "./lancedb",
    table: str,
    device: str = "auto",
    image_formats: Sequence[str] = DEFAULT_LIMITS.formats,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
    max_bytes: int = DEFAULT_LIMITS.max_bytes,
    storage_options: dict[str, str] | None = None,
) -> None:
    """See `lance_align.verify`.

    Args:
        db: the LanceDB database: a folder or an object-store URI.
        table: the table's name.
        device: where the model runs: auto, cpu, cuda.
        image_formats: names of the image formats that may be decoded.
        max_pixels: most pixels of an image.
        max_bytes: most bytes of an image file.
        storage_options: of the database's object store, by Lance's names.
    """
    found = verify_table(
        db=db,
        table=table,
        device=device,
        image_formats=image_formats,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        storage_options=storage_options,
    )
    print(found.to_text())
    found.raise_if_bad()
