"""Both towers on a GPU: types, orders of memory, eager, compiled and recorded, by batch size.

Needs torch and transformers only, so that it runs where neither Ray nor LanceDB is installed:

    python -m lance_align.benchmarks.gpu --json gpu.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lance_align.benchmarks.card import Card, activations, line
from lance_align.benchmarks.measuring import OURS, Line
from lance_align.benchmarks.weights import save_base_checkpoint
from lance_align.encoders import resolve_spec
from lance_align.encoders.devices import Precision, full_precision
from lance_align.encoders.engines.base import EngineName, Features, Pixels, agreement, probe_pixels
from lance_align.encoders.engines.module import prepare
from lance_align.encoders.pixels import PixelTower
from lance_align.encoders.two_towers import TowerEncoder, image_tower
from lance_align.errors import ArgumentError, LanceAlignError

BATCHES = (32, 128, 512, 1024)
# Of the ways that take a minute to prepare, or the memory of all their passes.
PREPARED_BATCHES = (128, 512)
ROWS = 2048  # pictures, and captions, of one round through an encoder
FEW = 16  # of them are compared
IMAGES, CAPTIONS = "GPU, images", "GPU, captions"
WORDS = ("a", "red", "blue", "small", "cat", "dog", "house", "on", "under", "the", "table", "at", "night", "children")

_ORDERS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


def gpu_lines(directory: Path, *, rounds: int) -> Iterator[Line]:
    """Measure the first GPU with an ALIGN checkpoint; ratios are to our encoder as a job calls it.

    Raises:
        ArgumentError: torch sees no GPU.
    """
    require_gpu()
    card = Card.measured(rounds=rounds)
    lines = [*_encoders(directory, card)]
    lines += [*_towers(directory, card), *_transformers(directory, card)]
    for each in lines:
        ours = next(other.median for other in lines if other.part == each.part)
        yield dataclasses.replace(each, ratio=each.median / ours)


def require_gpu() -> None:
    """Refuse a machine without one.

    Raises:
        ArgumentError: torch sees no GPU.
    """
    if not torch.cuda.is_available():
        raise ArgumentError("torch sees no GPU here; the other parts of the benchmark run on the CPU")


def _encoders(directory: Path, card: Card) -> Iterator[Line]:
    """Our encoders, from arrays and texts on the CPU to vectors there; the default first."""
    spec = resolve_spec(directory)
    pixels = np.resize(probe_pixels(spec.image), (ROWS, *spec.image.crop, 3))
    draw = random.Random(0)
    captions = [f"{row} {' '.join(draw.choices(WORDS, k=draw.randint(1, 60)))}" for row in range(ROWS)]
    exact = TowerEncoder(spec, directory, device="cpu", engine="torch")
    features = exact.encode_pixels(pixels[:FEW])
    texts = exact.encode_texts(captions[:FEW]).vectors
    ways: tuple[tuple[EngineName, Precision], ...] = (
        ("torch", "bfloat16"),
        ("compiled", "bfloat16"),
        ("torch", "float32"),
    )
    for engine, precision in ways:
        encoder = TowerEncoder(spec, directory, device="cuda", engine=engine, precision=precision)
        name = f"{OURS}, {engine}, {precision}"
        cosine = agreement(encoder.encode_pixels(pixels[:FEW]), features)
        times = card.seconds(encoder.encode_pixels, pixels)
        if times:
            yield line(IMAGES, name, unit="images/s", rows=ROWS, times_s=times, cosine=cosine, notes={})
        if engine == "torch":
            cosine = agreement(encoder.encode_texts(captions[:FEW]).vectors, texts)
            times = card.seconds(encoder.encode_texts, captions)
            yield line(CAPTIONS, name, unit="captions/s", rows=ROWS, times_s=times, cosine=cosine, notes={})


def _towers(directory: Path, card: Card) -> Iterator[Line]:
    """Our tower alone, pixels on the device already."""
    spec = resolve_spec(directory)
    probe = probe_pixels(spec.image)
    plain = _load(directory, torch.device("cpu"))
    values, reference = activations(plain), _features(plain, probe)
    for dtype in (torch.float32, torch.bfloat16):
        for order, memory_format in _ORDERS.items():
            tower = _load(directory, card.device)
            prepare(tower, card.device, dtype)
            tower.use(dtype=dtype, memory_format=memory_format)
            cosine = agreement(_features(tower, probe), reference)
            for way, batches, made in _ways(tower, dtype):
                for batch in batches:
                    pixels = torch.randint(0, 256, (batch, *spec.image.crop, 3), dtype=torch.uint8, device=card.device)
                    times = card.seconds(made(pixels), pixels)
                    if times:
                        yield line(
                            IMAGES,
                            f"tower, {_short(dtype)}, {order}, {way}, batch {batch}",
                            unit="images/s",
                            rows=batch,
                            times_s=times,
                            cosine=cosine,
                            notes=card.limits(batch / statistics.median(times), dtype, values),
                        )


def _ways(
    tower: PixelTower, dtype: torch.dtype
) -> Iterator[tuple[str, Sequence[int], Callable[[torch.Tensor], Callable[[torch.Tensor], Any]]]]:
    """Name, batch sizes, and what makes a callable for pixels."""
    yield "eager", BATCHES, lambda _: tower
    if dtype == torch.bfloat16:
        yield "CUDA graph", PREPARED_BATCHES, lambda pixels: _recorded(tower, pixels)
        yield "compiled", PREPARED_BATCHES, lambda _: torch.compile(tower, dynamic=False)


@torch.inference_mode()
def _recorded(tower: nn.Module, pixels: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The pass over these pixels as a CUDA graph: all its kernels are launched at once."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        tower(pixels)  # recording allows no first time of anything
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        features: torch.Tensor = tower(pixels)

    def replay(_pixels: torch.Tensor) -> torch.Tensor:
        graph.replay()
        return features

    return replay


def _transformers(directory: Path, card: Card) -> Iterator[Line]:
    """transformers' model as it is, pixels scaled and on the device, captions tokenised and padded to 64."""
    from transformers import AlignModel

    spec = resolve_spec(directory)
    probe = probe_pixels(spec.image)
    reference = _features(_load(directory, torch.device("cpu")), probe)
    model: Any = AlignModel.from_pretrained(directory)
    for dtype in (torch.float32, torch.bfloat16):
        model.to(device=card.device, dtype=dtype)

        def features(scaled: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = model.get_image_features(pixel_values=scaled).pooler_output
            return found

        def scaled(pixels: torch.Tensor, dtype: torch.dtype = dtype) -> torch.Tensor:
            return (pixels.to(card.device).permute(0, 3, 1, 2) / 127.5 - 1).to(dtype).contiguous()

        with torch.inference_mode(), full_precision(card.device):
            cosine = agreement(features(scaled(torch.tensor(probe))).float().cpu().numpy(), reference)
        for batch in BATCHES:
            pixels = scaled(torch.randint(0, 256, (batch, *spec.image.crop, 3), dtype=torch.uint8))
            times = card.seconds(features, pixels)
            if times:
                name = f"transformers, {_short(dtype)}, eager, batch {batch}"
                yield line(IMAGES, name, unit="images/s", rows=batch, times_s=times, cosine=cosine, notes={})
        tokens = torch.randint(0, 1000, (256, spec.max_tokens), device=card.device)
        mask = torch.ones_like(tokens)

        def captions(tokens: torch.Tensor, mask: torch.Tensor) -> Any:
            return model.get_text_features(input_ids=tokens, attention_mask=mask)

        yield line(
            CAPTIONS,
            f"transformers, {_short(dtype)}, padded to {spec.max_tokens}, batch 256",
            unit="captions/s",
            rows=len(tokens),
            times_s=card.seconds(captions, tokens, mask),
            cosine=None,  # of other captions
            notes={},
        )


def _load(directory: Path, device: torch.device) -> PixelTower:
    return image_tower(resolve_spec(directory), directory).to(device)


@torch.inference_mode()
def _features(tower: PixelTower, pixels: Pixels) -> Features:
    device = tower.scale.device
    with full_precision(device):
        found: Features = tower(torch.tensor(pixels, device=device)).cpu().numpy()
    return found


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> None:
    """Measure, print a line for each way, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m lance_align.benchmarks.gpu", description="Both towers on a GPU.")
    parser.add_argument("--model", type=Path, help="an ALIGN checkpoint; by default one of align-base's configuration")
    parser.add_argument("--rounds", type=int, default=7, help="measured passes of each way")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    require_gpu()
    directory = arguments.model or save_base_checkpoint()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {directory}")
    lines = list(gpu_lines(directory, rounds=arguments.rounds))
    for each in lines:
        rate = f"{each.median:,.0f} {each.unit} ({each.low:,.0f}-{each.high:,.0f}), {each.ratio:.2f} of ours"
        notes = "".join(f", {value:.0f} {name}" for name, value in each.notes.items())
        cosine = "" if each.min_cosine is None else f"cosine {each.min_cosine:.6f}"
        print(f"{each.name:<56} {rate:<56} {cosine}{notes}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([dataclasses.asdict(each) for each in lines], indent=2))


if __name__ == "__main__":
    try:
        main()
    except LanceAlignError as error:
        sys.exit(f"error: {error}")
