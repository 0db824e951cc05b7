"""Large JPEGs decoded at a part of their size: what the model and the thumbnail get is what the whole picture gives."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import lancedb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import lance_align
from lance_align.benchmarks.photographs import photo_files
from lance_align.encoders import load_encoder
from lance_align.errors import RowError
from lance_align.images import (
    DecodeLimits,
    Pixels,
    decode,
    encode_thumbnail,
    pixels_and_thumbnail,
    read_pixels,
    to_pixels,
)
from lance_align.sandbox import Decoder
from lance_align.spec import ImageSpec
from tests.corpus import stored
from tests.pictures import encoded, every_kind, scene

SPEC = ImageSpec(resize=(120, 200), crop=(101, 150))  # not square, and margins that differ by a pixel
BASE = ImageSpec(resize=(346, 346), crop=(289, 289))
# The transposition that a camera's orientation asks for, undone.
UNDONE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def waves(width: int, height: int) -> Image.Image:
    """Ten waves across in red, seven down in green: a shift by half a pixel of `SPEC` changes values by 10 to 20."""
    red = 127.5 + 120 * np.sin(np.linspace(0, 20 * np.pi, width))
    green = 127.5 + 120 * np.sin(np.linspace(0, 14 * np.pi, height))
    blue = np.linspace(0, 255, width)[np.newaxis, :] * np.linspace(0, 1, height)[:, np.newaxis]
    planes = np.broadcast_arrays(red[np.newaxis, :], green[:, np.newaxis], blue)
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def camera(upright: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """The file of a camera that was held as `orientation` says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    method = UNDONE[orientation]
    return encoded(upright if method is None else upright.transpose(method), kind, quality=92, exif=exif)


def whole(data: bytes, spec: ImageSpec = SPEC) -> Pixels:
    return to_pixels(decode(data), spec)


