"""preprocessor_config.json to `ImageSpec`: the steps of transformers' image processors folded into one.

The processors compute, in this order and each step on demand: resize, centre crop, ``x * factor``, ``x - 1``
(rescale_offset), ``(x - mean) / std`` (do_normalize), ``x / std`` (include_top). All but the first two are one scale
and one shift a channel. Sources: transformers.image_processing_backends.PilBackend, and the classes of `_PROCESSORS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lance_align.errors import ModelError
from lance_align.spec import Fit, ImageSpec, Resample, Triple

_SQUARE_224: Mapping[str, int] = {"height": 224, "width": 224}
_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # transformers.image_utils.OPENAI_CLIP_MEAN, _STD
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_PLAIN: Mapping[str, Any] = {
    "do_resize": True,
    "resample": 3,
    "do_center_crop": False,
    "crop_size": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "rescale_offset": False,
    "do_normalize": True,
    "include_top": False,
    "image_mean": _HALF,
    "image_std": _HALF,
}
# What each class does where the file says nothing; align-base's own file differs from its class.
_PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "EfficientNet": {
        "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289},
        "include_top": True,
    },
    "CLIP": {
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": _SQUARE_224,
        "image_mean": _CLIP_MEAN,
        "image_std": _CLIP_STD,
    },
    "Siglip": {"size": _SQUARE_224},
    "Blip": {"size": {"height": 384, "width": 384}, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD},
    "ViT": {"size": _SQUARE_224, "resample": 2},
    "VideoMAE": {
        "size": {"shortest_edge": 224},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": _SQUARE_224,
    },
}
_ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor", "VideoProcessor")
_KINDS = {name + ending: name for name in _PROCESSORS for ending in _ENDINGS}
_RESAMPLE: Mapping[int, Resample] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def read_image_spec(
    raw: Mapping[str, Any], *, where: str, processor: str = "EfficientNet", frames: int | None = None
) -> ImageSpec:
    """Fold a preprocessor configuration.

    Args:
        raw: the parsed preprocessor_config.json; what it leaves out has the processor's class default.
        where: the file, for error messages.
        processor: the kind of processor that a file without a class name is of, a key of `_PROCESSORS`.
        frames: of a video; None for pictures.

    Raises:
        ModelError: another kind of processor, a step that an `ImageSpec` cannot express, or a value of a wrong type.
    """
    named = raw.get("image_processor_type", raw.get("feature_extractor_type", f"{processor}ImageProcessor"))
    kind = _KINDS.get(named)
    if kind is None:
        known = ", ".join(f"{name}ImageProcessor" for name in _PROCESSORS)
        raise ModelError(f"{where}: image processor {named!r} is not known; expected one of {known}")
    given = {key: value for key, value in raw.items() if value is not None}
    config = {**_PLAIN, **_PROCESSORS[kind], **given}
    if not config["do_resize"]:
        raise ModelError(f"{where}: do_resize is false; expected a processor that resizes to a fixed size")
    try:
        fit, resize = _resize(config["size"], by_shortest="shortest_edge" in _PROCESSORS[kind]["size"])
        crop = _height_width(config["crop_size"]) if config["do_center_crop"] else resize
        scale, shift = _scale_and_shift(config)
        resample = _RESAMPLE[config["resample"]]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"{where}: cannot be read ({type(error).__name__}: {error}); expected size and crop_size as height and "
            "width, resample 2 (bilinear) or 3 (bicubic), one or three numbers in image_mean and image_std"
        ) from error
    if crop[0] > resize[0] or crop[1] > resize[1]:
        raise ModelError(f"{where}: crop_size {crop} is larger than size {resize}; padded crops are not supported")
    if fit == "shortest" and not config["do_center_crop"]:
        raise ModelError(
            f"{where}: size has a shortest edge but do_center_crop is false; pictures would differ in size"
        )
    return ImageSpec(resize=resize, crop=crop, resample=resample, scale=scale, shift=shift, fit=fit, frames=frames)


def _resize(value: Any, *, by_shortest: bool) -> tuple[Fit, tuple[int, int]]:
    """A number alone is the shortest edge for the processors that have one by default, else a square."""
    if isinstance(value, Mapping) and "shortest_edge" in value:
        if value.get("longest_edge") is not None:
            raise ValueError(f"size {dict(value)} bounds the longest edge too")
        return "shortest", _height_width(value["shortest_edge"])
    return "shortest" if by_shortest and isinstance(value, int) else "squash", _height_width(value)


def _height_width(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else (value["height"], value["width"])
    if int(height) != height or int(width) != width or min(height, width) < 1:
        raise ValueError(f"{value!r} is not a height and a width in whole pixels")
    return int(height), int(width)


def _scale_and_shift(config: Mapping[str, Any]) -> tuple[Triple, Triple]:
    factor, offset = 1.0, 0.0
    if config["do_rescale"]:
        factor, offset = float(config["rescale_factor"]), -1.0 if config["rescale_offset"] else 0.0
    means, stds = _per_channel(config["image_mean"]), _per_channel(config["image_std"])
    scales, shifts = [], []
    for mean, std in zip(means, stds, strict=True):
        scale, shift = factor, offset
        if config["do_normalize"]:
            scale, shift = scale / std, (shift - mean) / std
        if config["include_top"]:
            scale, shift = scale / std, shift / std
        scales.append(scale)
        shifts.append(shift)
    return (scales[0], scales[1], scales[2]), (shifts[0], shifts[1], shifts[2])


def _per_channel(value: Any) -> Triple:
    red, green, blue = (value, value, value) if isinstance(value, (int, float)) else value
    return float(red), float(green), float(blue)
