"""What is opened, and what of it counts: metadata never costs a picture, nor does a JPEG's missing end."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lance_align import embed
from lance_align.errors import ArgumentError, RowError
from lance_align.images import DecodeLimits, decode, decode_rgba, pixels_and_thumbnail, read_pixels
from lance_align.sandbox import Decoder
from lance_align.spec import ImageSpec
from tests.image_metadata import (
    KINDS,
    PICTURE,
    UNDONE,
    chunk,
    entry,
    exif,
    heic,
    in_jpeg,
    in_png,
    oriented,
    segment,
    tiff_directory,
)
from tests.pictures import encoded, scene

ALL = DecodeLimits(formats=("jpeg", "png", "webp", "gif", "bmp", "heif", "tiff", "avif"))
SPEC = ImageSpec(resize=(16, 16), crop=(16, 16))
JPEG, PNG = encoded(PICTURE, "JPEG", quality=95), encoded(PICTURE, "PNG")


def reason_of(data: bytes, limits: DecodeLimits = ALL) -> str:
    with pytest.raises(RowError) as caught:
        decode(data, limits=limits)
    return str(caught.value)


def same(left: Image.Image, right: Image.Image) -> bool:
    return left.size == right.size and np.array_equal(np.asarray(left), np.asarray(right))


def difference(left: Image.Image, right: Image.Image) -> float:
    assert left.size == right.size
    return float(np.abs(np.subtract(left, right, dtype=int)).mean())


# Metadata


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, when a test itself opens or writes odd EXIF
@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32), orientation=st.sampled_from([None, 1, 3, 6, 8]))
def test_metadata_never_costs_the_picture(kind: str, seed: int, orientation: int | None) -> None:
    """Nor does it hide an orientation: tags of every type around it, directories that claim more than they have."""
    orientation = None if kind in ("GIF", "AVIF") else orientation
    turn = UNDONE.get(orientation or 1)
    stored = PICTURE if turn is None else PICTURE.transpose(turn)
    upright = decode(KINDS[kind](stored, random.Random(seed), orientation), limits=ALL)
    assert difference(upright, PICTURE) < (20 if kind == "GIF" else 5)


def test_pictures_are_bit_for_bit_those_without_metadata() -> None:
    plain = pixels_and_thumbnail(JPEG, SPEC, thumbnail_px=40)
    for seed in range(20):
        found = pixels_and_thumbnail(KINDS["JPEG"](PICTURE, random.Random(seed), None), SPEC, thumbnail_px=40)
        assert np.array_equal(found[0], plain[0])
        assert found[1] == plain[1]


LONG = b"Comment\0" + b"x" * (2**20 + 1)
BOMB = zlib.compress(bytes(50 * 2**20))


@pytest.mark.parametrize(
    "chunks",
    {
        "text of a MiB": [chunk(b"tEXt", LONG)],
        "text bomb": [chunk(b"zTXt", b"Comment\0\0" + BOMB)],
        "bomb in UTF-8": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB)],
        "profile bomb": [chunk(b"iCCP", b"p\0\0" + BOMB)],
        "profile of another compression": [chunk(b"iCCP", b"p\0\7" + BOMB)],
        "many texts": [chunk(b"tEXt", b"Comment\0" + bytes(2**20 - 9))] * 70,
        "wrong checksum": [chunk(b"tEXt", b"Title\0hello", is_wrong=True)],
        "EXIF without its head": [chunk(b"eXIf", b"\0\x08\0\2\1\x12\0\3")],
        "wrong transparency": [chunk(b"tRNS", b"\0"), chunk(b"tRNS", b"\0\1\0\2\0\3", is_wrong=True)],
        "frames of no animation": [chunk(b"acTL", b"\0"), chunk(b"fcTL", b"\0")],
    }.items(),
    ids=lambda named: named[0],
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_chunks_of_a_png_that_are_not_the_picture(chunks: tuple[str, list[bytes]], at_the_end: bool) -> None:
    assert same(decode(in_png(PNG, *chunks[1], at_the_end=at_the_end)), PICTURE)


def test_a_png_that_ends_within_a_text_is_whole_and_one_that_ends_within_its_pixels_is_not() -> None:
    late = in_png(PNG, chunk(b"tEXt", b"Title\0" + b"x" * 100), at_the_end=True)
    assert same(decode(late[:-60]), PICTURE)
    assert reason_of(PNG[:-40]).startswith("unreadable: ")
    damaged = bytearray(PNG)
    damaged[20] ^= 1  # the header's width, under its checksum
    assert reason_of(bytes(damaged)) == "unreadable: SyntaxError: broken PNG file (bad header checksum in b'IHDR')"


def test_transparency_is_kept() -> None:
    clear = PICTURE.quantize(8)
    assert np.asarray(decode_rgba(encoded(clear, "PNG", transparency=3)))[:, :, 3].min() == 0
    assert np.asarray(decode_rgba(encoded(clear, "GIF", transparency=3)))[:, :, 3].min() == 0


@pytest.mark.parametrize(
    "said",
    [
        tiff_directory(oriented(6)),
        tiff_directory(entry(0x0112, 3, 1, struct.pack(">H", 6), order=">"), order=">"),
        tiff_directory(entry(0x0112, 1, 1, b"\6")),
        tiff_directory(entry(0x0112, 4, 1, struct.pack("<I", 6))),
        tiff_directory(entry(0x0112, 9, 1, struct.pack("<i", 6))),
        tiff_directory(entry(0x0112, 3, 2, struct.pack("<HH", 6, 1))),
        tiff_directory(entry(0x0112, 2, 2, b"6\0")),
        tiff_directory(entry(0x0112, 5, 1, struct.pack("<I", 26))) + struct.pack("<II", 12, 2),
        tiff_directory(entry(0x0112, 3, 1, b"\x63\0"), oriented(6)),
        tiff_directory(entry(0x011A, 5, 1, b"\xff" * 4), entry(0x0128, 2, 9, b"\xff" * 4), oriented(6), claimed=99),
    ],
    ids=["short", "big-endian", "byte", "long", "signed", "two", "text", "rational", "nonsense first", "cut"],
)
def test_an_orientation_is_read_whatever_its_type(said: bytes) -> None:
    lying = PICTURE.transpose(UNDONE[6])
    jpeg = in_jpeg(encoded(lying, "JPEG", quality=95), segment(0xE1, b"Exif\0\0" + said))
    assert difference(decode(jpeg), PICTURE) < 5
    assert same(decode(in_png(encoded(lying, "PNG"), chunk(b"eXIf", said))), PICTURE)
    raw = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n%s\n" % (len(said), said.hex().encode()))
    assert same(decode(in_png(encoded(lying, "PNG"), chunk(b"zTXt", raw))), PICTURE)
    assert difference(decode(encoded(lying, "WEBP", exif=said, lossless=True)), PICTURE) == 0


@pytest.mark.parametrize(
    "said", [b"", b"II*\0", b"\xff" * 99, tiff_directory(oriented(9)), tiff_directory(oriented(0))]
)
def test_what_is_no_orientation_turns_nothing(said: bytes) -> None:
    assert same(decode(in_jpeg(JPEG, segment(0xE1, b"Exif\0\0" + said))), decode(JPEG))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_thumbnail_takes_nothing_of_what_is_not_the_picture(kind: str) -> None:
    options = {"JPEG": {"comment": b"c" * 60_000}, "GIF": {"comment": b"c" * 70_000}}.get(kind, {})
    thumbnail = pixels_and_thumbnail(encoded(PICTURE, kind, **options), SPEC, thumbnail_px=30)[1]
    assert thumbnail is not None
    assert len(thumbnail) < 5_000
    assert Image.open(io.BytesIO(thumbnail)).info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, when a test itself opens or writes odd EXIF
def test_an_opened_picture_with_odd_metadata_is_taken_too() -> None:
    opened = Image.open(io.BytesIO(in_jpeg(JPEG, segment(0xE1, b"Exif\0\0" + exif(random.Random(1), 6)))))
    assert read_pixels(opened, SPEC).shape == (16, 16, 3)


# The ends of a JPEG


def noisy(width: int = 40, height: int = 24) -> Image.Image:
    noise = np.random.default_rng(1).integers(-40, 40, (height, width, 3))
    return Image.fromarray((np.asarray(scene(width, height, seed=3)) + noise).clip(0, 255).astype(np.uint8))


CODINGS: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: encoded(noisy(), "JPEG"),
    "progressive": lambda: encoded(noisy(), "JPEG", progressive=True),
    "grey": lambda: encoded(noisy().convert("L"), "JPEG", optimize=True),
    "restarts": lambda: encoded(noisy(), "JPEG", restart_marker_blocks=1),
    "progressive restarts": lambda: encoded(noisy(), "JPEG", progressive=True, restart_marker_blocks=1),
    "flat": lambda: encoded(Image.new("RGB", (300, 200), (200, 90, 30)), "JPEG", optimize=True),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(coding: str) -> None:
    """And one that lacks a byte more is not, wherever it is cut."""
    whole = CODINGS[coding]()
    for end in (b"", b"\xff", b"\n", bytes(10), bytes(5_000), b"<html>" * 9):
        assert same(decode(whole[:-2] + end), decode(whole)), end
    assert np.array_equal(read_pixels(whole[:-2], SPEC), read_pixels(whole, SPEC))
    for cut in {*range(4, len(whole) - 2, 7), *range(len(whole) - 90, len(whole) - 2)}:
        assert reason_of(whole[:cut]).startswith("unreadable: "), cut - len(whole)


def test_zeros_do_not_complete_a_jpeg() -> None:
    whole = CODINGS["baseline"]()
    assert "truncated" in reason_of(whole[:-200] + bytes(10_000))
    assert "truncated" in reason_of(whole[:-200])


def test_a_large_jpeg_without_its_end_is_scaled_all_the_same() -> None:
    whole = encoded(noisy(1300, 1100), "JPEG")
    assert np.array_equal(read_pixels(whole[:-2], SPEC), read_pixels(whole, SPEC))
    assert reason_of(whole[:-2], DecodeLimits(max_pixels=10**6)).startswith("too_large: 1300x1100")


@pytest.mark.parametrize("lead", [b"\r\n", b"\xef\xbb\xbf", b"\0" * 9, b"1f4a\r\n", b"<br />\n<b>Notice</b>: x\n"])
def test_bytes_before_a_picture_are_passed_over(lead: bytes) -> None:
    for data in (JPEG, PNG, encoded(PICTURE.quantize(8), "GIF"), encoded(PICTURE, "WEBP")):
        assert same(decode(lead + data), decode(data))
    assert same(decode(lead + JPEG[:-2] + b"\n"), decode(JPEG))


@pytest.mark.parametrize(
    "magic", [b"%PDF-1.4\n", b"PK\3\4", b"ID3\4", b"\0\0\0\x18ftypisom", b"RIFF\0\1\0\0AVI ", b"8BPS"]
)
def test_a_picture_in_another_file_is_not_that_file(magic: bytes) -> None:
    assert reason_of(magic + bytes(20) + JPEG).startswith("format: ")


# Formats


def test_formats_are_named_as_people_name_them() -> None:
    limits = DecodeLimits(formats=("jpg", ".PNG", "apng", "mpo", "heic,tif", "JPEG2000"))
    assert limits.formats == ("JPEG", "PNG", "HEIF", "TIFF", "JPEG2000")
    for wrong in (("JPEGG",), ("JPEG", ""), (), ("EPS",), ("JPEG;PNG",)):
        with pytest.raises(ArgumentError, match=r"^image_formats.*; expected some of JPEG, PNG, .*TIFF.*$"):
            DecodeLimits(formats=wrong)


def test_an_unknown_format_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="image_formats='JPEGG' is not known; expected some of JPEG, PNG"):
        embed(tmp_path / "nothing is here", db=tmp_path / "db", table="t", image_formats=["PNG", "JPEGG"])
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("kind", ["AVIF", "TIFF", "ICO", "JPEG2000", "PPM", "DDS"])
def test_a_known_format_that_is_not_admitted_is_named_with_the_option(kind: str) -> None:
    data = encoded(PICTURE, kind)
    reason = reason_of(data, DecodeLimits(formats=("JPEG", "PNG")))
    assert reason.startswith(
        f"format: {kind} is not admitted; expected JPEG, PNG, or --image-formats JPEG PNG {kind}; starts with b'"
    )
    assert decode(data, limits=DecodeLimits(formats=(kind.lower(),))).size[0] > 0


def test_what_cannot_be_opened_at_all_is_named() -> None:
    assert reason_of(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50)).startswith(
        "format: JPEG XL cannot be decoded; expected JPEG"
    )
    assert reason_of(b'<?xml version="1.0"?><svg xmlns="x"/>').startswith("format: SVG cannot be decoded")
    assert reason_of(b"neither").startswith("format: not an image of an allowed format (JPEG, PNG")


def test_pictures_of_several_frames_give_the_first() -> None:
    others = [scene(60, 40, seed=6), scene(60, 40, seed=7)]
    mpo = encoded(PICTURE, "MPO", save_all=True, append_images=others, quality=95)
    assert same(decode(mpo, limits=DecodeLimits(formats=("JPEG",))), decode(JPEG))
    apng = encoded(PICTURE, "PNG", save_all=True, append_images=others, default_image=True)
    assert same(decode(apng), PICTURE)


def test_heic_needs_an_extra_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert (
        reason_of(b"\0\0\0\x1cftypheic" + bytes(50))
        == "format: HEIF: pillow_heif is not installed; it comes with: pip install 'lance-align[heif]'"
    )
    assert "--image-formats PNG HEIF" in reason_of(b"\0\0\0\x1cftypheic" + bytes(50), DecodeLimits(formats=("PNG",)))


def test_heic_is_decoded_in_the_decoders_process() -> None:
    pytest.importorskip("pillow_heif")
    for chance in (None, *map(random.Random, range(5))):
        data = heic(PICTURE, chance)
        assert difference(decode(data), PICTURE) < 5
        decoded = Decoder(image=SPEC, thumbnail_px=30).decode(data)
        assert np.array_equal(decoded.pixels, read_pixels(data, SPEC))
        assert decoded.thumbnail is not None
    assert reason_of(data, DecodeLimits(max_pixels=1000)) == "too_large: 60x40 pixels, the limit is 1000 in all"
    assert reason_of(data[: len(data) // 2]).startswith("unreadable: ")
    assert "HEIF" not in Image.OPEN  # who uses Pillow beside us has what he had


def test_deep_grey_pictures_are_scaled() -> None:
    deep = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27
    grey = np.asarray(decode(encoded(Image.fromarray(deep), "PNG")))[:, :, 0]
    assert np.array_equal(grey, (deep / 257).astype(np.uint8))
    deeper = encoded(Image.fromarray(deep.astype(np.int32) * 1000), "TIFF")
    assert np.abs(np.asarray(decode(deeper, limits=ALL))[:, :, 0].astype(int) - deep / deep.max() * 255).max() <= 1


@pytest.mark.parametrize("size", [(2000, 33), (33, 2000), (10, 321), (7, 3000), (1, 501), (1301, 40)])
def test_a_long_picture_shows_what_the_whole_of_it_would_show(size: tuple[int, int]) -> None:
    """As transformers does it: the whole is resized by its shorter side, then the centre is cut out."""
    spec = ImageSpec(resize=(32, 32), crop=(30, 27), resample="bicubic", fit="shortest")
    picture = noisy(*size)
    scale = 32 / min(size)
    whole = picture.resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 27) // 2, (whole.height - 30) // 2
    expected = np.asarray(whole)[top : top + 30, left : left + 27]
    found = read_pixels(encoded(picture, "PNG"), spec)
    assert np.abs(found.astype(int) - expected).mean() < 0.5  # Pillow rounds between its passes, in an order of its own