def distance(left: Pixels, right: Pixels) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@contextlib.contextmanager
def resizes() -> Iterator[list[tuple[tuple[int, int], tuple[int, int]]]]:
    """The sizes before and after each `resize` of Pillow, which goes on as ever."""
    seen: list[tuple[tuple[int, int], tuple[int, int]]] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *args: object, **kwargs: object) -> Image.Image:
        seen.append((self.size, size))
        return resize(self, size, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", watched)
        yield seen


@pytest.mark.parametrize("name", sorted(set(every_kind()) - {"4000 pixels"}))
def test_small_pictures_of_every_kind_are_bit_for_bit_the_whole_ones(name: str) -> None:
    data = every_kind()[name]
    for spec in (SPEC, BASE):
        pixels, thumbnail = pixels_and_thumbnail(data, spec, thumbnail_px=50)
        assert np.array_equal(pixels, whole(data, spec))
        assert np.array_equal(pixels, read_pixels(data, spec))
        assert thumbnail == encode_thumbnail(decode(data), max_side=50)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_large_pictures_of_other_formats_are_bit_for_bit_the_whole_ones(kind: str) -> None:
    data = encoded(waves(1800, 1300), kind)
    assert np.array_equal(read_pixels(data, SPEC), whole(data))


def test_a_jpeg_is_scaled_from_the_size_on_that_leaves_twice_what_is_needed() -> None:
    for spec, side in ((SPEC, 1024), (BASE, 4 * 346)):
        for width, height in ((side - 1, side + 300), (side + 300, side - 1)):
            data = encoded(waves(width, height), "JPEG")
            assert np.array_equal(read_pixels(data, spec), whole(data, spec))
        data = encoded(waves(side, side), "JPEG")
        assert not np.array_equal(read_pixels(data, spec), whole(data, spec))
        assert distance(read_pixels(data, spec), whole(data, spec)) <= 6


@settings(max_examples=15, deadline=None)
@example(width=2100, height=2100, orientation=1, resize=(500, 500), thumbnail_px=900)
@given(
    width=st.integers(1, 2200),
    height=st.integers(1, 2200),
    orientation=st.sampled_from(sorted(UNDONE)),
    resize=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    thumbnail_px=st.integers(1, 900),
)
def test_no_size_loses_pixels_or_its_place(
    width: int, height: int, orientation: int, resize: tuple[int, int], thumbnail_px: int
) -> None:
    """Nothing is shrunk from less than twice its size, or from less than the file has; nothing is enlarged in vain."""
    data = camera(Image.new("RGB", (width, height), (200, 90, 30)), orientation)
    spec = ImageSpec(resize=resize, crop=resize)
    with resizes() as seen:
        pixels, thumbnail = pixels_and_thumbnail(data, spec, thumbnail_px=thumbnail_px)
    assert pixels.shape == (*resize, 3)
    assert np.abs(pixels.astype(int) - (200, 90, 30)).max() <= 4
    for before, after in seen:
        if set(before) != {width, height}:
            assert before[0] >= 2 * after[0]
            assert before[1] >= 2 * after[1]
    assert thumbnail is not None
    expected = decode(encode_thumbnail(decode(data), max_side=thumbnail_px)).size
    assert np.abs(np.subtract(Image.open(io.BytesIO(thumbnail)).size, expected)).max() <= 1


@pytest.mark.parametrize(("orientation", "size"), [*((each, (1301, 1109)) for each in UNDONE), (7, (2051, 2049))])
def test_a_camera_may_be_held_in_any_way(orientation: int, size: tuple[int, int]) -> None:
    """Sizes that no scale divides: without the rest of a pixel, columns near an edge would move by a part of one."""
    upright = waves(*size)
    data = camera(upright, orientation)
    pixels, thumbnail = pixels_and_thumbnail(data, SPEC, thumbnail_px=160)
    assert not np.array_equal(pixels, whole(data))
    assert distance(pixels, whole(data)) <= 4
    assert thumbnail is not None
    small = decode(thumbnail)
    reference = decode(encode_thumbnail(upright, max_side=160))
    assert small.size == reference.size
    assert np.abs(np.subtract(small, reference, dtype=int)).mean() < 3


@pytest.mark.parametrize("way", ["progressive", "4:4:4", "grey", "CMYK", "MPO", "EXIF behind XMP"])
def test_every_coding_of_a_jpeg(way: str) -> None:
    picture = waves(1500, 1200)
    data = {
        "progressive": lambda: encoded(picture, "JPEG", progressive=True),
        "4:4:4": lambda: encoded(picture, "JPEG", subsampling=0),
        "grey": lambda: encoded(picture.convert("L"), "JPEG"),
        "CMYK": lambda: encoded(picture.convert("CMYK"), "JPEG"),
        "MPO": lambda: encoded(picture, "MPO", save_all=True, append_images=[picture.rotate(180)]),
        "EXIF behind XMP": lambda: encoded(
            picture, "JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
        ),
    }[way]()
    pixels = read_pixels(data, SPEC)
    assert not np.array_equal(pixels, whole(data))
    assert distance(pixels, whole(data)) <= 6


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """Two textured JPEGs of 5 megapixels."""
    return next(photo_files(2, None, sizes_px={"5 MP": (2599, 1999)}))


def test_the_model_sees_the_same_picture(photographs: list[bytes]) -> None:
    encoder = load_encoder("align-tiny", device="cpu", engine="torch")
    scaled = encoder.encode_images(photographs).vectors
    full = encoder.encode_images([decode(data) for data in photographs]).vectors
    assert not np.array_equal(scaled, full)
    assert (scaled * full).sum(axis=1).min() > 0.999
    assert scaled[0] @ scaled[1] < 0.99, "the model gives different pictures one vector: the test could not fail"
    for data in photographs:
        difference = np.abs(read_pixels(data, BASE).astype(int) - whole(data, BASE))
        assert 0 < difference.mean() < 0.6


@pytest.mark.parametrize("max_side", [100, 256, 700])
def test_thumbnails_are_as_good_as_those_of_the_whole_picture(max_side: int, photographs: list[bytes]) -> None:
    """By their distance to a thumbnail made in one step, without Pillow's own short cut."""
    picture = decode(photographs[0])
    thumbnail = pixels_and_thumbnail(photographs[0], SPEC, thumbnail_px=max_side)[1]
    assert thumbnail is not None
    before = decode(encode_thumbnail(picture, max_side=max_side))
    ideal = picture.copy()
    ideal.thumbnail((max_side, max_side), reducing_gap=None)
    here = decode(thumbnail)
    assert here.size == before.size == ideal.size
    errors = [np.sqrt(np.square(np.subtract(each, ideal, dtype=float)).mean()) for each in (here, before)]
    assert errors[0] <= 1.1 * errors[1]


def test_a_thumbnail_never_changes_the_pixels(photographs: list[bytes]) -> None:
    expected = read_pixels(photographs[0], SPEC)
    for thumbnail_px in (1, 256, 257, 1000, 5000):
        pixels, thumbnail = pixels_and_thumbnail(photographs[0], SPEC, thumbnail_px=thumbnail_px)
        assert np.array_equal(pixels, expected)
        assert thumbnail is not None
        assert max(decode(thumbnail).size) == min(thumbnail_px, 2599)


def test_decoded_pictures_are_used_whole(photographs: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(photographs[0])
    for form in (path, str(path), bytearray(photographs[0]), memoryview(photographs[0])):
        assert np.array_equal(read_pixels(form, SPEC), read_pixels(photographs[0], SPEC))
    for form in (Image.open(path), decode(photographs[0]), np.asarray(decode(photographs[0]))):
        assert np.array_equal(read_pixels(form, SPEC), whole(photographs[0]))


def test_limits_are_of_the_whole_picture() -> None:
    data = encoded(waves(1100, 1100), "JPEG")
    with pytest.raises(RowError, match="too_large: 1100x1100 pixels, the limit is 1000000"):
        read_pixels(data, SPEC, limits=DecodeLimits(max_pixels=10**6))


WAVES = encoded(waves(1100, 1050), "JPEG", quality=30)


@settings(max_examples=30, deadline=None)
@given(
    cut=st.integers(0, len(WAVES)),
    flips=st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_files_never_raise_anything_but_a_reason(cut: int, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(WAVES)
    for place, value in flips:  # the first kilobyte has the headers and the tables
        damaged[place] = value
    for data in (bytes(damaged), bytes(damaged[:cut])):
        with contextlib.suppress(RowError):  # anything else fails the test
            assert pixels_and_thumbnail(data, SPEC, thumbnail_px=300)[0].shape == (*SPEC.crop, 3)


def test_the_decoders_process_needs_memory_for_what_it_decodes_only() -> None:
    """64 megapixels take 256 MB in Pillow at full size; the process alone takes 120 of the 256."""
    picture = scene(8000, 8000, seed=3)
    data = encoded(picture, "JPEG")
    small = Decoder(image=SPEC, memory_mb=256, thumbnail_px=256)
    assert np.array_equal(small.decode(data).pixels, read_pixels(data, SPEC))
    with pytest.raises(RowError, match="memory: "):
        small.decode(encoded(picture, "PNG", compress_level=1))


@pytest.mark.parametrize("keep", ["bytes", "thumbnail"])
def test_every_door_gives_the_same_vector(keep: str, photographs: list[bytes], tmp_path: Path) -> None:
    """The fake's vectors are a hash of the pixels: one that differs by one would be found far away."""
    (tmp_path / "in").mkdir()
    for number, data in enumerate(photographs):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(data)
    report = lance_align.embed(
        tmp_path / "in", db=tmp_path, table="t", model="fake", progress=False, keep=keep, thumbnail_px=400
    )
    assert (report.embedded, report.failed) == (2, 0)
    table = lancedb.connect(tmp_path).open_table("t")
    if keep == "bytes":
        table.add([{"id": "2", "image": photographs[0]}])
        assert lance_align.verify(table).findings == ()
    rows = stored(tmp_path, "t")
    expected = load_encoder("fake").encode_images([*photographs, photographs[0]]).vectors
    for row, vector in zip(rows, expected, strict=False):
        assert np.array_equal(np.float32(row["vector"]), vector)
    hit = table.search(photographs[1]).limit(1).to_list()[0]
    assert (hit["id"], hit["_distance"]) == ("1.jpg", pytest.approx(0.0, abs=1e-6))
