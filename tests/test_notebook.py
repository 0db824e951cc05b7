"""The notebook runs from top to bottom on a table that the job made, and every picture in it shows something."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient
from PIL import Image

import lance_align
from lance_align.corpora import demo_source

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "explore.ipynb"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook, executed on 120 emoji and two rows that cannot be embedded."""
    folder = tmp_path_factory.mktemp("notebook")
    source = demo_source("openmoji", directory=folder, rows=120)
    bad = pq.read_table(source).slice(0, 2).to_pylist()
    bad[0] |= {"id": "broken", "image": b"not a picture"}
    bad[1] |= {"id": "cut", "image": bad[1]["image"][:300]}
    pq.write_table(
        pa.Table.from_pylist(bad, schema=pq.read_schema(source / "part-00000.parquet")), source / "z.parquet"
    )
    lance_align.embed(source, db=folder / "db", table="emoji", model="align-tiny", progress=False)
    return executed(folder, db=folder / "db", table="emoji")


def executed(folder: Path, *, db: Path, table: str) -> Any:
    """The notebook, run in `folder` on a table."""
    package = Path(lance_align.__file__).parent.parent
    environment = {
        "LANCE_ALIGN_DB": str(db),
        "LANCE_ALIGN_TABLE": table,
        "PYTHONPATH": str(package),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm, imported by transformers, misses ipywidgets
    }
    done = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(done, timeout=180, kernel_name="python3", record_timing=False)
    client.execute(cwd=str(folder), env=os.environ | environment)
    return done


def outputs(notebook: Any, mime: str) -> list[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [o.data[mime] for cell in cells for o in cell.outputs if "data" in o and mime in o.data]


def test_it_says_what_is_in_the_table(notebook: Any) -> None:
    said = "".join(o.text for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream")
    assert "122 rows, 2 without a vector, align-tiny" in said
    assert "vector: fixed_size_list" in outputs(notebook, "text/plain")[0]


def test_every_section_ends_in_a_picture_that_shows_something(notebook: Any) -> None:
    sections = sum(cell.source.startswith("## ") for cell in notebook.cells)
    shown = [Image.open(io.BytesIO(base64.b64decode(png))) for png in outputs(notebook, "image/png")]
    assert len(shown) == sections == 7
    for picture in shown:
        assert picture.width > 800
        assert np.asarray(picture.convert("L")).std() > 5


def test_nothing_is_written_to_standard_error(notebook: Any) -> None:
    streams = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream"]
    assert [o.text for o in streams if o.name == "stderr"] == []


def test_it_is_kept_with_the_outputs_of_the_demo(notebook: Any) -> None:
    """`python -m tests.test_notebook` in a folder where the demo has run makes them."""
    kept = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.metadata == {} for cell in kept.cells)
    assert max(len(cell.source.splitlines()) for cell in code) <= 15, "a notebook has no logic of its own"
    for mime in ("image/png", "text/plain"):
        assert len(outputs(kept, mime)) == len(outputs(notebook, mime))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    assert not re.search(r"(/home/|/root/|/tmp/|/work/|Traceback)", text)


def _write() -> None:
    done = executed(Path.cwd(), db=Path("lancedb"), table="demo")
    done.metadata = nbformat.read(NOTEBOOK, as_version=4).metadata
    nbformat.write(done, NOTEBOOK)


if __name__ == "__main__":
    _write()
