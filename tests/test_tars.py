"""A tar shard is read to its proper end, or refused by name; its samples are whole rows."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lance_align import JobReport, embed
from lance_align.errors import JobError, SourceError
from lance_align.jobs.sources import open_source
from tests.corpus import png, stored

Members = Iterable[tuple[str, bytes]]


def tar(members: Members, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def samples(count: int, name: str = "") -> list[tuple[str, bytes]]:
    kinds = (("png", b"\x89PNG picture " * 50), ("txt", b"text"))
    return [(f"{name}{number}.{suffix}", data + b"%d" % number) for number in range(count) for suffix, data in kinds]


def rows(data: bytes, folder: Path, name: str = "a.tar") -> list[dict[str, Any]]:
    (folder / name).write_bytes(data)
    source = open_source(folder / name)
    return [row for split in source.splits for table in source.read(split) for row in table.to_pylist()]


PLAIN, GNU = tar(samples(4)), tar(samples(3, "é" * 60), tarfile.GNU_FORMAT)
END = {data: len(data.rstrip(b"\0")) for data in (PLAIN, GNU)}


@settings(max_examples=150, deadline=None)
@given(
    whole=st.sampled_from([PLAIN, GNU]),
    place=st.floats(0, 1),
    kind=st.sampled_from(["cut", "zero", "flip"]),
    size=st.sampled_from([1, 512, 1024]),
)
@example(whole=PLAIN, place=0.5, kind="zero", size=1024)
def test_damage_at_any_byte_never_loses_a_row_in_silence(
    whole: bytes, place: float, kind: str, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    count = 4 if whole is PLAIN else 3
    at = int(place * (END[whole] + 600))
    data = bytearray(whole)
    if kind == "cut":
        del data[at:]
    elif kind == "zero" and at + size < END[whole]:  # zeros up to the end mark cannot be told from it
        data[at : at + size] = bytes(size)
    elif kind == "flip":
        data[at] ^= 0x10
    with contextlib.suppress(SourceError):
        assert len(rows(bytes(data), folder)) >= count


def headers(data: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [member.offset for member in archive]


@pytest.mark.parametrize("harm", [lambda at: PLAIN[:at], lambda at: PLAIN[: at + 100]])
def test_a_cut_at_or_in_any_header_is_refused(harm: Callable[[int], bytes], tmp_path: Path) -> None:
    for at in headers(PLAIN)[1:]:
        with pytest.raises(SourceError, match=r"without its end mark|is damaged"):
            rows(harm(at), tmp_path)


def test_a_header_that_became_zeros_is_refused(tmp_path: Path) -> None:
    for at in headers(PLAIN):
        with pytest.raises(SourceError, match=r"is damaged|follows zeros"):
            rows(PLAIN[:at] + bytes(512) + PLAIN[at + 512 :], tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PLAIN + tar(samples(2, "b")), "two archives joined"),
        (PLAIN + bytes(2**21), "bytes of zeros at its end"),
        (PLAIN + b"garbage" * 200, "is damaged"),
        (tar([*samples(1), *samples(1)[1:]]), r"holds some members of '0' 2 times and others not"),
        (b"", "may have been cut"),
    ],
)
def test_what_is_not_one_whole_archive_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        rows(data, tmp_path)


def test_padding_and_an_archive_without_members_are_no_damage(tmp_path: Path) -> None:
    assert len(rows(PLAIN + bytes(20480), tmp_path)) == 4
    assert rows(tar([]), tmp_path) == []


@pytest.mark.parametrize(
    ("name", "compress"),
    [("a.tar.gz", gzip.compress), ("a.tgz", gzip.compress), ("a.tar.bz2", bz2.compress), ("a.tar.xz", lzma.compress)],
)
def test_compressed_shards_are_read_through_all_their_streams(
    name: str, compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    whole = compress(PLAIN[:5000]) + compress(PLAIN[5000:])
    assert rows(whole, tmp_path, name) == [{**row, "key": f"{name}/{row['key'][6:]}"} for row in rows(PLAIN, tmp_path)]
    flipped = bytearray(compress(PLAIN))
    flipped[-6] ^= 1  # of the checksum or the length
    for damaged in (whole[:-1], whole[:-9], compress(PLAIN[:5000]), compress(PLAIN) + whole[:9], bytes(flipped)):
        with pytest.raises(SourceError, match="cannot be read as a tar shard"):
            rows(damaged, tmp_path, name)


def test_zstandard(tmp_path: Path) -> None:
    packed: bytes = pa.compress(PLAIN, "zstd", asbytes=True)
    assert len(rows(packed, tmp_path, "a.tar.zst")) == 4


def test_hostile_records_are_refused_unread(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    with pytest.raises(SourceError, match="records take 1099511627776 bytes"):
        rows(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240), tmp_path)


def test_members_of_a_sample_may_lie_apart(tmp_path: Path) -> None:
    ordered = samples(5)
    apart = sorted(ordered, key=lambda member: member[0].rpartition(".")[2])
    by_key = {row["key"]: row for row in rows(tar(ordered), tmp_path)}
    assert {row["key"]: row for row in rows(tar(apart), tmp_path)} == by_key


def test_a_sample_that_stands_twice_is_two_rows_of_one_key(tmp_path: Path) -> None:
    first, again = [("0.png", b"1"), ("0.txt", b"a")], [("0.txt", b"b"), ("0.png", b"2")]
    found = rows(tar([*first, *samples(2)[2:], *again]), tmp_path)
    assert [(row["key"], row["image"] or b"", row["text"]) for row in (found[0], found[2])] == [
        ("a.tar/0", b"1", "a"),
        ("a.tar/0", b"2", "b"),
    ]


def test_samples_too_far_apart_are_refused_before_half_of_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lance_align.jobs.sources.webdataset.MAX_APART_BYTES", 1000)
    ordered = samples(5)
    with pytest.raises(SourceError, match="tar --sort=name"):
        rows(tar(ordered[::2] + ordered[1::2]), tmp_path)
    assert len(rows(tar(ordered), tmp_path)) == 5


def test_a_link_brings_no_picture_and_is_named(tmp_path: Path) -> None:
    link = tarfile.TarInfo("1.png")
    link.type, link.linkname = tarfile.LNKTYPE, "0.png"
    data = tar(samples(1))
    with pytest.raises(SourceError, match=r"holds '1\.png' as a link.*--hard-dereference"):
        rows(link.tobuf() + data, tmp_path)


def test_roles_go_by_the_plain_suffix_and_then_by_the_last(tmp_path: Path) -> None:
    members = {
        "a.depth.png": b"D",
        "a.jpg": b"J",
        "a.caption.txt": b"T",
        "a.meta.json": b"{}",
        "b.input.png": b"I",
        "b.output.txt": b"O",
        "b.text": b"z",
    }
    assert rows(tar(members.items()), tmp_path) == [
        {"key": "a.tar/a", "image": b"J", "text": "T", "json": "{}", "members": [("depth.png", b"D")]},
        {"key": "a.tar/b", "image": b"I", "text": "O", "json": None, "members": [("text", b"z")]},
    ]


def test_names_that_are_not_utf_8_are_keys(tmp_path: Path) -> None:
    """Beside a name that reads so two samples stay two; a name that is UTF-8 stays as it is, whatever is in it."""
    names = ["caf\udce9", "caf\udce8", "caf\\xe9"]
    found = rows(tar([(f"{name}.png", b"1") for name in names], tarfile.GNU_FORMAT), tmp_path)
    assert [row["key"] for row in found] == ["a.tar/caf\\\\xe9", "a.tar/caf\\xe8", "a.tar/caf\\xe9"]
    assert not any(row["members"] for row in found)


def run(source: Path, db: Path, **options: Any) -> JobReport:
    return embed(source, db=db, table="t", model="fake", progress=False, index="none", executor="local", **options)


def test_a_job_embeds_what_can_be_read_says_what_cannot_and_removes_nothing(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in "abc":
        (shards / f"{name}.tar").write_bytes(tar((f"{name}{n}.png", png(n)) for n in range(4)))
    run(shards, tmp_path)
    whole = (shards / "b.tar").read_bytes()
    (shards / "b.tar").write_bytes(whole[: headers(whole)[2]])
    (shards / "d.tar").write_bytes(tar([("d0.png", png(9))]))
    for embedded in (1, 0):  # and the same is said again
        with pytest.raises(JobError, match=r"b\.tar cannot be read as a tar shard.*nothing was removed") as told:
            run(shards, tmp_path, gone="remove")
        report = told.value.report
        assert isinstance(report, JobReport)
        assert (report.embedded, report.removed, len(report.unread)) == (embedded, 0, 1)
        assert "b.tar" in report.to_text()
    assert len(stored(tmp_path, "t")) == 13
    (shards / "b.tar").write_bytes(whole)
    assert run(shards, tmp_path, gone="remove").removed == 0


def test_further_pictures_hidden_members_and_those_without_a_suffix_are_counted_once(tmp_path: Path) -> None:
    members = [("a.jpg", png(1)), ("a.seg.png", png(2)), ("b.png", png(3)), ("README", b"x"), (".x.png", b"y")]
    (tmp_path / "a.tar").write_bytes(tar(members))
    for _ in range(2):
        report = run(tmp_path / "a.tar", tmp_path)
        assert sum(report.left_out.values()) == 3
        assert report.left_out["names that begin with a dot"] == 1  # as in a folder
        assert "left out" in report.to_text()
        assert "further pictures" in report.to_text()
        assert '"left_out"' in report.to_json()
    assert lancedb.connect(tmp_path).open_table("t").count_rows() == 2
