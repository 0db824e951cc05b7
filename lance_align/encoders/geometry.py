"""preprocessor_config.json to `ImageSpec`: the steps of transformers' EfficientNet image processor folded into one.

The processor computes, in this order and each step on demand: resize, centre crop, ``x * factor``, ``x - 1``
(rescale_offset), ``(x - mean) / std`` (do_normalize), ``x / std`` (include_top). All but the first two are one scale
and one shift a channel. Source: transformers.models.efficientnet.image_processing_pil_efficientnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lance_align.errors import ModelError
from lance_align.spec import ImageSpec, Resample, Triple

# The processor's class defaults, which differ from align-base's own file.
_DEFAULTS: Mapping[str, Any] = {
    "do_resize": True,
    "size": {"height": 346, "width": 346},
    "resample": 3,
    "do_center_crop": False,
    "crop_size": {"height": 289, "width": 289},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "rescale_offset": False,
    "do_normalize": True,
    "include_top": True,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
_RESAMPLE: Mapping[int, Resample] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_PROCESSORS = (
    "EfficientNetImageProcessor",
    "EfficientNetImageProcessorFast",
    "EfficientNetImageProcessorPil",
    "EfficientNetFeatureExtractor",
)


def read_image_spec(raw: Mapping[str, Any], *, where: str) -> ImageSpec:
    """Fold a preprocessor configuration.

    Args:
        raw: the parsed preprocessor_config.json; what it leaves out has the processor's class default.
        where: the file, for error messages.

    Raises:
        ModelError: another kind of processor, a step that an `ImageSpec` cannot express, or a value of a wrong type.
    """
    kind = raw.get("image_processor_type", raw.get("feature_extractor_type", _PROCESSORS[0]))
    if kind not in _PROCESSORS:
        raise ModelError(f"{where}: image processor {kind!r} is not ALIGN's; expected {_PROCESSORS[0]}")
    config = {**_DEFAULTS, **{key: value for key, value in raw.items() if value is not None}}
    if not config["do_resize"]:
        raise ModelError(f"{where}: do_resize is false; expected a processor that resizes to a fixed size")
    try:
        resize = _height_width(config["size"])
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
    return ImageSpec(resize=resize, crop=crop, resample=resample, scale=scale, shift=shift)


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
