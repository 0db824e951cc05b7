"""The decoder's process: the same pixels as without it, and whatever ends it costs one image."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lance_align import images
from lance_align.errors import ArgumentError, JobError, RowError
from lance_align.images import DecodeLimits
from lance_align.sandbox import Decoder, PictureDecoder, decoder_pid, frames
from lance_align.spec import ImageSpec
from lance_align.testing import Faults
from tests.corpus import png
from tests.pictures import encoded, every_kind, scene

ROOT = Path(__file__).parent.parent
SPEC = ImageSpec(resize=(20, 30), crop=(16, 24))
DECODER = Decoder(image=SPEC)
INNOCENT, GUILTY = png(1), png(2)


def in_process(data: bytes, spec: ImageSpec = SPEC) -> np.ndarray:
    return images.read_pixels(data, spec)


def assert_right(data: bytes = INNOCENT) -> None:
    assert np.array_equal(DECODER.decode(data).pixels, in_process(data))


def reason_of(data: bytes, decoder: Decoder = DECODER) -> str:
    with pytest.raises(RowError) as caught:
        decoder.decode(data)
    return str(caught.value)


def is_running(pid: int) -> bool:
    """A zombie has ended; nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def faults() -> Iterator[Faults]:
    """A decoder that has started, so that times are those of images, and a plan for it."""
    assert_right()
    with Faults() as plan:
        yield plan


