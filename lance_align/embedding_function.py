"""The LanceDB embedding function ``align``: queries and new rows embed themselves with the model of the table."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pydantic
from lancedb.embeddings.base import EmbeddingFunction
from lancedb.embeddings.registry import register  # not of the package, which is still being imported
from numpy.typing import NDArray

from lance_align.encoders import is_allowed, load_encoder, resolve_spec
from lance_align.encoders.base import Embeddings, Encoder, Vectors, caption_reason
from lance_align.encoders.checkpoints import checkpoint_fingerprint
from lance_align.encoders.devices import has_accelerator
from lance_align.encoders.engines.text import quick_encoder
from lance_align.errors import ModelError, TableError
from lance_align.queries import Query, QueryValue
from lance_align.spec import DEFAULT_MODEL, ModelSpec
from lance_align.tables.metadata import read_functions
from lance_align.tables.schema import FUNCTION, function_arguments

# One `add` is one call however many rows it has: this bounds the decoded pictures in memory (a batch of 289 px: 16 MB).
BATCH_ROWS = 64

SourceKind: TypeAlias = Literal["image", "text"]
Source: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any] | Sequence[Any] | Any"

_log = logging.getLogger(__name__)


@register(FUNCTION)  # type: ignore[no-untyped-call]  # lancedb annotates in part
class AlignFunction(EmbeddingFunction):
    """A model for LanceDB, by name and fingerprint of a checkpoint; weights are loaded at the first embedding.

    Make it with `create`. LanceDB makes it anew for each handle, add and search, from the arguments the table holds;
    the encoder behind it is one a process, model and device.

    Attributes:
        name: a known checkpoint, a hub id, or a local directory.
        revision: the hub commit, ``main``, or None.
        dim: length of a vector; None until the model is known.
        fingerprint: what the model must match, so that new vectors agree with the table's; None for any.
        source: what the source column holds. ``image``: encoded bytes, or text that is a path or a ``file://`` URI; of
            videos, for a model that looks at them.
            ``text``: captions. Nothing is fetched here: URLs and object-store URIs give no vector; the job reads them.
        device: ``auto`` or a torch device; LanceDB's variable ``align_device`` sets it on one machine, for example
            ``get_registry().set_var("align_device", "cuda:1")``.
        max_retries: LanceDB's; nothing here gets better by waiting.

    >>> lance_align.AlignFunction.create(name="align-tiny").ndims()
    256
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str = DEFAULT_MODEL
    revision: str | None = None
    dim: int | None = pydantic.Field(default=None, ge=1, strict=True)
    fingerprint: str | None = None
    source: SourceKind = "image"
    device: str = "auto"
    max_retries: int = 0

    @classmethod
    def create(cls, /, **kwargs: Any) -> AlignFunction:
        """Make the function; the arguments, completed by revision, dim and fingerprint, are what a table stores.

        No weights are loaded. Where dim or fingerprint is missing they are read from the checkpoint, if it is one
        that tables may name (a known one, or one given to `lance_align.allow_models`): this call cannot tell a user's
        argument from a table's metadata.

        Args:
            **kwargs: the attributes of the class; all may be left out.

        Raises:
            ModelError: an unknown argument or one of the wrong type, or the checkpoint cannot be read.
        """
        stored = {"device": "$var:align_device:auto", **kwargs}
        _refuse_variables(stored)
        function = cls._validated(stored)
        if (function.dim is None or function.fingerprint is None) and is_allowed(function.name, function.revision):
            spec = resolve_spec(function.name, revision=function.revision)
            known = function_arguments(spec, kind=function.source)
            stored = known | {key: value for key, value in stored.items() if value is not None and key != "name"}
            function = cls._validated(stored)
        return function

    @classmethod
    def _validated(cls, stored: Mapping[str, Any]) -> AlignFunction:
        unknown = next((key for key in stored if key not in cls.model_fields), None)
        if unknown is not None:  # said here: LanceDB's own create cannot be called with "cls"
            raise _not_taken(unknown, stored[unknown], "there is no such argument")
        try:
            function: AlignFunction = super().create(**stored)  # type: ignore[no-untyped-call]
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"])
            raise _not_taken(place, first["input"], first["msg"]) from None
        return function

    def ndims(self) -> int:
        """Length of a vector.

        Raises:
            ModelError: the model is neither known nor allowed, and no dim was given.
        """
        return self.dim if self.dim is not None else self._spec().dim

    def encoder(self) -> Encoder:
        """The encoder, shared by the whole process.

        Raises:
            ModelError: the model is neither known nor allowed, cannot be loaded, or is not the one that wrote the
                table (both fingerprints are named).
        """
        self._require_permission()
        return _load(self.name, self.revision, self.fingerprint, self.dim, self.device)

    def compute_query_embeddings(  # type: ignore[override]  # lancedb's own has no parameters
        self, query: QueryValue | Query, *_args: Any, **_kwargs: Any
    ) -> list[Vectors]:
        """Embed one query: words, a picture, or a composed `Query`.

        Returns:
            One vector ``(dim,) float32`` in a list, as LanceDB wants it.

        Raises:
            ArgumentError: the query cannot be embedded; the message says which part and why.
            ModelError: as `encoder`.
        """
        composed = Query(query)
        kinds = {part.kind for part in composed.parts}
        encoder = self.encoder() if "image" in kinds else self._text_encoder(keep="text" in kinds)
        return [composed.encode(encoder)]

    def _text_encoder(self, *, keep: bool) -> Encoder:
        """The text tower kept on disk, which is the fastest on a CPU; `encoder` where there is none, or a GPU is used.

        The checkpoint's files are compared with what wrote the table, as ever.

        Args:
            keep: put the tower there first if it is missing.
        """
        on_cpu = self.device == "cpu" or (self.device == "auto" and not has_accelerator())
        if not on_cpu or self.fingerprint is None:
            return self.encoder()
        self._require_permission()
        if _fingerprint(self.name, self.revision) != self.fingerprint:
            return self.encoder()  # which says what is wrong
        quick = quick_encoder(self.fingerprint)
        if quick is None and keep:
            self.encoder().keep_text_tower()
            quick = quick_encoder(self.fingerprint)
        return quick if quick is not None and self.dim in (None, quick.spec.dim) else self.encoder()

    def compute_source_embeddings(
        self, source: Source, *_args: Any, **_kwargs: Any
    ) -> list[NDArray[np.float64] | None]:
        """Embed the values of a source column; the result is as long as the input.

        Returns:
            A vector ``(dim,) float64`` of float32 numbers, or None where the value is null or cannot be embedded; how
            many and why is logged. LanceDB stores None as null if the rows are added with ``on_bad_vectors="null"``,
            and refuses the rows by default.

        Raises:
            ModelError: as `encoder`.
        """
        encoder = self.encoder()
        vectors: list[NDArray[np.float64] | None] = []
        reasons: Counter[str] = Counter()
        for values in _batches(source):
            if self.source == "text":
                embedded = _encode_captions(encoder, values)
            else:
                embedded = encoder.encode_images([_local_path(value) for value in values])
            # Numbers of 64 bits are Python floats too, which pyarrow converts to vector columns of any float type.
            vectors.extend(None if vector is None else vector.astype(np.float64) for vector in embedded)
            reasons.update(reason for reason in embedded.reasons if reason is not None)
        if reasons:
            first, _ = reasons.most_common(1)[0]
            _log.warning("%d of %d rows have no vector, most often: %s", reasons.total(), len(vectors), first)
        return vectors

    # LanceDB's retries turn every exception into a bare Exception, with max_retries=0 too: ours keep their type.

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Vectors | None]:
        """As `compute_query_embeddings`."""
        return list(self.compute_query_embeddings(*args, **kwargs))

    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[NDArray[np.float64] | None]:
        """As `compute_source_embeddings`."""
        return self.compute_source_embeddings(*args, **kwargs)

    def _require_permission(self) -> None:
        if is_allowed(self.name) and not is_allowed(self.name, self.revision):
            raise ModelError(
                f"the table names revision {self.revision!r:.60} of {self.name!r}, which is not a commit, so it was "
                "not loaded; embed into a new table with the commit's 40 digits"
            )
        if not is_allowed(self.name):
            raise ModelError(
                f"the table names the model {self.name!r}, which is not a known checkpoint, so it was not loaded; if "
                f"you trust it, call lance_align.allow_models({self.name!r}) first"
            )

    def _spec(self) -> ModelSpec:
        self._require_permission()
        return resolve_spec(self.name, revision=self.revision)


