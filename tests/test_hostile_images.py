"""A corpus of hostile images, alone and through the job: rows out are rows in, each with pixels or with its reason."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lance_align import embed
from lance_align.encoders import load_encoder
from lance_align.errors import ArgumentError, RowError
from lance_align.images import DecodeLimits
from lance_align.sandbox import Decoder, decoder_pid
from lance_align.spec import ImageSpec
from lance_align.testing import Faults
from tests.corpus import parquet, pictures, png, stored
from tests.hostile_images import Hostile, corpus

SPEC = ImageSpec(resize=(16, 16), crop=(16, 16))
DECODER = Decoder(image=SPEC)
WORKER_BYTES = 10**9
PROCESS_KINDS = ("crash", "timeout", "memory")


def outcome(data: bytes, decoder: Decoder = DECODER) -> str:
    try:
        pixels = decoder.decode(data).pixels
    except RowError as error:
        return error.kind
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
    return "pixels"


def peak_bytes(pid: int | str) -> int:
    """The most memory that a process ever had, or 0 for one that is gone."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def check(files: list[Hostile], decoder: Decoder = DECODER) -> Counter[str]:
    """Every file through one decoder, each with an outcome that may be."""
    outcomes: Counter[str] = Counter()
    for file in files:
        found = outcome(file.make(), decoder)
        outcomes[found] += 1
        assert file.expected in ("either", found), file.name
        assert found not in PROCESS_KINDS, file.name
        assert peak_bytes(decoder_pid() or 0) < WORKER_BYTES, file.name
    assert outcomes.total() == len(files)
    return outcomes


def test_every_file_gives_pixels_or_a_reason_within_a_gigabyte() -> None:
    files = corpus()
    assert len(files) > 1_400
    assert outcome(png(1)) == "pixels"
    before = decoder_pid()
    outcomes = check(files)
    assert decoder_pid() == before  # not one of them ended the process
    assert min(outcomes["pixels"], outcomes["unreadable"], outcomes["format"], outcomes["too_large"]) > 10


def test_bombs_are_refused_by_their_headers() -> None:
    small = Decoder(image=SPEC, memory_mb=256)  # the least of them takes more when it is decoded
    bombs = [file for file in corpus(heavy=False, flips=0) if file.expected == "too_large"]
    assert len(bombs) > 10
    assert [outcome(file.make(), small) for file in bombs] == ["too_large"] * len(bombs)


def test_formats_that_are_asked_for_are_opened() -> None:
    asked = Decoder(image=SPEC, limits=DecodeLimits(formats=("TIFF", "PPM", "TGA", "PCX", "SGI", "ICO")))
    refused = {file.name: file for file in corpus(heavy=False, flips=0) if file.name.startswith("refused-")}
    for name in ("tiff", "ppm", "tga", "pcx", "sgi", "ico"):
        data = refused[f"refused-{name}.png"].make()
        assert (outcome(data), outcome(data, asked)) == ("format", "pixels")
    assert outcome(png(1), asked) == "format"


MAGICS = st.sampled_from(
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1\0\x40Exif\0\0II*\0",
        b"GIF89a",
        b"BM",
        b"RIFF\x40\0\0\0WEBPVP8 ",
        b"RIFF\x40\0\0\0WEBPVP8L",
        b"RIFF\x40\0\0\0WEBPVP8X",
    ]
)


@settings(max_examples=300, deadline=None)
@given(magic=MAGICS, rest=st.binary(max_size=2_000))
def test_random_bytes_behind_a_magic_never_end_the_process(magic: bytes, rest: bytes) -> None:
    outcome(png(1))
    before = decoder_pid()
    assert outcome(magic + rest) not in PROCESS_KINDS
    assert decoder_pid() == before


def run(source: Path, db: Path, **options: Any) -> Any:
    return embed(source, db=db, table="t", model="fake", progress=False, block_rows=50, **options)


def folder(files: list[Hostile], path: Path) -> Path:
    path.mkdir()
    for file in files:
        (path / file.name).write_bytes(file.make())
    return path


