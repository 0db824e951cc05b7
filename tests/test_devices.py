"""Devices: float32 that stays float32, memory that runs out in any wording, GPUs that are lost or not there."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
import torch

from lance_align import attach, backfill, embed
from lance_align.describers.checkpoints import resolve_describer
from lance_align.encoders import Embeddings, resolve_spec
from lance_align.encoders.checkpoints import BUNDLED
from lance_align.encoders.devices import full_precision, is_device_lost
from lance_align.encoders.engines.base import agreement, probe_pixels
from lance_align.encoders.engines.module import ModuleEngine
from lance_align.encoders.engines.staging import on_device, staged
from lance_align.encoders.memory import PassSize, is_out_of_memory
from lance_align.encoders.pairs import PairModel
from lance_align.encoders.two_towers import TowerEncoder, image_tower
from lance_align.errors import ArgumentError, ModelError
from lance_align.jobs.cluster import store_notes
from lance_align.jobs.executors.local import LocalExecutor
from lance_align.jobs.filling.texts import Row, TextMaker
from lance_align.jobs.shape import Resources, ShapeOptions, shape
from lance_align.jobs.stages.batches import Batches
from lance_align.jobs.stages.encode import worker_encoder
from tests.corpus import parquet, pictures
from tests.describer_models import blip
from tests.family_models import save_family

DIRECTORY = BUNDLED / "align-tiny"
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OUT_OF_MEMORY = [
    MemoryError("too long"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB)"),
    RuntimeError("Invalid buffer size: 12.00 GB"),
    RuntimeError("CUDA error: out of memory"),
    torch.AcceleratorError("CUDA error: out of memory", 2),
    RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cudaErrorMemoryAllocation: allocation failure"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("std::bad_alloc"),
]
LOST = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("HIP error: invalid device function"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    torch.AcceleratorError("whatever comes next", 700),
]
OTHER = [ValueError("bad batch"), RuntimeError("expected scalar type Float but found Half"), OSError(28, "No space")]

NEWER = """
import os, sys, torch
from lance_align.encoders.devices import full_precision
conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
states = [
    "pass",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cudnn.benchmark = True",
    "torch.backends.cudnn.enabled = False",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'ieee'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
]
def older():
    try:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None
def seen():
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled
    return conv.fp32_precision, matmul.fp32_precision, flags, older()
for state in states:
    if os.fork():
        assert os.wait()[1] == 0, state
        continue
    exec(state)
    before = seen()
    with full_precision(torch.device("cuda")), full_precision(torch.device("cuda")):
        assert {conv.fp32_precision, matmul.fp32_precision} <= {"ieee", "none"}, seen()
        assert before[2] == seen()[2]
        if "fp32_precision" not in state:  # torch.compile asks by the older names
            assert older() == (False, False)
    assert seen() == before, (state, before, seen())
    os._exit(0)
"""


def test_full_precision_may_be_entered_again() -> None:
    def nested() -> None:
        with full_precision(CUDA), full_precision(CUDA):
            done.set()

    done = threading.Event()
    threading.Thread(target=nested, daemon=True).start()
    assert done.wait(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each setting is tried in a process of its own")
def test_float32_is_float32_whichever_names_a_program_uses_and_its_settings_come_back() -> None:
    done = subprocess.run([sys.executable, "-c", NEWER], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_memory_that_ran_out_is_known_in_any_wording(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_lost(error)


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_device_that_is_lost_is_known(error: Exception) -> None:
    assert is_device_lost(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_are_neither(error: Exception) -> None:
    assert not is_device_lost(error)
    assert not is_out_of_memory(error)


def test_a_pass_that_never_fits_ends_with_its_error() -> None:
    tried: list[int] = []

    def never() -> None:
        tried.append(size.size)
        raise MemoryError

    size = PassSize(8)
    with pytest.raises(MemoryError):
        size.fit(never, most=100)
    assert tried == [8, 4, 2, 1]


class Card:
    """A tower on a card for so many pictures at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int) -> None:
        self.sizes: list[int] = []
        spec = resolve_spec("align-tiny")
        self.tower = image_tower(spec, DIRECTORY)
        forward = self.tower.forward

        def small(pixels: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(pixels))
            if len(pixels) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(pixels)

        monkeypatch.setattr(self.tower, "forward", small)


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_that_ran_out_shrinks_the_pass_itself(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda tower, **_: tower)  # how it is compiled does not matter
    card = Card(monkeypatch, room=2)
    engine = ModuleEngine(card.tower, CPU, batch_size=8, compiled=compiled)
    pixels = np.concatenate([probe_pixels(resolve_spec("align-tiny").image)] * 2)[:5]
    for _ in range(2):
        assert engine(pixels).shape[0] == 5
    first = [8, 4, 2, 2, 2] if compiled else [5, 2, 2, 1]
    assert card.sizes == first + ([2, 2, 2] if compiled else [2, 2, 1])
    assert engine.halved == (2 if compiled else 1)


