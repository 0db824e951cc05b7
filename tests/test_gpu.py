"""On a GPU: the CPU's vectors, whatever the precision and however batches are cut. `pytest -m gpu` runs them.

They need torch, transformers and pytest only, not the project's other dependencies:

    pytest -m gpu --noconftest -p no:cacheprovider tests/test_gpu.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lance_align.encoders import resolve_spec
from lance_align.encoders.checkpoints import BUNDLED
from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import MIN_COSINE, MIN_COSINE_BFLOAT16, EngineName, agreement, probe_pixels
from lance_align.encoders.engines.staging import on_device
from lance_align.encoders.two_towers import TowerEncoder

DIRECTORY = BUNDLED / "align-tiny"
TEXTS = ["a red car", "two dogs under a tree", "", "house " * 40]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


def encoder(
    device: str, *, engine: EngineName = "torch", precision: Precision, batch_size: int | None = None
) -> TowerEncoder:
    spec = resolve_spec("align-tiny")
    return TowerEncoder(spec, DIRECTORY, device=device, engine=engine, precision=precision, batch_size=batch_size)


@pytest.mark.parametrize(("precision", "least"), [("float32", MIN_COSINE), ("bfloat16", MIN_COSINE_BFLOAT16)])
@pytest.mark.parametrize("batch_size", [1, 4, 7, None])
def test_vectors_are_the_cpus(precision: Precision, least: float, batch_size: int | None) -> None:
    exact = encoder("cpu", precision="float32")
    found = encoder("cuda", precision=precision, batch_size=batch_size)
    pixels = np.concatenate([np.roll(probe_pixels(exact.spec.image), 5 * shift, axis=2) for shift in range(7)])
    assert agreement(found.encode_pixels(pixels), exact.encode_pixels(pixels)) > least
    assert agreement(found.encode_texts(TEXTS).vectors, exact.encode_texts(TEXTS).vectors) > least


def test_auto_is_bfloat16() -> None:
    """Not bit by bit: each encoder takes the order of memory that was faster for it, which adds in another order."""
    pixels = probe_pixels(resolve_spec("align-tiny").image)
    chosen, named = encoder("cuda", precision="auto"), encoder("cuda", precision="bfloat16")
    assert agreement(chosen.encode_pixels(pixels), named.encode_pixels(pixels)) > MIN_COSINE_BFLOAT16
    assert chosen.choices["precision"] == named.choices["precision"] == "bfloat16"


def test_a_compiled_tower_gives_the_same_vectors() -> None:
    exact = encoder("cpu", precision="float32")
    found = encoder("cuda", engine="compiled", precision="bfloat16", batch_size=8)
    pixels = np.concatenate([probe_pixels(exact.spec.image)] * 7)
    assert agreement(found.encode_pixels(pixels), exact.encode_pixels(pixels)) > MIN_COSINE_BFLOAT16


def test_batches_arrive_whole_and_in_order() -> None:
    """With work on the caller's stream that a copy could overtake."""
    device = torch.device("cuda")
    batches = [np.full((64, 1024, 1024), number, dtype=np.uint8) for number in range(12)]
    busy = torch.randn(4096, 4096, device=device)
    sums = []
    for batch in on_device(iter(batches), device, whole=lambda rows: rows + 1):
        busy = busy @ busy.T / 4096
        sums.append(batch.sum(dtype=torch.int64))
    assert [int(each) for each in sums] == [number * 64 * 2**20 for number in range(12)]


def test_settings_of_the_process_come_back() -> None:
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.fp32_precision
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        exact, found = encoder("cpu", precision="float32"), encoder("cuda", precision="float32")
        pixels = probe_pixels(exact.spec.image)
        assert agreement(found.encode_pixels(pixels), exact.encode_pixels(pixels)) > MIN_COSINE
        assert torch.backends.cudnn.benchmark
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.fp32_precision = before
