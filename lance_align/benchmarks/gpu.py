"""Both towers on a GPU: types, orders of memory, eager, compiled and recorded, by batch size.

Needs torch and transformers only, so that it runs where neither Ray nor LanceDB is installed:

    python -m lance_align.benchmarks.gpu --json gpu.json

Lines are printed, and the file is written, as they are made. What tells most comes first; what the budget of time has
no room for is named.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import random
import statistics
import sys
import time
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
from lance_align.encoders.devices import Precision, full_precision, resolve_device
from lance_align.encoders.engines.base import EngineName, Features, Pixels, agreement, probe_pixels
from lance_align.encoders.engines.module import prepare
from lance_align.encoders.memory import free_memory
from lance_align.encoders.pixels import PixelTower
from lance_align.encoders.two_towers import TowerEncoder, image_tower
from lance_align.errors import ArgumentError, LanceAlignError

BUDGET_S = 540.0  # a rented machine is often given ten minutes
BATCHES = (32, 128, 512, 1024)
# Of the ways that take a minute to prepare, or the memory of all their passes.
PREPARED_BATCHES = (128,)
ROWS = 1024  # pictures, and captions, of one round through an encoder: as many as a job gives it
FEW = 16  # of them are compared
# What a way takes at most, for the budget; cold compilers take 60 to 150 s.
EAGER_S, COMPILED_S = 45.0, 180.0
IMAGES, CAPTIONS = "GPU, images", "GPU, captions"
WORDS = ("a", "red", "blue", "small", "cat", "dog", "house", "on", "under", "the", "table", "at", "night", "children")

_ORDERS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
_TYPES = (torch.bfloat16, torch.float32)


def gpu_lines(
    directory: Path,
    *,
    rounds: int,
    budget_s: float = BUDGET_S,
    device: str = "cuda",
    note: Callable[[str], None] = print,
) -> Iterator[Line]:
    """Measure a GPU with an ALIGN checkpoint; ratios are to our encoder as a job calls it.

    Args:
        directory: the checkpoint.
        rounds: measured passes of each way.
        budget_s: a way that may take longer than what is left of it is left out.
        device: ``"cpu"`` rehearses the benchmark; the figures then mean nothing.
        note: told of each way that is left out, and why.

    Raises:
        ArgumentError: torch sees no GPU.
    """
    ends = time.monotonic() + budget_s
    if device != "cpu":
        require_gpu()
    subject = _Subject(directory, Card.measured(resolve_device(device), rounds=rounds))
    ours: dict[str, float] = {}
    for name, needed_s, measure in _ways(subject):
        if time.monotonic() + needed_s > ends:
            note(f"{name}: left out, it may take {needed_s:.0f} s and {max(0.0, ends - time.monotonic()):.0f} are left")
            continue
        try:
            for each in measure():
                yield dataclasses.replace(each, ratio=each.median / ours.setdefault(each.part, each.median))
        except Exception as error:  # noqa: BLE001  no compiler, no memory, …: the others keep their lines
            note(f"{name}: {type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}")
        free_memory()


def require_gpu() -> None:
    """Refuse a machine without one.

    Raises:
        ArgumentError: torch sees no GPU.
    """
    if not torch.cuda.is_available():
        raise ArgumentError("torch sees no GPU here; the other parts of the benchmark run on the CPU")


class _Subject:
    """What is measured, and what is right: the vectors of the CPU in float32."""

    def __init__(self, directory: Path, card: Card) -> None:
        self.directory, self.card = directory, card
        is_rehearsal = card.device.type == "cpu"
        self.rows = 4 if is_rehearsal else ROWS
        self.batches = (4,) if is_rehearsal else BATCHES
        self.spec = resolve_spec(directory)
        self.probe = probe_pixels(self.spec.image)
        self.pixels = np.resize(self.probe, (self.rows, *self.spec.image.shape))
        draw = random.Random(0)
        self.captions = [f"{row} {' '.join(draw.choices(WORDS, k=draw.randint(1, 60)))}" for row in range(self.rows)]

    @functools.cached_property
    def exact(self) -> tuple[Features, Features]:
        """Vectors of a few pictures and captions."""
        encoder = TowerEncoder(self.spec, self.directory, device="cpu", engine="torch")
        return encoder.encode_pixels(self.pixels[:FEW]), encoder.encode_texts(self.captions[:FEW]).vectors

    @functools.cached_property
    def reference(self) -> tuple[int, Features]:
        """Of the plain tower: the values its layers read and write for a picture, and its features of the probe."""
        plain = self.tower(torch.device("cpu"))
        return activations(plain), _features(plain, self.probe)

    def tower(self, device: torch.device) -> PixelTower:
        """The plain tower."""
        return image_tower(self.spec, self.directory).to(device)

    def batch(self, rows: int) -> torch.Tensor:
        """Pictures on the device: the probe, then random ones."""
        probe = torch.tensor(self.probe)[:rows]
        rest = torch.randint(0, 256, (rows - len(probe), *self.spec.image.shape), dtype=torch.uint8)
        return torch.cat([probe, rest]).to(self.card.device)


def _ways(subject: _Subject) -> Iterator[tuple[str, float, Callable[[], Iterator[Line]]]]:
    """Name, seconds it takes at most, and what measures it; what tells most first."""
    for precision in ("bfloat16", "float32"):
        yield _encoder_way(subject, "torch", precision)
    for dtype in _TYPES:
        yield f"transformers, {_short(dtype)}", EAGER_S, functools.partial(_transformers, subject, dtype)
    for dtype in _TYPES:
        for order in _ORDERS:
            yield f"tower, {_short(dtype)}, {order}", EAGER_S, functools.partial(_tower, subject, dtype, order, "eager")
    if subject.card.device.type == "cuda":
        for order in _ORDERS:
            graph = functools.partial(_tower, subject, torch.bfloat16, order, "CUDA graph")
            yield f"tower, bfloat16, {order}, CUDA graph", EAGER_S, graph
    yield _encoder_way(subject, "compiled", "bfloat16")
    for order in _ORDERS:
        compiled = functools.partial(_tower, subject, torch.bfloat16, order, "compiled")
        yield f"tower, bfloat16, {order}, compiled", COMPILED_S, compiled


def _encoder_way(
    subject: _Subject, engine: EngineName, precision: Precision
) -> tuple[str, float, Callable[[], Iterator[Line]]]:
    needed_s = COMPILED_S if engine == "compiled" else EAGER_S
    name = f"{OURS}, {engine}, {precision}"
    return name, needed_s, functools.partial(_encoder, subject, name, engine, precision)


def _encoder(subject: _Subject, name: str, engine: EngineName, precision: Precision) -> Iterator[Line]:
    """Our encoder, from arrays and texts on the CPU to vectors there."""
    card, (features, texts) = subject.card, subject.exact
    device = str(card.device)
    encoder = TowerEncoder(subject.spec, subject.directory, device=device, engine=engine, precision=precision)
    cosine = agreement(encoder.encode_pixels(subject.pixels[:FEW]), features)
    times = card.seconds(encoder.encode_pixels, subject.pixels)
    if times:
        yield line(IMAGES, name, unit="images/s", rows=subject.rows, times_s=times, cosine=cosine, notes={})
    if engine == "torch":
        cosine = agreement(encoder.encode_texts(subject.captions[:FEW]).vectors, texts)
        times = card.seconds(encoder.encode_texts, subject.captions)
        if times:
            yield line(CAPTIONS, name, unit="captions/s", rows=subject.rows, times_s=times, cosine=cosine, notes={})


def _tower(subject: _Subject, dtype: torch.dtype, order: str, way: str) -> Iterator[Line]:
    """Our tower alone, pixels on the device already."""
    card, (values, reference) = subject.card, subject.reference
    tower = subject.tower(card.device)
    prepare(tower, card.device, dtype)
    tower.use(dtype=dtype, memory_format=_ORDERS[order])
    forward: Callable[[torch.Tensor], torch.Tensor] = (
        torch.compile(tower, dynamic=False) if way == "compiled" else tower
    )
    for batch in subject.batches if way == "eager" else PREPARED_BATCHES:
        pixels = subject.batch(batch)
        run = _recorded(tower, pixels) if way == "CUDA graph" else forward
        times = card.seconds(run, pixels)
        if times:
            with torch.inference_mode(), full_precision(card.device):
                found = run(pixels)[: len(reference)].float().cpu().numpy()
            notes = card.limits(batch / statistics.median(times), dtype, values)
            if way == "compiled":  # its kernels pass on what layers would read and write
                notes.pop("percent of bandwidth")
            yield line(
                IMAGES,
                f"tower, {_short(dtype)}, {order}, {way}, batch {batch}",
                unit="images/s",
                rows=batch,
                times_s=times,
                cosine=agreement(found, reference),
                notes=notes,
            )


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


def _transformers(subject: _Subject, dtype: torch.dtype) -> Iterator[Line]:
    """transformers' model as it is, pixels scaled and on the device, captions tokenised and padded to 64."""
    from transformers import AlignModel

    card, (_, reference) = subject.card, subject.reference
    kind: Any = AlignModel
    model = kind.from_pretrained(subject.directory).to(device=card.device, dtype=dtype)

    def features(scaled: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model.get_image_features(pixel_values=scaled).pooler_output
        return found

    def captions(tokens: torch.Tensor, mask: torch.Tensor) -> Any:
        return model.get_text_features(input_ids=tokens, attention_mask=mask)

    for batch in subject.batches:
        pixels = (subject.batch(batch).permute(0, 3, 1, 2) / 127.5 - 1).to(dtype).contiguous()
        times = card.seconds(features, pixels)
        if times:
            with torch.inference_mode(), full_precision(card.device):
                found = features(pixels[: len(reference)]).float().cpu().numpy()
            name, cosine = f"transformers, {_short(dtype)}, eager, batch {batch}", agreement(found, reference)
            yield line(IMAGES, name, unit="images/s", rows=batch, times_s=times, cosine=cosine, notes={})
    length = subject.spec.max_tokens
    rows = min(256, subject.rows)
    tokens = torch.randint(0, 1000, (rows, length), device=card.device)
    times = card.seconds(captions, tokens, torch.ones_like(tokens))
    if times:
        name = f"transformers, {_short(dtype)}, padded to {length}, batch {rows}"
        yield line(CAPTIONS, name, unit="captions/s", rows=rows, times_s=times, cosine=None, notes={})


@torch.inference_mode()
def _features(tower: PixelTower, pixels: Pixels) -> Features:
    device = tower.scale.device
    with full_precision(device):
        found: Features = tower(torch.tensor(pixels, device=device)).cpu().numpy()
    return found


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a line for each way as it is made, and write JSON as it goes if asked."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m lance_align.benchmarks.gpu", description="Both towers on a GPU.")
    parser.add_argument("--model", type=Path, help="an ALIGN checkpoint; by default one of align-base's configuration")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each way")
    parser.add_argument(
        "--budget-seconds", type=float, default=BUDGET_S, help="of the whole; what has no room is named"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses, and measures nothing")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        require_gpu()
    directory = options.model or save_base_checkpoint()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {directory}", flush=True)
    lines: list[Line] = []
    left_s = options.budget_seconds - (time.monotonic() - started)
    say = functools.partial(print, flush=True)
    for each in gpu_lines(directory, rounds=options.rounds, budget_s=left_s, device=options.device, note=say):
        rate = f"{each.median:,.0f} {each.unit} ({each.low:,.0f}-{each.high:,.0f}), {each.ratio:.2f} of ours"
        notes = "".join(f", {value:.0f} {name}" for name, value in each.notes.items())
        cosine = "" if each.min_cosine is None else f"cosine {each.min_cosine:.6f}"
        say(f"{each.name:<56} {rate:<56} {cosine}{notes}")
        lines.append(each)
        if options.json is not None:
            options.json.write_text(json.dumps([dataclasses.asdict(line) for line in lines], indent=2))


if __name__ == "__main__":
    try:
        main()
    except LanceAlignError as error:
        sys.exit(f"error: {error}")
