"""The model families, a file each, and the closed table of them.

base      what a family says of itself
align     ALIGN
clip      CLIP
siglip    SigLIP, and SigLIP 2 of one resolution
groupvit  GroupViT
xclip     X-CLIP, for videos
blip      BLIP for retrieval
dual      VisionTextDualEncoder

To add one: a file here, and a row in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lance_align.errors import ModelError

if TYPE_CHECKING:
    from lance_align.encoders.families.base import Family  # imports torch

# By `model_type` of config.json. Closed on purpose: table metadata names a family, and must not be able to name code.
FAMILIES: Mapping[str, str] = {
    "align": "align:Align",
    "blip": "blip:Blip",
    "clip": "clip:Clip",
    "groupvit": "groupvit:GroupVit",
    "siglip": "siglip:Siglip",
    "vision-text-dual-encoder": "dual:Dual",
    "xclip": "xclip:XClip",
}


def family(model_type: object, *, where: str) -> Family:
    """The family of a checkpoint.

    Args:
        model_type: of its config.json.
        where: the file, for the error.

    Raises:
        ModelError: none of ours; lists those there are.
    """
    place = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if place is None:
        raise ModelError(f"{where} describes a {model_type!r} model; expected one of {', '.join(sorted(FAMILIES))}")
    module, _, name = place.partition(":")
    found: Family = getattr(importlib.import_module(f"{__name__}.{module}"), name)()
    return found
