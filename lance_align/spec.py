"""What a model is, small enough to send anywhere: `ModelSpec`, and the table of known checkpoints.

Only this description crosses process borders and is stored in tables; weights are loaded from it where they are needed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from lance_align.errors import ModelError

Resample = Literal["bilinear", "bicubic"]
Fit = Literal["squash", "shortest"]
Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How RGB pixels become the model's input: resize, crop the centre, then ``pixel * scale + shift``.

    Attributes:
        resize: (height, width) in pixels.
        crop: (height, width) in pixels of the centre crop; equal to `resize` where nothing is cropped.
        resample: the interpolation of the resize.
        fit: ``squash`` to `resize` whatever the aspect ratio, as ALIGN's processor does, or keep the aspect ratio and
            bring the ``shortest`` side to that of `resize`, as CLIP's does.
        frames: of a video, for models that look at videos; None for models that look at pictures.
        scale: per channel (red, green, blue), applied to uint8 values 0-255 as float32.
        shift: per channel, added after `scale`.
    """

    resize: tuple[int, int]
    crop: tuple[int, int]
    resample: Resample = "bilinear"
    scale: Triple = (1 / 127.5, 1 / 127.5, 1 / 127.5)
    shift: Triple = (-1.0, -1.0, -1.0)
    fit: Fit = "squash"
    frames: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row's uint8 pixels: ``(height, width, 3)``, or ``(frames, height, width, 3)``."""
        return (*self.crop, 3) if self.frames is None else (self.frames, *self.crop, 3)

    @property
    def pixels(self) -> int:
        """How many a row has."""
        return math.prod(self.shape) // 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A checkpoint, described without its weights.

    Attributes:
        name: a known checkpoint's name, a hub id, or the absolute path of a local directory.
        revision: the hub commit the weights came from; None for bundled and local checkpoints.
        family: the kind of model, a key of the closed list in `lance_align.encoders`.
        dim: length of an embedding.
        image: what pixels go through before the image tower.
        max_tokens: longest text in tokens, special tokens included; longer texts are truncated.
        fingerprint: hex digest of weights, tokenizer and configuration; equal fingerprints give equal vectors.

    >>> spec = lance_align.resolve_spec("align-tiny")
    >>> lance_align.ModelSpec.from_json(spec.to_json()) == spec
    True
    """

    name: str
    revision: str | None
    family: str
    dim: int
    image: ImageSpec
    max_tokens: int
    fingerprint: str

    def to_json(self) -> str:
        """The spec as one line of JSON with sorted keys; `from_json` gives an equal spec back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelSpec:
        """Read what `to_json` wrote.

        Raises:
            ModelError: the text is not JSON, or a field is missing, unknown or of the wrong type.
        """
        try:
            raw: Any = json.loads(text)
            return _spec_from_mapping(raw)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"a model description could not be read ({type(error).__name__}: {error}); expected the JSON that "
                "ModelSpec.to_json writes: the table's metadata is damaged or comes from another version"
            ) from error