def table_function(schema: pa.Schema, vector_column: str) -> AlignFunction | None:
    """Our function of a vector column, as a table's metadata names it; None where the table names none of ours.

    LanceDB's own ``table.embedding_functions`` makes every function that the metadata names, whoever wrote it, and some
    of them download models and run their code while they are made. This makes no other than `AlignFunction`.

    Raises:
        TableError: the metadata is damaged, or names several functions for the column.
        ModelError: as `AlignFunction.create`.
    """
    entries = [entry for entry in read_functions(schema) if entry.get("vector_column") == vector_column]
    if len(entries) > 1:
        raise TableError(f"the table names {len(entries)} embedding functions for {vector_column!r}; expected one")
    if not entries or entries[0].get("name") != FUNCTION:
        return None
    arguments = entries[0].get("model")
    if not isinstance(arguments, dict):
        raise TableError(f"the table's embedding function of {vector_column!r} is damaged; write into a new table")
    return AlignFunction.create(**arguments)


@functools.lru_cache(maxsize=64)
def _load(name: str, revision: str | None, fingerprint: str | None, dim: int | None, device: str) -> Encoder:
    """Find and check a model once a process: its files are read to take their fingerprint."""
    encoder = load_encoder(name, revision=revision, device=device)
    spec = encoder.spec
    if fingerprint is not None and spec.fingerprint != fingerprint:
        raise ModelError(
            f"the table was written by {name!r} with fingerprint {fingerprint}, but the {spec.name!r} found here has "
            f"{spec.fingerprint}; install the checkpoint that wrote the table, or embed into a new one"
        )
    if dim is not None and spec.dim != dim:
        raise ModelError(f"the table says that {name!r} makes vectors of length {dim}, but it makes {spec.dim}")
    return encoder


