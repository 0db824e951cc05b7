"""The door for videos: the frames that transformers samples, and for whatever else comes in a reason."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from lance_align import images, videos, visuals
from lance_align.errors import RowError
from lance_align.images import DecodeLimits
from lance_align.sandbox import Decoder, decoder_pid
from lance_align.spec import ImageSpec
from lance_align.videos import decoding
from tests.pictures import encoded, scene
from tests.test_hostile_images import peak_bytes
from tests.videos import damaged, decoded, elsewhere, film, packets, picture, repeated, sound, streamable

SPEC = ImageSpec(resize=(32, 32), crop=(32, 32), fit="shortest", frames=8)
DECODER = Decoder(image=SPEC)

KINDS: dict[str, dict[str, Any]] = {
    "h264, frames that refer over key frames": {"options": {"x264-params": "open-gop=1:bframes=4"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "av1": {"codec": "libsvtav1"},
    "mpeg4 in mov": {"container": "mov", "codec": "mpeg4", "options": {"bf": "2"}},
    "vp8 in webm": {"container": "webm", "codec": "libvpx"},
    "vp9 in mkv": {"container": "matroska", "codec": "libvpx-vp9"},
    "mjpeg in avi": {"container": "avi", "codec": "mjpeg"},
    "mpeg4 in avi": {"container": "avi", "codec": "mpeg4"},
    "h264 in avi, whose times are wrong": {"container": "avi", "options": {"x264-params": "bframes=4:scenecut=0"}},
    "mpeg4 in avi, whose times are made up": {"container": "avi", "codec": "mpeg4", "options": {"bf": "2"}},
}


def sampled(frames: list[Image.Image], spec: ImageSpec = SPEC) -> np.ndarray:
    """What transformers takes of all frames."""
    assert spec.frames is not None
    metadata = VideoMetadata(total_num_frames=len(frames))
    places = default_sample_indices_fn(metadata, num_frames=spec.frames)
    return np.stack([images.to_pixels(frames[place], spec) for place in places])


def reason(value: Any, spec: ImageSpec = SPEC, **limits: Any) -> str:
    with pytest.raises(RowError) as caught:
        visuals.read_pixels(value, spec, limits=DecodeLimits(**limits))
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampled_frames_are_those_of_transformers(kind: str) -> None:
    data = film(100, **KINDS[kind])
    every = decoded(data)
    assert len(every) == 100
    found = visuals.read_pixels(data, SPEC)
    assert (found.shape, found.dtype) == (SPEC.shape, np.uint8)
    assert np.array_equal(found, sampled(every))
    assert len({frame.tobytes() for frame in found}) == 8
    assert np.array_equal(DECODER.decode(data).pixels, found)


@given(total=st.integers(1, 10_000), frames=st.integers(1, 64))
def test_places_are_spread_over_every_video(total: int, frames: int) -> None:
    places = videos.sampled_places(total, frames)
    assert len(places) == frames
    assert places[0] == 0
    assert places == sorted(places)
    assert places[-1] < total
    if frames <= total:  # transformers refuses the others
        metadata = VideoMetadata(total_num_frames=total)
        assert places == default_sample_indices_fn(metadata, num_frames=frames).tolist()


@pytest.mark.parametrize("frames", [1, 3, 8, 9])
def test_a_short_video_shows_its_frames_several_times(frames: int) -> None:
    data = film(frames)
    every = decoded(data)
    expected = [images.to_pixels(every[place * frames // 8], SPEC) for place in range(8)]
    assert np.array_equal(visuals.read_pixels(data, SPEC), expected)


def test_frames_may_come_in_every_form_of_a_picture(tmp_path: Path) -> None:
    every = [Image.fromarray(picture(number)) for number in range(20)]
    expected = sampled(every)
    path = tmp_path / "frame.png"
    every[0].save(path)
    png = encoded(every[2], "PNG")
    mixed = [path, every[1], png, str(path), *map(np.asarray, every[4:])]  # the fourth is not sampled
    for frames in (every, tuple(every), mixed, np.stack([np.asarray(frame) for frame in every])):
        assert np.array_equal(visuals.read_pixels(frames, SPEC), expected)
    few = visuals.read_pixels(every[:3], SPEC)
    assert np.array_equal(few, [images.to_pixels(every[place], SPEC) for place in (0, 0, 0, 1, 1, 1, 2, 2)])


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    jpeg = encoded(scene(80, 60, seed=1), "JPEG")
    (tmp_path / "a.jpg").write_bytes(jpeg)
    expected = np.stack([images.to_pixels(images.decode(jpeg), SPEC)] * 8)
    for value in (jpeg, tmp_path / "a.jpg", images.decode(jpeg), np.asarray(images.decode(jpeg))):
        assert np.array_equal(visuals.read_pixels(value, SPEC), expected)
    assert np.array_equal(DECODER.decode(jpeg).pixels, expected)


def test_a_model_of_pictures_takes_no_video() -> None:
    spec = ImageSpec(resize=(32, 32), crop=(32, 32))
    assert reason(film(3), spec).startswith("format: not an image of an allowed format")
    assert reason([picture(0)], spec).startswith("type: list cannot be an image")


def test_a_video_is_turned_upright() -> None:
    spec = ImageSpec(resize=(64, 48), crop=(64, 48), frames=2)
    turned = visuals.read_pixels(film(4, turned=90), spec)
    upright = [images.to_pixels(frame.transpose(Image.Transpose.ROTATE_90), spec) for frame in decoded(film(4))]
    assert np.array_equal(turned, [upright[0], upright[2]])


def test_the_thumbnail_is_the_first_frame() -> None:
    data = film(30, width=320, height=240)
    thumbnail = Decoder(image=SPEC, thumbnail_px=100).decode(data).thumbnail
    assert thumbnail == images.encode_thumbnail(decoded(data)[0], max_side=100)
    assert thumbnail is not None
    assert Image.open(io.BytesIO(thumbnail)).size == (100, 75)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty: zero bytes"),
    "a text": (b"This is the story of a film.", "format: no video (MP4, MOV, WebM, MKV or AVI), and not an image"),
    "a playlist": (PLAYLIST, "format: no video"),
    "a list of files": (b"ffconcat version 1.0\nfile /etc/passwd\n", "format: no video"),
    "a session": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "format: no video"),
    "sound": (sound(), "format: a file without moving pictures (its streams: audio)"),
    "no frames": (film(0, container="avi", codec="mpeg4"), "empty: a video without frames"),
    "another codec": (
        film(3, container="matroska", codec="ffv1"),
        "format: a video of codec ffv1; expected one of h264",
    ),
    "cut before its header": (film()[:-200], "unreadable: Invalid data found"),
    "a header alone": (b"\x00\x00\x00\x18ftypisom" + bytes(100), "unreadable: "),
    "every frame damaged": (damaged(film(), range(25)), "unreadable: none of its frames can be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_a_reason(name: str) -> None:
    data, expected = BAD[name]
    assert reason(data).startswith(expected)
    with pytest.raises(RowError) as caught:
        DECODER.decode(data)
    assert str(caught.value) == reason(data)


def test_frames_that_lie_in_another_file_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(film())
    linked = elsewhere(film(), path)
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(io.BytesIO(linked), format="mov", options=options) as file:  # as nothing here asks for
        assert len(list(file.decode(video=0))) == 25
    assert reason(linked) == "empty: a video without frames"


def test_bad_frames_have_a_reason_only_where_all_are_bad(tmp_path: Path) -> None:
    frames: list[Any] = [np.asarray(Image.fromarray(picture(number))) for number in range(8)]
    good = visuals.read_pixels(frames, SPEC)
    broken = [b"<html>", frames[1], None, 7, *frames[4:]]
    assert np.array_equal(visuals.read_pixels(broken, SPEC), good[[1, 1, 1, 1, 4, 5, 6, 7]])
    assert reason([]) == "empty: a video without frames"
    assert reason(np.zeros((0, 4, 4, 3), np.uint8)) == "empty: a video without frames"
    assert reason([None, b"<html>"]) == "null: no image"
    assert reason([tmp_path / "none.png"]).startswith("missing: ")
    assert reason(tmp_path / "none.mp4").startswith("missing: ")
    assert reason(7).startswith("type: int cannot be an image")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_last_good_frame_stands_in_for_damaged_ones(codec: str, seed: int | None) -> None:
    """Frames of 80 that depend on one another from 0 to 19, 20 to 39, …; every tenth is taken."""
    data = film(80, key_every=20, codec=codec, options={"bf": "0", "sc_threshold": "0"}, width=160, height=120)
    every = [images.to_pixels(frame, SPEC) for frame in decoded(data)]

    def broken(place: int) -> bytes:
        if seed is None:
            return damaged(data, [place])
        position, size = packets(data)[place]
        chance, noisy = random.Random(seed), bytearray(data)
        for byte in range(position + 5, position + size):
            noisy[byte] = chance.randrange(256)
        return bytes(noisy)

    expected: dict[int, tuple[int, ...]] = {
        25: (0, 10, 20, 24, 40, 50, 60, 70),
        30: (0, 10, 20, 29, 40, 50, 60, 70),
    }
    if codec == "libx264" and seed is not None:  # else nothing tells any more that these were key frames
        expected |= {20: (0, 10, 10, 10, 40, 50, 60, 70), 0: (20, 20, 20, 30, 40, 50, 60, 70)}
    for place, numbers in expected.items():
        found = visuals.read_pixels(broken(place), SPEC)
        assert np.array_equal(found, [every[number] for number in numbers]), place


def test_a_file_that_breaks_off_has_the_frames_that_are_there(tmp_path: Path) -> None:
    for data in (
        streamable(film(80, options={"bf": "0"}), tmp_path / "a.mp4"),
        film(80, container="webm", codec="libvpx"),
    ):
        places = packets(data)
        half = data[: places[40][0]]
        assert np.array_equal(visuals.read_pixels(half, SPEC), sampled(decoded(data)[:40]))


def test_sizes_are_checked_by_the_header() -> None:
    data = film(3, width=320, height=240)
    assert reason(data, max_pixels=76_799) == "too_large: frames of 320x240 pixels, the limit is 76799 in all"
    assert reason(data, max_bytes=1000) == f"too_large: {len(data)} bytes, the limit is 1000"
    visuals.read_pixels(data, SPEC, limits=DecodeLimits(max_pixels=76_800))
    for kind in KINDS.values():
        assert reason(film(3, **kind), max_pixels=1000).startswith(
            ("too_large: ", "unreadable: frames of no known size")
        )


@pytest.fixture(scope="module")
def three_hours() -> tuple[bytes, bytes]:
    """A video of 130,000 frames in 432 equal groups, and the group."""
    once = film(300, key_every=300, options={"bf": "0", "preset": "ultrafast"}, width=640, height=360)
    return repeated(once, 3 * 3600 * 12 // 300), once


def test_of_three_hours_eight_groups_of_frames_are_decoded(
    three_hours: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, once = three_hours
    total, shown = 3 * 3600 * 12, list[int]()

    def counted(*given: Any, **options: Any) -> Iterator[Any]:
        for found in decoding.good_frames(*given, **options):
            shown.append(found[0])
            yield found

    monkeypatch.setattr("lance_align.videos.frames.good_frames", counted)
    pixels = visuals.read_pixels(data, SPEC)
    places = videos.sampled_places(total, 8)
    assert len(shown) <= sum(place % 300 + 1 for place in places) + 8 * 4  # a few more are under way in the decoder
    every = decoded(once)
    assert np.array_equal(pixels, [images.to_pixels(every[place % 300], SPEC) for place in places])


def test_three_hours_do_not_take_the_memory_of_three_hours(three_hours: tuple[bytes, bytes]) -> None:
    data, once = three_hours
    DECODER.decode(once)  # a process that has started
    pid = decoder_pid() or 0
    before = peak_bytes(pid)
    DECODER.decode(data)
    assert decoder_pid() == pid
    assert peak_bytes(pid) < before + 2 * len(data) + 32 * 2**20


@functools.cache
def corpus() -> list[bytes]:
    """Small files of most kinds."""
    return [film(20, width=32, height=32, **kind) for name, kind in KINDS.items() if name != "av1"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_done_to_a_file_it_has_pixels_or_a_reason(data: st.DataObject) -> None:
    whole = corpus()[data.draw(st.integers(0, len(corpus()) - 1))]
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for place in data.draw(st.lists(st.integers(0, max(0, len(broken) - 1)), max_size=20)):
        if broken:
            broken[place] = data.draw(st.integers(0, 255))
    assert outcome(bytes(broken)) in ("pixels", "empty", "format", "unreadable", "too_large", "memory")


def outcome(data: bytes) -> str:
    try:
        return "pixels" if DECODER.decode(data).pixels.shape == SPEC.shape else "nonsense"
    except RowError as error:
        return error.kind