def _spec_from_mapping(raw: Mapping[str, Any]) -> ModelSpec:
    image = dict(raw["image"])
    for key in ("resize", "crop"):
        height, width = image[key]
        image[key] = (_whole(height), _whole(width))
    for key in ("scale", "shift"):
        red, green, blue = image[key]
        image[key] = (float(red), float(green), float(blue))
    # Tables of before other families came have no fit and no frames, and mean their defaults.
    for key, value, choices in (
        ("resample", image["resample"], get_args(Resample)),
        ("fit", image.get("fit", "squash"), get_args(Fit)),
    ):
        if value not in choices:
            raise ValueError(f"{key} {value!r} is neither {choices[0]!r} nor {choices[1]!r}")
    if image.get("frames") is not None:
        _whole(image["frames"])
    spec = ModelSpec(**{**raw, "image": ImageSpec(**image)})
    if not all(isinstance(text, str) for text in (spec.name, spec.family, spec.fingerprint)):
        raise TypeError("name, family and fingerprint must be text")
    if not (spec.revision is None or isinstance(spec.revision, str)):
        raise TypeError("revision must be text or null")
    _whole(spec.dim)
    _whole(spec.max_tokens)
    return spec


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a whole number above 0")
    return value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that tables may name without further permission.

    Attributes:
        name: what `resolve_spec` takes.
        family: as `ModelSpec.family`.
        source: comes with this package, from the Hugging Face hub, or has no weights.
        dim: length of its vectors.
        purpose: what to take it for, one of `PURPOSES`.
        summary: what it is, in a line.
        download_mb: size of its weights on the hub, MB (10^6 bytes): four bytes a parameter.
    """

    name: str
    family: str
    source: Literal["bundled", "hub", "none"]
    dim: int
    purpose: str
    summary: str
    download_mb: int = 0


def _hub(name: str, family: str, dim: int, download_mb: int, purpose: str, summary: str) -> Checkpoint:
    return Checkpoint(
        name=name, family=family, source="hub", dim=dim, purpose=purpose, summary=summary, download_mb=download_mb
    )


BUNDLED_MODEL = "align-tiny"  # of the demo; it knows drawings and emoji only
DEFAULT_MODEL = "kakaobrain/align-base"  # of whoever names none
PURPOSES = ("to begin with", "fast", "best recall", "many languages", "videos", "reranking", "parts of images")


KNOWN_CHECKPOINTS: Mapping[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            name=BUNDLED_MODEL,
            family="align",
            source="bundled",
            dim=256,
            purpose="to begin with",
            summary="a small ALIGN for the demo and for trials: it knows drawings and emoji only; bundled",
        ),
        _hub(
            DEFAULT_MODEL, "align", 640, 689, "to begin with", "EfficientNet-B7 and BERT-base, COYO-700M; the default"
        ),
        _hub("openai/clip-vit-base-patch32", "clip", 512, 605, "fast", "ViT-B/32, 224 px"),
        _hub("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "clip", 512, 605, "fast", "ViT-B/32, trained on LAION-2B"),
        _hub("google/siglip-base-patch16-224", "siglip", 768, 813, "fast", "ViT-B/16, 224 px, English"),
        _hub("openai/clip-vit-large-patch14", "clip", 768, 1711, "best recall", "ViT-L/14, 224 px"),
        _hub("openai/clip-vit-large-patch14-336", "clip", 768, 1712, "best recall", "ViT-L/14, 336 px"),
        _hub("google/siglip-so400m-patch14-384", "siglip", 1152, 3512, "best recall", "ViT-So400m/14, 384 px, English"),
        _hub("google/siglip2-base-patch16-224", "siglip", 768, 1501, "many languages", "SigLIP 2, ViT-B/16, 224 px"),
        _hub("google/siglip2-base-patch16-256", "siglip", 768, 1501, "many languages", "SigLIP 2, ViT-B/16, 256 px"),
        _hub(
            "clip-italian/clip-italian",
            "vision-text-dual-encoder",
            512,
            790,
            "many languages",
            "CLIP's ViT-B/32 and an Italian BERT",
        ),
        _hub("microsoft/xclip-base-patch32", "xclip", 512, 786, "videos", "X-CLIP, ViT-B/32, 8 frames of a video"),
        _hub("Salesforce/blip-itm-base-coco", "blip", 256, 895, "reranking", "BLIP ViT-B/16, 384 px; it embeds too"),
        _hub("Salesforce/blip-itm-large-coco", "blip", 256, 1789, "reranking", "BLIP ViT-L/16, 384 px; it embeds too"),
        _hub("nvidia/groupvit-gcc-yfcc", "groupvit", 256, 223, "parts of images", "GroupViT, which segments"),
        Checkpoint(
            name="fake",
            family="fake",
            source="none",
            dim=32,
            purpose="to begin with",
            summary="lance_align.testing.FakeEncoder: deterministic vectors without a model, for tests",
        ),
    )
}