@functools.lru_cache(maxsize=64)
def _fingerprint(name: str, revision: str | None) -> str | None:
    """Once a process, as `_load`."""
    return checkpoint_fingerprint(name, revision=revision)


def _not_taken(place: str, value: object, reason: str) -> ModelError:
    return ModelError(
        f"the embedding function {FUNCTION!r} does not take {place:.60}={value!r:.60}: {reason}; the table's metadata "
        "is damaged or comes from another version"
    )


def _refuse_variables(arguments: Mapping[str, Any]) -> None:
    """Table metadata may name LanceDB variables; only the device has a reason to, others could carry secrets away."""
    for key, value in arguments.items():
        if key != "device" and isinstance(value, str) and value.startswith("$var:"):
            raise ModelError(f"the embedding function {FUNCTION!r} takes no variable for {key}: {value!r:.60}")


def _encode_captions(encoder: Encoder, values: Sequence[Any]) -> Embeddings:
    """Rows' texts as the job embeds them: a blank one has no vector."""
    reasons = [caption_reason(value) for value in values]
    embedded = encoder.encode_texts(
        [None if reason is not None else value for value, reason in zip(values, reasons, strict=True)]
    )
    pairs = zip(reasons, embedded.reasons, strict=True)
    return Embeddings(embedded.vectors, tuple(ours or theirs for ours, theirs in pairs))


def _batches(source: Source) -> Iterator[list[Any]]:
    """The values as Python objects, a few at a time; Arrow arrays are not turned into one list."""
    if isinstance(source, (str, bytes)):
        source = [source]
    for start in range(0, len(source), BATCH_ROWS):
        part = source[start : start + BATCH_ROWS]
        yield part.to_pylist() if isinstance(part, (pa.Array, pa.ChunkedArray)) else list(part)


def _local_path(value: Any) -> Any:
    """A ``file://`` URI as the path it stands for; anything else unchanged."""
    if isinstance(value, str) and value.startswith("file://"):
        return Path(unquote(urlsplit(value).path))
    return value
