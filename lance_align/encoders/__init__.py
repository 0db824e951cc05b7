"""Spec to encoder: two towers that embed images and texts into one space.

    base         the contract: `Encoder`, `Embeddings`
    cache        `load_encoder`: one encoder a model and device in this process
    families     what is special about ALIGN, CLIP, SigLIP, …: a file each
    two_towers   `TowerEncoder`: an encoder of any family
    engines      what runs an image tower
    checkpoints  `resolve_spec`: a model's name to its directory and `ModelSpec`
    hub          hub id to local directory
    fingerprint  the digest of a checkpoint directory
    geometry     preprocessor_config.json to `ImageSpec`
    catalogue    the known checkpoints, and which are here
    pairs        models that look at a picture and a text together
    segmenting   which part of a picture shows what
    permissions  which models table metadata may name
    pixels       uint8 pixels to a tower's input
    weights      safetensors into modules
    tokens       texts to padded batches of token ids
    once         a value made at first use, by one thread
    devices      "auto" to a torch device
    memory       memory that ran out, and passes that shrink until they fit
    zero_shot    labels for images without training

Nothing here needs LanceDB, Ray or pyarrow, and importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from lance_align.encoders.base import Embeddings, Encoder
from lance_align.encoders.cache import load_encoder
from lance_align.encoders.checkpoints import resolve_spec
from lance_align.encoders.permissions import allow_models, is_allowed

__all__ = ["Embeddings", "Encoder", "allow_models", "is_allowed", "load_encoder", "resolve_spec"]
