"""The checkpoints that are known by name, and which of them lie on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lance_align.encoders.checkpoints import BUNDLED
from lance_align.encoders.hub import cached_weights
from lance_align.spec import KNOWN_CHECKPOINTS, PURPOSES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A checkpoint that can be used by name.

    Attributes:
        name: what `lance_align.load_encoder` takes.
        family: ALIGN, CLIP, …, as config.json names it.
        dim: length of its vectors.
        purpose: what to take it for, one of `lance_align.spec.PURPOSES`.
        summary: what it is, in a line.
        download_mb: size of its weights on the hub, in MB (10^6 bytes); 0 for bundled ones.
        weights: its weights on this machine; None where the hub has to be asked for them.

    >>> [model.dim for model in lance_align.known_models() if model.name == "align-tiny"]
    [256]
    """

    name: str
    family: str
    dim: int
    purpose: str
    summary: str
    download_mb: int
    weights: Path | None

    @property
    def size_mb(self) -> float | None:
        """Of the weights, in MB (10^6 bytes); None where they are not here."""
        return None if self.weights is None else self.weights.stat().st_size / 1e6


def known_models() -> list[KnownModel]:
    """The known checkpoints, by purpose; nothing is fetched.

    Any other checkpoint of the same families can be used by its hub id or directory.

    >>> "kakaobrain/align-base" in [model.name for model in lance_align.known_models()]
    True
    """
    found = []
    for each in KNOWN_CHECKPOINTS.values():
        if each.source == "none":
            continue
        weights = BUNDLED / each.name / "model.safetensors" if each.source == "bundled" else cached_weights(each.name)
        found.append(
            KnownModel(
                name=each.name,
                family=each.family,
                dim=each.dim,
                purpose=each.purpose,
                summary=each.summary,
                download_mb=each.download_mb,
                weights=weights,
            )
        )
    return sorted(found, key=lambda model: PURPOSES.index(model.purpose))
