"""Pictures and captions to vectors: this package, transformers as its documentation shows it, and LanceDB's own way."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lance_align.benchmarks.measuring import OURS, Contender, Line, our_engines, side_by_side
from lance_align.benchmarks.weights import IMAGE_FLOP
from lance_align.encoders import resolve_spec
from lance_align.encoders.engines.base import EngineName
from lance_align.encoders.two_towers import TowerEncoder
from lance_align.images import to_pixels

_MATRIX = 2048


def image_lines(directory: Path, pictures: Sequence[Image.Image], *, rounds: int) -> list[Line]:
    """Decoded RGB pictures to vectors, preprocessing included.

    Transformers' processor is its PIL one: the default needs torchvision, which is no dependency here.
    """
    from transformers import AlignModel
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    spec = resolve_spec(directory)

    def ours(engine: EngineName) -> Contender:
        encoder = TowerEncoder(spec, directory, device="cpu", engine=engine)

        def run() -> NDArray[np.float32]:
            return encoder.encode_pixels(np.stack([to_pixels(picture, spec.image) for picture in pictures]))

        return Contender(f"{OURS}, {engine}", run)

    model: Any = AlignModel.from_pretrained(directory)  # in eval mode
    processor = EfficientNetImageProcessorPil.from_pretrained(directory)

    @torch.inference_mode()
    def features(batch: Sequence[Image.Image]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.get_image_features(
            **processor(list(batch), return_tensors="pt")
        ).pooler_output.numpy()
        return found

    def transformers(size: int) -> Contender:
        def run() -> NDArray[np.float32]:
            return np.concatenate([features(batch) for batch in _batches(pictures, size)])

        return Contender(f"transformers, batch {size}", run)

    def one_a_pass() -> NDArray[np.float32]:
        with ThreadPoolExecutor() as pool:
            return np.concatenate(list(pool.map(lambda picture: features([picture]), pictures)))

    contenders = [*map(ours, our_engines()), Contender("LanceDB's way", one_a_pass), transformers(32), transformers(1)]
    peak = matrix_flops()
    return [
        dataclasses.replace(
            line, notes={"percent of matrix peak": 100 * line.median * IMAGE_FLOP / peak, "matrix GFLOP/s": peak / 1e9}
        )
        for line in side_by_side("image tower", contenders, rounds=rounds, unit="images/s")
    ]


def text_lines(directory: Path, mixes: dict[str, list[str]], *, rounds: int) -> Iterator[Line]:
    """Captions to vectors, tokenizing included, against transformers with every caption padded to 64 tokens."""
    from transformers import AlignModel, AutoTokenizer

    spec = resolve_spec(directory)
    encoder = TowerEncoder(spec, directory, device="cpu")
    model: Any = AlignModel.from_pretrained(directory)  # in eval mode
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)

    @torch.inference_mode()
    def padded(captions: Sequence[str]) -> NDArray[np.float32]:
        settings = {"padding": "max_length", "max_length": spec.max_tokens, "truncation": True}
        found: NDArray[np.float32] = model.get_text_features(
            **tokenizer(list(captions), return_tensors="pt", **settings)
        ).pooler_output.numpy()
        return found

    for name, captions in mixes.items():

        def ours(captions: Sequence[str] = captions) -> NDArray[np.float32]:
            return encoder.encode_texts(captions).vectors

        def theirs(captions: Sequence[str] = captions) -> NDArray[np.float32]:
            return np.concatenate([padded(batch) for batch in _batches(captions, 32)])

        contenders = [Contender(OURS, ours), Contender("transformers, padded to 64, batch 32", theirs)]
        yield from side_by_side(f"text tower, {name}", contenders, rounds=rounds, unit="captions/s")


def matrix_flops(*, seconds: float = 2.0) -> float:
    """The best rate of a float32 matrix product on torch's threads, in FLOP/s: what a tower could reach at most."""
    left, right = torch.randn(_MATRIX, _MATRIX), torch.randn(_MATRIX, _MATRIX)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right)
        best = max(best, 2 * _MATRIX**3 / (time.perf_counter() - started))
    return best


def machine() -> str:
    """Processor, logical CPUs and torch's threads, in a line."""
    return f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} torch threads"


def _batches(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
