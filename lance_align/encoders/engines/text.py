"""The text tower as a graph of OpenVINO, kept on disk: a process that only asks imports neither torch nor transformers.

The first process that asks a text on a CPU keeps the tower's graph and its tokenizer, after checking that both give the
vectors of torch (cosine 0.9999 or more, texts of several lengths, alone and together). What a graph depends on decides
its place in the cache: the checkpoint's files, our code, and the releases of all libraries that make or run it.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_align.encoders.base import (
    Embeddings,
    Encoder,
    Score,
    Vectors,
    as_list,
    embeddings_of,
    text_reason,
    unit_rows,
)
from lance_align.encoders.engines.base import MIN_COSINE, agreement, is_openvino_installed
from lance_align.encoders.engines.store import cache_folder, cache_key, replace_folder
from lance_align.encoders.once import LOADING
from lance_align.errors import ModelError
from lance_align.spec import ModelSpec

_LIBRARIES = ("openvino", "torch", "transformers", "tokenizers")
_GRAPH, _TOKENIZER, _FACTS, _PROBE = "text.xml", "tokenizer.json", "facts.json", "probe.npy"
TOKENS_PER_BATCH = 32 * 64
PROBES = ("a", "two dogs", "a small red house under tall trees at the river, painted at night in 1907", "a red car")

Features = NDArray[np.float32]


class GraphError(Exception):
    """There is no graph that can be used; the text says why."""


class TextGraph:
    """A text tower and its tokenizer, taken from a folder of the cache.

    Args:
        folder: as `keep_text_graph` fills it.

    Raises:
        GraphError: it is not there, damaged, or gives other vectors than it gave when it was kept.
    """

    def __init__(self, folder: Path) -> None:
        try:
            facts: dict[str, Any] = json.loads((folder / _FACTS).read_bytes())
            self.spec = ModelSpec.from_json(json.dumps(facts["spec"]))
            self.score = Score(**facts["score"])
            self._pad_id, self._max_chars = int(facts["pad_id"]), int(facts["max_chars"])
            self._length: int | None = facts["length"]
            self._tokenizer = _tokenizer((folder / _TOKENIZER).read_text(encoding="utf-8"))
            self._request = _compiled(folder / _GRAPH)
            self._turn = threading.Lock()
            found = agreement(self.features(PROBES), np.load(folder / _PROBE, allow_pickle=False))
        except Exception as error:  # OpenVINO and tokenizers raise RuntimeError, Exception and many others
            raise GraphError(f"{type(error).__name__}: {error}") from error
        if not found >= MIN_COSINE:
            raise GraphError(f"its vectors are off: cosine {found:.6f}")

    def features(self, texts: Sequence[str]) -> Features:
        """``(n, dim)`` of n texts, not normalised; texts of similar length share a pass."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([text[: self._max_chars] for text in texts])]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]), reverse=True)
        found = np.zeros((len(ids), self.spec.dim), np.float32)
        while order:
            width = self._length or len(ids[order[0]])
            size = max(1, TOKENS_PER_BATCH // max(1, width))
            rows, order = order[:size], order[size:]
            padded = np.full((len(rows), width), self._pad_id, np.int64)
            mask = np.zeros((len(rows), width), np.int64)
            for place, row in enumerate(rows):
                padded[place, : len(ids[row])], mask[place, : len(ids[row])] = ids[row], 1
            with self._turn:  # a request has one set of tensors
                found[rows] = next(iter(self._request.infer([padded, mask]).values()))
        return found


class QuickEncoder(Encoder):
    """An encoder of texts alone, from the cache."""

    def __init__(self, graph: TextGraph) -> None:
        self.spec, self._graph = graph.spec, graph

    @property
    def score(self) -> Score:
        """See `Encoder.score`."""
        return self._graph.score

    def encode_texts(self, texts: Sequence[str | None]) -> Embeddings:
        """See `Encoder.encode_texts`."""
        texts = as_list(texts, "texts")
        reasons = [text_reason(text) for text in texts]
        good = [row for row, reason in enumerate(reasons) if reason is None]
        vectors = np.zeros((len(texts), self.spec.dim), np.float32)
        if good:
            vectors[good] = unit_rows(self._graph.features([str(texts[row]) for row in good]))
        return embeddings_of(vectors, reasons)

    def encode_images(self, images: Sequence[Any]) -> Embeddings:
        """Not of this encoder.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{len(images)} images for an encoder of texts alone; see lance_align.load_encoder")

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """See `encode_images`."""
        raise ModelError(f"{len(pixels)} images for an encoder of texts alone; see lance_align.load_encoder")


@functools.lru_cache(maxsize=16)
def quick_encoder(fingerprint: str) -> QuickEncoder | None:
    """The text tower of a checkpoint from the cache, once a process; None where it is not there or not right.

    Args:
        fingerprint: of the checkpoint.
    """
    folder = _folder(fingerprint) if is_openvino_installed() else None
    if folder is None or not (folder / _FACTS).is_file():
        return None
    try:
        with LOADING:
            graph = TextGraph(folder)
    except GraphError:
        return None  # it is made again where torch is at hand
    return QuickEncoder(graph) if graph.spec.fingerprint == fingerprint else None


def keep_text_graph(
    spec: ModelSpec,
    tower: Any,
    *,
    tokenizer: Any,
    pad_id: int,
    max_chars: int,
    length: int | None,
    score: Score,
    embed: Callable[[Sequence[str]], Vectors],
) -> None:
    """Put a text tower into the cache, if it is not there and its graph is right; nothing is raised.

    Args:
        spec: of the model.
        tower: torch's, on the CPU, in float32.
        tokenizer: of the library tokenizers, set up to truncate.
        pad_id: what shorter texts are filled up with.
        max_chars: what texts are cut at first.
        length: that all texts are padded to; None for the longest of a pass.
        score: of the model.
        embed: gives the tower's own vectors.
    """
    folder = _folder(spec.fingerprint) if is_openvino_installed() else None
    if folder is None or quick_encoder(spec.fingerprint) is not None:
        return
    facts = {
        "spec": json.loads(spec.to_json()),
        "score": {"temperature": score.temperature, "bias": score.bias, "kind": score.kind},
        "pad_id": pad_id,
        "max_chars": max_chars,
        "length": length,
    }

    def write(draft: Path) -> None:
        from lance_align.encoders.engines.graph import save_text_graph  # imports torch

        save_text_graph(tower, draft / _GRAPH, length=length or 9)
        (draft / _TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
        (draft / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        together = embed(PROBES)
        np.save(draft / _PROBE, together, allow_pickle=False)
        graph = TextGraph(draft)  # checks them together
        if not agreement(np.concatenate([graph.features([text]) for text in PROBES]), together) >= MIN_COSINE:
            raise RuntimeError("texts alone have other vectors")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing says that constants become constants; what fails here costs nothing
        try:
            replace_folder(folder, write)
        except Exception:  # noqa: BLE001  a tower that cannot be converted is run by torch, as ever
            return
    quick_encoder.cache_clear()


def _folder(fingerprint: str) -> Path | None:
    """The place of a checkpoint's graph; None where nothing is kept, or a library is missing."""
    key = cache_key(fingerprint, libraries=_LIBRARIES)
    return None if key is None else cache_folder("texts", key)


def _tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)


def _compiled(path: Path) -> Any:
    from lance_align.encoders.engines.openvino import openvino

    core = openvino().Core()
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():  # which torch minds too
        settings["INFERENCE_NUM_THREADS"] = int(threads)
    return core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
