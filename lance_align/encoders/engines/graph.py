"""OpenVINO: the tower as a compiled graph, several forward passes at once.

The graph and what the plain tower says of the probe pictures are kept on disk, so that the next process starts without
torch weights and without a conversion.
"""

from __future__ import annotations

import importlib
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import MIN_COSINE, EngineName, Features, Pixels, agreement, probe_pixels
from lance_align.encoders.engines.openvino import openvino
from lance_align.encoders.engines.recipe import recipe
from lance_align.encoders.engines.store import cache_folder, replace_folder
from lance_align.encoders.pixels import PixelTower
from lance_align.spec import ModelSpec

# Of one forward pass on one thread. Small pictures share one; of large ones a single picture fills the caches.
PIXELS_PER_BATCH = 16 * 64 * 64
_GRAPH, _PROBE, _FEATURES = "image.xml", "probe.safetensors", "features"


class EngineError(Exception):
    """A graph cannot be made here, or gives other vectors; the text says why."""


class GraphEngine:
    """A compiled image tower.

    Args:
        spec: of the model; `recipe` names its folder in the cache.
        load: makes the plain tower, on the CPU; called only when the cache has no graph.
        threads: CPU threads of all forward passes together.

    Raises:
        EngineError: the tower cannot be compiled, or the graph does not give the plain tower's vectors.
    """

    name: EngineName = "openvino"
    precision: Precision = "float32"
    halved = 0  # its passes are small: see PIXELS_PER_BATCH

    def __init__(self, spec: ModelSpec, load: Callable[[], PixelTower], *, threads: int) -> None:
        self._openvino = openvino()
        self._shape = (max(1, PIXELS_PER_BATCH // spec.image.pixels), *spec.image.shape)
        self._threads = threads
        self._lock = threading.Lock()
        probe = probe_pixels(spec.image)
        release = self._openvino.__version__.partition("-")[0]
        kept = cache_folder(f"openvino-{release}", recipe(spec, engine=f"openvino {release}"))
        if kept is not None and self._take(kept, probe):
            return
        tower = load()
        with torch.inference_mode():
            reference: Features = tower(torch.tensor(probe)).numpy()
        try:
            graph = _converted(tower)
            self._compile(graph)
        except Exception as error:  # OpenVINO raises RuntimeError and many others
            raise EngineError(f"it cannot be compiled: {str(error).strip().splitlines()[-1]}") from error
        del tower
        found = agreement(self(probe), reference)
        if not found >= MIN_COSINE:
            raise EngineError(f"its vectors are off: cosine {found:.6f}, expected {MIN_COSINE} or more")
        if kept is not None:
            self._keep(kept, graph, reference)

    def __call__(self, pixels: Pixels) -> Features:
        """See `Engine`; the last rows are padded to a whole batch, which no vector depends on."""
        size = self._shape[0]
        batches: list[Features] = [np.empty(0, np.float32)] * -(-len(pixels) // size)

        def done(request: Any, number: int) -> None:
            batches[number] = request.get_output_tensor(0).data.copy()

        with self._lock:  # a queue has one callback
            self._queue.set_callback(done)
            for number in range(len(batches)):
                batch = pixels[number * size : (number + 1) * size]
                if len(batch) < size:
                    batch = np.concatenate([batch, np.zeros((size - len(batch), *self._shape[1:]), np.uint8)])
                self._queue.start_async({0: np.ascontiguousarray(batch)}, number)
            self._queue.wait_all()
        return np.concatenate(batches)[: len(pixels)]

    def _compile(self, graph: Any) -> None:
        graph.reshape({0: list(self._shape)})  # a fixed shape is planned better
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32",  # else bf16 where the processor has it
            "INFERENCE_NUM_THREADS": self._threads,
        }
        self._queue: Any = self._openvino.AsyncInferQueue(self._openvino.Core().compile_model(graph, "CPU", settings))

    def _take(self, kept: Path, probe: Pixels) -> bool:
        """Use the graph in the cache; False if there is none, or none that is right."""
        try:
            self._compile(self._openvino.Core().read_model(kept / _GRAPH))
            return agreement(self(probe), load_file(kept / _PROBE)[_FEATURES]) >= MIN_COSINE
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError):
            return False  # it is made again

    def _keep(self, kept: Path, graph: Any, reference: Features) -> None:
        """Put the graph into the cache; one that cannot be written to costs time, and is told."""

        def write(draft: Path) -> None:
            self._openvino.save_model(graph, draft / _GRAPH, compress_to_fp16=False)
            save_file({_FEATURES: reference}, draft / _PROBE)
            shutil.copymode(draft / _GRAPH, draft / _PROBE)  # safetensors' own is 0600, whatever the umask

        replace_folder(kept, write)


def save_text_graph(tower: nn.Module, path: Path, *, length: int) -> None:
    """Write the graph of a text tower, of any number of texts and tokens.

    Args:
        length: tokens of the texts it is traced with.
    """
    ids = torch.ones((3, length), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1:, length // 2 :] = 0  # else the tower would leave the mask out
    openvino().save_model(_graph(tower, (ids, mask)), path, compress_to_fp16=False)


def _converted(tower: PixelTower) -> Any:
    return _graph(tower, (torch.zeros((1, *tower.image.shape), dtype=torch.uint8),))


def _graph(tower: nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    """The tower's graph, by OpenVINO's frontend itself: `openvino.convert_model` wants to report its use."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    logging: Any = importlib.import_module("transformers.utils.logging")  # not annotated
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # tracing looks at every property of transformers' modules, and some complain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing says that constants become constants
        traced = TorchScriptPythonDecoder(tower, example_input=example)
        frontend: Any = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(traced))
    logging.set_verbosity(verbosity)
    return graph
