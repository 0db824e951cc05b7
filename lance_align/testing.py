"""For tests: a deterministic encoder without a model, and switches that make a job fail at chosen places."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from lance_align import visuals
from lance_align.encoders.base import Embeddings, Encoder, Score, Vectors, as_list, text_reason
from lance_align.errors import ArgumentError, RowError
from lance_align.faults import ACTIONS, PLAN, SITES, VARIABLE, Action, Fault, Site, counted, write_plan
from lance_align.spec import ImageSpec, ModelSpec
from lance_align.visuals import VisualInput

FAKE_SPEC = ModelSpec(
    name="fake",
    revision=None,
    family="fake",
    dim=32,
    image=ImageSpec(resize=(16, 16), crop=(16, 16)),
    max_tokens=64,
    fingerprint="fake-encoder-version-1",
)


class FakeEncoder(Encoder):
    """An `Encoder` whose vectors are a hash of the pixels or of the text: equal inputs, equal vectors, everywhere.

    Vectors are bit-equal between processes and machines. A text and a picture never match on purpose.
    Load it by name: ``lance_align.load_encoder("fake")``.
    """

    def __init__(
        self, spec: ModelSpec = FAKE_SPEC, device: str = "cpu", engine: str = "auto", precision: str = "auto"
    ) -> None:
        del engine, precision  # nothing to run
        self.spec = spec
        self.device = device

    @property
    def score(self) -> Score:
        """Temperature 1.0: the fake has learnt nothing."""
        return Score(temperature=1.0)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """See `Encoder.encode_pixels`."""
        return self._vectors([b"image" + image.tobytes() for image in pixels])

    def encode_images(self, images: Sequence[VisualInput | None]) -> Embeddings:
        """See `Encoder.encode_images`."""
        images = as_list(images, "images")
        payloads: list[bytes] = []
        reasons: list[str | None] = []
        for image in images:
            try:
                if image is None:
                    raise RowError("null", "no image")
                pixels = visuals.read_pixels(image, self.spec.image)
                payloads.append(b"image" + pixels.tobytes())
                reasons.append(None)
            except RowError as error:
                payloads.append(b"")
                reasons.append(str(error))
        return self._embeddings(payloads, reasons)

    def encode_texts(self, texts: Sequence[str | None]) -> Embeddings:
        """See `Encoder.encode_texts`."""
        texts = as_list(texts, "texts")
        reasons = [text_reason(text) for text in texts]
        payloads = [
            b"text" + str(text).encode() if reason is None else b"" for text, reason in zip(texts, reasons, strict=True)
        ]
        return self._embeddings(payloads, reasons)

    def _embeddings(self, payloads: Sequence[bytes], reasons: Sequence[str | None]) -> Embeddings:
        vectors = self._vectors(payloads)
        vectors[[reason is not None for reason in reasons]] = 0.0
        return Embeddings(vectors, tuple(reasons))

    def _vectors(self, payloads: Sequence[bytes]) -> Vectors:
        """One SHAKE-128 digest of `dim` bytes an input, read as signed numbers and normalised."""
        dim = self.spec.dim
        digests = b"".join(hashlib.shake_128(payload).digest(dim) for payload in payloads)
        numbers = np.frombuffer(digests, dtype=np.uint8).reshape(len(payloads), dim).astype(np.float32) - 127.5
        # Sums of multiples of 0.25 below 2^21 are exact, in any order; no byte is 127.5, so none is zero.
        vectors: Vectors = numbers / np.sqrt((numbers * numbers).sum(axis=1, keepdims=True))
        return vectors


class Faults:
    """Makes processes fail at the sites of `lance_align.faults`, and counts what came by there.

    The processes must have been started with `LANCE_ALIGN_FAULTS` naming the folder; this one before it imported
    lance_align, Ray before `ray.init`. Leaving the block takes the plan and its counts away.

        with Faults() as faults:
            faults.at("encode", "os_error", times=1)
            embed(...)
            assert faults.fired("encode") == 1

    Args:
        folder: where armed processes look; by default what `LANCE_ALIGN_FAULTS` names.

    Raises:
        ArgumentError: no folder is named.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        named = os.fspath(folder) if folder is not None else os.environ.get(VARIABLE)
        if not named:
            raise ArgumentError(
                f"no folder for faults; give one, and set {VARIABLE} to it before lance_align is imported"
            )
        self.folder = Path(named)
        self._counts = f"counts-{uuid.uuid4().hex}"
        self._faults: list[Fault] = []

    def __enter__(self) -> Faults:
        """Begin to count; no fault is asked for yet."""
        (self.folder / self._counts).mkdir(parents=True)
        write_plan(self.folder, self._counts, [])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take plan and counts away."""
        (self.folder / PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder / self._counts, ignore_errors=True)

    def at(
        self,
        site: Site,
        action: Action,
        *,
        times: int | None = None,
        skip: int = 0,
        chance: float = 1.0,
        seed: int = 0,
        marker: bytes = b"",
        more_than_rows: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Ask for a fault; several may be asked for, also of one site. See `lance_align.faults.Fault`.

        Args:
            marker: only reaches whose data contain these bytes count.

        Raises:
            ArgumentError: no such site or action.
        """
        if site not in SITES or action not in ACTIONS:
            raise ArgumentError(
                f"no fault {action!r} at {site!r}; sites: {', '.join(SITES)}; actions: {', '.join(ACTIONS)}"
            )
        self._faults.append(
            Fault(
                site=site,
                action=action,
                times=times,
                skip=skip,
                chance=chance,
                seed=seed,
                marker=marker.hex(),
                more_than_rows=more_than_rows,
                seconds=seconds,
            )
        )
        write_plan(self.folder, self._counts, self._faults)

    def mend(self) -> None:
        """From now on nothing fails; counting goes on, and what has fired stays counted."""
        write_plan(self.folder, self._counts, [])

    def reached(self, site: Site) -> int:
        """How often a site was reached since the block began, in all processes."""
        return counted(self.folder / self._counts / site)[0]

    def rows(self, site: Site) -> int:
        """How many rows came by a site; a row that came twice counts twice."""
        return counted(self.folder / self._counts / site)[1]

    def fired(self, site: Site) -> int:
        """How many faults happened at a site."""
        counts = self.folder / self._counts
        return sum(
            counted(counts / f"fired-{number}")[0] for number, fault in enumerate(self._faults) if fault.site == site
        )