def check_table(files: list[Hostile], db: Path) -> None:
    """One row a file; an error or the vector that the same bytes have without a decoder's process."""
    rows = {row["id"]: row for row in stored(db, "t")}
    assert sorted(rows) == sorted(file.name for file in files)
    encoder = load_encoder("fake")
    for file in files:
        row = rows[file.name]
        assert (row["vector"] is None) == (row["error"] is not None), file.name
        found = "pixels" if row["error"] is None else row["error"].split(":")[0]
        assert file.expected in ("either", found), file.name
        if not file.heavy:
            vectors, reasons = (
                encoder.encode_images([file.make()]).vectors,
                encoder.encode_images([file.make()]).reasons,
            )
            assert row["error"] == reasons[0], file.name
            assert row["error"] is not None or np.array_equal(np.float32(row["vector"]), vectors[0]), file.name


def test_a_folder_of_them_through_the_job(tmp_path: Path) -> None:
    files = corpus(heavy=False, flips=100)
    report = run(folder(files, tmp_path / "in"), tmp_path)
    assert report.rows_read == len(files) == report.embedded + report.failed
    assert not set(report.reasons) & set(PROCESS_KINDS)
    check_table(files, tmp_path)


def test_poison_costs_its_own_rows(tmp_path: Path) -> None:
    """One image that crashes its decoder, one that hangs it, one that takes all memory, and one that does so once."""
    source = parquet(pictures(30), tmp_path / "in.parquet")
    run(source, tmp_path / "faultless")
    with Faults() as faults:
        faults.at("decode", "segfault", marker=png(3))
        faults.at("decode", "hang", marker=png(11))
        faults.at("decode", "allocate", marker=png(20))
        faults.at("decode", "kill", marker=png(27), times=1)
        started = time.monotonic()
        report = run(source, tmp_path, decode_seconds=3.0, decode_memory_mb=384)
        assert time.monotonic() - started < 120  # 15 on an idle machine
        assert faults.fired("decode") == 2 + 2 + 2 + 1
    assert report.reasons == {"crash": 1, "timeout": 1, "memory": 1}
    assert report.embedded == 27
    for row, expected in zip(stored(tmp_path, "t"), stored(tmp_path / "faultless", "t"), strict=True):
        assert row["image"] == expected["image"]
        reason = {"row-3": "crash", "row-11": "timeout", "row-20": "memory"}.get(row["id"])
        if reason is None:
            assert row == expected
        else:
            assert (row["vector"], row["error"].split(":")[0]) == (None, reason)


@pytest.mark.parametrize(("option", "value"), [("decode_seconds", 0.0), ("decode_memory_mb", 64)])
def test_limits_that_cannot_work_are_refused_before_anything_is_made(option: str, value: float, tmp_path: Path) -> None:
    source = parquet(pictures(1), tmp_path / "in.parquet")
    with pytest.raises(ArgumentError, match=f"{option}={value}; expected"):
        run(source, tmp_path / "db", **{option: value})
    assert not (tmp_path / "db").exists()


@contextlib.contextmanager
def peaks_of(program: str) -> Iterator[dict[str, int]]:
    """The most memory of each process whose command line has `program` in it, while the block runs."""
    peaks: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if program.encode() in path.read_bytes():
                        peaks[path.parent.name] = max(peaks.get(path.parent.name, 0), peak_bytes(path.parent.name))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


@pytest.mark.slow
def test_the_whole_corpus_through_the_job(tmp_path: Path) -> None:
    files = corpus()
    source = folder(files, tmp_path / "in")
    with peaks_of("lance_align.sandbox.child") as decoders, peaks_of("ray::") as workers:
        report = run(source, tmp_path)
    print(f"\ndecoders {max(decoders.values()):,} bytes, workers {max(workers.values()):,} bytes at most")
    assert report.rows_read == len(files) == report.embedded + report.failed
    assert not set(report.reasons) & set(PROCESS_KINDS)
    check_table(files, tmp_path)
    assert 0 < max(decoders.values()) < WORKER_BYTES