def program(text: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that has decoded `a`; the tests kill or fork it."""
    head = (
        "import os, signal, sys\nfrom lance_align.sandbox import Decoder, decoder_pid\n"
        "from lance_align.spec import ImageSpec\nfrom tests.corpus import png\n"
        "decoder = Decoder(image=ImageSpec(resize=(4, 4), crop=(4, 4)), seconds=0.5)\n"
        "a = decoder.decode(png(1)).pixels\n"
    )
    return subprocess.run([sys.executable, "-c", head + text], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", every_kind())
def test_pixels_and_thumbnails_are_those_of_the_same_process(name: str) -> None:
    data = every_kind()[name]
    decoded = Decoder(image=SPEC, thumbnail_px=40).decode(data)
    assert np.array_equal(decoded.pixels, in_process(data))
    assert decoded.thumbnail == images.pixels_and_thumbnail(data, SPEC, thumbnail_px=40)[1]
    assert DECODER.decode(data).thumbnail is None


@pytest.mark.parametrize("name", every_kind())
def test_whole_pictures_are_those_of_the_same_process(name: str) -> None:
    data = every_kind()[name]
    if name != "4000 pixels":  # which is larger
        whole = np.asarray(images.decode(data))
        assert np.array_equal(PictureDecoder(max_side_px=320).decode(data).pixels, whole)
    found = PictureDecoder(max_side_px=80).decode(data)
    assert np.array_equal(found.pixels, np.asarray(images.picture(data, max_side_px=80)))
    assert max(found.pixels.shape[:2]) == (1 if name == "one pixel" else 80)
    assert found.thumbnail is None
    upright = np.asarray(images.decode(data))
    assert abs(float(found.pixels.mean()) - float(upright.mean())) < 1.0
    assert (found.pixels.shape[0] > found.pixels.shape[1]) == (upright.shape[0] > upright.shape[1])


def test_an_image_has_its_own_reason_and_no_other() -> None:
    for data in (b"", b"<html>", INNOCENT[:60], encoded(scene(4, 4, seed=1), "TIFF")):
        with pytest.raises(RowError) as caught:
            images.decode(data)
        assert reason_of(data) == str(caught.value)
    small = Decoder(image=SPEC, limits=DecodeLimits(max_pixels=100, max_bytes=1000, formats=("PNG",)))
    assert reason_of(INNOCENT, small) == "too_large: 12x12 pixels, the limit is 100 in all"
    assert reason_of(b"x" * 1001, small) == "too_large: 1001 bytes, the limit is 1000"
    assert reason_of(encoded(scene(9, 9, seed=1), "GIF"), small).startswith("format: ")
    before = decoder_pid()
    assert_right()
    assert decoder_pid() == before  # none of these cost a process


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("segfault", "crash: the decoder's process was ended by SIGSEGV"),
        ("kill", "crash: the decoder's process was ended by SIGKILL"),
        ("exit", "crash: the decoder's process ended with status 70"),
        ("value_error", "crash: the decoder raised ValueError: injected fault"),
        ("os_error", "crash: the decoder raised OSError: [Errno 5] injected fault"),
        ("memory_error", "memory: it takes more than the 1024 MB of decode_memory_mb"),
        ("allocate", "memory: it takes more than the 1024 MB of decode_memory_mb"),
    ],
)
def test_a_poisonous_image_is_tried_twice_and_costs_itself_alone(action: str, reason: str, faults: Faults) -> None:
    faults.at("decode", action, marker=GUILTY)  # type: ignore[arg-type]
    assert reason_of(GUILTY) == reason
    assert faults.fired("decode") == 2
    assert_right()


def test_a_hang_is_ended_twice(faults: Faults) -> None:
    faults.at("decode", "hang", marker=GUILTY)
    started = time.monotonic()
    reason = reason_of(GUILTY, Decoder(image=SPEC, seconds=0.5))
    assert reason == "timeout: not decoded within the 0.5 s of decode_seconds"
    assert 1.0 <= time.monotonic() - started < 20
    assert faults.fired("decode") == 2
    assert_right()


@pytest.mark.parametrize("action", ["segfault", "exit", "value_error", "memory_error", "hang"])
def test_what_goes_wrong_once_costs_nothing(action: str, faults: Faults) -> None:
    faults.at("decode", action, times=1)  # type: ignore[arg-type]
    decoded = Decoder(image=SPEC, seconds=1.0).decode(INNOCENT)
    assert np.array_equal(decoded.pixels, in_process(INNOCENT))
    assert faults.fired("decode") == 1


def test_a_process_killed_between_two_images_is_replaced(faults: Faults) -> None:
    """And that is not counted against the next image, which may still fail once."""
    faults.at("decode", "segfault", marker=GUILTY, times=1)
    pid = decoder_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert ends_within(pid, 5)
    assert_right(GUILTY)
    assert faults.fired("decode") == 1


def test_an_interrupted_question_is_not_answered_to_the_next(faults: Faults) -> None:
    faults.at("decode", "hang", marker=GUILTY, seconds=2)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            DECODER.decode(GUILTY)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert_right()


def test_threads_take_turns() -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(20):
            if not np.array_equal(DECODER.decode(png(seed)).pixels, in_process(png(seed))):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_is_what_was_asked_for() -> None:
    data = encoded(scene(8000, 8000, seed=3), "PNG", compress_level=1)  # 256 MB in Pillow
    assert reason_of(data, Decoder(image=SPEC, memory_mb=256)).startswith("memory: ")
    assert np.array_equal(DECODER.decode(data).pixels, in_process(data))


def test_a_file_may_itself_be_too_much_memory() -> None:
    small = Decoder(image=SPEC, memory_mb=256)
    assert np.array_equal(small.decode(INNOCENT).pixels, in_process(INNOCENT))
    assert reason_of(INNOCENT + bytes(200 * 10**6), small).startswith("memory: ")
    assert np.array_equal(small.decode(INNOCENT).pixels, in_process(INNOCENT))


def test_the_process_knows_neither_tables_nor_models() -> None:
    assert_right()
    maps = Path(f"/proc/{decoder_pid()}/maps").read_text()
    assert "PIL" in maps
    assert [name for name in ("lance/", "lancedb", "pyarrow", "torch", "ray/") if name in maps] == []


def test_nothing_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    tiff = bytearray(encoded(scene(64, 64, seed=1), "TIFF", compression="tiff_lzw"))
    tiff[8:40] = bytes(32)
    limits = DecodeLimits(formats=("TIFF",))
    with pytest.raises(RowError):
        images.decode(bytes(tiff), limits=limits)
    assert capfd.readouterr().err  # libtiff complains by itself
    reason_of(bytes(tiff), Decoder(image=SPEC, limits=limits))
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_with_its_parent() -> None:
    done = program("print(decoder_pid(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert ends_within(int(done.stdout), 5)


def test_a_hanging_process_ends_after_its_parent(faults: Faults) -> None:
    faults.at("decode", "hang", marker=GUILTY)
    done = program(
        "import threading, time\nthreading.Thread(target=decoder.decode, args=(png(2),), daemon=True).start()\n"
        "time.sleep(0.2)\nprint(decoder_pid(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert ends_within(int(done.stdout), 15)


def test_a_fork_gets_a_process_of_its_own(faults: Faults) -> None:
    """Also when another thread of the parent was waiting for an answer just then."""
    faults.at("decode", "hang", marker=GUILTY)
    done = program(
        "import contextlib, threading, time\n"
        "from lance_align.errors import RowError\n"
        "def wait():\n    with contextlib.suppress(RowError):\n        decoder.decode(png(2))\n"
        "thread = threading.Thread(target=wait)\nthread.start()\ntime.sleep(0.1)\nmine = decoder_pid()\n"
        "child = os.fork()\n"
        "if child == 0:\n    signal.alarm(20)\n    b = decoder.decode(png(1)).pixels\n"
        "    os._exit(0 if decoder_pid() != mine and (b == a).all() else 1)\n"
        "thread.join()\nprint(os.waitpid(child, 0)[1], (decoder.decode(png(1)).pixels == a).all())"
    )
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_a_process_that_cannot_start_is_no_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('no libjpeg here')")
    assert_right()
    pid = decoder_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with monkeypatch.context() as context:
        context.syspath_prepend(tmp_path)
        with pytest.raises(JobError, match=r"did not start .*Pillow is not installed") as caught:
            DECODER.decode(INNOCENT)
        assert "\n" not in str(caught.value)
    with monkeypatch.context() as context:
        context.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(JobError, match=r"did not start .*No such file"):
            DECODER.decode(INNOCENT)
    assert_right()


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ArgumentError, match="decode_seconds=0; expected"):
        Decoder(image=SPEC, seconds=0)
    with pytest.raises(ArgumentError, match="decode_memory_mb=100; expected 256"):
        Decoder(image=SPEC, memory_mb=100)
    assert Decoder.from_json(DECODER.to_json()) == DECODER


def test_messages_are_bounded_and_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames.send(theirs, b'{"a": 1}', b"xyz")
        header, payload = frames.receive(ours, max_bytes=3)
        assert (frames.parse(header), bytes(payload)) == ({"a": 1}, b"xyz")
        frames.send(theirs, b"{}", b"xyz")
        with pytest.raises(ValueError, match="message of 2 \\+ 3 bytes"):
            frames.receive(ours, max_bytes=2)
        for _ in range(5):
            ours.recv(1)
        with pytest.raises(TimeoutError):
            frames.receive(ours, ends_at=time.monotonic() + 0.05)
        theirs.close()
        with pytest.raises(EOFError):
            frames.receive(ours)
    with pytest.raises(ValueError, match="list is no message"):
        frames.parse(b"[]")