def test_texts_that_do_not_fit_shrink_their_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TowerEncoder(resolve_spec("align-tiny"), DIRECTORY, device="cpu")
    texts = [f"{number} dogs" for number in range(20)]
    expected = encoder.encode_texts(texts).vectors
    tower = encoder._text()
    forward, sizes = tower.forward, []

    def small(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        sizes.append(len(ids))
        if len(ids) > 6:
            raise RuntimeError("HIP out of memory")
        return forward(ids, mask)

    monkeypatch.setattr(tower, "forward", small)
    for _ in range(2):
        assert agreement(encoder.encode_texts(texts).vectors, expected) > 0.9999
    assert sizes[:3] == [20, 10, 5]
    assert max(sizes[3:]) <= 6
    assert encoder.halved == 2


def test_batches_are_copied_once_at_most() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    (same,) = on_device([pixels], CPU)
    assert same.data_ptr() == pixels.ctypes.data
    pixels.flags.writeable = False
    for rows in (2, 4):
        copied = staged(pixels, rows=rows, pinned=False)
        np.testing.assert_array_equal(copied[:2].numpy(), pixels)
        assert copied[2:].sum() == 0
        assert len(copied) == rows


def failing(loads: list[int], error: Exception) -> Callable[..., Any]:
    """A loader that fails, and counts."""

    def load(*_: Any, **__: Any) -> Any:
        loads.append(1)
        raise error

    return load


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), LOST[0], OSError(5, "I/O error")])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_an_error_while_the_model_is_loaded_is_no_rows_fault(
    kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    monkeypatch.setattr(f"lance_align.encoders.two_towers.{kind}_tower", failing(loads, error))
    encoder = TowerEncoder(resolve_spec("align-tiny"), DIRECTORY, device="cpu", engine="torch")

    def images(pixels: Any) -> Embeddings:
        return Embeddings(encoder.encode_pixels(pixels), (None,) * len(pixels))

    rows: Any = np.zeros((1000, 64, 64, 3), np.uint8) if kind == "image" else [f"text {row}" for row in range(1000)]
    with pytest.raises(ModelError, match=r"'align-tiny' cannot be loaded on cpu \(\w+: .*\); free memory"):
        Batches().embed(rows, images if kind == "image" else encoder.encode_texts, dim=256)
    assert len(loads) == 1


def test_a_job_whose_model_does_not_load_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    monkeypatch.setattr("lance_align.encoders.cache._encoders", {})
    monkeypatch.setattr("lance_align.encoders.two_towers.image_tower", failing(loads, RuntimeError("no cuBLAS handle")))
    source = parquet(pictures(40), tmp_path / "in.parquet")
    with pytest.raises(ModelError, match="cannot be loaded on cpu"):
        embed(source, db=tmp_path, table="t", model="align-tiny", engine="torch", executor="local", progress=False)
    assert len(loads) == 1


def test_a_describer_that_does_not_load_is_no_rows_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    monkeypatch.setattr("lance_align.describers.loading._loaded", {})
    monkeypatch.setattr("lance_align.describers.generating.load_model", failing(loads, RuntimeError("no driver")))
    spec = resolve_describer(os.fspath(blip(tmp_path / "caption")))
    filling: Any = None  # it is asked for when a block is there
    maker = TextMaker(spec, filling, planned("cpu", is_local=True))
    rows = [Row(np.zeros((8, 8, 3), np.uint8), None)] * 500
    with pytest.raises(ModelError, match=r"cannot be loaded on cpu \(RuntimeError: no driver\)"):
        maker.batches.fill(np.full(500, None, dtype=object), rows, maker._described)
    assert len(loads) == 1


@pytest.fixture(scope="module")
def groupvit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("groupvit", tmp_path_factory.mktemp("models") / "groupvit", seed=5)


def test_a_model_that_decides_computes_in_float32(groupvit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolve_spec(groupvit)
    many = np.random.default_rng(0).integers(0, 256, (12, *spec.image.shape), dtype=np.uint8)
    labels = np.eye(3, spec.dim, dtype=np.float32)
    vectors = TowerEncoder(spec, groupvit, device="cpu", engine="torch").encode_pixels(many)
    mask = PairModel(spec, groupvit, device=CPU, precision="float32").segment(many[0], labels)
    for module in ("two_towers", "pairs"):  # a GPU that computes in bfloat16
        monkeypatch.setattr(f"lance_align.encoders.{module}.resolve_dtype", lambda *_: torch.bfloat16)
    assert agreement(TowerEncoder(spec, groupvit, device="cpu").encode_pixels(many), vectors) > 0.9999
    found = PairModel(spec, groupvit, device=CPU, precision="auto").segment(many[0], labels)
    np.testing.assert_array_equal(found, mask)
    for make in (TowerEncoder, PairModel):
        with pytest.raises(ArgumentError, match="gives other vectors in bfloat16; use precision='float32'"):
            make(spec, groupvit, device="cpu" if make is TowerEncoder else CPU, precision="bfloat16")
    with pytest.raises(ArgumentError, match="gives other vectors in bfloat16"):
        embed(groupvit, db=groupvit, table="t", model=os.fspath(groupvit), precision="bfloat16")


def planned(device: str = "auto", *, actors: int | None = None, gpus: int = 8, is_local: bool = False) -> Any:
    resources = Resources(cpus=96, gpus=gpus, is_local=is_local)
    return shape(resolve_spec("fake"), resources, ShapeOptions(actors=actors, device=device))


@pytest.mark.parametrize(("gpus", "actors"), [(2, 3), (3, 8), (8, 16), (8, 8), (8, 3), (1, 6), (1, 7)])
def test_every_actor_finds_its_part_of_a_gpu(gpus: int, actors: int) -> None:
    share = planned(gpus=gpus, actors=actors).gpus
    assert 0 < share <= 1
    assert gpus * int(1 / round(share, 4)) >= actors  # Ray counts in 1/10,000


def test_on_the_cpu_of_a_gpu_cluster_no_gpu_is_taken() -> None:
    on_cpu = planned("cpu")
    assert on_cpu.gpus == 0
    assert dataclasses.replace(on_cpu, open_ended=False) == planned("cpu", gpus=0)
    assert on_cpu.threads > 1
    assert on_cpu.choices["device"] == on_cpu.worker_device == "cpu"


def test_devices_that_workers_of_a_cluster_cannot_have_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"device='cuda:1', but Ray gives each worker a GPU of its own.*'cuda'"):
        planned("cuda:1")
    assert planned("cuda:1", is_local=True, gpus=1).worker_device == "cuda:1"
    assert planned("cuda:0").gpus == 1.0
    with pytest.raises(ArgumentError, match="the cluster has no GPU now"):
        planned("cuda", gpus=0)
    waiting = planned("cuda", gpus=0, actors=2)  # of a cluster that grows when asked
    assert (waiting.actors, waiting.gpus) == (2, 1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_ray_counts_and_torch_cannot_use_is_an_error() -> None:
    plan = planned()
    assert plan.worker_device == "cuda"
    with pytest.raises(ArgumentError, match=r"'cuda' cannot be used here .*sees no GPU, whatever Ray counts"):
        worker_encoder(resolve_spec("align-tiny"), plan)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_job_does_not_fall_back_to_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "resources", lambda _: Resources(cpus=4, gpus=1, is_local=True))
    source = parquet(pictures(4), tmp_path / "in.parquet")
    options: dict[str, Any] = {
        "db": tmp_path,
        "table": "t",
        "model": "align-tiny",
        "executor": "local",
        "progress": False,
    }
    with pytest.raises(ArgumentError, match="sees no GPU, whatever Ray counts"):
        embed(source, **options)
    assert embed(source, **options, device="cpu").embedded == 4


def test_a_store_on_the_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{}])
    assert store_notes(1.0, memory=str(tmp_path)) == {}
    notes = store_notes(1e20, memory=str(tmp_path))
    assert notes["object_store"].startswith("on the disk (slow)")
    assert shape(None, Resources(cpus=4, notes=notes), ShapeOptions()).choices["object_store"] == notes["object_store"]
    monkeypatch.setattr("ray.nodes", lambda: [{}, {}])  # theirs is not known here
    assert store_notes(1e20, memory=str(tmp_path)) == {}


def test_the_report_says_what_workers_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for texts alone names OpenVINO, which runs no text tower."""
    pytest.importorskip("openvino")
    monkeypatch.setattr("lance_align.encoders.cache._encoders", {})  # those of other tests have an image tower too
    source = parquet(pictures(4), tmp_path / "in.parquet")
    options: dict[str, Any] = {"db": tmp_path, "table": "t", "executor": "local", "progress": False}
    embedded = embed(source, embed="text", text="caption", model="align-tiny", threads=1, **options)
    attach(lancedb.connect(tmp_path).open_table("t"), text="caption", vector="second", model="align-tiny")
    for report in (embedded, backfill(vector="second", threads=1, **options)):
        assert report.plan["engine"] == "torch"
        assert report.plan["threads"] == 1
        assert (report.plan["device"], report.plan["precision"]) == ("cpu", "float32")
        assert "engine torch" in report.to_text()
