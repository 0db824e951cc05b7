"""Encoded pictures to the model's pixels, one after the other: this package, Pillow with transformers' processor.

What the pixels are worth is said by the model: the cosines are of its vectors of ours and of the reference's.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lance_align.benchmarks.measuring import OURS, Contender, Line, side_by_side
from lance_align.benchmarks.photographs import SIZES_PX, photo_files, photo_kinds
from lance_align.encoders import resolve_spec
from lance_align.encoders.two_towers import TowerEncoder
from lance_align.images import HEADROOM, read_pixels, to_pixels
from lance_align.sandbox import Decoder
from lance_align.spec import ImageSpec


def decoding_lines(
    directory: Path,
    *,
    number: int,
    folder: Path | None,
    rounds: int,
    sizes_px: Mapping[str, tuple[int, int]] = SIZES_PX,
) -> Iterator[Line]:
    """Bytes to cropped uint8 pixels, for each format and size.

    Transformers' processor is its PIL one, called as its documentation shows it, on a Pillow image made RGB.

    Args:
        directory: an ALIGN checkpoint.
        number, folder, sizes_px: as `photo_files`.
        rounds: as `side_by_side`.
    """
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    spec = resolve_spec(directory)
    encoder = TowerEncoder(spec, directory, device="cpu")
    processor = EfficientNetImageProcessorPil.from_pretrained(directory)

    def reference(data: bytes) -> NDArray[Any]:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        pixels: NDArray[Any] = processor(picture, return_tensors="np").pixel_values[0]
        return pixels

    def embed(pixels: NDArray[Any]) -> NDArray[np.float32]:
        if pixels.dtype != np.uint8:  # the reference's: scaled, and channels first
            scale, shift = (np.array(each).reshape(3, 1, 1) for each in (spec.image.scale, spec.image.shift))
            pixels = np.rint((pixels - shift) / scale).astype(np.uint8).transpose(0, 2, 3, 1)
        return encoder.encode_pixels(pixels)

    sandboxed = Decoder(image=spec.image)
    ways: dict[str, Callable[[bytes], NDArray[Any]]] = {
        OURS: lambda data: read_pixels(data, spec.image),
        f"{OURS}, in the job's decoder process": lambda data: sandboxed.decode(data).pixels,
    }
    kinds = photo_kinds(sizes_px)
    for (name, size), files in zip(kinds, photo_files(number, folder, sizes_px=sizes_px), strict=True):
        others = {"simplejpeg": _simplejpeg(spec.image)} if name == "JPEG" and _is_installed("simplejpeg") else {}
        contenders = [
            _contender(way, run, files)
            for way, run in {**ways, **others, "Pillow, transformers' processor": reference}.items()
        ]
        yield from side_by_side(f"decode, {name} {size}", contenders, rounds=rounds, unit="images/s", embed=embed)


def _contender(name: str, run: Callable[[bytes], NDArray[Any]], files: Sequence[bytes]) -> Contender:
    return Contender(name, lambda: np.stack([run(data) for data in files]))


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _simplejpeg(spec: ImageSpec) -> Callable[[bytes], NDArray[np.uint8]]:
    """Libjpeg-turbo behind another door; it scales as ours does."""
    decode_jpeg: Any = importlib.import_module("simplejpeg").decode_jpeg
    least = HEADROOM * max(spec.resize)

    def run(data: bytes) -> NDArray[np.uint8]:
        return to_pixels(Image.fromarray(decode_jpeg(data, "RGB", min_height=least, min_width=least)), spec)

    return run
