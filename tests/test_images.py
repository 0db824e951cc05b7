"""The door for pixels: every file becomes an upright RGB image or a reason, and nothing else."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lance_align.errors import RowError
from lance_align.images import DecodeLimits, decode, encode_thumbnail, load, to_pixels
from lance_align.spec import ImageSpec

RED = (220, 30, 40)


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=image_format, **options)
    return out.getvalue()


def reason_of(data: bytes, **limits: object) -> str:
    with pytest.raises(RowError) as caught:
        decode(data, limits=DecodeLimits(**limits))  # type: ignore[arg-type]
    return caught.value.kind


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_colour_survives_every_mode(mode: str) -> None:
    solid = Image.new("RGB", (20, 10), RED)
    picture = solid.quantize(2) if mode == "P" else solid.convert(mode)  # convert would dither to the web palette
    image_format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    upright = decode(encoded(picture, image_format))
    assert upright.mode == "RGB"
    assert upright.size == (20, 10)
    assert np.abs(np.asarray(upright).astype(int) - RED).max() <= 12  # JPEG and CMYK round


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_modes_keep_their_brightness(mode: str) -> None:
    grey = np.full((4, 6), 200, dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "1":
        picture = Image.fromarray(np.full((4, 6), 255, dtype=np.uint8)).convert("1")
    else:
        picture = Image.fromarray(grey).convert(mode)
    pixels = np.asarray(decode(encoded(picture)))
    assert pixels.shape == (4, 6, 3)
    assert (pixels == (255 if mode == "1" else 200)).all()


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_deep_grey_is_scaled_as_a_whole(image_format: str) -> None:
    """16 bits by their range, floating point by its brightest pixel, wherever in a large picture that is."""
    grey = np.linspace(0, 40_000, 1500 * 1100).reshape(1500, 1100)
    deep = grey.astype(np.uint16) if image_format == "PNG" else grey.astype(np.float32)
    pixels = np.asarray(
        decode(encoded(Image.fromarray(deep), image_format), limits=DecodeLimits(formats=("PNG", "TIFF")))
    )
    top = 65535 if image_format == "PNG" else 40_000
    assert (pixels[:, :, 0] == (deep.astype(np.float64) * (255 / top)).astype(np.uint8)).all()


def test_palette_with_transparency_gives_its_colours() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, *RED])
    pixels = np.asarray(decode(encoded(picture, transparency=b"\x00\xff")))
    assert (pixels == RED).all()


def test_exif_rotation_is_applied() -> None:
    picture = Image.new("RGB", (30, 10), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright is 10 wide and 30 high
    assert decode(encoded(picture, "JPEG", exif=exif)).size == (10, 30)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(decode(gif)).astype(int) - RED).max() <= 3


def test_what_is_no_image_says_so() -> None:
    assert reason_of(b"") == "empty"
    assert reason_of(b"<html>404</html>") == "format"
    assert reason_of(encoded(Image.new("RGB", (64, 64), RED))[:120]) == "unreadable"
    assert reason_of(encoded(Image.new("RGB", (4, 4)), "TIFF")) == "format"


def test_limits_hold_before_pixels_are_decoded() -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)))
    assert len(bomb) < 100_000
    assert reason_of(bomb) == "too_large"
    assert reason_of(bomb, max_bytes=1000) == "too_large"
    assert decode(encoded(Image.new("RGB", (4, 4)), "TIFF"), limits=DecodeLimits(formats=("TIFF",))).size == (4, 4)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_never_raise_anything_but_a_reason(data: st.DataObject) -> None:
    whole = bytearray(encoded(Image.linear_gradient("L").resize((48, 48)).convert("RGB"), data.draw(FORMATS)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(RowError):  # anything else fails the test
        assert decode(damaged).mode == "RGB"


FORMATS = st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"])


def test_load_takes_every_form_of_one_picture(tmp_path: Path) -> None:
    picture = Image.new("RGB", (12, 8), RED)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture))
    forms = [path, str(path), path.read_bytes(), memoryview(path.read_bytes()), picture, np.asarray(picture)]
    for form in forms:
        assert (np.asarray(load(form)) == np.asarray(picture)).all()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (17, "type"),
        (np.zeros((4, 4, 3), dtype=np.float32), "type"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "type"),
        (Path("no/such/picture.png"), "missing"),
        ("nul\x00byte.png", "missing"),
    ],
)
def test_load_says_what_cannot_be_an_image(value: object, kind: str) -> None:
    with pytest.raises(RowError) as caught:
        load(value)  # type: ignore[arg-type]
    assert caught.value.kind == kind


def test_to_pixels_squashes_and_crops_the_centre() -> None:
    columns = np.zeros((10, 30, 3), dtype=np.uint8)
    columns[:, 10:20] = RED
    spec = ImageSpec(resize=(12, 12), crop=(6, 2))
    pixels = to_pixels(Image.fromarray(columns), spec)
    assert pixels.shape == (6, 2, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == RED).all()


def test_thumbnail_keeps_the_shape_and_never_enlarges() -> None:
    small = decode(encode_thumbnail(Image.new("RGB", (400, 100), RED), max_side=64))
    assert small.size == (64, 16)
    assert decode(encode_thumbnail(Image.new("RGB", (5, 5), RED), max_side=64)).size == (5, 5)
