"""The life of a table: ids that come twice, rows that change, fail, and leave the input, on a real Ray."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lance_align import JobReport, embed
from lance_align.cli import run_command
from lance_align.encoders import load_encoder
from lance_align.errors import ArgumentError, JobError
from lance_align.jobs.policy import Policy
from tests.corpus import parquet, png, stored

NASTY = '\'; DROP TABLE t; --\0\u202e "x" OR 1=1'


def run(source: Path, db: Path, **options: Any) -> JobReport:
    defaults: dict[str, Any] = {"db": db, "table": "t", "model": "fake", "progress": False, "block_rows": 10}
    report = embed(source, **(defaults | options))
    assert report.adds_up
    return report


def by_id(db: Path, table: str = "t") -> dict[str, dict[str, Any]]:
    rows = stored(db, table)
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def vector(seed: int) -> list[float]:
    found: list[float] = load_encoder("fake").encode_images([png(seed)]).vectors[0].tolist()
    return found


def rows_of(*rows: tuple[str | None, int, str]) -> pa.Table:
    """Rows of (id, seed of the picture, caption)."""
    return pa.table(
        {
            "id": pa.array([name for name, _, _ in rows], pa.string()),
            "image": pa.array([png(seed) for _, seed, _ in rows], pa.binary()),
            "caption": pa.array([caption for _, _, caption in rows], pa.string()),
        }
    )


def spoil_images(path: Path) -> None:
    """Overwrite every page of the image column, so that reading one of them fails."""
    metadata = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(metadata.schema.names.index("image"))
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)


def test_the_first_row_of_an_id_counts_wherever_the_others_stand(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    # Small splits, read by several tasks in no order: of these rows the last split's would often be first.
    parquet(rows_of(*[(f"row-{n}", n, "first") for n in range(30)]), tmp_path / "in" / "a.parquet", group_rows=3)
    again = [("row-29", 129, "second"), (NASTY, 130, "first"), (None, 131, "unnamed"), ("row-0", 132, "second")]
    parquet(rows_of(*again, (NASTY, 133, "second")), tmp_path / "in" / "b.parquet", group_rows=2)

    with pytest.raises(JobError, match=r"^3 rows of the input have the id of an earlier row \('row-29' in ") as caught:
        run(tmp_path / "in", tmp_path, duplicates="error")
    assert "b.parquet, row 0" in str(caught.value)
    assert stored(tmp_path, "t") == []

    report = run(tmp_path / "in", tmp_path)
    assert (report.rows_read, report.embedded, report.duplicates) == (35, 32, 3)
    place = str(tmp_path / "in" / "b.parquet")
    listed = [("row-29", place, 0), ("row-0", place, 3), (NASTY, place, 4)]
    assert [(row.id, row.file, row.row) for row in report.duplicate_rows] == listed
    assert json.loads(report.to_json())["duplicate_rows"][1] == {"id": "row-0", "file": place, "row": 3}
    assert "\0" not in report.to_text()
    found = by_id(tmp_path)
    assert {row["caption"] for row in found.values()} == {"first", "unnamed"}
    assert found["row-29"]["vector"] == vector(29)
    assert found[NASTY]["vector"] == vector(130)

    (tmp_path / "in" / "b.parquet").unlink()
    spoil_images(tmp_path / "in" / "a.parquet")
    with pytest.raises(OSError, match=r"."):
        pq.read_table(tmp_path / "in" / "a.parquet")
    done = run(tmp_path / "in", tmp_path)  # reads ids and nothing else
    assert (done.already_there, done.embedded, done.commits) == (30, 0, 0)


def test_changed_rows(tmp_path: Path) -> None:
    source, pics = tmp_path / "list.csv", tmp_path / "pics"
    pics.mkdir()
    for number in range(6):
        (pics / f"{number}.png").write_bytes(png(number))
    source.write_text("id,file,caption\n" + "".join(f"{n},pics/{n}.png,old\n" for n in range(6)))
    run(source, tmp_path)
    before = by_id(tmp_path)
    assert len({row["content_hash"] for row in before.values()}) == 6

    (pics / "1.png").write_bytes(png(101))  # the picture behind the path
    (pics / "2.png").unlink()  # nothing to compare with: the row stays
    (pics / "3.png").write_bytes(b"no picture any more")
    lines = source.read_text().replace("4,pics/4.png,old", "4,pics/4.png,new") + "6,pics/5.png,added\n4,,twice\n"
    source.write_text(lines)

    table = lancedb.connect(tmp_path).open_table("t")
    table.delete("id = '5'")
    table.add([{"id": "5", "image": png(55), "file": "elsewhere", "caption": "added"}])  # a row without a hash
    before = by_id(tmp_path)

    with pytest.raises(JobError, match=r"^3 rows of the input have another content .*'1' in ") as caught:
        run(source, tmp_path, on_changed="error", gone="remove")
    report = caught.value.report
    assert isinstance(report, JobReport)
    assert (report.changed, report.embedded, report.already_there, report.duplicates) == (3, 1, 3, 1)
    assert [row.id for row in report.changed_rows] == ["1", "3", "4"]
    assert {name: row for name, row in by_id(tmp_path).items() if name != "6"} == before

    skipped = run(source, tmp_path)
    assert (skipped.already_there, skipped.changed, skipped.updated) == (7, 0, 0)

    updated = run(source, tmp_path, on_changed="update", commit_rows=1)
    assert (updated.embedded, updated.failed, updated.updated, updated.already_there) == (3, 1, 4, 3)
    assert "updated" in updated.to_text()
    after = by_id(tmp_path)
    assert after["1"]["vector"] == vector(101)
    assert after["1"]["image"] == png(101)
    assert (after["3"]["vector"], after["3"]["error"].split(":")[0]) == (None, "format")
    assert (after["4"]["caption"], after["4"]["vector"]) == ("new", vector(4))
    assert (after["5"]["caption"], after["5"]["vector"]) == ("old", vector(5))
    assert [after[name] for name in "02"] == [before[name] for name in "02"]
    assert run(source, tmp_path, on_changed="update").updated == 0


def test_failed_rows_are_embedded_again_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "1.png").write_bytes(b"damaged")
    (folder / "2.png").write_bytes(b"damaged")
    first = run(folder, tmp_path)
    assert (first.embedded, first.failed) == (2, 2)
    good = by_id(tmp_path)["0.png"]
    lancedb.connect(tmp_path).open_table("t").add(
        [{"id": "3b.png", "image": b"bad"}], on_bad_vectors="null"
    )  # neither a vector nor a reason
    (folder / "3b.png").write_bytes(png(33))
    (folder / "1.png").write_bytes(png(1))
    assert run(folder, tmp_path).rows_written == 0
    report = run(folder, tmp_path, retry_errors=True)
    assert (report.embedded, report.failed, report.updated, report.already_there) == (2, 1, 3, 2)
    found = by_id(tmp_path)
    assert found["1.png"]["vector"] == vector(1)
    assert found["3b.png"]["vector"] == vector(33)
    assert found["2.png"]["error"].startswith("format: ")
    assert found["0.png"] == good


def test_rows_that_left_the_input_are_listed_and_removed(tmp_path: Path) -> None:
    names = [*(f"row-{n}" for n in range(20)), NASTY]
    source = parquet(rows_of(*[(name, n, "x") for n, name in enumerate(names)]), tmp_path / "in.parquet")
    run(source, tmp_path, commit_rows=5)
    kept = [name for n, name in enumerate(names) if n % 2 and n < 15]
    parquet(rows_of(*[(name, 0, "x") for name in kept], ("new", 99, "x")), source)

    listed = run(source, tmp_path, gone="list")
    assert (listed.gone, listed.removed, listed.embedded) == (14, 0, 1)
    assert sorted(listed.gone_ids) == sorted(set(names) - set(kept))
    assert "gone from input" in listed.to_text()
    assert len(by_id(tmp_path)) == 22
    bad = rows_of((kept[0], 0, "x"), ("worse", 0, "x"))
    bad = bad.set_column(1, "image", pa.array([None, b"bad"], pa.binary()))
    with pytest.raises(JobError, match="1 of 1 rows could not be embedded, more than max_errors=0 allows") as caught:
        run(parquet(bad, tmp_path / "bad.parquet"), tmp_path, gone="remove", max_errors=0)
    assert caught.value.report is not None
    assert len(by_id(tmp_path)) == 23  # a run that failed removes nothing

    version = lance.dataset(tmp_path / "t.lance").version
    removed = run(source, tmp_path, gone="remove")
    assert (removed.gone, removed.removed, removed.commits) == (15, 15, 1)
    assert removed.table_version == version + 1
    assert set(by_id(tmp_path)) == {*kept, "new"}
    assert lancedb.connect(tmp_path).open_table("t").search(png(99)).limit(1).to_list()[0]["id"] == "new"
    with pytest.raises(JobError, match="the input has no rows at all, so none of the 8 rows"):
        run(parquet(rows_of(), source), tmp_path, gone="remove")
    assert len(by_id(tmp_path)) == 8


def test_tar_shards_and_digests_list_their_duplicates_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, seed in (("1.png", 1), ("2.png", 2), ("1.png", 3)):
            info = tarfile.TarInfo(name)
            info.size = len(png(seed))
            archive.addfile(info, BytesIO(png(seed)))
    report = run(tmp_path / "s.tar", tmp_path, table="shards")
    assert (report.embedded, report.duplicates) == (2, 1)
    assert [(row.id, row.row) for row in report.duplicate_rows] == [("s.tar/1", 2)]
    assert by_id(tmp_path, "shards")["s.tar/1"]["vector"] == vector(1)
    same = rows_of((None, 1, "x"), (None, 2, "x"), (None, 1, "x"))
    with pytest.raises(JobError, match=r"^1 rows of the input have the id of an earlier row"):
        run(parquet(same, tmp_path / "in.parquet", group_rows=1), tmp_path, table="digests", duplicates="error")
    assert len(by_id(tmp_path, "digests")) == 2  # found on the way: the rows are there, and so is the failure


def test_the_command_line_has_the_same_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = parquet(rows_of(("a", 1, "x"), ("b", 2, "x"), ("c", 3, "x")), tmp_path / "in.parquet")
    base = [str(source), "--db", str(tmp_path), "--table", "t", "--model", "fake", "--no-progress"]
    run_command("embed", base)
    parquet(rows_of(("a", 1, "x"), ("b", 5, "x"), ("b", 6, "x")), source)
    with pytest.raises(SystemExit) as left:
        run_command("embed", [*base, "--duplicates", "error"])
    assert left.value.code == 1
    assert "'b' in " in capfd.readouterr().err.splitlines()[-1]
    report = tmp_path / "report.json"
    words = ["--on-changed", "update", "--retry-errors", "--gone", "remove", "--report-json", str(report)]
    run_command("embed", [*base, *words])
    facts = json.loads(report.read_text())
    assert (facts["updated"], facts["gone"], facts["removed"], facts["gone_ids"]) == (1, 1, 1, ["c"])
    assert set(by_id(tmp_path)) == {"a", "b"}
    assert np.allclose(by_id(tmp_path)["b"]["vector"], vector(5))


def test_unknown_words_are_refused() -> None:
    for words in ({"duplicates": "warn"}, {"on_changed": "yes"}, {"gone": "delete"}):
        with pytest.raises(ArgumentError, match="expected one of"):
            Policy(**words)  # type: ignore[arg-type]
